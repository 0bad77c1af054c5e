"""HTML built so that nothing but what is built here is markup: all other text is escaped."""

import html

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
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{joined(*children)}</{tag}>")


def table(caption: str, heads: tuple[str, ...], rows: list[Markup]) -> Markup:
    """Return a table that scrolls by itself where the screen is narrow; nothing without rows."""
    if not rows:
        return Markup()
    head = el("thead", el("tr", *(el("th", name, scope="col") for name in heads)))
    inner = el("table", el("caption", caption), head, el("tbody", *rows))
    return el("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def row(first: object, *cells: object, **attributes: object) -> Markup:
    """Return a row of a table with its heading."""
    rest = (el("td", cell, class_=_width(cell)) for cell in cells)
    return el("tr", el("th", first, scope="row"), *rest, **attributes)


def _width(cell: object) -> str | None:
    """Return the class of a cell by the length of its words: none is squeezed on a phone."""
    if isinstance(cell, Markup):
        return None
    length = len(str(cell))
    return "short" if length <= _SHORT else "long" if length > _LONG else None
