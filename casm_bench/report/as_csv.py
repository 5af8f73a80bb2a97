"""Lines as CSV text, the same way for every file of the paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence


def as_csv(columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> str:
    """A header and a line each; columns that a line lacks stay empty. Unknown ones: ValueError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
