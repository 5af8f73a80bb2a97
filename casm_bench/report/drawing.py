"""How every figure is drawn: at the size it is printed in, in one font, and told apart in grey.

Drawn without pyplot and with nothing in the files that changes from one run to the next, so that
the same records give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TEXT_WIDTH = 6.77  # inches of the PDF's text, so that letters are as large as it says
DPI = 220
FONT = "STIXGeneral"  # matplotlib brings it; the PDF is set in it too
STYLE = {
    "font.family": FONT,
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "casm_bench",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # seven by four looks, told apart without colour
LINES = ("-", "--", ":", "-.")
PALETTE = "colorblind"
FIXED = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def drawn_alike():
    """A context in which the user's matplotlibrc changes nothing."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE})


def render(figure: Figure, kind: str) -> bytes:
    """The figure as `pdf`, `png` or `svg`, without dates or versions inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=FIXED[kind])
    return buffer.getvalue()


def look(number: int) -> dict[str, Any]:
    """Colour, marker and line of the curve with this number."""
    colours = seaborn.color_palette(PALETTE)
    return {
        "color": colours[number % len(colours)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def tidy(axes: Axes, grid: str = "both") -> None:
    """A light grid behind, and no frame."""
    axes.grid(axis=grid)
    seaborn.despine(ax=axes)


# --- points in columns ------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """A number of a method (its row) under one condition (its column)."""

    row: str
    column: str
    value: float
    low: float  # ends of the bar
    high: float
    hollow: bool = False  # published, not measured


def dot_columns(
    dots: Sequence[Dot],
    xlabel: str,
    *,
    xlim: tuple[float, float] | None = None,
    rule_before: str | None = None,  # the row above which a line is drawn
    zero: bool = False,  # mark where nothing changes
) -> Figure:
    """A line per row and a panel per column, both in the order in which they first come.

    Side by side, columns need neither colours nor markers, however many rows there are.
    """
    rows = list(dict.fromkeys(dot.row for dot in dots))
    columns = list(dict.fromkeys(dot.column for dot in dots))
    size = (TEXT_WIDTH, 0.75 + 0.165 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, sharex=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        _dot_panel(axes, [dot for dot in dots if dot.column == column], rows)
        axes.set_title(_wrapped(column))
        if zero:
            axes.axvline(0, color="0.4", lw=0.6, zorder=1)
        if rule_before in rows:
            axes.axhline(rows.index(rule_before) - 0.5, color="0.7", lw=0.6)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    if xlim:
        panels[0].set_xlim(*xlim)
    figure.supxlabel(xlabel, fontsize=8)
    return figure


def _dot_panel(axes: Axes, dots: Sequence[Dot], rows: Sequence[str]) -> None:
    for dot in dots:
        y = rows.index(dot.row)
        if dot.hollow:
            axes.plot(dot.value, y, "d", mfc="none", mec="0.35", ms=6, zorder=3)
        else:
            axes.plot([dot.low, dot.high], [y, y], color="0.45", lw=1.4, zorder=2)
            axes.plot(dot.value, y, "o", color="C0", ms=3.6, zorder=4)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    tidy(axes, "x")


def _wrapped(column: str) -> str:
    """A protocol's long name over several lines."""
    return re.sub(r"(?<=.)([@/(])", r"\n\1", column)


# --- curves in columns ------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A curve of a method (its name) in the panel at `row` and `column`."""

    name: str
    row: str
    column: str
    x: Sequence[float | str]  # numbers, or stages in order
    y: Sequence[float]
    low: Sequence[float]  # edges of the band
    high: Sequence[float]


def curve_grid(curves: Sequence[Curve], xlabel: str, ylabel: str, reference: str = "") -> Figure:
    """A panel per row and column, and the names below each column.

    The curve of the column `reference` is drawn in grey in all of them, for comparison.
    """
    everywhere = [curve for curve in curves if curve.column == reference]
    columns = list(dict.fromkeys(c.column for c in curves if c.column != reference)) or [reference]
    rows = list(dict.fromkeys(curve.row for curve in curves))
    names = {c: dict.fromkeys(k.name for k in curves if k.column == c) for c in columns}
    lines = max(map(len, names.values())) + bool(everywhere)
    heights = [1.35] * len(rows) + [0.15 * lines]
    size = (TEXT_WIDTH, sum(heights) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        len(rows) + 1, len(columns), squeeze=False, height_ratios=heights, sharey="row"
    )
    for column, panels in zip(columns, grid.T, strict=True):
        panels[0].set_title(column)
        for row, axes in zip(rows, panels, strict=False):
            here = [c for c in curves if (c.row, c.column) == (row, column)]
            _curve_panel(axes, here, list(names[column]), [c for c in everywhere if c.row == row])
        panels[-1].set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        panels[-1].legend(handles, labels, loc="upper center", fontsize=7, borderpad=0)
    grid[-2, len(columns) // 2].set_xlabel(xlabel)  # once: it is longer than a panel is wide
    for row, panels in zip(rows, grid, strict=False):
        panels[0].set_ylabel(f"{row}\n{ylabel}" if ylabel else row)
    return figure


def _curve_panel(
    axes: Axes, curves: Sequence[Curve], names: Sequence[str], reference: Sequence[Curve]
) -> None:
    stages = _stages([*curves, *reference])
    for number, curve in enumerate(reference):
        if curve not in curves:
            line = LINES[number % len(LINES)]
            x = _places(curve, stages)
            axes.plot(x, curve.y, line, color="0.6", lw=2.2, label=curve.name, zorder=1)
    for curve in curves:
        style = look(names.index(curve.name))
        x, every = _places(curve, stages), max(1, len(curve.y) // 6)
        axes.fill_between(x, curve.low, curve.high, color=style["color"], alpha=0.15, lw=0)
        axes.plot(x, curve.y, label=curve.name, markevery=every, ms=3, **style)
    if stages:
        axes.set_xticks(range(len(stages)), stages, rotation=60, ha="right", fontsize=6)
    tidy(axes)


def _stages(curves: Sequence[Curve]) -> list[str]:
    """All stages that the curves name, in the order of the longest; none where x are numbers."""
    longest_first = sorted(curves, key=lambda curve: -len(curve.x))
    return list(dict.fromkeys(x for curve in longest_first for x in curve.x if isinstance(x, str)))


def _places(curve: Curve, stages: Sequence[str]) -> Sequence[float]:
    """Its x; the places of its stages where x are names: not every curve has all of them."""
    return [stages.index(x) for x in curve.x] if stages else curve.x  # type: ignore[misc]


# --- curves with names beside them ------------------------------------------------------------


def names_beside(axes: Axes, ends: Sequence[tuple[str, float, float]]) -> None:
    """Write each name at the right of the panel, as near to its point (x, y) as others allow.

    A thin line leads from the point to its name.
    """
    low, high = axes.get_ylim()
    height = axes.get_position().height * axes.figure.get_figheight() * 72  # points
    step = 8.5 * (high - low) / height
    for (name, x, y), place in zip(
        ends, apart([y for *_, y in ends], step, low, high), strict=True
    ):
        axes.annotate(
            name,
            (x, y),
            xytext=(1.04, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center_baseline",
            fontsize=7.5,
            arrowprops={
                **{"arrowstyle": "-", "color": "0.75", "lw": 0.5, "shrinkA": 1, "shrinkB": 2},
                "relpos": (0, 0.5),  # from where the name begins
            },
        )


def apart(values: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """The values, moved so that no two are nearer than `step`, in the same order.

    They stay between `low` and `high` as long as there is room for all.
    """
    order = sorted(range(len(values)), key=lambda i: -values[i])
    places = [0.0] * len(values)
    ceiling = high
    for rank, i in enumerate(order):
        floor = low + (len(order) - 1 - rank) * step  # what those below still need
        places[i] = min(max(values[i], floor), ceiling)
        ceiling = places[i] - step
    return places
