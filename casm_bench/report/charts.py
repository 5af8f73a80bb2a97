"""Curves of a method's page, as data for uPlot: training by epoch, and what `metrics` added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from ..records import Record
from .added import LABELS

LEFT_OUT = ("epoch", "seconds")  # of what training logs


def charts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A chart per statistic, a line per record: title, axis, x, names of stages, and series."""
    return [*_training(records), *_added(records)]


def _training(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    logged = [record for record in records if record.training]
    names = dict.fromkeys(name for r in logged for epoch in r.training for name in epoch)
    for name in names:
        points = {f"seed {r.seed}": dict(_values(r.training, name)) for r in logged}
        if name not in LEFT_OUT and any(points.values()):
            yield _chart(name.replace("_", " "), "epoch", points)


def _values(training: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[float, float]]:
    """Epoch and value of every epoch that has a number of this name."""
    for number, epoch in enumerate(training, start=1):
        if isinstance(epoch.get(name), Real):
            yield epoch.get("epoch", number), epoch[name]


def _added(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for family, (axis, _) in LABELS.items():
        kept = {
            f"seed {r.seed}": (r.added or {}).get(family, {}).get("curves", {}) for r in records
        }
        for name in dict.fromkeys(name for curves in kept.values() for name in curves):
            found = {seed: curves[name] for seed, curves in kept.items() if name in curves}
            yield _chart_of_curves(name, axis, found)


def _chart_of_curves(
    name: str, axis: str, found: Mapping[str, Mapping[str, list]]
) -> dict[str, Any]:
    stages = list(dict.fromkeys(x for curve in found.values() for x in curve["x"]))
    named = any(isinstance(x, str) for x in stages)
    places = {x: i if named else x for i, x in enumerate(stages)}
    points = {
        seed: {places[x]: y for x, y in zip(curve["x"], curve["y"], strict=True)}
        for seed, curve in found.items()
    }
    return _chart(name, axis, points) | ({"stages": list(map(str, stages))} if named else {})


def _chart(title: str, axis: str, points: Mapping[str, Mapping[float, float]]) -> dict[str, Any]:
    """All series on one x, as uPlot wants them; None where a series has no value."""
    x = sorted({place for of_series in points.values() for place in of_series})
    series = [
        {"label": label, "y": [of_series.get(place) for place in x]}
        for label, of_series in points.items()
    ]
    return {"title": title, "axis": axis, "x": x, "series": series}
