"""The ledger: every number of the paper's Table 1, and where each comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from casm_bench.errors import WorkError
from casm_bench.report.published import LEDGER, find_row, read_published

HEADER = "row,title,metric,value,unit,protocol,images,source,note"


@pytest.fixture
def ledger():
    return read_published(Path(__file__).resolve().parents[2] / "results")


def test_table_1_has_the_papers_rows_in_its_order(rows):
    assert {name: row.value for name, row in rows.items()} == {
        "baseline": 53.5,
        "casm": 36.1,
        "aln": 43.5,
        "mask": 43.1,
        "grad": 41.7,
        "masking-model": 36.7,
        "vgg-supervised": 34.3,
    }
    assert list(rows)[:2] == ["baseline", "casm"]
    assert {row.metric for row in rows.values()} == {"localization_error"}


def test_quoted_rows_say_where_they_come_from(rows):
    quoted = {name for name, row in rows.items() if row.protocol != "casm"}
    assert quoted == set(rows) - {"casm", "baseline"}
    assert all(
        row.note.startswith("quoted there from") for name, row in rows.items() if name in quoted
    )
    assert rows["mask"].images == rows["grad"].images == 48_238


def test_quoted_figures_agree_with_the_works_they_come_from(ledger, rows):
    entries = {entry.row: entry.value for entry in ledger}
    assert entries["fong/mask/energy"] == pytest.approx(100 * 20_813 / 48_238, abs=0.005)
    assert entries["fong/grad/mean"] == pytest.approx(100 * 20_096 / 48_238, abs=0.005)
    assert round(entries["fong/mask/energy"], 1) in (43.1, 43.2)
    assert round(entries["fong/grad/mean"], 1) == rows["grad"].value
    assert entries["vgg/pcr-two-fc"] == rows["vgg-supervised"].value


def test_every_entry_is_unique_and_has_a_source(ledger):
    assert len({entry.row for entry in ledger}) == len(ledger) == 60
    assert all(entry.source and entry.protocol and entry.title for entry in ledger)


@pytest.mark.parametrize("declared", ["casm", "CASM", "table1/casm"])
def test_methods_declare_their_row_by_name_or_title(rows, declared):
    assert find_row(declared, rows).value == 36.1


def test_a_method_may_have_no_row(rows):
    assert find_row(None, rows) is None
    assert find_row("unheard of", rows) is None


def test_a_results_folder_may_bring_its_own_ledger(tmp_path):
    line = "table1/x,X,localization_error,1.5,%,casm,,somewhere,"
    (tmp_path / LEDGER).write_text(f"{HEADER}\n{line}\n")
    (only,) = read_published(tmp_path)
    assert (only.row, only.value, only.images) == ("table1/x", 1.5, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("row,value\n", "needs the columns"),
        (f"{HEADER}\nx,X,le,many,%,casm,,s,\n", "line 2: could not convert"),
        (f"{HEADER}\nx,X,le,1,%,casm,few,s,\n", "line 2: invalid literal"),
        (f"{HEADER}\nx,X\n", "line 2"),
    ],
)
def test_a_broken_ledger_is_explained(tmp_path, text, reason):
    (tmp_path / LEDGER).write_text(text)
    with pytest.raises(WorkError, match=f"published.csv.*{reason}"):
        read_published(tmp_path)
