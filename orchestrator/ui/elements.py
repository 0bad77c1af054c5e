"""HTML built so that nothing but what is built here is markup: all other text is escaped."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SHORT, _LONG = 24, 40  # letters: what stands on one line, and what needs some room for several
_VOID = frozenset({"img", "input", "link", "meta", "br"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as text of a page; what is HTML already stays so."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def joined(*parts: object) -> Markup:
    """Return parts one after the other; None is nothing."""
    return Markup("".join(text(part) for part in parts if part is not None))


def el(tag: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        tag: Its name.
        children: What it holds; text is escaped, None is nothing.
        attributes: `class_` is class and `aria_label` is aria-label; None and False are left out,
            True has no value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(*children)}</{tag}>")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        first: Its heading.
        cells: What stands beside it.
        attributes: Of its element.
    """

    first: object
    cells: Sequence[object]
    attributes: Mapping[str, object]


def table(caption: str, heads: tuple[str, ...], rows: list[Row]) -> Markup:
    """Return a table that scrolls by itself where it is too wide; nothing without rows.

    On a phone each row becomes a block of its own, in which each cell stands beside its head.
    """
    if not rows:
        return Markup()
    head = el("thead", el("tr", *(el("th", name, scope="col") for name in heads)))
    body = el("tbody", *(_row(each, heads) for each in rows))
    inner = el("table", el("caption", caption), head, body)
    return el("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def row(first: object, *cells: object, **attributes: object) -> Row:
    """Return a row of a table with its heading."""
    return Row(first, cells, attributes)


def _row(row: Row, heads: tuple[str, ...]) -> Markup:
    rest = (
        el("td", cell, class_=_width(cell), data_head=head)
        for cell, head in zip(row.cells, heads[1:], strict=True)
    )
    head = None if isinstance(row.first, Markup) else heads[0]  # a link says what it is
    return el("tr", el("th", row.first, scope="row", data_head=head), *rest, **row.attributes)


def _width(cell: object) -> str | None:
    """Return the class of a cell by the length of its words: none is squeezed on a phone."""
    if isinstance(cell, Markup):
        return None
    length = len(str(cell))
    return "short" if length <= _SHORT else "long" if length > _LONG else None
