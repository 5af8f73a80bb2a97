"""Curves of training: how large masks become, and what classifiers still see, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..records import Record
from .drawing import TEXT_WIDTH, look, tidy
from .measured import Measurement, group_by, runs

QUANTITIES = {  # what Algorithm 1 logs, and how to call it
    "mask_mean": "mask area",
    "masked_accuracy": "accuracy, masked",
    "clean_accuracy": "accuracy, clean",
    "mask_entropy": "mask entropy (bits)",
}


def training_figure(records: Sequence[Record], found: Sequence[Measurement]) -> Figure | None:
    """A row per setting, a column per quantity, a line per method; thin lines are seeds.

    Of the paper's rows only, as the recipes have them; None where no record logs masks.
    """
    rows = {m.method for m in found if m.row}
    logged = [r for r in records if r.method in rows and _logs_masks(r) and not r.variant]
    settings = group_by(runs(logged), lambda run: run[0])
    if not settings:
        return None
    shown = [q for q in QUANTITIES if any(q in r.training[-1] for r in logged)]
    figure = Figure(figsize=(TEXT_WIDTH, 1.75 * len(settings) + 0.3), layout="constrained")
    grid = figure.subplots(len(settings), len(shown), sharex="row", squeeze=False)
    for panels, (setting, of_methods) in zip(grid, settings.items(), strict=True):
        for axes, quantity in zip(panels, shown, strict=True):
            _draw(axes, quantity, [same for _, same in of_methods])
            axes.set_xlabel("epoch")
        panels[0].set_title(str(setting), loc="left")
        _name_lines(panels)
    return figure


def _logs_masks(record: Record) -> bool:
    return bool(record.training) and "mask_mean" in record.training[-1]


def _draw(axes: Axes, quantity: str, methods: Sequence[Sequence[Record]]) -> None:
    for number, same in enumerate(methods):
        style = look(number)
        curves = [_curve(record, quantity) for record in same]
        curves = [curve for curve in curves if curve]
        if not curves:
            continue
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), curve, color=style["color"], lw=0.5, alpha=0.6)
        shortest = min(map(len, curves))
        mean = np.mean([curve[:shortest] for curve in curves], axis=0)
        epochs = range(1, shortest + 1)
        axes.plot(epochs, mean, label=same[0].title, **style)
    axes.set(ylabel=QUANTITIES[quantity], ylim=(-0.03, 1.03))
    axes.xaxis.get_major_locator().set_params(integer=True)
    tidy(axes)


def _name_lines(panels: Sequence[Axes]) -> None:
    """A legend above the last panel, beside the row's title."""
    lines, names = panels[0].get_legend_handles_labels()
    style = {"ncols": len(names), "fontsize": 7, "handlelength": 1.6, "columnspacing": 0.8}
    legend = panels[-1].legend(lines, names, loc="lower right", bbox_to_anchor=(1.05, 1), **style)
    legend.set_in_layout(False)  # it is wider than its panel, which must not grow with it


def _curve(record: Record, quantity: str) -> list[float]:
    return [epoch[quantity] for epoch in record.training if quantity in epoch]
