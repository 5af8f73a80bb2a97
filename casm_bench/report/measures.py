"""Every measure of every method: the second table."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..records import Record
from ..statistics import combined_interval, mean_error, wilson
from .cells import (
    NO_BETTER_MEANS,
    OF_SUBSET,
    best_controls,
    no_better,
    seeds_in_words,
    subset_legend,
)
from .measured import (
    Item,
    Measurement,
    Run,
    Setting,
    group_by,
    measurements,
    own_images,
    runs,
    standing,
)
from .table import EMPTY, Cell, Column, Table

RATES = {  # of a run's own measures, in percent of the images
    *("clean_accuracy", "masked_in_accuracy", "masked_out_accuracy"),
    "masked_out_accuracy_mean_fill",
}
NAMES = {  # of measures, where a reader would not know the usual one
    "f1": "F1",
    "f1_mean": "F1a",
    "official_metric": "OM, top-1 localization error",
    "top5_localization_error": "top-5 localization error",
}
POOLED = {"pxap": "pixels", "pointing_game_15px_class_mean": "pointing"}  # families of no means
OF_PROTOCOL = re.compile(
    r"(LE|f1|f1_mean|official_metric|top5_localization_error) \(([^ ]+?)(, %)?\)"
)
WIDEST = 7  # methods side by side, as many as a page holds


@dataclass(frozen=True)
class Spread:
    """Mean of a measure over seeds, its range, and its 95 % interval over images."""

    value: float
    lowest: float
    highest: float
    interval: tuple[float, float] | None  # None where values per image are not kept
    images: int  # of each seed; the fewest, should seeds differ
    seeds: tuple[int, ...]
    part: str  # which images and seeds, where it is not of all that the method was scored on


def measures(records: Sequence[Record]) -> dict[str, Spread]:
    """Every number that the records of one method hold: LE, F1, metrics and cost, over seeds."""
    names = dict.fromkeys(name for record in records for name in _all_measures(record))
    found = {name: _spread(name, records) for name in names}
    return {name: spread for name, spread in found.items() if spread}


def _spread(name: str, records: Sequence[Record]) -> Spread | None:
    having = [record for record in records if _all_measures(record).get(name) is not None]
    if not having:
        return None
    values = [_all_measures(record)[name] for record in having]
    images = min(_images(name, record) for record in having)
    seeds = tuple(record.seed for record in having)
    return Spread(
        value=fmean(values),
        lowest=min(values),
        highest=max(values),
        interval=_over_seeds(name, having, values),
        images=images,
        seeds=seeds,
        part=", ".join(
            [f"{images:,} images"] * (images < min(map(_scored, records)))
            + [seeds_in_words(seeds)] * (len(having) < len(records))
        ),
    )


def _images(name: str, record: Record) -> int:
    """On how many images a measure of the record rests."""
    for family, added in (record.added or {}).items():
        if name in added["intervals"] or family == POOLED.get(name):
            return added["n_images"]
    return _scored(record)


def _scored(record: Record) -> int:
    return next(iter(record.protocols.values()))["n_images"]


def _over_seeds(
    name: str, records: Sequence[Record], values: Sequence[float]
) -> tuple[float, float] | None:
    """Of LE the same as in Table 1."""
    same_images = not own_images(records)
    for protocol in records[0].protocols:
        if name == _error_name(protocol):
            counts = [record.protocols[protocol]["n_images"] for record in records]
            error = mean_error(values, counts, same_images=same_images)
            return error.low, error.high
    intervals = [_intervals(record).get(name) for record in records]
    return combined_interval(values, intervals, same_images=same_images) if all(intervals) else None


def _all_measures(record: Record) -> dict[str, float | None]:
    results = record.protocols.items()
    errors = {_error_name(name): result["localization_error"] for name, result in results}
    f1 = {f"f1 ({name}, %)": result["f1"] for name, result in results}
    f1a = {f"f1_mean ({name}, %)": result["f1_mean"] for name, result in results}
    return errors | f1 | f1a | record.metrics | record.cost


def _error_name(protocol: str) -> str:
    return f"LE ({protocol}, %)"


def _intervals(record: Record) -> dict[str, tuple[float, float]]:
    """95 % intervals over images of all but LE: Wilson for rates, else BCa."""
    found = {}
    for name, result in record.protocols.items():
        for measure in ("f1", "f1_mean"):
            if ends := result.get(f"{measure}_interval"):
                found[f"{measure} ({name}, %)"] = tuple(ends[:2])
    images = _scored(record)
    for name in RATES & record.metrics.keys():
        low, high = wilson(record.metrics[name] / 100 * images, images)
        found[name] = (100 * low, 100 * high)
    for added in (record.added or {}).values():
        found |= {name: tuple(ends[:2]) for name, ends in added["intervals"].items()}
    return found


def measure_title(name: str, upper_bounds: Collection[str] = ()) -> str:
    """A measure as tables call it. `upper_bounds`: protocols that look at the evaluated boxes."""
    protocol = protocol_of(name)
    if not protocol:
        return name.replace("_", " ")
    measure = name.partition(" ")[0]
    bound = ", upper bound" if protocol in upper_bounds else ""
    return f"{NAMES.get(measure, measure)} ({protocol}{bound}, %)"


def protocol_of(name: str) -> str:
    """The protocol that a measure is of, empty for one of none."""
    found = OF_PROTOCOL.fullmatch(name)
    return found[2] if found else ""


def upper_bounds(records: Sequence[Record]) -> set[str]:
    """The protocols whose thresholds were chosen on the evaluated images."""
    scored = (item for record in records for item in record.protocols.items())
    return {name for name, result in scored if result["policy"] == "oracle"}


def metric_tables(records: Sequence[Record]) -> list[Table]:
    """Table 2: every method and every measure, a table or several per setting."""
    found = measurements(records, {})
    shown = standing(m.run for m in found)
    marks = _marks(found)
    standing_runs = [
        (setting, same)
        for setting, same in runs(records)
        if (setting, same[0].method, same[0].variant) in shown
    ]
    tables = []
    for setting, of_setting in sorted(group_by(standing_runs, lambda run: run[0]).items()):
        methods = [same for _, same in of_setting]
        sizes = [m.subset for m in found if m.setting == setting and m.run in shown]
        blocks = _parted(methods)
        for number, block in enumerate(blocks, start=1):
            label = f"table2-{setting.slug}" + (f"-{number}" if len(blocks) > 1 else "")
            tables.append(_metric_table(label, setting, block, marks, sizes))
    return tables


Marks = dict[tuple[Run, str], str]  # by run and measure


def _marks(found: Sequence[Measurement]) -> Marks:
    controls = best_controls(found)
    return {(m.run, _error_name(m.protocol)): no_better(m, controls) for m in found if not m.source}


def _parted(methods: Sequence[Item]) -> list[Sequence[Item]]:
    """In parts of at most WIDEST that are about equally long."""
    size = -(-len(methods) // -(-len(methods) // WIDEST))
    return [methods[i : i + size] for i in range(0, len(methods), size)]


def _metric_table(
    label: str,
    setting: Setting,
    methods: Sequence[Sequence[Record]],
    marks: Marks,
    sizes: Sequence[int | None],  # of the subsets in this setting
) -> Table:
    found = [measures(same) for same in methods]
    names = dict.fromkeys(name for of_method in found for name in of_method)
    bounds = upper_bounds([record for same in methods for record in same])
    ids = [(setting, same[0].method, same[0].variant) for same in methods]
    caption = (
        f"Every measure, {setting}: mean over seeds; below it the 95 % interval over images "
        "(Wilson for rates, BCa bootstrap otherwise, combined over seeds) where values per "
        "image are kept, the range over several seeds, and which images and seeds were measured "
        f"where it is not all. {NO_BETTER_MEANS}"
    )
    return Table(
        label=label,
        caption=f"{caption} {subset_legend(sizes)}".strip(),
        columns=[Column("measure"), *(Column(_title(same[0])) for same in methods)],
        rows=[
            [
                (measure_title(name, bounds),),
                *(
                    spread_cell(of_method.get(name), mark=marks.get((run, name), ""))
                    for run, of_method in zip(ids, found, strict=True)
                ),
            ]
            for name in names
        ],
    )


def _title(record: Record) -> str:
    return record.title + (OF_SUBSET if record.variant else "")


def spread_cell(spread: Spread | None, digits: str = ".4g", mark: str = "") -> Cell:
    """Mean with its mark, interval, range over seeds and part; a dash where nothing is known."""
    if spread is None:
        return EMPTY
    lines = [f"{spread.value:{digits}}{mark}"]
    if spread.interval:
        low, high = spread.interval
        lines.append(f"[{low:{digits}}, {high:{digits}}]")
    if spread.lowest != spread.highest:
        lines.append(f"{spread.lowest:{digits}} to {spread.highest:{digits}}")
    if spread.part:
        lines.append(spread.part)
    return tuple(lines)
