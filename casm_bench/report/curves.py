"""Training curves: what a trained method's records say of each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import seaborn
from matplotlib.figure import Figure

from ..records import Record
from .drawing import MARKERS

COLUMNS = 3
LEFT_OUT = ("epoch", "seconds")


def curve_names(records: Sequence[Record]) -> list[str]:
    """Names of the statistics that the records hold per epoch, in the order of training."""
    names = dict.fromkeys(
        name for record in records for epoch in record.training or () for name in epoch
    )
    return [name for name in names if name not in LEFT_OUT and _points(records, name)]


def curve_figure(records: Sequence[Record]) -> Figure:
    """A panel per statistic, a line per record, told apart by marker as well as by colour."""
    names = curve_names(records)
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(8, 1.9 * rows + 0.4), layout="constrained")
    all_axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    colours = seaborn.color_palette("colorblind", len(records))
    for axes, name in zip(all_axes, names, strict=False):
        for number, (record, colour) in enumerate(zip(records, colours, strict=True)):
            points = _values(record.training or (), name)
            marker = MARKERS[number % len(MARKERS)]
            label = f"seed {record.seed}"
            axes.plot(*zip(*points, strict=True), marker=marker, ms=3, color=colour, label=label)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        seaborn.despine(ax=axes)
    for axes in all_axes[len(names) :]:
        axes.set_axis_off()
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def _points(records: Sequence[Record], name: str) -> bool:
    return all(_values(record.training or (), name) for record in records)


def _values(training: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Epoch and value of every epoch that has a number of this name."""
    return [
        (epoch.get("epoch", number), epoch[name])
        for number, epoch in enumerate(training, start=1)
        if isinstance(epoch.get(name), Real)
    ]
