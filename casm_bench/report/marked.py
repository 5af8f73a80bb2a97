"""Tables between marks in a text, README.md for one: made from records and declarations.

A mark is a line `<!-- table: NAME -->`, where NAME is `methods` or a folder of records such as
`shapes/quick`; the table below it ends with the line `<!-- end of table -->`. After
`<!-- table: NAME published -->` stand only the rows of the paper's Table 1, and the controls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from ..errors import WorkError
from ..records import Record
from .cards import methods_table
from .cells import (
    Scale,
    best_controls,
    column_titles,
    marked_cell,
    published_cell,
    subset_legend,
)
from .measured import CONTROL, Measurement, Run, Setting, measurements, runs, standing
from .measures import measures
from .published import Published
from .table import EMPTY, Cell, Column, Table, grid

MARKED = re.compile(r"(<!-- table: (\S+)( published)? -->\n).*?(<!-- end of table -->)", re.DOTALL)

Of = Callable[[Sequence[Record]], str]  # a cell's text; empty where records say nothing


def with_tables(text: str, records: Sequence[Record], rows: Mapping[str, Published]) -> str:
    """The text with all its tables made anew.

    Raises WorkError for a mark that names neither `methods` nor a folder with records.
    """
    found = measurements(records, rows)
    shown = standing(m.run for m in found)

    def filled(mark: re.Match[str]) -> str:
        start, name, published, end = mark.groups()
        kept = [m for m in found if m.row or m.family == CONTROL] if published else found
        return f"{start}\n{_table(name, kept, records, shown)}\n{end}"

    return MARKED.sub(filled, text)


def _table(
    name: str, found: Sequence[Measurement], records: Sequence[Record], shown: set[Run]
) -> str:
    if name == "methods":
        return methods_table("paper/generated/methods.md")
    usual = [m for m in found if m.run in shown and not (m.source or m.renamed)]
    own = [m for m in usual if _folder(m.setting) == name]
    if not own:
        raise WorkError(f"A mark asks for a table of {name}, of which there are no records.")
    of_method = {
        same[0].method: same
        for setting, same in runs([record for record in records if _folder(record) == name])
        if (setting, same[0].method, same[0].variant) in shown
    }
    legend = subset_legend(m.subset for m in own)
    table = grid(_as_table(own, of_method, best_controls(found)))
    return f"{table}\n{legend}\n" if legend else table


def _folder(of: Setting | Record) -> str:
    return f"{of.data}/{of.recipe}"


def _as_table(
    found: Sequence[Measurement],
    records: Mapping[str, Sequence[Record]],
    controls: Mapping[Scale, float],
) -> Table:
    """Controls last; a column that would be empty, or repeat the one before it, is left out."""
    firsts = list({m.method: m for m in found}.values())
    firsts.sort(key=lambda m: m.family == CONTROL)
    lines = {m.method: [(_name(m),)] for m in firsts}
    columns = []

    def add(title: str, cells: Mapping[str, Cell]) -> None:
        if any(cell != EMPTY for cell in cells.values()):
            columns.append(Column(title))
            for method, line in lines.items():
                line.append(cells.get(method, EMPTY))

    add("published", {m.method: published_cell(m.row) for m in firsts})
    errors = {(m.method, m.protocol): marked_cell(m, controls, stands=True) for m in found}
    before: dict[str, Cell] = {}
    for protocol, title in column_titles(found).items():
        cells = {method: cell for (method, name), cell in errors.items() if name == protocol}
        if cells != before:
            add(f"LE `{title}`", {m: _on_one_line(cell) for m, cell in cells.items()})
        before = cells
    for title, of in MEASURES.items():
        add(title, {method: _cell(of(same)) for method, same in records.items()})
    others = sum(m.family != CONTROL for m in firsts)
    return Table("", "", [Column("method"), *columns], list(lines.values()), others or None)


def _name(found: Measurement) -> str:
    return f"{found.title}, {found.subset:,} images" if found.subset else found.title


def _on_one_line(error: Cell) -> Cell:
    return (" ".join(error[:2]),)  # without the range over seeds, which have a column


def _cell(text: str) -> Cell:
    return (text,) if text else EMPTY


def _seeds(records: Sequence[Record]) -> str:
    """Each seed's LE under the first protocol, where there are several seeds."""
    if len(records) < 2:
        return ""
    of_seed = sorted((record.seed, next(iter(record.protocols.values()))) for record in records)
    return ", ".join(f"{result['localization_error']:.1f}" for _, result in of_seed)


def _size_weight(records: Sequence[Record]) -> str:
    """λ_r that was searched for."""
    found = [(record.findings or {}).get("lambda_r") for record in records]
    return ", ".join(f"{weight:.3g}" for weight in dict.fromkeys(found) if weight is not None)


def _mean_of(name: str, digits: str) -> Of:
    def of(records: Sequence[Record]) -> str:
        found = measures(records).get(name)
        return f"{found.value:{digits}}" if found else ""

    return of


def _evidence(records: Sequence[Record]) -> str:
    shares = [
        fmean(record.metrics[f"evidence_recall_{part}"] for record in records)
        for part in ("object", "spot")
        if all(f"evidence_recall_{part}" in record.metrics for record in records)
    ]
    return " / ".join(f"{share:.0f}" for share in shares)


MEASURES: Mapping[str, Of] = {
    "LE of each seed": _seeds,
    "λ_r": _size_weight,
    "mask area": _mean_of("mask_mean", ".2f"),
    "object / spot hidden, %": _evidence,
    "right on masked-out, %": _mean_of("masked_out_accuracy_mean_fill", ".0f"),
}
