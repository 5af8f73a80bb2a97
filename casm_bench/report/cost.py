"""Localization error against what a map costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..records import Record
from ..statistics import Estimate
from .drawing import TEXT_WIDTH, look, names_beside, tidy

FAMILIES = (  # a look for each, whichever of them a setting has
    *("trained masker", "supervised", "gradient", "perturbation", "control", "other"),
)


@dataclass(frozen=True)
class Priced:
    """A method's error, and the seconds that a map of it takes."""

    title: str
    family: str
    error: Estimate
    seconds: float
    fitting: float  # seconds of training, 0 without


def priced(records: Sequence[Record], error: Estimate) -> Priced | None:
    """The records of one method; None where they do not say what a map costs."""
    speeds = [record.cost.get("images_per_second") for record in records]
    if not all(speeds):
        return None
    return Priced(
        title=records[0].title,
        family=records[0].facts.get("family", "other"),
        error=error,
        seconds=fmean(1 / speed for speed in speeds),
        fitting=fmean(record.cost.get("fit_seconds") or 0 for record in records),
    )


def cost_figure(found: Sequence[Priced]) -> Figure:
    """A point per method with its name beside: seconds per map, and LE with its 95 % interval."""
    height = max(2.4, 0.6 + 0.145 * len(found))
    figure = Figure(figsize=(TEXT_WIDTH, height))
    axes = figure.add_axes((0.075, 0.45 / height, 0.6, 1 - 0.7 / height))
    families = list(dict.fromkeys((*FAMILIES, *(p.family for p in found))))
    for number, family in enumerate(families):
        if same := [p for p in found if p.family == family]:
            _draw(axes, same, look(number) | {"linestyle": "none"})
    lowest, highest = min(p.error.low for p in found), max(p.error.high for p in found)
    axes.set(xscale="log", ylim=(max(-3, lowest - 5), min(103, highest + 5)))
    axes.set(xlabel="seconds per map", ylabel="localization error (%)")
    tidy(axes)
    names_beside(axes, [(_name(p), p.seconds, p.error.value) for p in found])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, fontsize=7, handletextpad=0.1)
    return figure


def _draw(axes: Axes, same: Sequence[Priced], style: Mapping[str, Any]) -> None:
    below = [p.error.value - p.error.low for p in same]
    above = [p.error.high - p.error.value for p in same]
    axes.errorbar(
        [p.seconds for p in same],
        [p.error.value for p in same],
        [below, above],
        ecolor="0.6",
        elinewidth=1,
        label=same[0].family,
        zorder=3,
        **style,
    )


def _name(found: Priced) -> str:
    training = f" (+ {_duration(found.fitting)})" if found.fitting >= 1 else ""
    return found.title + training


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
