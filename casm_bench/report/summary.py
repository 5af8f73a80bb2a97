"""What a run prints at its end: a line per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..records import Record
from .cells import best_controls, column_titles, error_cells, published_cell, size_cell
from .measured import Measurement, Setting, measurements, runs
from .published import Published, find_row
from .table import DASH


def final_table(records: Sequence[Record], rows: Mapping[str, Published]) -> list[dict[str, str]]:
    """What a run prints at its end: a line per method, all with the same columns in order."""
    found = measurements(records, rows)
    titles = column_titles(found)
    return [_final_line(setting, same, found, titles, rows) for setting, same in runs(records)]


def _final_line(
    setting: Setting,
    records: Sequence[Record],
    found: Sequence[Measurement],
    titles: Mapping[str, str],  # by protocol
    rows: Mapping[str, Published],
) -> dict[str, str]:
    first = records[0]
    own = [
        m
        for m in found
        if (m.setting, m.method, m.variant, m.source) == (setting, first.method, first.variant, "")
    ]
    cells = error_cells(own, list(titles), best_controls(found))
    errors = (" ".join(cell[:2]) for cell in cells)
    published = find_row(first.facts.get("published"), rows)
    return {
        "method": first.title,
        **{f"LE {name}": error for name, error in zip(titles.values(), errors, strict=True)},
        "published": published_cell(published)[0],
        "images × seeds": size_cell(own)[0],
        "seconds": _sum_of_costs(records),
        "peak MB": _peak(records),
    }


def _sum_of_costs(records: Sequence[Record]) -> str:
    parts = ("fit_seconds", "map_seconds")
    return f"{sum(record.cost.get(part) or 0 for record in records for part in parts):.1f}"


def _peak(records: Sequence[Record]) -> str:
    peaks = [record.cost.get("peak_memory_mb") for record in records]
    known = [peak for peak in peaks if peak is not None]
    return f"{max(known):,.0f}" if known else DASH
