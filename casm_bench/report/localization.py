"""Localization error with intervals, by method and protocol, and how it moves between protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from matplotlib.figure import Figure

from ..protocols import column_title, in_order
from ..records import Record, load_per_image
from ..statistics import compare_hits
from .drawing import Dot, dot_columns
from .measured import CONTROL, PAPERS_PROTOCOL, Measurement, group_by, own_images


def error_figure(found: Sequence[Measurement]) -> Figure:
    """LE of one setting with 95 % intervals: a line per method, a column per protocol.

    Published figures are hollow: they were not measured, and not on these data.
    """
    shown = in_order(m.protocol for m in found)
    dots = [
        Dot(m.title, column_title(m.protocol, m.policy), m.error.value, m.error.low, m.error.high)
        for m in sorted(found, key=lambda m: shown.index(m.protocol))
    ]
    if PAPERS_PROTOCOL in shown:
        rows = {m.title: m.row.value for m in found if m.row}
        dots += [
            Dot(row, PAPERS_PROTOCOL, value, value, value, True) for row, value in rows.items()
        ]
    ordered = _in_order_of(found, dots)
    label = "localization error (%)"
    return dot_columns(ordered, label, xlim=(-3, 103), rule_before=_rule(found))


def _in_order_of(found: Sequence[Measurement], dots: Sequence[Dot]) -> list[Dot]:
    """Rows as they come among the measurements, columns as they come among the dots."""
    titles = list(dict.fromkeys(m.title for m in found))
    columns = list(dict.fromkeys(dot.column for dot in dots))
    return sorted(dots, key=lambda dot: (columns.index(dot.column), titles.index(dot.row)))


def _rule(found: Sequence[Measurement]) -> str | None:
    """Where controls begin."""
    return next((m.title for m in found if m.family == CONTROL), None)


# --- what a protocol changes ------------------------------------------------------------------


def shifts(runs: Sequence[tuple[str, Sequence[Record]]], results: Path) -> Iterator[Dot]:
    """Change of LE in points against protocol `casm`, on the same images and maps.

    `runs`: titles and the records of their seeds. Intervals are those of `compare_hits`.
    """
    for title, same in runs:
        hits = [_hits(record, results) for record in same]
        shared = set.intersection(*map(set, hits))
        for protocol in in_order(shared - {PAPERS_PROTOCOL}) if PAPERS_PROTOCOL in shared else ():
            pairs = [(of_seed[protocol], of_seed[PAPERS_PROTOCOL]) for of_seed in hits]
            change = compare_hits(pairs, same_images=not own_images(same))
            policy = same[0].protocols[protocol]["policy"]
            yield Dot(title, column_title(protocol, policy), change.value, change.low, change.high)


def _hits(record: Record, results: Path) -> Mapping[str, np.ndarray]:
    """By protocol, whether each image was hit, in the order of their names."""
    table = load_per_image(record.path(results), record).select(["name", "protocol", "hit"])
    parts = {p: table.filter(pc.equal(table["protocol"], p)) for p in record.protocols}
    return {p: part.sort_by("name")["hit"].to_numpy() for p, part in parts.items() if len(part)}


def shift_figure(dots: Sequence[Dot]) -> Figure | None:
    """A line per method, a column per protocol; None where no protocol changes anything."""
    changed = group_by(dots, lambda dot: dot.column)
    kept = [c for c, same in changed.items() if any(dot.value for dot in same)]
    order = in_order(column.partition(" (")[0] for column in kept)
    shown = [dot for dot in dots if dot.column in kept]
    shown.sort(key=lambda dot: order.index(dot.column.partition(" (")[0]))
    if not shown:
        return None
    return dot_columns(shown, "change of localization error against casm (points)", zero=True)
