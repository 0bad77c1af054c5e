"""The tables of a report, as HTML."""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.client.corners import corner_text, corners_of, training_text
from orchestrator.client.describe import money_text
from orchestrator.client.evaluations import Evaluated, Measured, differing, measures_of, setting
from orchestrator.client.seeds import over_seeds
from orchestrator.lifecycle.cost import Cost

_MEANING = {
    "fid": "Fréchet distance by the published Inception; 0 is perfect",
    "fd": "Fréchet distance; 0 is perfect",
    "fid-statistics": "the same from published statistics",
    "fd-statistics": "Fréchet distance from given statistics",
    "kid": "kernel distance; 0 is perfect, may be below",
    "precision": "share of samples that look real",
    "density": "real neighbourhoods that hold a sample",
    "recall": "share of real images that samples reach",
    "coverage": "share of real neighbourhoods with a sample",
}


def text(value: object) -> str:
    """Return a value as text of a page."""
    return html.escape(str(value))


def means_over_seeds(rows: Sequence[Evaluated]) -> Iterator[str]:
    """Yield the table of means and who loses which corner; nothing where no seeds differ."""
    means = over_seeds(rows)
    if len(means) == len(rows):
        return
    yield from numbers(means, "means with standard deviations between sets of other seeds")
    parts = [corner_text(corner) for corner in corners_of(means)]
    if parts:
        lines = [*parts, training_text(means)]
        yield "<p>The trilemma, each family by its set with the most steps:</p>"
        yield f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def numbers(rows: Sequence[Evaluated], heading: str = "with standard errors") -> Iterator[str]:
    """Yield a table of the metrics for each extractor."""
    for extractor in dict.fromkeys(row.extractor for row in rows):
        of_it = [row for row in rows if row.extractor == extractor]
        yield _of_extractor(of_it, f"By {extractor}, {heading}")


def _of_extractor(rows: Sequence[Evaluated], caption: str) -> str:
    measures = list(measures_of(rows))
    lines = [(row.samples, [_number(row.metric(m)) for m in measures]) for row in rows]
    lines += [
        (f"real images ({reference})", [_floor(row.metric(m)) for m in measures])
        for reference, row in {row.reference: row for row in rows}.items()
    ]
    meanings = "".join(f"<dt>{m}</dt><dd>{text(_MEANING[m])}</dd>" for m in measures)
    return (
        _table(caption, ["set", *measures], lines) + f"<p>{text(_how(rows))}</p><dl>{meanings}</dl>"
    )


def _how(rows: Sequence[Evaluated]) -> str:
    found = [metric for row in rows for metric in row.metrics.values()]
    k = ", ".join(sorted({str(metric.k) for metric in found if metric.k is not None}))
    n = sorted({metric.num_samples for metric in found})
    floors = sorted({metric.floor_images for metric in found})
    return (
        f"k = {k} neighbours; {_span(n)} samples; real against real at {_span(floors)} images. "
        "A value marked = cannot be distinguished from that of real images."
    )


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _number(metric: Measured | None) -> str:
    if metric is None:
        return "&ndash;"
    mark = (
        ' <abbr title="cannot be distinguished from real images">=</abbr>'
        if metric.is_at_floor
        else ""
    )
    return f"{metric.value:.4f} ± {metric.spread:.4f}{mark}"


def _floor(metric: Measured | None) -> str:
    return "&ndash;" if metric is None else f"{metric.floor:.4f} ± {metric.floor_spread:.4f}"


def settings(rows: Sequence[Evaluated]) -> str:
    """Return the table of the settings in which sets differ."""
    keys = differing(rows)
    heads = ["set", *keys, "training", "step"]
    lines = [
        (
            row.samples,
            [*(text(setting(row, k)) for k in keys), text(row.training), str(row.step)],
        )
        for row in rows
    ]
    return _table("What the sets were drawn with", heads, lines)


def classes(rows: Sequence[Evaluated]) -> str:
    """Return the table of classes; "" without labels."""
    names = list(dict.fromkeys(name for row in rows for name in row.classes))
    if not names:
        return ""
    shares = [(row.samples, row.classes) for row in rows]
    shares += list({row.reference: (row.reference, row.real_classes) for row in rows}.values())
    lines = [(who, [_value(found, name) for name in names]) for who, found in shares if found]
    classifiers = "; ".join(sorted({row.classifier for row in rows if row.classifier}))
    return _table("Share of each class", ["set", *names], lines) + f"<p>{text(classifiers)}.</p>"


def memorisation(rows: Sequence[Evaluated]) -> str:
    """Return the table of signs of copied training images; "" without any."""
    keys = list(dict.fromkeys(key for row in rows for key in row.memorisation))
    if not keys:
        return ""
    lines = [(row.samples, [_value(row.memorisation, key) for key in keys]) for row in rows]
    return _table("Signs of copied training images", ["set", *keys], lines)


def _value(numbers: Mapping[str, float], key: str) -> str:
    return f"{numbers[key]:.4g}" if key in numbers else "&ndash;"


def speed(rows: Sequence[Evaluated]) -> str:
    """Return the table of what the sample jobs recorded of their pace; "" without any."""
    keys = list(dict.fromkeys(key for row in rows for key in row.speed))
    if not keys:
        return ""
    lines = [(row.samples, [_value(row.speed, key) for key in keys]) for row in rows]
    heads = ["set", *(key.replace("_", " ") for key in keys)]
    return _table("From the sample jobs' own records", heads, lines)


def money(rows: Sequence[Evaluated]) -> str:
    """Return what the sets and their trainings cost; "" where no price was ever set."""
    priced = [row for row in rows if row.cost or row.training_cost]
    if not priced:
        return ""
    heads = ["set", "drawing it", "per 1,000 images", "its training"]
    lines = [
        (row.samples, [_amount(row.cost), _per_1000(row.cost), _amount(row.training_cost)])
        for row in priced
    ]
    return _table("GPUs of all attempts, by the price table", heads, lines)


def _amount(cost: Cost | None) -> str:
    if cost is None:
        return "&ndash;"
    if cost.amount is None:
        return f"unknown: no price for {text(', '.join(cost.unpriced))}"
    return text(money_text(cost.amount, cost.currency))


def _per_1000(cost: Cost | None) -> str:
    if cost is None or cost.per_1000_images is None:
        return "&ndash;"
    return text(money_text(cost.per_1000_images, cost.currency))


def _table(caption: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a table; a row is its heading and its cells, which are HTML."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
