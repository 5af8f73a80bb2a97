"""The PDF: numbers come from records, text is never markup, and the same records give its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typst

from casm_bench.errors import WorkError
from casm_bench.report import pdf
from casm_bench.report.pdf import to_pdf
from casm_bench.report.table import Column, Table, make_tables

NASTY = '#panic("no") $x_1$ *bold* [ ] \\ " // <tag> @ref `raw` = heading'


@pytest.fixture
def given(monkeypatch):
    """What typst was given: the content that the template sets."""
    compile_pdf, seen = typst.compile, []

    def spy(path, **options):
        seen.append(json.loads(Path(path).with_name("data.json").read_text()))
        return compile_pdf(path, **options)

    monkeypatch.setattr(pdf.typst, "compile", spy)
    return seen


def test_numbers_are_those_of_the_tables(a_record, rows, given):
    records = [a_record("casm", 64, seed=0), a_record("casm", 66, seed=1), a_record("full", 30)]
    first, *others = make_tables(records, rows)
    content = to_pdf({"table1": [first], "others": others}, {}, records)
    assert content.startswith(b"%PDF-")
    (data,) = given
    (part,) = data["sections"]["table1"]
    casm = next(row for row in part["rows"] if row[0] == ["CASM"])
    assert casm[1] == ["36.1"]
    assert casm[2][0] == "35.0"
    assert [(run["method"], run["seeds"], run["control"]) for run in data["runs"]] == [
        ("CASM", "0, 1", False),
        ("Whole frame", "0", True),
    ]
    assert [protocol["name"] for protocol in data["protocols"]] == ["casm", "casm-clipped", "warp"]


def test_the_same_records_give_the_same_bytes(a_record, rows):
    records = [a_record("casm"), a_record("full", 30)]
    tables = {"table1": make_tables(records, rows)}
    assert to_pdf(tables, {}, records) == to_pdf(tables, {}, records)


def test_text_from_records_is_never_markup(a_record, given):
    facts = {"family": "other", "deviations": NASTY, "paper": NASTY}
    provenance = {"data_sha256": "x", "cpu": NASTY, "device": "cpu", "created": NASTY}
    record = a_record(title=NASTY, data=NASTY, facts=facts, provenance=provenance)
    table = Table("t", NASTY, [Column(NASTY), Column(NASTY, NASTY)], [[(NASTY,), (NASTY, NASTY)]])
    assert to_pdf({"others": [table]}, {}, [record]).startswith(b"%PDF-")
    assert given[0]["deviations"] == [{"method": NASTY, "paper": NASTY, "text": NASTY}]


def test_environments_are_counted(a_record, given):
    there = {"device": "Some GPU", "threads": 4, "python": "3.11", "versions": {"torch": "2.8"}}
    there |= {"commit": "0123456789abcdef", "dirty": True, "data_sha256": "x"}
    records = [a_record(), a_record(seed=1), a_record(seed=2, provenance=there)]
    to_pdf({}, {}, records)
    counts = {row["device"]: (row["records"], row["commit"]) for row in given[0]["environments"]}
    assert counts == {"": (2, ""), "Some GPU": (1, "0123456789")}


def test_what_typst_cannot_set_is_explained(a_record):
    with pytest.raises(WorkError, match="typst cannot set the PDF"):
        to_pdf({}, {"figure1": (b"no picture", "caption")}, [a_record()])
