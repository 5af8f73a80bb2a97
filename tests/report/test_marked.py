"""Tables between marks in a text."""

from __future__ import annotations

import re

from casm_bench.report.marked import with_tables


def test_a_marked_table_of_published_rows_has_no_others_but_controls(a_record, rows):
    records = [a_record(name, 30) for name in ("casm", "novel", "full")]
    text = with_tables(
        "<!-- table: madeup/quick published -->\n<!-- end of table -->", records, rows
    )
    lines = re.findall(r"^\| (\S[^|]*?) \|", text, re.MULTILINE)
    assert lines == ["method", "CASM", "*controls*", "Whole frame"]
