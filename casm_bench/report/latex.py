"""Tables as LaTeX: floats that fit a page, for a paper that loads booktabs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from .cells import ELSEWHERE, NO_BETTER, OF_SUBSET
from .measured import group_by
from .table import DASH, Cell, Column, Table, by_group, note_on

TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "×": r"$\times$",
        DASH: "--",
        ELSEWHERE: r"\dag{}",
        NO_BETTER: r"\ddag{}",
        OF_SUBSET: r"\S{}",
        "±": r"$\pm$",
        "−": "$-$",
        "λ": r"$\lambda$",
    }
)


# Characters at which a line is broken, so that a table is no wider than a page.
HEADING, FIRST, BELOW = 10, 24, 18
TALLEST = 46.0  # rows of a page in lines, of which the smaller ones below a number take less
SMALLER = 0.75


def to_latex(tables: Sequence[Table]) -> str:
    """All tables as floats, a setting each; what is higher than a page goes on in the next."""
    return "\n".join(text for table in tables for text in _floats(table))


def _floats(table: Table) -> Iterator[str]:
    parts = [(group, page) for group, part in by_group(table) for page in _pages(part)]
    for number, (group, part) in enumerate(parts, start=1):
        about = f"{group}: {note_on(part, group)}" if group else ""
        caption, label = part.caption.translate(TEX), table.label
        if number > 1:
            caption, label = rf"Table~\ref{{tab:{label}}} continued.", f"{label}-{number}"
        yield _float(part, f"{caption} {about.translate(TEX)}".strip(), label)


def _pages(table: Table) -> Iterator[Table]:
    """The table in parts that are no higher than a page."""
    start, height = 0, 0.0
    for number, row in enumerate(table.rows):
        height += _height(row)
        if height > TALLEST and number > start:
            yield _rows(table, start, number)
            start, height = number, _height(row)
    yield _rows(table, start, len(table.rows))


def _height(row: Sequence[Cell]) -> float:
    lines = (_broken(cell, i) for i, cell in enumerate(row))
    return max(len(first) + SMALLER * len(below) for first, below in lines)


def _rows(table: Table, start: int, end: int) -> Table:
    rule = table.rule_before
    within = rule is not None and start < rule < end
    return replace(table, rows=table.rows[start:end], rule_before=rule - start if within else None)


def _float(table: Table, caption: str, label: str) -> str:
    rows = [_row(row) for row in table.rows]
    if table.rule_before is not None:
        rows.insert(table.rule_before, r"\midrule")
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{2.5pt}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            *_groups(table.columns),
            " & ".join(_heading(column.title) for column in table.columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _groups(columns: Sequence[Column]) -> list[str]:
    """A line of headings that span their groups' columns, with rules below them."""
    if not any(column.group for column in columns):
        return []
    headings, rules, start = [], [], 1
    for group, of_group in group_by(columns, lambda column: column.group).items():
        end = start + len(of_group) - 1
        headings.append(rf"\multicolumn{{{len(of_group)}}}{{c}}{{{group.translate(TEX)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{start}-{end}}}")
        start = end + 1
    return [" & ".join(headings) + r" \\", *rules]


def _heading(title: str) -> str:
    return _stack("r", [_text(line) for line in _wrap(title, HEADING)])


def _row(cells: Iterable[Cell]) -> str:
    return " & ".join(_cell(cell, i) for i, cell in enumerate(cells)) + r" \\"


def _cell(cell: Cell, column: int) -> str:
    first, below = _broken(cell, column)
    lines = [*map(_text, first), *(rf"{{\tiny {line.translate(TEX)}}}" for line in below)]
    return _stack("r" if column else "l", lines)


def _text(line: str) -> str:
    """Escaped; what would read as an option of the line break before it is put in braces."""
    return f"{{{line.translate(TEX)}}}" if line[:1] in ("[", "*") else line.translate(TEX)


def _broken(cell: Cell, column: int) -> tuple[list[str], list[str]]:
    """The lines of a cell: those of its number or name, and the smaller ones below."""
    first = _wrap(cell[0], BELOW if column else FIRST)
    return first, [line for text in cell[1:] for line in _wrap(text, BELOW)]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _stack(side: str, lines: Sequence[str]) -> str:
    if len(lines) == 1:
        return lines[0]
    stacked = r"\\".join(lines)
    return rf"\shortstack[{side}]{{{stacked}}}"
