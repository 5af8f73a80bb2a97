"""Are the records fit to be published? Missing, stale and edited ones are refused by name.

What the paper was made from last is listed in `records.csv` beside its tables, so that a record
that is gone since cannot drop out of them unseen.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import UsageError, WorkError
from ..protocols import get_protocol
from ..records import MEASUREMENT, Record, check_files, to_json
from .as_csv import as_csv
from .measured import group_by

LISTED = "records.csv"
COLUMNS = ("record", "data", "recipe", "method", "seed", "variant", "created", "commit", "sha256")
IN_WORDS = ("summary", "source")  # of a protocol: may be said better without a new version
SHOWN = 3  # records that a message names

DigestOf = Callable[[Record], str | None]  # of the data as they are now; None if it cannot tell


def check_records(
    records: Sequence[Record], results: Path, listed: Path, digest_of: DigestOf | None = None
) -> None:
    """Refuse what must not get into print.

    `listed`: the list that the last paper left. `digest_of` is asked once for each data set.
    Raises WorkError naming the records and what to do.
    """
    for record in records:
        check_files(record, results)
    _refuse(
        [path for path in _names(listed) if not (results / path).is_file()],
        "Missing, though the paper was last made from it",
        "Restore it, for instance with git, or say --drop-missing to go on without.",
    )
    stale = [f"{r.path(results)} ({why})" for r in records for why in _stale(r)]
    stale += [f"{r.path(results)} (its data changed)" for r in _on_other_data(records, digest_of)]
    _refuse(stale, "Stale", "Measure it again with `run`, or delete it.")


def _refuse(found: Sequence[str], problem: str, advice: str) -> None:
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise WorkError(f"{problem}: {', '.join(found[:SHOWN])}{more}. {advice}")


def _names(listed: Path) -> list[str]:
    if not listed.is_file():
        return []
    with listed.open(newline="", encoding="utf-8") as file:
        return [line["record"] for line in csv.DictReader(file) if line.get("record")]


def _stale(record: Record) -> Iterator[str]:
    """Why its numbers would come out otherwise today."""
    if record.config.get("measurement", MEASUREMENT) != MEASUREMENT:
        yield f"measured as version {record.config['measurement']}, now it is {MEASUREMENT}"
    for name, result in record.protocols.items():
        then = result["protocol"]
        if not _agrees(_meaning(then), _current(name)):
            yield f"protocol {name}, version {then.get('version')}, has changed since"


def _agrees(then: object, now: object) -> bool:
    """Whether all that was declared then still holds; fields that were added since do not count."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(name in now and _agrees(value, now[name]) for name, value in then.items())
    return then == now


def _current(name: str) -> dict[str, object] | None:
    try:
        return _meaning(asdict(get_protocol(name)))
    except UsageError:  # there is no such protocol any more
        return None


def _meaning(protocol: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in protocol.items() if name not in IN_WORDS}


def _on_other_data(records: Sequence[Record], digest_of: DigestOf | None) -> Iterator[Record]:
    """Records of data that are no longer what they were, judged by one record of each data set."""
    for same in group_by(records, lambda record: record.data).values():
        now = digest_of(same[0]) if digest_of else None
        if now not in (None, same[0].provenance.get("data_sha256")):
            yield from same


def list_of(records: Sequence[Record], results: Path) -> str:
    """The records that a paper was made from, a line each."""
    in_order = sorted(records, key=lambda record: record.path(results))
    return as_csv(COLUMNS, (_listed(record, results) for record in in_order))


def _listed(record: Record, results: Path) -> dict[str, object]:
    return {
        "record": record.path(results).relative_to(results).as_posix(),
        "data": record.data,
        "recipe": record.recipe,
        "method": record.method,
        "seed": record.seed,
        "variant": record.variant,
        "created": record.provenance.get("created", ""),
        "commit": record.provenance.get("commit", ""),
        "sha256": hashlib.sha256(to_json(record).encode()).hexdigest(),
    }
