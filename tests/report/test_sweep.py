"""Sweeps are found by settings alone, keep seeds together, and stay out of Table 1's listings."""

from __future__ import annotations

import csv
import io

import pytest

from casm_bench.report.drawing import drawn_alike, render
from casm_bench.report.measured import measurements
from casm_bench.report.paper import write_paper
from casm_bench.report.sweep import (
    equal_area_table,
    find_sweeps,
    sweep_csv,
    sweep_figure,
    sweep_table,
)
from casm_bench.statistics import error_interval

STRENGTHS = (0.02, 0.05, 0.08)
HITS = {"casm": (10, 60, 90), "baseline": (20, 50, 80)}


@pytest.fixture
def swept(a_record):
    """Two methods, three strengths, two seeds, with digests as drawn pictures have them."""

    def variant(method: str, place: int, seed: int):
        config = {
            "classifier": "stub",
            "data_options": {"size": 64, "stripes": STRENGTHS[place]},
            "hyperparameters": {"epochs": 6, "seed": seed},
            "fit": {"train_digest": f"{place} {seed}"},
        }
        return a_record(
            method,
            HITS[method][place] + seed,
            seed=seed,
            variant=f"0000000{place}",
            config=config,
            metrics={"evidence_recall_object": 10.0 * place + seed, "mask_mean": 0.125},
        )

    return [variant(m, p, s) for m in HITS for p in reversed(range(3)) for s in (0, 2)]


def test_a_sweep_is_found_with_seeds_together_and_values_rising(swept, a_record):
    (sweep,) = find_sweeps([a_record(), *swept])
    assert (sweep.name, sweep.setting) == ("cue-strength", "data_options.stripes")
    assert [[p.value for p in curve] for curve in sweep.curves] == [list(STRENGTHS)] * 2
    assert [[r.seed for r in p.records] for p in sweep.curves[0]] == [[0, 2]] * 3
    assert len(sweep.records()) == len(swept)


def test_the_error_is_the_mean_over_seeds_on_all_their_images(swept):
    (sweep,) = find_sweeps(swept)
    middle = sweep.curves[0][1].error  # 60 and 62 hits of 100
    assert middle.value == pytest.approx(39.0)
    assert (middle.low, middle.high) == pytest.approx(error_interval(122, 200))


def test_two_values_are_no_sweep_and_neither_are_unlike_variants(swept):
    assert not find_sweeps([r for r in swept if not r.variant.endswith("2")])
    for record in swept:
        record.config["hyperparameters"]["epochs"] += int(record.variant)
    assert not find_sweeps(swept)


def test_any_hyperparameter_may_be_swept(swept):
    for record in swept:
        record.config["hyperparameters"]["epochs"] += int(record.variant)
        record.config["data_options"]["stripes"] = 0.05
    (sweep,) = find_sweeps(swept)
    assert (sweep.name, sweep.quantity) == ("sweep-epochs", "epochs")


def test_the_table_says_what_was_measured(swept):
    (sweep,) = find_sweeps(swept)
    table = sweep_table(sweep)
    titles = [column.title for column in table.columns]
    assert titles[:4] == ["contrast of the stripes", "method", "LE, %", "recall object, %"]
    assert [row[0][0] for row in table.rows] == ["0.02", "0.02", "0.05", "0.05", "0.08", "0.08"]
    first = dict(zip(titles, table.rows[0], strict=True))
    assert first["LE, %"][0] == "89.0" and first["LE, %"][2] == "seeds 88.0 to 90.0"
    assert first["recall object, %"] == ("1.0", "0.0 to 2.0")
    assert first["images × seeds"] == ("100 × 2",)


def test_controls_of_the_same_pictures_stand_below_and_mark_what_does_not_beat_them(
    swept_pictures, a_record
):
    (sweep,) = find_sweeps(swept_pictures)
    config = {"classifier": "stub", "weights": None, "limit": None}
    other = {"data_sha256": "other pictures"}
    controls = [a_record("full", 60, config=config), a_record("full", 90, seed=9, provenance=other)]
    found = measurements([*swept_pictures, controls[0]], {})
    table = sweep_table(sweep, found)
    errors = {(row[0][0], row[1][0]): row[2][0] for row in table.rows}
    assert errors["10", "CASM"] == "80.0‡"
    assert errors["all", "CASM"] == "30.0"  # up to 39.6; the control has 40
    assert errors["–", "Whole frame"] == "40.0"
    assert table.rule_before == 6
    assert "carry no mark" not in table.caption
    alone = sweep_table(sweep, measurements([*swept_pictures, controls[1]], {}))
    assert len(alone.rows) == 6
    assert "carry no mark" in alone.caption


def test_the_csv_holds_every_number(swept):
    (sweep,) = find_sweeps(swept)
    lines = list(csv.DictReader(io.StringIO(sweep_csv(sweep))))
    assert len(lines) == 2 * 3 * 3  # methods, strengths, measures
    last = [line for line in lines if line["title"] == "Baseline" and line["value"] == "0.08"]
    assert {line["metric"]: float(line["mean"]) for line in last} == {
        "localization_error": 19.0,
        "evidence_recall_object": 21.0,
        "mask_mean": 0.125,
    }


def test_the_figure_shows_means_and_seeds_and_is_the_same_bytes_each_time(swept):
    (sweep,) = find_sweeps(swept)
    with drawn_alike():
        figure = sweep_figure(sweep)
        errors, recalls = figure.axes
        mean, seeds = errors.lines[:2]
        assert list(mean.get_ydata()) == pytest.approx([89, 39, 9])
        assert list(seeds.get_ydata()) == pytest.approx([90, 88, 40, 38, 10, 8])
        assert list(recalls.lines[0].get_ydata()) == pytest.approx([1, 11, 21])
        assert len({line.get_linestyle() for line in errors.lines[::2]}) == 2
        for kind in ("pdf", "png"):
            assert render(sweep_figure(sweep), kind) == render(sweep_figure(sweep), kind)


@pytest.fixture
def swept_size(a_record):
    """λ_r of two methods: errors and mask areas that fall, at other values each."""
    areas = {"casm": (0.8, 0.6, 0.2), "baseline": (0.65, 0.45, 0.3)}
    hits = {"casm": (50, 70, 30), "baseline": (50, 60, 45)}
    return [
        a_record(
            method,
            hits[method][place],
            variant=f"0000000{place}",
            config={"classifier": "stub", "hyperparameters": {"lambda_r": 2.0 + place}},
            metrics={"mask_mean": areas[method][place]},
        )
        for method in areas
        for place in range(3)
    ]


def test_errors_at_equal_area_are_interpolated_where_all_methods_reach_it(swept_size):
    (sweep,) = find_sweeps(swept_size)
    assert (sweep.name, sweep.beside) == ("lambda-r", "mask_mean")
    table = equal_area_table(sweep)
    assert [column.title for column in table.columns] == ["mask area", "CASM", "Baseline"]
    found = {row[0][0]: (row[1][0], row[2][0]) for row in table.rows}
    assert list(found) == ["0.30", "0.35", "0.40", "0.45", "0.50", "0.55", "0.60", "0.65"]
    # CASM: 70 at 0.2 and 30 at 0.6, so 50 at 0.4; Baseline: 55 at 0.3 and 40 at 0.45, so 45.
    assert found["0.40"] == ("50.0", "45.0")


def test_what_a_run_found_by_searching_is_one_more_value(swept_size, a_record):
    config = swept_size[0].config | {"hyperparameters": {"lambda_r": "search"}}
    config["protocols"] = ["casm", "fong"]
    method, seed = swept_size[0].method, swept_size[0].seed
    found = a_record(method, 40, seed=seed, config=config, findings={"lambda_r": 17.5})
    (before,), (sweep,) = find_sweeps(swept_size), find_sweeps([*swept_size, found])
    values = [[point.value for point in curve] for curve in before.curves]
    grown = [[point.value for point in curve] for curve in sweep.curves]
    assert grown == [sorted([*values[0], 17.5]), *values[1:]]
    assert sweep.curves[0][grown[0].index(17.5)].records == [found]


def test_a_value_that_was_given_and_found_as_well_is_one_run_with_one_area(swept_size, a_record):
    given = swept_size[0]
    config = given.config | {"hyperparameters": {"lambda_r": "search"}}
    found = a_record(
        given.method, 90, config=config, findings={"lambda_r": 2.0}, metrics={"mask_mean": 0.1}
    )
    (before,), (sweep,) = find_sweeps(swept_size), find_sweeps([*swept_size, found])
    assert sweep == before


def test_methods_whose_areas_never_meet_are_not_compared(swept_size):
    for record in swept_size:
        if record.method == "casm":
            record.metrics["mask_mean"] += 1
    (sweep,) = find_sweeps(swept_size)
    assert equal_area_table(sweep) is None
    assert equal_area_table(find_sweeps(swept_size[:3])[0]) is None


def test_equal_areas_of_other_pictures_are_not_compared(swept):
    for record in swept:
        record.metrics["mask_mean"] = 0.1 * record.config["data_options"]["stripes"] / 0.02
    (sweep,) = find_sweeps(swept)
    assert equal_area_table(sweep) is None


def test_the_size_sweep_is_drawn_over_mask_area(swept_size):
    (sweep,) = find_sweeps(swept_size)
    with drawn_alike():
        _, areas = sweep_figure(sweep).axes
    assert list(areas.lines[0].get_ydata()) == pytest.approx([0.8, 0.6, 0.2])
    assert areas.get_ylabel() == "mask area (share of the frame)"


def test_settings_that_are_no_numbers_make_no_sweep(a_record):
    def record(taps, variant):
        config = {"classifier": "stub", "hyperparameters": {"taps": taps}}
        return a_record("casm", 60, variant=variant, config=config)

    records = [record(taps, f"{i:08d}") for i, taps in enumerate(([3, 4], [2, 3, 4], [4]))]
    assert find_sweeps(records) == []


@pytest.fixture
def swept_pictures(a_record):
    """Ten and a hundred pictures per class with seed 0, all of them with seeds 0 to 2."""

    def record(method, hits, seed, few):
        fit = {"train_digest": f"{seed}"} | ({"images_per_class": few} if few else {})
        config = {"classifier": "stub", "hyperparameters": {"seed": seed}, "fit": fit}
        variant = f"{few:08d}" if few else ""
        return a_record(method, hits, seed=seed, variant=variant, config=config)

    hits = {"casm": (20, 40, 70), "baseline": (30, 35, 50)}
    few = [record(m, hits[m][i], 0, n) for m in hits for i, n in enumerate((10, 100))]
    return [*few, *(record(m, hits[m][2] + 10 * s, s, None) for m in hits for s in range(3))]


def test_all_pictures_are_the_recipes_own_records_of_the_swept_seeds(swept_pictures):
    (sweep,) = find_sweeps(swept_pictures)
    assert (sweep.name, sweep.quantity) == ("images-per-class", "training images per class")
    values = [[(p.value, [r.seed for r in p.records]) for p in c] for c in sweep.curves]
    assert values == [[(10, [0]), (100, [0]), (float("inf"), [0])]] * 2
    table = sweep_table(sweep)
    cells = [(row[0][0], row[1][0], row[2][0]) for row in table.rows]
    assert cells == [
        ("10", "CASM", "80.0"),
        ("10", "Baseline", "70.0"),
        ("100", "CASM", "60.0"),
        ("100", "Baseline", "65.0"),
        ("all", "CASM", "30.0"),
        ("all", "Baseline", "50.0"),
    ]
    assert {line["value"] for line in csv.DictReader(io.StringIO(sweep_csv(sweep)))} == {
        *("10", "100", "all")
    }
    assert equal_area_table(sweep) is None


def test_all_pictures_are_drawn_one_step_after_the_most(swept_pictures):
    (sweep,) = find_sweeps(swept_pictures)
    with drawn_alike():
        errors, _ = sweep_figure(sweep).axes
    assert list(errors.lines[0].get_xdata()) == [0, 1, 2]
    assert list(errors.lines[0].get_ydata()) == pytest.approx([80, 60, 30])
    assert [label.get_text() for label in errors.get_xticklabels()] == ["10", "100", "all"]


def test_without_few_pictures_the_recipes_records_are_no_sweep(swept_pictures):
    assert not find_sweeps([record for record in swept_pictures if not record.variant])
    assert not find_sweeps([record for record in swept_pictures if record.variant])


def test_all_pictures_stay_in_table_1(swept_pictures, save, tmp_path):
    save(tmp_path / "results", swept_pictures)
    write_paper(tmp_path / "results", tmp_path)
    table1 = (tmp_path / "generated/table1.md").read_text()
    assert "100 × 3" in table1 and "Subsets and variants" not in table1
    assert "| all |" in (tmp_path / "generated/images-per-class.md").read_text()


def test_the_paper_has_the_sweep_in_files_of_its_own(swept, save, a_record, tmp_path):
    results = tmp_path / "results"
    save(results, [a_record(), *swept])
    written = {path.name for path in write_paper(results, tmp_path)}
    assert {f"cue-strength.{kind}" for kind in ("md", "csv", "pdf", "png")} <= written
    assert "Subsets and variants" not in (tmp_path / "generated/table1.md").read_text()
    for record in swept:
        record.path(results).unlink()
    write_paper(results, tmp_path, drop_missing=True)
    assert not list((tmp_path / "generated").glob("cue-strength*"))
