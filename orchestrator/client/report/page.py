"""The page of a report: tables, plots and pictures in one file that needs nothing else."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from orchestrator.client.evaluations import Evaluated
from orchestrator.client.report import tables
from orchestrator.client.report.curves import pair_plots, step_plots
from orchestrator.client.report.plots import Plot, svg_of
from orchestrator.client.report.tables import text
from orchestrator.client.report.training_curves import training_plots
from orchestrator.client.short_names import by_short_names, called
from orchestrator.errors import ObjectNotFoundError
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

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
        "Means over seeds": "".join(tables.means_over_seeds(shown)),
        "Numbers": "".join(tables.numbers(shown)),
        "Settings that differ": tables.settings(shown),
        "Classes": tables.classes(shown),
        "Memorisation": tables.memorisation(shown),
        "Plots": _side(_figure(plot, number) for number, plot in enumerate(plots)),
        "Samples at equal seeds": _pictures(store, rows, "grid.png", "the first images of"),
        "From noise to image": _pictures(store, rows, "reverse-chain.png", "reverse chains of"),
        "Nearest to training images": _side(_nearest(store, rows)),
        "Cost": tables.speed(shown) + tables.money(shown),
    }
    kept = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{text(title)}</a>' for title in kept)
    bodies = "".join(_section(title, body) for title, body in kept.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="data:,">'
        f"<title>{text(_title(rows))}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{text(_title(rows))}</h1><p>Written by ddpmctl on "
        f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M} UTC</time>.</p>{_missing(missing)}'
        f"{_called(rows)}"
        f'<nav aria-label="Sections">{links}</nav></header><main>{bodies}</main></body></html>'
    )


def _section(title: str, body: str) -> str:
    anchor = _anchor(title)
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{text(title)}</h2>{body}</section>'
    )


def _called(rows: Sequence[Evaluated]) -> str:
    sentence = called(rows)
    return f"<p>{text(sentence[0].upper() + sentence[1:])}.</p>" if sentence else ""


def _missing(missing: str) -> str:
    return f'<p role="note"><strong>Not whole: {text(missing)}.</strong></p>' if missing else ""


def _title(rows: Sequence[Evaluated]) -> str:
    sets = [row.samples for row in rows]
    return f"Evaluation of {sets[0]}" if len(sets) == 1 else f"{len(sets)} sample sets compared"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _side(figures: Iterable[str]) -> str:
    body = "".join(figures)
    return f'<div class="side">{body}</div>' if body else ""


def _figure(plot: Plot, number: int) -> str:
    return f"<figure>{svg_of(plot, number)}<figcaption>{text(plot.title)}</figcaption></figure>"


def _picture(store: ObjectStore, key: str, caption: str) -> str:
    try:
        body = store.get(key).body
    except ObjectNotFoundError:
        return ""
    data = base64.b64encode(body).decode()
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _pictures(store: ObjectStore, rows: Sequence[Evaluated], name: str, caption: str) -> str:
    return _side(
        _picture(store, f"{JobPaths(samples).samples}{name}", f"{caption} {samples}, seed {seed}")
        for samples, seed in {r.samples: r.settings.get("seed", "?") for r in rows}.items()
        if samples
    )


def _nearest(store: ObjectStore, rows: Sequence[Evaluated]) -> Iterator[str]:
    for row in rows:
        if row.nearest:
            caption = f"samples of {row.samples} (left), each with its nearest training image"
            yield _picture(store, row.nearest, caption)
