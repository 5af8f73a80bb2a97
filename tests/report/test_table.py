"""Table 1 in three formats, against cells worked out by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from casm_bench.records import read_remarks
from casm_bench.report.latex import to_latex
from casm_bench.report.long_csv import CSV_COLUMNS, to_csv
from casm_bench.report.marked import with_tables
from casm_bench.report.measured import measurements
from casm_bench.report.measures import metric_tables
from casm_bench.report.summary import final_table
from casm_bench.report.table import Column, Table, by_group, to_markdown
from casm_bench.report.table1 import main_table, make_tables

GROUP = {"localization_error": 20.0, "interval": [0, 100], "n_images": 40}


def main(records, rows):
    whole = [m for m in measurements(records, rows) if not (m.variant or m.source)]
    return main_table(whole, rows, {})


def caption_of(records, rows):
    """As it is printed, with what is said of the only setting."""
    ((_, whole),) = by_group(main(records, rows))
    return whole.caption


def first_lines(row):
    return [cell[0] for cell in row]


def test_the_papers_rows_stand_in_its_order_with_dashes_where_nothing_was_measured(a_record, rows):
    table = main([a_record("casm")], rows)
    assert [row[0][0] for row in table.rows] == [row.title for row in rows.values()]
    measured = {row[0][0] for row in table.rows if row[2] != ("–",)}
    assert measured == {"CASM"}


def test_a_measured_row_says_published_measured_interval_images_and_seeds(a_record, rows):
    table = main([a_record("casm", 64, 100, protocols=("casm",))], rows)
    assert [(c.group, c.title) for c in table.columns] == [
        ("", "method"),
        ("", "published"),
        ("madeup, quick, stub (none)", "casm"),
        ("madeup, quick, stub (none)", "images × seeds"),
        ("madeup, quick, stub (none)", "verdict"),
    ]
    casm = next(row for row in table.rows if row[0] == ("CASM",))
    verdict = ("not comparable", "data, network, recipe")
    assert casm == [("CASM",), ("36.1",), ("36.0", "[27.3, 45.8]"), ("100 × 1",), verdict]


def test_several_seeds_show_their_range(a_record, rows):
    records = [a_record("casm", hits, seed=seed) for seed, hits in enumerate((60, 70, 80))]
    casm = next(row for row in main(records, rows).rows if row[0] == ("CASM",))
    assert casm[2] == (
        *("30.0", "[25.1, 35.4]", "seeds 20.0 to 40.0"),
        "over seeds [5.2, 54.8]",
    )
    assert casm[-2] == ("100 × 3",)


def test_controls_stand_below_a_rule_and_other_methods_above(a_record, rows):
    table = main([a_record("full"), a_record("novel"), a_record("grad")], rows)
    assert [row[0][0] for row in table.rows[len(rows) :]] == ["Novel_100%", "Whole frame"]
    assert table.rule_before == len(rows) + 1
    assert main([a_record("grad")], rows).rule_before is None


def test_quoted_figures_are_marked(a_record, rows):
    published = {row[0][0]: row[1][0] for row in main([a_record()], rows).rows}
    assert (published["CASM"], published["Grad"]) == ("36.1", "41.7†")


def test_settings_have_columns_of_their_own(a_record, rows):
    elsewhere = a_record("grad", data="another", protocols=("casm",))
    table = main([a_record("casm", protocols=("casm",)), elsewhere], rows)
    groups = list(dict.fromkeys(column.group for column in table.columns))
    assert groups == ["", "another, quick, stub (none)", "madeup, quick, stub (none)"]
    grad = next(row for row in table.rows if row[0] == ("Grad",))
    assert first_lines(grad)[2:] == ["40.0", "100 × 1", "not comparable", "–", "–", "–"]


def test_rows_that_do_not_beat_the_controls_are_marked(a_record, rows):
    """Clearly better is only an interval that lies wholly below the best control's error."""
    sees_boxes = {"family": "control", "boxes": "test"}
    perfect = replace(a_record("full", 100, facts=sees_boxes), method="perfect", title="Perfect")
    records = [a_record("full", 50), perfect, a_record("casm", 60), a_record("baseline", 45)]
    records.append(a_record("grad", 70))
    cells = {row[0][0]: row[2][0] for row in main(records, rows).rows}
    assert cells["CASM"] == "40.0"  # interval up to 49.8, the control's error is 50
    assert cells["Baseline"] == "55.0‡"
    assert cells["Grad"] == "30.0"
    assert cells["Whole frame"] == "50.0"  # controls are not held against each other


def test_the_caption_says_what_was_measured_on_what(a_record, rows):
    records = [a_record("casm", seed=seed) for seed in range(2)]
    caption = caption_of(records, rows)
    assert "mixed protocols" in caption
    assert "madeup, quick, stub (none): 100 images, seeds 0, 1 (new images for each" in caption
    assert "threshold policy: own, nothing tuned." in caption


def test_the_caption_tells_oracle_thresholds_apart(a_record, rows):
    caption = caption_of([a_record(protocols=("casm", "wsol"))], rows)
    assert "threshold policy: oracle, nothing tuned (wsol)" not in caption
    assert "own, nothing tuned (casm); oracle, best on the evaluated images (wsol)" in caption


def test_a_remark_stands_beside_the_setting_that_it_belongs_to(a_record, rows, tmp_path):
    for recipe, words in {"quick": "Read  with\ncare.", "other": "Not this."}.items():
        folder = tmp_path / "madeup" / recipe
        folder.mkdir(parents=True)
        (folder / "remark.txt").write_text(words)
    table, *_ = make_tables([a_record("casm")], rows, read_remarks(tmp_path))
    (note,) = table.notes.values()
    assert note.endswith("nothing tuned. Read with care.")
    assert "Not this." not in to_markdown([table])


def test_upper_bounds_are_marked_in_every_table(a_record, rows):
    records = [a_record(protocols=("casm", "wsol"), groups={"web": GROUP})]
    table1, sources, *_ = make_tables(records, rows)
    for table in (table1, sources):
        assert "wsol (upper bound)" in [column.title for column in table.columns]
    (table2,) = metric_tables(records)
    lines = [row[0][0] for row in table2.rows]
    for measure in ("LE", "F1", "F1a"):
        assert f"{measure} (casm, %)" in lines
        assert f"{measure} (wsol, upper bound, %)" in lines
    assert "LE wsol (upper bound)" in final_table(records, rows)[0]
    assert "LE wsol" not in final_table(records, rows)[0]


def test_boxes_without_maps_have_no_rule_and_nothing_tuned(a_record, rows):
    oracle = {"policy": "oracle", "tuned_on": "madeup evaluated (the evaluated pictures)"}

    def made(method, **change):
        record = a_record(method, protocols=("casm",), **change)
        renamed = {"casm@oracle": record.protocols["casm"] | oracle}
        return replace(record, protocols=record.protocols | renamed)

    random = replace(made("full", metrics={"mask_mean": 0.5}), method="random", title="Random map")
    policies = make_tables([made("casm"), made("full"), random], rows)[1]
    cells = {row[1][0]: first_lines(row)[4:6] for row in policies.rows}
    assert cells["Whole frame"] == ["–", "–"]
    assert cells["CASM"] == cells["Random map"] == ["quantile, largest", oracle["tuned_on"]]


def test_other_policies_have_a_table_of_their_own(a_record, rows):
    made = a_record("casm", protocols=("casm", "wsol"))
    rule = {"kind": "value", "alpha": 0.35, "component": "largest", "connectivity": 4}
    tuned = made.protocols["casm"] | {"policy": "tuned", "tuned_on": "x held-out"}
    tuned |= {"tuned_images": 5000, "rule": rule | {"empty": "fail"}}
    bound = made.protocols["wsol"] | {"rule": rule | {"empty": "fail"}}
    others = {"casm@tuned": tuned, "casm@oracle": bound}
    table1, policies, *_ = make_tables([replace(made, protocols=made.protocols | others)], rows)
    assert not [column for column in table1.columns if "@" in column.title]
    assert [first_lines(row)[3:6] for row in policies.rows] == [
        ["casm@oracle (upper bound)", "value 0.35, largest", "–"],
        ["casm@tuned", "value 0.35, largest", "x held-out, 5,000 images"],
    ]


def test_subsets_stay_out_of_table_1(a_record, rows):
    """Where there is a record of all images, or where something else was changed as well."""
    grads = [a_record("grad", 30), a_subset(a_record, "grad", 5)]
    casm = a_subset(a_record, "casm", 5)
    changed = replace(casm, variant="n10-0123abcd", config=casm.config | {"strategy": "L"})
    table1, variants, *_ = make_tables([changed, *grads], rows)
    cells = {row[0][0]: row[2] for row in table1.rows}
    assert cells["CASM"] == ("–",)
    assert cells["Grad"][0] == "70.0"
    assert "§" not in table1.caption + variants.caption
    assert variants.label == "variants"
    assert [first_lines(line)[1:] for line in variants.rows] == [
        ["limit=10", "CASM", "50.0", "50.0", "50.0", "10 × 1"],
        ["limit=10", "Grad", "50.0", "50.0", "50.0", "10 × 1"],
    ]


def a_subset(a_record, method, hits, n=10, seed=0, **changes):
    config = a_record().config | {"limit": n}
    pictures = {"data_sha256": f"{n} pictures of seed {seed}"}
    return a_record(
        *(method, hits, n),
        seed=seed,
        variant=f"n{n}",
        config=config,
        provenance=pictures,
        **changes,
    )


def test_a_subset_fills_the_row_of_what_was_not_measured_on_all_images(a_record, rows):
    """Marked, once, and the largest; Grad is slow."""
    usual = [a_record("casm", protocols=("casm",)), a_record("full", 30, protocols=("casm",))]
    slow = [a_subset(a_record, "grad", n // 2, n, protocols=("casm",)) for n in (10, 40, 20)]
    table1, variants = make_tables([*usual, *slow], rows)
    grad = next(row for row in table1.rows if row[0] == ("Grad",))
    assert (grad[2][0], grad[3]) == ("50.0§", ("40 × 1",))  # 70 of the control is of all images
    assert table1.caption.endswith("§: on a seeded subset of 40 of the images only.")
    assert table1.notes["madeup, quick, stub (none)"].startswith("100 images, seed 0;")
    assert [first_lines(row)[1] for row in variants.rows] == ["limit=10", "limit=20"]
    assert r"50.0\S{}" in to_latex([table1])
    (table2,) = metric_tables([*usual, *slow])
    assert [c.title for c in table2.columns] == ["measure", "CASM", "Whole frame", "Grad§"]
    assert {row[0][0]: row[3] for row in table2.rows}["LE (casm, %)"][0] == "50"
    assert table2.caption.endswith("§: on a seeded subset of 40 of the images only.")
    text = with_tables("<!-- table: madeup/quick -->\n<!-- end of table -->", [*usual, *slow], rows)
    assert "| Grad, 40 images | 41.7† | 50.0§ [35.2, 64.8] |" in text
    assert "§: on a seeded subset of 40 of the images only." in text


def test_a_subset_is_held_against_the_controls_of_its_own_pictures(a_record, rows):
    usual = [a_record("full", 30), a_subset(a_record, "grad", 5)]

    def cell(*controls):
        table1 = make_tables([*usual, *controls], rows)[0]
        return next(row[2][0] for row in table1.rows if row[0] == ("Grad",))

    assert cell() == "50.0§"
    assert cell(a_subset(a_record, "full", 6)) == "50.0‡§"
    assert cell(a_subset(a_record, "full", 6, seed=1)) == "50.0§"  # other pictures
    assert cell(a_subset(a_record, "full", 12, 20)) == "50.0§"


def test_sources_of_a_subset_are_marked(a_record, rows):
    slow = a_subset(a_record, "grad", 5, protocols=("casm",), groups={"web": GROUP})
    sources = make_tables([slow], rows)[1]
    assert first_lines(sources.rows[0])[1:] == ["web", "Grad", "20.0§", "40 × 1"]
    assert sources.caption.endswith("§: on a seeded subset of 10 of the images only.")


def test_a_variant_is_held_against_the_usual_controls_of_its_pictures(a_record, rows):
    changed = a_record("casm", 60, variant="0123abcd", config=a_record().config | {"strategy": "L"})
    usual, other = a_record("full", 62), a_record("full", 90, variant="4567cdef")
    variants = make_tables([changed, usual, other], rows)[1]
    errors = {row[2][0]: row[3][0] for row in variants.rows}
    assert errors["CASM"] == "40.0‡"  # up to 49.8; 38 is the control's, 10 of the other one
    assert "carry no mark" not in variants.caption


def test_that_no_control_was_scored_on_the_same_images_is_said(a_record, rows):
    records = [a_record(groups={"classes seen in training": GROUP}), a_record("full", 50)]
    sources = make_tables(records, rows)[1]
    assert "without such a control on the same images carry no mark" in sources.caption


def test_only_a_subset_still_gives_a_table(a_record, rows):
    tables = make_tables([a_record("grad", variant="0123abcd")], rows)
    assert [table.label for table in tables] == ["table1", "variants"]
    assert len(tables[0].columns) == 2


def test_sources_are_listed_apart(a_record, rows):
    sources = make_tables([a_record(protocols=("casm",), groups={"web": GROUP})], rows)[1]
    assert first_lines(sources.rows[0])[1:] == ["web", "CASM", "20.0", "40 × 1"]


def test_every_measure_is_a_mean_over_seeds_with_their_range(a_record):
    records = [a_record("casm", seed=seed) for seed in (0, 1)] + [a_record("full", metrics={})]
    (measures,) = metric_tables(records)
    assert [column.title for column in measures.columns] == ["measure", "CASM", "Whole frame"]
    lines = {row[0][0]: row[1:] for row in measures.rows}
    assert lines["evidence recall"] == [("0.375", "0.25 to 0.5"), ("–",)]
    assert lines["fit seconds"] == [("1.5",), ("1.5",)]
    assert lines["LE (warp, %)"] == [("40‡", "[33.46, 46.92]"), ("40", "[30.94, 49.8]")]
    assert lines["F1a (warp, %)"] == [("45",), ("45",)]


def test_measures_bear_their_usual_names(a_record):
    metrics = {"official_metric (casm)": 61.0, "top5_localization_error (casm)": 55.0}
    (table,) = metric_tables([a_record(metrics=metrics)])
    cells = {row[0][0]: row[1][0] for row in table.rows}
    assert cells["OM, top-1 localization error (casm, %)"] == "61"
    assert cells["top-5 localization error (casm, %)"] == "55"


def test_intervals_of_added_metrics_stand_below_a_single_seed(a_record):
    intervals = {"pointing_game": [40.0, 60.0, "wilson"]}
    added = {"pointing": {"intervals": intervals, "n_images": 100}}
    record = a_record(metrics={"pointing_game": 50.0}, added=added)
    (table,) = metric_tables([record])
    cells = {row[0][0]: row[1] for row in table.rows}
    assert cells["pointing game"] == ("50", "[40, 60]")


def test_what_rests_on_a_part_of_the_images_or_seeds_says_so(a_record, rows):
    intervals = {"pointing_game": [40.0, 60.0, "wilson"]}
    added = {"pointing": {"intervals": intervals, "n_images": 20}}
    metrics = {"pointing_game": 50.0, "pointing_game_15px_class_mean": 60.0}
    few = a_record(metrics=metrics, added=added)
    (table,) = metric_tables([few, a_record(seed=1)])
    cells = {row[0][0]: row[1] for row in table.rows}
    assert cells["pointing game"] == ("50", "[40, 60]", "20 images, seed 0")
    assert cells["pointing game 15px class mean"] == ("60", "20 images, seed 0")
    assert cells["fit seconds"] == ("1.5",)
    lines = {line["metric"]: line for line in csv_lines([few, a_record(seed=1)], rows)}
    assert (lines["pointing_game"]["images"], lines["pointing_game"]["seeds"]) == ("20", "0")
    assert (lines["fit_seconds"]["images"], lines["fit_seconds"]["seeds"]) == ("100", "0 1")


def test_many_methods_are_parted_into_tables_of_one_caption(a_record):
    records = [replace(a_record("grad"), method=f"m{i}", title=f"M{i}") for i in range(10)]
    tables = metric_tables(records)
    assert [table.label for table in tables] == ["table2-madeup-quick-1", "table2-madeup-quick-2"]
    assert [len(table.columns) for table in tables] == [6, 6]
    assert len({table.caption for table in tables}) == 1


# --- formats ----------------------------------------------------------------------------------


def test_latex_is_escaped_and_balanced(a_record, rows):
    records = [a_record(method) for method in ("casm", "novel", "full")]
    text = to_latex([main(records, rows)])
    assert r"Novel\_100\% & -- &" in text
    assert r"41.7\dag{}" in text
    assert r"\multicolumn{5}{c}{madeup, quick, stub (none)}" in text
    assert r"\cmidrule(lr){3-7}" in text
    assert r"\shortstack[r]{40.0\ddag{}\\{\tiny [30.9, 49.8]}}" in text
    assert text.count("{") == text.count("}")
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    assert text.isascii()
    assert {line.count("&") for line in body.splitlines() if line.startswith("CASM")} == {6}
    assert body.count(r"\midrule") == 2


def test_latex_gives_each_setting_a_float_that_fits_a_page(a_record, rows):
    """Without rows of dashes alone; 31 columns side by side fit nowhere."""
    elsewhere = a_record("grad", data="another", protocols=("casm", "wsol"))
    text = to_latex([main([a_record("casm"), elsewhere, a_record("full")], rows)])
    first, second = text.split(r"\end{table*}")[:2]
    assert text.count(r"\begin{tabular}") == text.count(r"\begin{table*}") == 2
    assert r"\label{tab:table1}" in first
    assert "another, quick, stub (none): 100 images, seed 0;" in first
    assert "Table~\\ref{tab:table1} continued. madeup, quick, stub (none): 100 images" in second
    assert r"\label{tab:table1-2}" in second
    assert r"\shortstack[r]{wsol\\(upper\\bound)}" in first
    assert "CASM & 36.1 & -- & -- & -- & --" in first  # its published figure stands everywhere
    assert "CASM & 36.1 & \\shortstack" in second
    assert r"{\tiny data, network,}\\{\tiny recipe}" in second
    assert "Whole frame" not in first


def test_latex_goes_on_in_the_next_float_where_a_page_ends():
    columns = [Column("measure"), Column("[x]")]
    short = [[(f"[row {i}",), ("1",)] for i in range(92)]
    parts = to_latex([Table("t", "C.", columns, short, rule_before=50)]).split(r"\end{table*}")[:-1]
    assert [part.count("row") for part in parts] == [46, 46]
    assert [part.count(r"\midrule") for part in parts] == [1, 2]
    assert "{[row 1} & 1" in parts[0]  # else it would be an option of the line break before it
    assert "measure & {[x]}" in parts[0]
    high = [[(f"row {i}",), ("1", "[0, 2]", "seeds 0 to 2")] for i in range(37)]
    parts = to_latex([Table("t", "C.", columns, high)]).split(r"\end{table*}")[:-1]
    assert [part.count("row") for part in parts] == [18, 18, 1]  # 1 + 2 * 0.75 each


def test_markdown_has_as_many_cells_in_every_line(a_record, rows):
    records = [a_record("casm", title="A|B"), a_record("full")]
    text = to_markdown([main(records, rows)])
    lines = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {8}
    assert r"| A\|B | 36.1 | 40.0‡<br>[30.9, 49.8] |" in text
    assert text.index("*controls*") < text.index("Whole frame")


def csv_lines(records, rows):
    return list(csv.DictReader(io.StringIO(to_csv(records, rows))))


def test_the_long_csv_has_a_line_per_number(a_record, rows):
    records = [a_record("casm", hits, seed=seed) for seed, hits in enumerate((60, 70))]
    lines = csv_lines(records, rows)
    assert tuple(lines[0]) == CSV_COLUMNS
    printed = [line for line in lines if line["kind"] == "published"]
    assert [float(line["value"]) for line in printed] == [row.value for row in rows.values()]
    (warp,) = [line for line in lines if line["protocol"] == "warp" and line["kind"] == "measured"]
    assert (warp["value"], warp["lowest_seed"], warp["highest_seed"]) == (
        *("35.0000", "30.0000", "40.0000"),
    )
    assert (warp["images"], warp["seeds"], warp["published"]) == ("100", "0 1", "36.1")
    assert float(warp["low"]) < 35 < float(warp["high"])
    (recall,) = [line for line in lines if line["metric"] == "evidence_recall"]
    assert recall["value"] == "0.375"
    (f1a,) = [line for line in lines if line["metric"] == "f1_mean (warp, %)"]
    assert (f1a["value"], f1a["policy"]) == ("45", "own")


# --- after a run ------------------------------------------------------------------------------


def test_the_final_table_has_a_line_per_method(a_record, rows):
    records = [a_record("casm", 64, seed=seed) for seed in (0, 1)] + [a_record("full", 30)]
    casm, full = final_table(records, rows)
    assert casm == {
        "method": "CASM",
        **dict.fromkeys(("LE casm", "LE casm-clipped", "LE warp"), "36.0 [29.7, 42.9]"),
        "published": "36.1",
        "images × seeds": "100 × 2",
        "seconds": "4.0",
        "peak MB": "1,201",
    }
    assert (full["method"], full["published"]) == ("Whole frame", "–")
    assert full.keys() == casm.keys()


def test_the_final_table_takes_what_costs_are_known(a_record, rows):
    (line,) = final_table([a_record(cost={"map_seconds": 0.25, "peak_memory_mb": None})], rows)
    assert (line["seconds"], line["peak MB"]) == ("0.2", "–")


@pytest.mark.parametrize("method", ["casm", "grad", "novel", "full"])
def test_subsets_appear_in_the_final_table_of_their_own_run(a_record, rows, method):
    (line,) = final_table([a_record(method, 5, 10, variant="0123abcd")], rows)
    assert line["LE casm"].startswith("50.0 [")
    assert line["images × seeds"] == "10 × 1"


def test_markdown_gives_each_setting_a_table_without_empty_rows():
    columns = [Column("method"), Column("published"), Column("LE", "one"), Column("LE", "two")]
    lines = ("A 36.1 40.0 –", "B – – 50.0", "frame – 60.0 –")
    rows = [[(cell,) for cell in line.split()] for line in lines]
    notes = {"one": "100 images."}
    assert to_markdown([Table("t", "Caption.", columns, rows, 2, notes)]) == (
        "Caption.\n\n"
        "**one** 100 images.\n\n| method | published | LE |\n|---|---|---|\n| A | 36.1 | 40.0 |\n"
        "| *controls* |  |  |\n| frame | – | 60.0 |\n\n"
        "**two**\n\n| method | published | LE |\n|---|---|---|\n| A | 36.1 | – |\n"
        "| B | – | 50.0 |\n"
    )


def test_marks_stand_in_every_table_of_errors(a_record, rows):
    """Sources, variants, policies, and what a run prints: each row beside its own controls."""
    change = {"variant": "0123abcd", "config": a_record().config | {"limit": 10}}

    def made(method, hits, **other):
        source = {"web": {**GROUP, "localization_error": 100.0 - hits, "interval": [0, 100]}}
        record = a_record(method, hits, protocols=("casm",), groups=source, **other)
        renamed = record.protocols["casm"] | {"groups": {}}
        return replace(record, protocols=record.protocols | {"casm@oracle": renamed})

    usual = [made("full", 50), made("casm", 45)]
    records = [*usual, made("full", 70, **change), made("casm", 65, **change)]
    records.append(made("grad", 90, **change))
    tables = {table.label: table for table in make_tables(records, rows)}
    (table2,) = metric_tables(records)
    assert {row[0][0]: row[1:] for row in table2.rows}["LE (casm, %)"][1][0] == "55‡"
    assert "‡: the interval reaches" in table2.caption
    for label in ("sources", "variants", "policies"):
        assert "‡: the interval reaches" in tables[label].caption
        marked = {row[0] for row in map(first_lines, tables[label].rows) if "‡" in "".join(row)}
        assert marked == {"madeup, quick, stub (none)"}
    errors = {(row[1][0], row[2][0]): row[3][0] for row in tables["variants"].rows}
    assert errors["limit=10", "Grad"] == "10.0"
    assert errors["limit=10", "CASM"] == "35.0‡"  # against 30 of its own subset's control
    assert errors["limit=10", "Whole frame"] == "30.0"
    printed = {line["method"]: line["LE casm"] for line in final_table(usual, rows)}
    assert printed["CASM"].startswith("55.0‡ [")
    assert "‡" not in printed["Whole frame"]


def test_measures_over_seeds_carry_intervals(a_record):
    """One seed: the record's own. Several with images of their own: distances add as errors."""

    def made(seed):
        record = a_record("casm", seed=seed, protocols=("casm",))
        result = record.protocols["casm"] | {"f1_interval": [47, 54, "bca"]}
        intervals = {"pointing_game": [76, 83, "wilson"]}
        added = {"pointing": {"intervals": intervals, "n_images": 100}}
        metrics = record.metrics | {"pointing_game": 80.0, "masked_out_accuracy": 20.0}
        return replace(record, protocols={"casm": result}, added=added, metrics=metrics)

    def cells(records):
        (table,) = metric_tables(records)
        assert "95 % interval over images" in table.caption
        return {row[0][0]: row[1] for row in table.rows}

    one = cells([made(0)])
    assert one["pointing game"] == ("80", "[76, 83]")
    assert one["F1 (casm, %)"] == ("50", "[47, 54]")
    assert one["masked out accuracy"] == ("20", "[13.34, 28.88]")  # Wilson of 20 in 100
    assert one["evidence recall"] == ("0.25",)  # its values per image are not kept
    four = cells([made(seed) for seed in range(4)])
    assert four["pointing game"] == ("80", "[78, 81.5]")
