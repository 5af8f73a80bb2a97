"""Every measure of every method: the second table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..records import Record
from .measured import Item, Setting, group_by, runs
from .table import EMPTY, Cell, Column, Table

WIDEST = 7  # methods side by side, as many as a page holds


@dataclass(frozen=True)
class Spread:
    """Mean of a measure over seeds, its range, and the 95 % interval of a single seed."""

    value: float
    lowest: float
    highest: float
    interval: tuple[float, float] | None = None


def measures(records: Sequence[Record]) -> dict[str, Spread]:
    """Every number that the records of one method hold: LE, F1, metrics and cost, over seeds."""
    values: dict[str, list[float]] = {}
    for record in records:
        for name, value in _all_measures(record).items():
            if value is not None:
                values.setdefault(name, []).append(value)
    known = _intervals(records[0]) if len(records) == 1 else {}
    return {
        name: Spread(fmean(found), min(found), max(found), known.get(name))
        for name, found in values.items()
    }


def _all_measures(record: Record) -> dict[str, float | None]:
    results = record.protocols.items()
    errors = {f"LE ({name}, %)": result["localization_error"] for name, result in results}
    f1 = {f"f1 ({name}, %)": result["f1"] for name, result in results}
    return errors | f1 | record.metrics | record.cost


def _intervals(record: Record) -> dict[str, tuple[float, float]]:
    found = {f"LE ({n}, %)": tuple(r["interval"]) for n, r in record.protocols.items()}
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
            f"Every measure, {setting}: mean over seeds; below it, one seed's 95 % interval where "
            "there is one, or the range over several seeds."
        ),
        columns=[Column("measure"), *(Column(same[0].title) for same in methods)],
        rows=[
            [(name.replace("_", " "),), *(spread_cell(of_method.get(name)) for of_method in found)]
            for name in names
        ],
    )


def spread_cell(spread: Spread | None, digits: str = ".4g") -> Cell:
    """Mean, then interval or range over seeds; a dash for what was not measured."""
    if spread is None:
        return EMPTY
    value = f"{spread.value:{digits}}"
    if spread.interval:
        low, high = spread.interval
        return value, f"[{low:{digits}}, {high:{digits}}]"
    if spread.lowest == spread.highest:
        return (value,)
    return value, f"{spread.lowest:{digits}} to {spread.highest:{digits}}"
