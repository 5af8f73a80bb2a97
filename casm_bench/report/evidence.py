"""How much of the evidence masks hide, part by part, where the data know it exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from ..records import Record
from .drawing import Dot, dot_columns

RECALL, PRECISION = "evidence_recall_", "evidence_precision"


def evidence(records: Sequence[Record]) -> Iterator[Dot]:
    """Recall by part, then precision, of one method: mean and range over its seeds, in %."""
    shared = set.intersection(*(set(record.metrics) for record in records))
    names = [name for name in records[0].metrics if name in shared]
    for name in sorted(n for n in names if n.startswith(RECALL) or n == PRECISION):
        values = [record.metrics[name] for record in records]
        title = f"recall, {name.removeprefix(RECALL)}" if name.startswith(RECALL) else "precision"
        yield Dot(records[0].title, title, fmean(values), min(values), max(values))


def evidence_figure(dots: Sequence[Dot]) -> Figure:
    """A line per method, a column per part; bars are the range over seeds."""
    columns = sorted({dot.column for dot in dots}, key=lambda c: (not c.startswith("recall"), c))
    ordered = sorted(dots, key=lambda dot: columns.index(dot.column))
    return dot_columns(ordered, "share of the pixels (%)", xlim=(-3, 103))
