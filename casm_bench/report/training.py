"""Curves of training: masks, what classifiers still see, and localization, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..records import Record
from .drawing import TEXT_WIDTH, look, tidy
from .measured import Measurement, group_by, runs

Ends = tuple[float, float | None]

QUANTITIES: dict[str, tuple[str, Ends]] = {  # what is logged, how to call it, ends of its axis
    "mask_mean": ("mask area", (0, 1)),
    "masked_accuracy": ("accuracy, masked", (0, 1)),
    "localization_error": ("LE (%)", (0, 100)),
    "clean_accuracy": ("accuracy, clean", (0, 1)),
    "mask_entropy": ("mask entropy (bits)", (0, None)),
}
PANELS = 4  # in a row: the first of these quantities that its records have
MARKED = 6  # epochs of a curve that carry a mark, lest marks hide the line
MARGIN = 0.03  # of an axis beyond its ends, for marks that lie on them


def training_figure(records: Sequence[Record], found: Sequence[Measurement]) -> Figure | None:
    """A row per setting, a column per quantity, a line per method; thin lines are seeds.

    Of the paper's rows only, as the recipes have them; None where no record logs masks.
    """
    logged = _logged(records, found)
    settings = group_by(runs(logged), lambda run: run[0])
    if not settings:
        return None
    shown = {setting: _quantities(of) for setting, of in settings.items()}
    looks = {method: look(i) for i, method in enumerate(dict.fromkeys(r.method for r in logged))}
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(TEXT_WIDTH, 1.5 * len(settings) + 0.35), layout="constrained")
    grid = figure.subplots(len(settings), columns, sharex="row", squeeze=False)
    for panels, (setting, of_methods) in zip(grid, settings.items(), strict=True):
        for axes in panels[len(shown[setting]) :]:
            axes.set_axis_off()
        panels = panels[: len(shown[setting])]
        for axes, quantity in zip(panels, shown[setting], strict=True):
            _draw(axes, quantity, [same for _, same in of_methods], looks)
        panels[0].set_title(str(setting), loc="left")
        _name_lines(panels)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure


def training_caption(records: Sequence[Record], found: Sequence[Measurement]) -> str:
    """What the curves are, and on how many pictures localization error was measured."""
    caption = (
        "Training, epoch by epoch; thin lines are seeds, and lines begin where masks do. Mask area "
        "and accuracies are means over the epoch's training pictures, as the masker and its judges "
        "were then."
    )
    findings = [record.findings or {} for record in _logged(records, found)]
    followed = dict.fromkeys(
        f"{how['images']} pictures of {how['on']}"
        for how in (found_out.get("followed") for found_out in findings)
        if how
    )
    if not followed:
        return caption
    return (
        f"{caption} LE is localization error under protocol casm after the epoch, on "
        f"{'; '.join(followed)}, drawn by the seed: for looking, nothing was chosen by it."
    )


def _logged(records: Sequence[Record], found: Sequence[Measurement]) -> list[Record]:
    rows = {m.method for m in found if m.row}
    return [r for r in records if r.method in rows and _logs_masks(r) and not r.variant]


def _logs_masks(record: Record) -> bool:
    return bool(record.training) and "mask_mean" in record.training[-1]


def _quantities(of_methods: Sequence[tuple[object, Sequence[Record]]]) -> list[str]:
    last = [record.training[-1] for _, same in of_methods for record in same]
    return [q for q in QUANTITIES if any(q in epoch for epoch in last)][:PANELS]


def _draw(
    axes: Axes,
    quantity: str,
    methods: Sequence[Sequence[Record]],
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    for same in methods:
        style = looks[same[0].method] | {"markersize": 3}
        curves = [curve for record in same if (curve := _curve(record, quantity))]
        if not curves:
            continue
        if len(curves) > 1:
            for curve in curves:
                axes.plot(*_points(curve), color=style["color"], lw=0.5, alpha=0.6)
        epochs, means = _points(_mean(curves))
        every = math.ceil(len(epochs) / MARKED)
        axes.plot(epochs, means, label=same[0].title, markevery=every, **style)
    name, ends = QUANTITIES[quantity]
    axes.set_ylabel(name)
    _set_ends(axes, *ends)
    axes.xaxis.get_major_locator().set_params(integer=True)
    tidy(axes)


def _set_ends(axes: Axes, low: float, high: float | None) -> None:
    high = axes.dataLim.y1 or 1 if high is None else high
    beyond = MARGIN * (high - low)
    axes.set_ylim(low - beyond, high + beyond)


def _name_lines(panels: Sequence[Axes]) -> None:
    """A legend above the last panel, beside the row's title."""
    lines, names = panels[0].get_legend_handles_labels()
    style = {"ncols": len(names), "fontsize": 7, "handlelength": 1.6, "columnspacing": 0.8}
    legend = panels[-1].legend(lines, names, loc="lower right", bbox_to_anchor=(1.05, 1), **style)
    legend.set_in_layout(False)  # it is wider than its panel, which must not grow with it


Curve = Mapping[int, float]  # value by epoch


def _curve(record: Record, quantity: str) -> Curve:
    return {epoch["epoch"]: epoch[quantity] for epoch in record.training if quantity in epoch}


def _mean(curves: Sequence[Curve]) -> Curve:
    """Mean over the seeds, of the epochs that all of them have."""
    common = [epoch for epoch in curves[0] if all(epoch in curve for curve in curves)]
    return {epoch: sum(curve[epoch] for curve in curves) / len(curves) for epoch in common}


def _points(curve: Curve) -> tuple[list[int], list[float]]:
    return list(curve), list(curve.values())
