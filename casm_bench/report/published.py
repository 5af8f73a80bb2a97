"""The ledger of published numbers: what papers printed, under which protocol, and who says so."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..errors import WorkError

LEDGER = "published.csv"
CONDITIONS = "conditions.csv"  # beside the ledger: under what its figures came about, as far known
TABLE1 = "table1/"  # rows of the paper's Table 1 are called table1/<row>, in the paper's order


@dataclass(frozen=True)
class Conditions:
    """What a record must agree with to be comparable to a printed number, in our own words."""

    data: str  # as in --data; whatever is no data set of ours, nothing compares with
    network: str  # timm's name
    recipe: str  # the recipe that holds the published settings; empty if nothing is trained
    rule: str  # str(BoxRule)
    policy: str  # own, fixed, tuned or oracle


@dataclass(frozen=True)
class Published:
    """One printed number. It was not measured here."""

    row: str  # unique
    title: str
    metric: str
    value: float
    unit: str
    protocol: str  # as in --protocols where it is one of ours, in words otherwise
    images: int | None  # how many, where it is known
    source: str
    note: str
    conditions: Conditions | None = None  # None where too little is known


def read_published(results: Path) -> list[Published]:
    """Read the ledger of a results folder, or else the one of the checkout this code runs from.

    Returns an empty list where neither exists, as for a wheel that writes into a new folder.
    Raises WorkError naming file, row and column when an entry cannot be understood.
    """
    checkout = Path(__file__).resolve().parents[2] / "results"
    for folder in (Path(results), checkout):
        if (folder / LEDGER).is_file():
            return _read(folder / LEDGER, _read_conditions(folder / CONDITIONS))
    return []


def _read(path: Path, conditions: dict[str, Conditions]) -> list[Published]:
    columns = [field.name for field in fields(Published) if field.name != "conditions"]
    lines = _lines(path, columns)
    entries = [_entry(path, number, line) for number, line in enumerate(lines, start=2)]
    unknown = conditions.keys() - {entry.row for entry in entries}
    if unknown:
        raise WorkError(f"{path.with_name(CONDITIONS)}: {path.name} has no row {min(unknown)}.")
    return [replace(entry, conditions=conditions.get(entry.row)) for entry in entries]


def _read_conditions(path: Path) -> dict[str, Conditions]:
    """By row; empty where there is no such file."""
    if not path.is_file():
        return {}
    lines = _lines(path, ["row", *(field.name for field in fields(Conditions))])
    return {line.pop("row"): Conditions(**line) for line in lines}


def _lines(path: Path, columns: list[str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise WorkError(f"{path} needs the columns {','.join(columns)}, in this order.")
        return list(reader)


def _entry(path: Path, number: int, line: dict[str, str]) -> Published:
    try:
        images = int(line["images"]) if line["images"] else None
        return Published(**{**line, "value": float(line["value"]), "images": images})
    except (TypeError, ValueError) as error:
        raise WorkError(f"{path}, line {number}: {error}. Value and images are numbers.") from None


def table1_rows(ledger: Sequence[Published]) -> dict[str, Published]:
    """The rows of the paper's Table 1 by their short name, in the paper's order."""
    return {
        entry.row.removeprefix(TABLE1): entry for entry in ledger if entry.row.startswith(TABLE1)
    }


def find_row(declared: str | None, rows: dict[str, Published]) -> Published | None:
    """The row of Table 1 that a method declares as its own, by short name or by title."""
    if declared is None:
        return None
    wanted = declared.removeprefix(TABLE1).casefold()
    matches = (entry for name, entry in rows.items() if wanted in (name, entry.title.casefold()))
    return next(matches, None)
