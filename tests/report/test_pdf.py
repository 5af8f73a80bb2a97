"""The PDF: numbers come from records, text is never markup, and the same records give its bytes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import typst

from casm_bench.errors import WorkError
from casm_bench.report import pdf
from casm_bench.report.pdf import to_pdf
from casm_bench.report.table import Column, Table
from casm_bench.report.table1 import make_tables

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


@pytest.fixture
def ask(a_record, given, tmp_path):
    """What an expression of the template's own functions comes to."""
    to_pdf({}, {}, [a_record()])
    template = resources.files("casm_bench.report") / "templates" / pdf.TEMPLATE
    (tmp_path / pdf.TEMPLATE).write_bytes(template.read_bytes())
    (tmp_path / "data.json").write_text(json.dumps(given[0]))

    def value_of(expression):
        path = tmp_path / "asked.typ"
        names = "breakable, heading-of, is-number, unbroken"
        path.write_text(f'#import "{pdf.TEMPLATE}": {names}\n#metadata({expression}) <asked>\n')
        fonts = {"font_paths": [str(pdf.FONTS)], "ignore_system_fonts": True}
        return json.loads(typst.query(str(path), "<asked>", field="value", one=True, **fonts))

    return value_of


def test_numbers_are_never_broken(ask):
    assert ask('breakable("quick+tf_lite0.in1k 73.1 [-1.5]").split("\\u{200b}")') == [
        *("quick+", "tf_", "lite0.in1k 73.1 [-1.5]")
    ]
    assert ask('unbroken("-1.0 [-4.3, +1.5]").body.text') == "−1.0\xa0[−4.3,\xa0+1.5]"
    numbers = ["+19.2 [+16.7, +21.7]", "-23.6 [-28.9, -16.7]", "<1e-300", "53 / 322", "–", "0.2"]
    for cell in numbers:
        assert ask(f'is-number(("{cell}",))'), cell
    assert not ask('is-number(("CASM 53.9",))')


def test_headings_take_no_more_lines_than_their_numbers_leave_room_for(ask):
    def heading(title, *cells):
        rows = ", ".join(f'(("{cell}",),)' for cell in cells)
        return ask(f'heading-of("{title}", ({rows},), 0)').split("\n")

    assert heading("only A / only B hit", "53 / 322", "1544 / 1269") == ["only A /", "only B hit"]
    assert heading("A − B, points", "+19.2 [+16.7, +21.7]") == ["A − B, points"]
    assert heading("p, Holm", "0.2") == ["p,", "Holm"]
