"""`write_paper` writes what changed, removes what no longer holds, and refuses edited records."""

from __future__ import annotations

import json

import pytest

from casm_bench.errors import WorkError
from casm_bench.records import load_records
from casm_bench.report.paper import write_paper

FILES = {
    *("table1.tex", "table1.md", "table1.csv"),
    *("verdicts.md", "verdicts.csv", "comparisons.md", "comparisons.csv"),
    *("figure1.pdf", "figure1.png", "le-madeup-quick.pdf", "le-madeup-quick.png"),
    "casm-bench.pdf",
}


def test_everything_is_written_and_named(saved, tmp_path):
    written = write_paper(saved, tmp_path / "paper")
    assert {path.name for path in written} == FILES
    *generated, pdf = written
    assert {path.parent for path in generated} == {tmp_path / "paper" / "generated"}
    assert pdf == tmp_path / "paper" / "casm-bench.pdf"
    assert all(path.stat().st_size > 0 for path in written)
    text = (tmp_path / "paper/generated/table1.md").read_text()
    assert "| CASM | 36.1 | 35.0<br>" in text
    assert "Subsets and variants" in text


def test_only_what_changed_is_rewritten(saved, tmp_path, save, a_record):
    first = {path: path.stat().st_mtime_ns for path in write_paper(saved, tmp_path)}
    again = {path: path.stat().st_mtime_ns for path in write_paper(saved, tmp_path)}
    assert again == first
    save(saved, [a_record("grad", 40)])
    after = {path: path.stat().st_mtime_ns for path in write_paper(saved, tmp_path)}
    unchanged = {path.name for path in first if after[path] == first[path]}
    assert unchanged == {"figure1.pdf", "figure1.png"}


def test_a_figure_without_records_is_removed(saved, tmp_path):
    write_paper(saved, tmp_path)
    for record in load_records(saved):
        if record.method == "baseline":
            record.path(saved).unlink()
    gone = ("figure1", "comparisons")  # nothing is left to show CASM beside
    assert {path.name for path in write_paper(saved, tmp_path)} == {
        name for name in FILES if not name.startswith(gone)
    }
    assert not [path for stem in gone for path in (tmp_path / "generated").glob(f"{stem}.*")]


def test_a_subset_alone_is_a_table_without_figures(tmp_path, save, a_record):
    save(tmp_path / "results", [a_record("grad", variant="0123abcd")])
    written = write_paper(tmp_path / "results", tmp_path)
    assert {path.suffix for path in written} == {".tex", ".md", ".csv", ".pdf"}


def test_no_records_is_explained(tmp_path):
    with pytest.raises(WorkError, match="There are no records in .*measure something first"):
        write_paper(tmp_path, tmp_path / "paper")
    assert not (tmp_path / "paper").exists()


def test_edited_records_are_refused_and_nothing_is_written(saved, tmp_path):
    path = load_records(saved)[0].path(saved)
    content = json.loads(path.read_text())
    content["protocols"]["casm"]["localization_error"] = 1.0
    path.write_text(json.dumps(content))
    with pytest.raises(WorkError, match=f"{path.name} was edited"):
        write_paper(saved, tmp_path / "paper")
    assert not (tmp_path / "paper").exists()
