"""Executable conformance: the same maps scored as four published evaluators score them.

`checks` asks and answers; `export` writes maps, boxes and expected values, so that somebody
else's evaluator can be asked the same.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.wsol_metadata import write_wsol_metadata
from ..files import write_atomically
from ..maps import save_map
from .checks import NOTATIONS, WSOL_TRUTH, Check, boxes_only, checks, wsol_map
from .maps import MAPS

__all__ = ["Check", "check_lines", "checks", "export"]

_README = """\
Maps, boxes and the values that four evaluators must find in them.

maps/                   a .npy file per map, float32, rows from the top
expected.json           what is asked of which map, what is given, and the expected value
expected.csv            the same as a table
wsolevaluation/maps     four of the maps, scaled as wsolevaluation asks, named by image id
wsolevaluation/metadata their metadata; the true boxes of MaxBoxAcc and MaxBoxAccV2

How boxes are written:
"""


def check_lines(found: Sequence[Check]) -> list[dict[str, str]]:
    """The checks as lines of a table."""
    return [
        {
            "convention": check.convention,
            "map": check.map,
            "asked": check.asked,
            "given": ", ".join(f"{k} {_text(v)}" for k, v in check.given.items()),
            "expected": _text(check.expected),
            "obtained": _text(check.obtained),
            "": "" if check.agrees else "MISMATCH",
        }
        for check in found
    ]


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_text, value))
    return str(value)


def export(found: Sequence[Check], folder: Path) -> list[Path]:
    """Write maps, boxes and expected values into `folder`; returns the files' paths.

    Raises WorkError when the folder cannot be written.
    """
    return list(_export(found, folder))


def _export(found: Sequence[Check], folder: Path) -> Iterator[Path]:
    for name, map_HW in MAPS.items():
        yield _write(folder / "maps" / f"{name}.npy", map_HW)
    for name in WSOL_TRUTH:
        yield _write(folder / "wsolevaluation" / "maps" / f"{name}.npy", wsol_map(name))
    yield from write_wsol_metadata(boxes_only(WSOL_TRUTH), folder / "wsolevaluation" / "metadata")
    asked = [{k: v for k, v in vars(check).items() if k != "obtained"} for check in found]
    content = {"notations": NOTATIONS, "checks": asked}
    yield _write(folder / "expected.json", json.dumps(content, indent=1) + "\n")
    yield _write(folder / "expected.csv", _csv(check_lines(found)))
    notations = "".join(f"  {name}: {text}\n" for name, text in NOTATIONS.items())
    yield _write(folder / "README.txt", _README + notations)


def _write(path: Path, content: np.ndarray | str) -> Path:
    write = write_atomically if isinstance(content, str) else save_map
    write(path, content)
    return path


def _csv(lines: Sequence[dict[str, str]]) -> str:
    text = io.StringIO()
    columns = [name for name in lines[0] if name not in ("obtained", "")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
