"""Every measure of every method: the second table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..records import Record
from ..statistics import combined_interval, mean_error, wilson
from .measured import Item, Setting, group_by, own_images, runs
from .table import EMPTY, Cell, Column, Table

RATES = {  # of a run's own measures, in percent of the images
    *("clean_accuracy", "masked_in_accuracy", "masked_out_accuracy"),
    "masked_out_accuracy_mean_fill",
}
WIDEST = 7  # methods side by side, as many as a page holds


@dataclass(frozen=True)
class Spread:
    """Mean of a measure over seeds, its range, and its 95 % interval over images."""

    value: float
    lowest: float
    highest: float
    interval: tuple[float, float] | None = None  # None where values per image are not kept


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
    return Spread(fmean(values), min(values), max(values), _over_seeds(name, having, values))


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
    return errors | f1 | record.metrics | record.cost


def _error_name(protocol: str) -> str:
    return f"LE ({protocol}, %)"


def _intervals(record: Record) -> dict[str, tuple[float, float]]:
    """95 % intervals over images of all but LE: Wilson for rates, else BCa."""
    found = {}
    for name, result in record.protocols.items():
        if "f1_interval" in result:
            found[f"f1 ({name}, %)"] = tuple(result["f1_interval"][:2])
    images = next(iter(record.protocols.values()))["n_images"]
    for name in RATES & record.metrics.keys():
        low, high = wilson(record.metrics[name] / 100 * images, images)
        found[name] = (100 * low, 100 * high)
    for added in (record.added or {}).values():
        found |= {name: tuple(ends[:2]) for name, ends in added["intervals"].items()}
    return found


def metric_tables(records: Sequence[Record]) -> list[Table]:
    """Table 2: every method and every measure, a table or several per setting."""
    plain = [run for run in runs(records) if not run[1][0].variant]
    tables = []
    for setting, of_setting in sorted(group_by(plain, lambda run: run[0]).items()):
        methods = [same for _, same in of_setting]
        blocks = _parted(methods)
        for number, block in enumerate(blocks, start=1):
            label = f"table2-{setting.slug}" + (f"-{number}" if len(blocks) > 1 else "")
            tables.append(_metric_table(label, setting, block))
    return tables


def _parted(methods: Sequence[Item]) -> list[Sequence[Item]]:
    """In parts of at most WIDEST that are about equally long."""
    size = -(-len(methods) // -(-len(methods) // WIDEST))
    return [methods[i : i + size] for i in range(0, len(methods), size)]


def _metric_table(label: str, setting: Setting, methods: Sequence[Sequence[Record]]) -> Table:
    found = [measures(same) for same in methods]
    names = dict.fromkeys(name for of_method in found for name in of_method)
    return Table(
        label=label,
        caption=(
            f"Every measure, {setting}: mean over seeds; below it the 95 % interval over images "
            "(Wilson for rates, BCa bootstrap otherwise, combined over seeds) where values per "
            "image are kept, and the range over several seeds."
        ),
        columns=[Column("measure"), *(Column(same[0].title) for same in methods)],
        rows=[
            [(name.replace("_", " "),), *(spread_cell(of_method.get(name)) for of_method in found)]
            for name in names
        ],
    )


def spread_cell(spread: Spread | None, digits: str = ".4g") -> Cell:
    """Mean, interval and range over seeds; a dash for what was not measured."""
    if spread is None:
        return EMPTY
    lines = [f"{spread.value:{digits}}"]
    if spread.interval:
        low, high = spread.interval
        lines.append(f"[{low:{digits}}, {high:{digits}}]")
    if spread.lowest != spread.highest:
        lines.append(f"{spread.lowest:{digits}} to {spread.highest:{digits}}")
    return tuple(lines)
