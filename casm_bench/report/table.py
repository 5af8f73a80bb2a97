"""A table of text, ready for any format, and its Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

DASH = "–"

Cell = tuple[str, ...]  # lines of a cell: first the number, then what explains it
EMPTY: Cell = (DASH,)


@dataclass(frozen=True)
class Column:
    """One column, below the heading of its group if it has one."""

    title: str
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Text, ready for any format."""

    label: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    rule_before: int | None = None  # the row above which a rule is drawn
    notes: Mapping[str, str] = field(default_factory=dict)  # on each group of columns


def plain_table(label: str, caption: str, lines: Sequence[Mapping[str, str]]) -> Table:
    """A table of lines that share their columns."""
    rows: list[list[Cell]] = [[(text or DASH,) for text in line.values()] for line in lines]
    return Table(label, caption, [Column(title) for title in lines[0]], rows)


# --- parts of a table -------------------------------------------------------------------------


def by_group(table: Table) -> list[tuple[str, Table]]:
    """The table in parts, one per group of columns; whole, without a name, if there is but one.

    Side by side, settings are wider than any page.
    """
    groups = list(dict.fromkeys(column.group for column in table.columns if column.group))
    if len(groups) > 1:
        return [(group, _only(table, group)) for group in groups]
    notes = (f"{group}: {note}" for group, note in table.notes.items())
    return [("", replace(table, caption=" ".join((table.caption, *notes)), notes={}))]


def note_on(table: Table, group: str) -> str:
    """What is to be known of one group of columns, empty if nothing is."""
    return table.notes.get(group, "")


def _only(table: Table, group: str) -> Table:
    """The columns of one group beside those of none, without rows that would be dashes alone."""
    kept = [i for i, column in enumerate(table.columns) if column.group in ("", group)]
    rows = [[row[i] for i in kept] for row in table.rows]
    filled = [any(cell != EMPTY for cell in row[1:]) for row in rows]
    rule = table.rule_before
    return replace(
        table,
        columns=[Column(table.columns[i].title) for i in kept],
        rows=[row for row, any_number in zip(rows, filled, strict=True) if any_number],
        rule_before=None if rule is None else sum(filled[:rule]),
    )


# --- Markdown ---------------------------------------------------------------------------------


def to_markdown(tables: Sequence[Table]) -> str:
    """All tables as GitHub's Markdown, captions above."""
    return "\n".join(_markdown_table(table) for table in tables)


def _markdown_table(table: Table) -> str:
    parts = by_group(table)
    texts = [f"{parts[0][1].caption}\n"]
    for group, part in parts:
        heading = " ".join(filter(None, (f"**{group}**" if group else "", note_on(part, group))))
        texts += [f"{heading}\n", grid(part)] if heading else [grid(part)]
    return "\n".join(texts)


def grid(table: Table) -> str:
    """The table in GitHub's Markdown, without its caption."""
    titles = [f"{c.group}<br>{c.title}" if c.group else c.title for c in table.columns]
    lines = [_markdown_row((title,) for title in titles), "|---" * len(titles) + "|"]
    for number, row in enumerate(table.rows):
        if number == table.rule_before:
            lines.append(_markdown_row([("*controls*",), *[("",)] * (len(titles) - 1)]))
        lines.append(_markdown_row(row))
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[Cell]) -> str:
    return f"| {' | '.join('<br>'.join(cell).replace('|', chr(92) + '|') for cell in cells)} |"
