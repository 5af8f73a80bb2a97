"""Curves that the command `metrics` added to records: insertion and deletion, sanity checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..records import Record
from .drawing import Curve, curve_grid
from .measured import CONTROL

LABELS = {  # by family: what is along the axis, and what is above it
    "insertion-deletion": ("share of pixels changed", "p(class)"),
    "randomized-weights": ("randomized, from the logits down", ""),
}


def added_curves(family: str, same: Sequence[Record]) -> Iterator[Curve]:
    """What the records of one method's seeds hold of `family`; nothing where one lacks it.

    One seed: mean over images and its 95 % interval. Several: mean over seeds and their range.
    """
    kept = [(record.added or {}).get(family, {}).get("curves", {}) for record in same]
    for name in (n for n in kept[0] if all(n in of_seed for of_seed in kept)):
        curves = [of_seed[name] for of_seed in kept]
        if any(curve["x"] != curves[0]["x"] for curve in curves):
            continue  # other steps or stages: there is no mean
        y_SX = np.array([curve["y"] for curve in curves], float)
        low, high = y_SX.min(axis=0), y_SX.max(axis=0)
        if len(curves) == 1:
            low, high = curves[0]["low"], curves[0]["high"]
        title, group = same[0].title, same[0].facts.get("family", "other")
        yield Curve(title, name, group, curves[0]["x"], y_SX.mean(axis=0), low, high)


def added_figure(family: str, curves: Sequence[Curve]) -> Figure:
    """A row per kind of curve, a column per family of methods; controls in grey everywhere."""
    return curve_grid(curves, *LABELS[family], reference=CONTROL)
