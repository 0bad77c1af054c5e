"""The page of a report: tables, plots and pictures in one file that needs nothing else."""

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from orchestrator.client.corners import corner_text, corners_of, training_text
from orchestrator.client.describe import money_text
from orchestrator.client.evaluations import Evaluated, Measured, differing, measures_of, setting
from orchestrator.client.report.curves import pair_plots, step_plots
from orchestrator.client.report.plots import Plot, svg_of
from orchestrator.client.report.training_curves import training_plots
from orchestrator.client.seeds import over_seeds
from orchestrator.client.short_names import by_short_names, called
from orchestrator.errors import ObjectNotFoundError
from orchestrator.lifecycle.cost import Cost
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

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
_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #b9c0c7; --mark: #0b6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #555d66; --mark: #4d9; }
}
body { color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif;
  max-width: 88rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; } .scroll:focus { outline: 2px solid var(--mark); }
table { border-collapse: collapse; } caption { text-align: left; padding: .3rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--soft);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th[scope=row], thead th:first-child { text-align: left; }
.floor td { font-weight: 600; } tr.real { font-style: italic; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
figure img { max-width: 100%; min-width: 12rem; image-rendering: pixelated; }
figcaption { font-size: .9rem; }
nav a { margin-right: 1rem; } a { color: inherit; }
@media print {
  nav { display: none; } body { max-width: none; } figure, table { break-inside: avoid; }
}
"""


def report_page(
    store: ObjectStore, rows: Sequence[Evaluated], at: datetime, missing: str = ""
) -> str:
    """Return the page of some evaluations.

    Args:
        store: Where the pictures and the trainings are.
        rows: What was found; at least one.
        at: When it is written.
        missing: What has no result yet, in one line; "" where all have one.
    """
    trainings = list(dict.fromkeys(row.training for row in rows if row.training))
    shown = by_short_names(rows)
    plots = [*pair_plots(shown), *step_plots(shown), *training_plots(store, trainings)]
    sections = {
        "Means over seeds": "".join(_over_seeds(shown)),
        "Numbers": "".join(_numbers(shown)),
        "Settings that differ": _settings(shown),
        "Classes": _classes(shown),
        "Memorisation": _memorisation(shown),
        "Plots": _side(_figure(plot, number) for number, plot in enumerate(plots)),
        "Samples at equal seeds": _pictures(store, rows, "grid.png", "the first images of"),
        "From noise to image": _pictures(store, rows, "reverse-chain.png", "reverse chains of"),
        "Nearest to training images": _side(_nearest(store, rows)),
        "Cost": _cost(shown) + _money(shown),
    }
    kept = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{_text(title)}</a>' for title in kept)
    bodies = "".join(_section(title, body) for title, body in kept.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,">'
        f"<title>{_text(_title(rows))}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{_text(_title(rows))}</h1><p>Written by ddpmctl on "
        f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M} UTC</time>.</p>{_missing(missing)}'
        f"{_called(rows)}"
        f'<nav aria-label="Sections">{links}</nav></header><main>{bodies}</main></body></html>'
    )


def _section(title: str, body: str) -> str:
    anchor = _anchor(title)
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{_text(title)}</h2>{body}</section>'
    )


def _called(rows: Sequence[Evaluated]) -> str:
    told = called(rows)
    return f"<p>{_text(told[0].upper() + told[1:])}.</p>" if told else ""


def _missing(told: str) -> str:
    return f'<p role="note"><strong>Not whole: {_text(told)}.</strong></p>' if told else ""


def _title(rows: Sequence[Evaluated]) -> str:
    sets = [row.samples for row in rows]
    return f"Evaluation of {sets[0]}" if len(sets) == 1 else f"{len(sets)} sample sets compared"


def _text(value: object) -> str:
    return html.escape(str(value))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _table(caption: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a table; a row is its heading and its cells, which are HTML."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _over_seeds(rows: Sequence[Evaluated]) -> Iterator[str]:
    """Yield the table of means and who loses which corner; nothing where no seeds differ."""
    means = over_seeds(rows)
    if len(means) == len(rows):
        return
    yield from _numbers(means, "means with standard deviations between sets of other seeds")
    parts = [corner_text(corner) for corner in corners_of(means)]
    if parts:
        lines = [*parts, training_text(means)]
        yield "<p>The trilemma, each family by its set with the most steps:</p>"
        yield f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _numbers(rows: Sequence[Evaluated], told: str = "with standard errors") -> Iterator[str]:
    for extractor in dict.fromkeys(row.extractor for row in rows):
        of_it = [row for row in rows if row.extractor == extractor]
        yield _of_extractor(of_it, f"By {extractor}, {told}")


def _of_extractor(rows: Sequence[Evaluated], caption: str) -> str:
    measures = list(measures_of(rows))
    lines = [(row.samples, [_number(row.metric(m)) for m in measures]) for row in rows]
    lines += [
        (f"real images ({reference})", [_floor(row.metric(m)) for m in measures])
        for reference, row in {row.reference: row for row in rows}.items()
    ]
    meanings = "".join(f"<dt>{m}</dt><dd>{_text(_MEANING[m])}</dd>" for m in measures)
    return (
        _table(caption, ["set", *measures], lines)
        + f"<p>{_text(_how(rows))}</p><dl>{meanings}</dl>"
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


def _settings(rows: Sequence[Evaluated]) -> str:
    keys = differing(rows)
    heads = ["set", *keys, "training", "step"]
    lines = [
        (
            row.samples,
            [*(_text(setting(row, k)) for k in keys), _text(row.training), str(row.step)],
        )
        for row in rows
    ]
    return _table("What the sets were drawn with", heads, lines)


def _classes(rows: Sequence[Evaluated]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.classes))
    if not names:
        return ""
    shares = [(row.samples, row.classes) for row in rows]
    shares += list({row.reference: (row.reference, row.real_classes) for row in rows}.values())
    lines = [(who, [_value(found, name) for name in names]) for who, found in shares if found]
    classifiers = "; ".join(sorted({row.classifier for row in rows if row.classifier}))
    return _table("Share of each class", ["set", *names], lines) + f"<p>{_text(classifiers)}.</p>"


def _memorisation(rows: Sequence[Evaluated]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row.memorisation))
    if not keys:
        return ""
    lines = [(row.samples, [_value(row.memorisation, key) for key in keys]) for row in rows]
    return _table("Signs of copied training images", ["set", *keys], lines)


def _value(numbers: Mapping[str, float], key: str) -> str:
    return f"{numbers[key]:.4g}" if key in numbers else "&ndash;"


def _cost(rows: Sequence[Evaluated]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row.speed))
    if not keys:
        return ""
    lines = [(row.samples, [_value(row.speed, key) for key in keys]) for row in rows]
    heads = ["set", *(key.replace("_", " ") for key in keys)]
    return _table("From the sample jobs' own records", heads, lines)


def _money(rows: Sequence[Evaluated]) -> str:
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
        return f"unknown: no price for {_text(', '.join(cost.unpriced))}"
    return _text(money_text(cost.amount, cost.currency))


def _per_1000(cost: Cost | None) -> str:
    if cost is None or cost.per_1000_images is None:
        return "&ndash;"
    return _text(money_text(cost.per_1000_images, cost.currency))


def _side(figures: Iterable[str]) -> str:
    found = "".join(figures)
    return f'<div class="side">{found}</div>' if found else ""


def _figure(plot: Plot, number: int) -> str:
    return f"<figure>{svg_of(plot, number)}<figcaption>{_text(plot.title)}</figcaption></figure>"


def _picture(store: ObjectStore, key: str, told: str) -> str:
    try:
        body = store.get(key).body
    except ObjectNotFoundError:
        return ""
    data = base64.b64encode(body).decode()
    return (
        f'<figure><img alt="{_text(told)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_text(told)}</figcaption></figure>"
    )


def _pictures(store: ObjectStore, rows: Sequence[Evaluated], name: str, told: str) -> str:
    return _side(
        _picture(store, f"{JobPaths(samples).samples}{name}", f"{told} {samples}, seed {seed}")
        for samples, seed in {r.samples: r.settings.get("seed", "?") for r in rows}.items()
        if samples
    )


def _nearest(store: ObjectStore, rows: Sequence[Evaluated]) -> Iterator[str]:
    for row in rows:
        if row.nearest:
            caption = f"samples of {row.samples} (left), each with its nearest training image"
            yield _picture(store, row.nearest, caption)
