"""`write_paper` writes what changed, removes what no longer holds, and refuses edited records."""

from __future__ import annotations

import json

import pytest

from casm_bench.cli import main
from casm_bench.errors import WorkError
from casm_bench.records import load_records
from casm_bench.report.paper import write_paper

FILES = {
    *("table1.tex", "table1.md", "table1.csv", "table2.tex", "table2.md", "records.csv"),
    *("verdicts.md", "verdicts.csv", "comparisons.md", "comparisons.csv", "methods.md"),
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
    assert unchanged == {"figure1.pdf", "figure1.png", "methods.md"}  # what leaves Grad out


def test_a_figure_without_records_is_removed(saved, tmp_path):
    write_paper(saved, tmp_path)
    for record in load_records(saved):
        if record.method == "baseline":
            record.path(saved).unlink()
    gone = ("figure1", "comparisons")  # nothing is left to show CASM beside
    assert {path.name for path in write_paper(saved, tmp_path, drop_missing=True)} == {
        name for name in FILES if not name.startswith(gone)
    }
    assert not [path for stem in gone for path in (tmp_path / "generated").glob(f"{stem}.*")]


def test_a_record_that_is_gone_is_missed_by_name(saved, tmp_path, capsys):
    write_paper(saved, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    gone = saved / "madeup" / "quick" / "casm-seed1.json"
    del before[gone]
    gone.unlink()
    arguments = ["paper", "--results", str(saved), "--out", str(tmp_path)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "Missing, though the paper was last made from it: madeup/quick/casm-seed1.json" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert main([*arguments, "--drop-missing"]) == 0
    assert main(arguments) == 0  # what was dropped is no longer missed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 0}, "protocol warp, version 0, has changed since"),
        ({"iou_threshold": 0.4}, "protocol warp, version 1, has changed since"),
    ],
)
def test_scores_under_another_protocol_of_the_name_are_stale(
    saved, tmp_path, save, a_record, change, reason
):
    record = a_record("grad")
    record.protocols["warp"]["protocol"] |= change
    save(saved, [record])
    with pytest.raises(WorkError, match=f"Stale: .*grad-seed0.json .{reason}.*Measure it again"):
        write_paper(saved, tmp_path / "paper")
    assert not (tmp_path / "paper").exists()


def test_a_protocol_in_better_words_is_the_same(saved, tmp_path, save, a_record):
    record = a_record("grad")
    record.protocols["warp"]["protocol"] |= {"summary": "Said otherwise."}
    del record.protocols["casm"]["protocol"]["overrides_rule"]  # as if it came later
    del record.protocols["casm"]["protocol"]["rule"]["connectivity"]
    save(saved, [record])
    assert write_paper(saved, tmp_path / "paper")


def test_records_of_an_older_way_to_measure_are_stale(saved, tmp_path, save, a_record):
    save(saved, [a_record("grad", config={"measurement": 0})])
    with pytest.raises(WorkError, match="measured as version 0, now it is 1"):
        write_paper(saved, tmp_path / "paper")


def test_records_of_changed_data_are_stale(saved, tmp_path):
    asked = []

    def digest_of(record):
        asked.append(record.data)
        return "other pictures"

    with pytest.raises(WorkError, match=r"its data changed\).* and 7 more"):
        write_paper(saved, tmp_path / "paper", digest_of=digest_of)
    assert asked == ["madeup"]
    assert write_paper(saved, tmp_path / "paper", digest_of=lambda record: None)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_what_lies_beside_a_record_must_be_its_own(saved, tmp_path, ending):
    path = saved / "madeup" / "quick" / f"casm-seed0.{ending}"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WorkError, match=f"casm-seed0.{ending} is not the file"):
        write_paper(saved, tmp_path / "paper")
    path.unlink()
    with pytest.raises(WorkError, match=f"Cannot read .*casm-seed0.{ending}"):
        write_paper(saved, tmp_path / "paper")


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


def test_marked_tables_of_a_readme_are_made_anew(saved, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- table: madeup/quick -->\nold\n<!-- end of table -->\nAfter.\n")
    arguments = ["paper", "--results", str(saved), "--out", str(tmp_path), "--fill", str(readme)]
    assert main(arguments) == 0
    assert (
        readme.read_text()
        == """Before.
<!-- table: madeup/quick -->

| method | published | LE `casm` | LE of each seed |
|---|---|---|---|
| Baseline | 53.5 | 52.0 [46.4, 57.6] | 53.0, 52.0, 51.0 |
| CASM | 36.1 | 35.0 [29.8, 40.6] | 36.0, 35.0, 34.0 |
| *controls* |  |  |  |
| Whole frame | – | 69.0 [63.6, 74.0] | 70.0, 69.0, 68.0 |

<!-- end of table -->
After.
"""
    )


def test_a_readme_that_cannot_be_filled_is_said(saved, tmp_path, capsys):
    readme = tmp_path / "README.md"
    arguments = ["paper", "--results", str(saved), "--out", str(tmp_path), "--fill", str(readme)]
    assert main(arguments) == 2
    assert "cannot be read" in capsys.readouterr().err
    readme.write_text("<!-- table: nothing/here -->\n<!-- end of table -->\n")
    assert main(arguments) == 1
    assert "table of nothing/here, of which there are no records" in capsys.readouterr().err
    assert not (tmp_path / "generated").exists()
