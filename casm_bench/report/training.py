"""Curves of training: how large masks become, and what classifiers still see, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..records import Record
from .measured import Measurement, group_by, runs
from .sweep import STYLES

QUANTITIES = {  # what Algorithm 1 logs, and how to call it
    "mask_mean": "mask area",
    "masked_accuracy": "accuracy, masked",
    "clean_accuracy": "accuracy, clean",
    "mask_entropy": "mask entropy (bits)",
}


def training_figure(records: Sequence[Record], found: Sequence[Measurement]) -> Figure | None:
    """A column per setting, a row per quantity, a line per method; thin lines are seeds.

    Of the paper's rows only, as the recipes have them; None where no record logs masks.
    """
    rows = {m.method for m in found if m.row}
    logged = [r for r in records if r.method in rows and _logs_masks(r) and not r.variant]
    settings = group_by(runs(logged), lambda run: run[0])
    if not settings:
        return None
    shown = [q for q in QUANTITIES if any(q in r.training[-1] for r in logged)]
    size = (3.5 * len(settings) + 0.5, 1.6 * len(shown) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(shown), len(settings), sharex="col", squeeze=False)
    for column, (setting, of_methods) in zip(grid.T, settings.items(), strict=True):
        column[0].set_title(str(setting), fontsize=8)
        for axes, quantity in zip(column, shown, strict=True):
            _draw(axes, quantity, [same for _, same in of_methods])
        column[-1].set_xlabel("epoch")
    grid[0, 0].legend(frameon=False, fontsize=8)
    return figure


def _logs_masks(record: Record) -> bool:
    return bool(record.training) and "mask_mean" in record.training[-1]


def _draw(axes: Axes, quantity: str, methods: Sequence[Sequence[Record]]) -> None:
    colours = seaborn.color_palette("colorblind", len(methods))
    for number, (same, colour) in enumerate(zip(methods, colours, strict=True)):
        marker, line = STYLES[number % len(STYLES)]
        curves = [_curve(record, quantity) for record in same]
        curves = [curve for curve in curves if curve]
        if not curves:
            continue
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), curve, color=colour, lw=0.6, alpha=0.6)
        shortest = min(map(len, curves))
        mean = np.mean([curve[:shortest] for curve in curves], axis=0)
        epochs = range(1, shortest + 1)
        axes.plot(epochs, mean, line, marker=marker, ms=4, color=colour, label=same[0].title)
    axes.set(ylabel=QUANTITIES[quantity], ylim=(-0.03, 1.03))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    seaborn.despine(ax=axes)


def _curve(record: Record, quantity: str) -> list[float]:
    return [epoch[quantity] for epoch in record.training if quantity in epoch]
