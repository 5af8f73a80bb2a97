"""Sweeps: one setting takes several values while all else stays equal, such as the cue's strength.

Found among records by their settings alone; a sweep is a table, a long CSV and a figure of its own.
Where a recipe leaves a setting open, as it does the number of training pictures per class, the
recipe's own records are a sweep's last value: all of them. Where runs search for the setting, as
they do for λ_r, what they found is a value like those that were given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..records import Record
from ..statistics import Estimate
from .as_csv import as_csv
from .cells import (
    NO_BETTER_MEANS,
    NO_CONTROL,
    PER_SEED,
    Scale,
    best_control,
    best_controls,
    error_cell,
    marked_cell,
    size_cell,
)
from .drawing import TEXT_WIDTH, look, tidy
from .measured import (
    CONTROL,
    Measurement,
    describe_classifier,
    flat_settings,
    group_by,
    measurements,
)
from .measures import Spread, measures, spread_cell
from .table import EMPTY, Cell, Column, Table

PICTURES = "fit.images_per_class"
DRAWING = "data_options."  # settings that change the pictures
SWEEPABLE = (DRAWING, "hyperparameters.", PICTURES)
OPEN = (PICTURES,)  # settings that recipes do not have; without a value they have no limit
SEARCHED = {"hyperparameters.lambda_r": "lambda_r"}  # what a run may find itself: among findings
ALL = math.inf
FEWEST_VALUES = 3  # two points are a comparison of variants, not a curve
NAMES = {
    "data_options.stripes": ("cue-strength", "contrast of the stripes"),
    "hyperparameters.lambda_r": ("lambda-r", "λ_r, weight of mask size"),
    PICTURES: ("images-per-class", "training images per class"),
}
SHOWN = {
    "evidence_recall_object": "recall object, %",
    "evidence_recall_spot": "recall spot, %",
    "evidence_recall_body": "recall body, %",
    "evidence_precision": "precision, %",
    "mask_mean": "mask area, share",
    "masked_out_accuracy_mean_fill": "masked accuracy, %",
    "clean_accuracy": "clean accuracy, %",
}
RECALL, AREA = "evidence_recall_object", "mask_mean"
BESIDE = {RECALL: "evidence recall, object (%)", AREA: "mask area (share of the frame)"}


@dataclass(frozen=True)
class Point:
    """A method at one value of the swept setting, over all seeds."""

    value: float
    records: list[Record]
    found: Measurement  # localization error under the first protocol of the records

    @property
    def error(self) -> Estimate:
        """Localization error over all seeds."""
        return self.found.error

    @property
    def protocol(self) -> str:
        """What the error was measured under."""
        return self.found.protocol

    def over_seeds(self, name: str) -> list[float]:
        """The metric `name` seed by seed; empty where it was not measured."""
        found = (record.metrics.get(name) for record in self.records)
        return [value for value in found if value is not None]


@dataclass(frozen=True)
class Sweep:
    """Curves of several methods over the values of one setting."""

    data: str
    recipe: str
    setting: str  # as `data_options.stripes`
    curves: list[list[Point]]  # one per method, by rising value

    @property
    def name(self) -> str:
        """Name of the sweep's files."""
        return NAMES.get(self.setting, (f"sweep-{self.setting.split('.')[-1]}", ""))[0]

    @property
    def quantity(self) -> str:
        """What is varied, in words."""
        return NAMES.get(self.setting, ("", self.setting.split(".")[-1]))[1]

    @property
    def beside(self) -> str:
        """What is drawn beside the localization error: evidence found, if known, else area."""
        measured = {name for record in self.records() for name in record.metrics}
        return RECALL if RECALL in measured else AREA

    @property
    def by_step(self) -> bool:
        """Values are drawn as steps of equal width: one of them may be "all"."""
        return self.setting in OPEN

    def records(self) -> list[Record]:
        """All records that the sweep is made of."""
        return [record for curve in self.curves for point in curve for record in point.records]


def find_sweeps(records: Sequence[Record]) -> list[Sweep]:
    """All sweeps among the variants, methods in the order of `records`.

    Seeds, and digests of the data that a seed or a swept option draws, count as equal. A recipe's
    own records join a sweep of a setting that the recipe leaves open or lets a run search for,
    with the seeds of the rest.
    """
    settings = {id(record): flat_settings(record.config) for record in records}
    names = {
        name
        for record in records
        if record.variant
        for name in settings[id(record)]
        if name.startswith(SWEEPABLE)
    }
    curves: dict[tuple[str, str, str], list[list[Point]]] = {}
    for name in sorted(names):
        pool = [r for r in records if r.variant or name in OPEN or _found(name, r) is not None]
        alike = group_by(pool, lambda r, name=name: _all_but(name, r, settings[id(r)]))
        for same in alike.values():
            by_value = group_by(
                _of_swept_seeds(same), lambda r, name=name: _value(name, r, settings[id(r)])
            )
            if len(by_value) >= FEWEST_VALUES and all(map(_is_number, by_value)):
                place = (same[0].data, same[0].recipe, name)
                curves.setdefault(place, []).append(_curve(by_value))
    return [Sweep(*place, of_methods) for place, of_methods in curves.items()]


def _all_but(name: str, record: Record, flat: Mapping[str, object]) -> tuple:
    aside = (name, "protocols")  # what else was scored changes nothing
    rest = sorted((key, repr(value)) for key, value in flat.items() if key not in aside)
    return record.data, record.recipe, record.method, tuple(rest)


def _of_swept_seeds(records: Sequence[Record]) -> list[Record]:
    """Variants, and of the recipe's own records those whose seeds the variants have, too."""
    seeds = {record.seed for record in records if record.variant}
    return [record for record in records if record.seed in seeds]


def _found(name: str, record: Record) -> object:
    """What the run found for the setting `name`; None where it did not search."""
    return (record.findings or {}).get(SEARCHED.get(name, ""))


def _value(name: str, record: Record, flat: Mapping[str, object]) -> float | str:
    """What the setting was set to, or what the run found for it; what is no number in words."""
    found = _found(name, record)
    value = flat.get(name, ALL if name in OPEN else None) if found is None else found
    return value if _is_number(value) else repr(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_words(value: float) -> str:
    """A swept value for tables and axes."""
    return "all" if value == ALL else f"{value:g}"


def _curve(by_value: Mapping[float, Sequence[Record]]) -> list[Point]:
    return [_point(value, same) for value, same in sorted(by_value.items())]


def _point(value: float, records: Sequence[Record]) -> Point:
    """Of one run with all its seeds, for another may have found the value that it was given."""
    run = max(group_by(records, lambda record: record.variant).values(), key=len)
    (found, *_) = measurements(run, {})
    return Point(value, sorted(run, key=lambda record: record.seed), found)


# --- table ------------------------------------------------------------------------------------


def sweep_table(sweep: Sweep, among: Sequence[Measurement] = ()) -> Table:
    """A row per value and method: LE with interval, and what the masks cover; then controls.

    `among`: all measurements, for the controls that were scored on the sweep's pictures.
    """
    points = sorted(
        (point for curve in sweep.curves for point in curve), key=lambda point: point.value
    )
    shown = {
        name: title for name, title in SHOWN.items() if any(p.over_seeds(name) for p in points)
    }
    titles = (sweep.quantity, "method", "LE, %", *shown.values(), PER_SEED)
    bars, controls = best_controls(among), _controls(points, among)
    alone = any(best_control(point.found, bars) is None for point in points)
    marks = (NO_BETTER_MEANS, NO_CONTROL if alone else "")
    return Table(
        label=sweep.name,
        caption=" ".join(filter(None, (_caption(sweep, points[0]), *marks))),
        columns=[Column(title) for title in titles],
        rows=[_row(point, list(shown), bars) for point in points]
        + [_control_row(control, len(shown)) for control in controls],
        rule_before=len(points) if controls else None,
    )


def _controls(points: Sequence[Point], among: Sequence[Measurement]) -> list[Measurement]:
    """The usual controls on pictures of the sweep, under its protocol."""
    first, images = points[0].found, frozenset.union(*(point.found.images for point in points))
    scale = (first.setting, first.source, first.protocol)
    return [
        m
        for m in among
        if (m.setting, m.source, m.protocol) == scale
        and (m.family, m.variant) == (CONTROL, "")
        and m.images & images
    ]


def _control_row(found: Measurement, empty: int) -> list[Cell]:
    error = error_cell(found.error)
    return [EMPTY, (found.title,), error, *[EMPTY] * empty, size_cell([found])]


def _caption(sweep: Sweep, point: Point) -> str:
    where = (sweep.data, sweep.recipe, describe_classifier(point.records[0]))
    first = sweep.quantity[0]
    quantity = (first.upper() if first.isascii() else first) + sweep.quantity[1:]  # λ_r stays λ_r
    return (
        f"{quantity} ({sweep.setting}) varied, all else equal: "
        f"{', '.join(part for part in where if part)}, seeds "
        f"{', '.join(map(str, sorted({record.seed for record in sweep.records()})))}. "
        f"Localization error (LE, protocol {point.protocol}): mean over seeds, 95 % Wilson "
        "interval over images, range over seeds. Other measures: mean and range over seeds."
    )


def _row(point: Point, shown: Sequence[str], bars: Mapping[Scale, float]) -> list[Cell]:
    found: dict[str, Spread] = measures(point.records)
    return [
        (in_words(point.value),),
        (point.records[0].title,),
        marked_cell(point.found, bars),
        *(spread_cell(found.get(name), ".3g" if name == "mask_mean" else ".1f") for name in shown),
        size_cell([point.found]),
    ]


CSV_COLUMNS = (
    *("data", "recipe", "setting", "value", "method", "title", "metric", "protocol"),
    *("mean", "low", "high", "lowest_seed", "highest_seed", "images", "seeds"),
)


def sweep_csv(sweep: Sweep) -> str:
    """Long format: a line per value, method and measure."""
    points = [point for curve in sweep.curves for point in curve]
    return as_csv(CSV_COLUMNS, [line for point in points for line in _csv_lines(sweep, point)])


def _csv_lines(sweep: Sweep, point: Point) -> list[dict[str, object]]:
    common = {
        "data": sweep.data,
        "recipe": sweep.recipe,
        "setting": sweep.setting,
        "value": in_words(point.value),
        "method": point.records[0].method,
        "title": point.records[0].title,
        "images": point.error.n_images,
        "seeds": " ".join(str(record.seed) for record in point.records),
    }
    found: dict[str, Spread | Estimate] = {"localization_error": point.error}
    found |= {name: spread for name, spread in measures(point.records).items() if name in SHOWN}
    return [common | {"metric": name} | _numbers(value, point) for name, value in found.items()]


def _numbers(found: Spread | Estimate, point: Point) -> dict[str, str]:
    numbers = {
        "mean": f"{found.value:.6g}",
        "lowest_seed": f"{found.lowest:.6g}",
        "highest_seed": f"{found.highest:.6g}",
    }
    if isinstance(found, Estimate):
        numbers |= {"low": f"{found.low:.6g}", "high": f"{found.high:.6g}"}
        numbers["protocol"] = point.protocol
    return numbers


# --- equal area -------------------------------------------------------------------------------


def equal_area_table(sweep: Sweep) -> Table | None:
    """Localization error where the methods' masks are equally large; None if they never are.

    None also where the setting changes the pictures, as then equal areas are of other pictures.

    A setting such as λ_r moves mask area and error together, so methods compared at one value of
    it, or each at its best, may differ by area alone. Here each method's curve of error over mean
    area is read off, by linear interpolation, at areas that all of them reach.
    """
    curves = [_error_over_area(curve) for curve in sweep.curves]
    if sweep.by_step or sweep.setting.startswith(DRAWING):
        return None
    if len(curves) < 2 or any(len(areas) < 2 for areas, _ in curves):
        return None
    low, high = max(areas[0] for areas, _ in curves), min(areas[-1] for areas, _ in curves)
    common = [step / 20 for step in range(1, 20) if low <= step / 20 <= high]
    if not common:
        return None
    titles = [curve[0].records[0].title for curve in sweep.curves]
    rows = [
        [(f"{area:.2f}",), *((f"{np.interp(area, *curve):.1f}",) for curve in curves)]
        for area in common
    ]
    return Table(
        label=f"{sweep.name}-equal-area",
        caption=(
            f"Localization error in % (protocol {sweep.curves[0][0].protocol}) at equal mean mask "
            f"area, interpolated linearly between the values of {sweep.quantity} above."
        ),
        columns=[Column("mask area"), *map(Column, titles)],
        rows=rows,
    )


def _error_over_area(curve: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Mean mask areas, rising, and the localization errors that go with them."""
    measured = [point for point in curve if point.over_seeds(AREA)]
    pairs = sorted((float(np.mean(p.over_seeds(AREA))), p.error.value) for p in measured)
    return [area for area, _ in pairs], [error for _, error in pairs]


# --- figure -----------------------------------------------------------------------------------


def sweep_figure(sweep: Sweep) -> Figure:
    """LE, and evidence found or mask area, over the swept setting; small points are seeds."""
    figure = Figure(figsize=(TEXT_WIDTH, 2.4), layout="constrained")
    errors, beside = figure.subplots(1, 2, sharex=True)
    places = _places(sweep)
    for number, curve in enumerate(sweep.curves):
        by_seed = [
            [record.protocols[point.protocol]["localization_error"] for record in point.records]
            for point in curve
        ]
        of_beside = [point.over_seeds(sweep.beside) for point in curve]
        title, at = curve[0].records[0].title, [places[point.value] for point in curve]
        _draw_curve(errors, title, at, by_seed, look(number))
        _draw_curve(beside, title, at, of_beside, look(number))
    errors.set(ylabel="localization error (%)", ylim=(-3, 103))
    beside.set(ylabel=BESIDE[sweep.beside])
    beside.set_ylim((-0.03, 1.03) if sweep.beside == AREA else (-3, 103))
    for axes in (errors, beside):
        axes.set(xlabel=sweep.quantity)
        if sweep.by_step:
            axes.set_xticks(list(places.values()), [in_words(value) for value in places])
        tidy(axes)
    errors.legend()
    return figure


def _places(sweep: Sweep) -> dict[float, float]:
    """Where on the axis each value is drawn."""
    values = sorted({point.value for curve in sweep.curves for point in curve})
    return {value: step if sweep.by_step else value for step, value in enumerate(values)}


def _draw_curve(
    axes: Axes,
    title: str,
    at: Sequence[float],
    by_seed: Sequence[Sequence[float]],
    style: Mapping[str, Any],
) -> None:
    drawn = [(place, seeds) for place, seeds in zip(at, by_seed, strict=True) if seeds]
    places = [place for place, _ in drawn]
    means = [np.mean(seeds) for _, seeds in drawn]
    axes.plot(places, means, label=title, **style | {"marker": None})
    axes.plot(
        [place for place, seeds in drawn for _ in seeds],
        [seed for _, seeds in drawn for seed in seeds],
        markerfacecolor="white",
        **style | {"linestyle": "none"},
    )
