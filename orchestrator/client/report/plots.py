"""The plots of a report, as SVG that takes its ink from the page it stands in."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK, _SOFT = "#010203", "#040506"  # stand for the page's own colours
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa7700", "#66aacc", "#aa3377", "#888888")
_MARKS = "osD^vPX"
_LINES = ("-", "--", ":", "-.")
_INSIDE = 4  # so many names leave room for the points; more stand below the axes
_COLUMNS = 2
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ddpmctl",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _SOFT,
    "grid.linewidth": 0.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points with a name.

    Attributes:
        name: What the legend calls them.
        x: Their places.
        y: Their values.
        errors: Standard errors of the values; () for none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Band:
    """What real images get: drawn behind the points.

    Attributes:
        middle: The floor.
        spread: Its standard deviation; 0 where that is not known, and a line is drawn.
    """

    middle: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: What it shows, in one line; read by screen readers, too.
        x_label: With its unit.
        y_label: With its unit.
        series: What is drawn.
        log_x: Whether the places are on a logarithmic scale.
        is_line: Whether points are joined.
        bands: Floors by axis, "x" or "y".
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    is_line: bool = False
    bands: Mapping[str, Band] = field(default_factory=dict)


def svg_of(plot: Plot, number: int) -> str:
    """Return a plot as an SVG element; `number` tells those of a page apart."""
    with mpl.rc_context(_STYLE):
        named = len(plot.series) + bool(plot.bands)
        below = -(-named // _COLUMNS) if named > _INSIDE else 0
        figure = Figure(figsize=(6.0, 3.8 + 0.22 * below), layout="constrained")
        axes = figure.add_subplot()
        for index, series in enumerate(plot.series):
            _draw(axes, plot, series, index)
        _draw_bands(axes, plot.bands)
        if plot.log_x:
            axes.set_xscale("log")
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if below:
            figure.legend(loc="outside lower center", ncols=_COLUMNS, frameon=False, fontsize=8)
        elif named > 1:
            axes.legend(frameon=False, fontsize=9)
        packed = io.StringIO()
        figure.savefig(packed, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(packed.getvalue(), plot.title, number)


def _draw(axes: Axes, plot: Plot, series: Series, index: int) -> None:
    again, place = divmod(index, len(_COLOURS))
    colour, mark = _COLOURS[place], _MARKS[(place + again) % len(_MARKS)]
    axes.errorbar(
        list(series.x),
        list(series.y),
        yerr=list(series.errors) or None,
        label=series.name,
        color=colour,
        marker="" if plot.is_line and len(series.x) > 40 else mark,
        linestyle=_LINES[again % len(_LINES)] if plot.is_line else "none",
        linewidth=1.4,
        markersize=6,
        capsize=2,
    )


def _draw_bands(axes: Axes, bands: Mapping[str, Band]) -> None:
    label: str | None = "real against real"
    for axis, band in bands.items():
        low, high = band.middle - band.spread, band.middle + band.spread
        if low == high:
            line = axes.axvline if axis == "x" else axes.axhline
            line(low, color=_SOFT, linestyle="--", linewidth=1.4, label=label)
        else:
            shade = axes.axvspan if axis == "x" else axes.axhspan
            shade(low, high, color=_SOFT, alpha=0.5, linewidth=0, label=label)
        label = None


def _for_page(svg: str, title: str, number: int) -> str:
    """Return the element alone, named for readers that see nothing, in the page's colours."""
    element = svg[svg.index("<svg") :]
    name = f"plot-{number}"
    element = element.replace('xlink:href="#', f'xlink:href="#{name}-').replace(
        "url(#", f"url(#{name}-"
    )
    element = element.replace(' id="', f' id="{name}-')
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    element = element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return element.replace(_INK, "currentColor").replace(_SOFT, "var(--soft)")
