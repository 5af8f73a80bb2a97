"""Figures made from records: points lie where they were measured, and bytes never change."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casm_bench.records import per_image_table, save_record
from casm_bench.report.added import added_curves, added_figure
from casm_bench.report.cost import cost_figure, priced
from casm_bench.report.drawing import (
    TEXT_WIDTH,
    Curve,
    apart,
    curve_grid,
    drawn_alike,
    look,
    render,
)
from casm_bench.report.evidence import evidence, evidence_figure
from casm_bench.report.localization import error_figure, shift_figure, shifts
from casm_bench.report.measured import measurements
from casm_bench.statistics import Estimate

ROOT = Path(__file__).resolve().parents[2]
LOOKS = 28  # told apart without colour


@pytest.fixture(autouse=True)
def as_in_the_paper():
    with drawn_alike():
        yield


def columns(figure):
    """By title of a panel: where each row has its mark ("o", hollow "d") and its bar."""
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    return {axes.get_title(): dict(_marks(axes, rows)) for axes in figure.axes}


def _marks(axes, rows):
    for line in axes.lines:
        x, y = map(list, line.get_data())
        if len(x) == 1:
            yield (rows[int(y[0])], line.get_marker()), x[0]
        elif y[0] == y[1] and y[0] % 1 == 0:  # the rule above controls lies between rows
            yield (rows[int(y[0])], "bar"), tuple(x)


# --- localization errors ----------------------------------------------------------------------


def test_points_and_intervals_lie_where_they_were_measured(a_record, rows):
    records = [a_record("casm", 64), a_record("full", 30, protocols=("casm",))]
    found = measurements(records, rows)
    drawn = columns(error_figure(found))
    assert list(drawn) == ["casm", "casm-clipped", "warp"]
    assert drawn["casm"]["CASM", "o"] == pytest.approx(36)
    assert drawn["casm"]["CASM", "d"] == 36.1  # published, hollow
    assert drawn["casm"]["Whole frame", "o"] == pytest.approx(70)
    casm = next(m for m in found if (m.method, m.protocol) == ("casm", "warp"))
    assert drawn["warp"]["CASM", "bar"] == (casm.error.low, casm.error.high)
    assert ("Whole frame", "o") not in drawn["warp"]
    assert ("CASM", "d") not in drawn["warp"]


def test_upper_bounds_are_marked(a_record, rows):
    found = measurements([a_record(protocols=("casm", "warp", "wsol"))], rows)
    titles = [axes.get_title() for axes in error_figure(found).axes]
    assert titles == ["casm", "warp", "wsol \n(upper bound)"]


def scored(hits):
    """Scores of four images under two protocols."""
    names = ["d", "b", "c", "a"] * 2
    columns = {"name": names, "label": [0] * 8, "group": [None] * 8}
    columns |= {"protocol": ["casm"] * 4 + ["warp"] * 4, "hit": hits}
    columns |= dict.fromkeys(("x0", "y0", "x1", "y1"), [1] * 8)
    return per_image_table(columns | dict.fromkeys(("iou", "f1", "f1_mean"), [0.5] * 8))


def test_shifts_are_paired_by_image(tmp_path, a_record):
    """Of four images one is hit under casm, three under warp: 50 points less error."""
    record = a_record("casm", 1, 4, protocols=("casm", "warp"))
    hits = [True, False, False, False, True, True, True, False]
    record = save_record(record, tmp_path, scored(hits))
    (dot,) = shifts([("CASM", [record])], tmp_path)
    assert (dot.row, dot.column, dot.value) == ("CASM", "warp", -50)
    assert dot.low < -50 < dot.high


def test_no_figure_where_no_protocol_changes_anything(tmp_path, a_record):
    record = a_record("casm", 1, 4, protocols=("casm", "warp"))
    record = save_record(record, tmp_path, scored([True, False] * 4))
    dots = list(shifts([("CASM", [record])], tmp_path))
    assert [dot.value for dot in dots] == [0]
    assert shift_figure(dots) is None


# --- cost and evidence ------------------------------------------------------------------------


def test_seconds_per_map_and_training(a_record):
    def with_cost(speed, fitting, **more):
        return a_record(cost={"images_per_second": speed, "fit_seconds": fitting}, **more)

    estimate = Estimate(30.0, 25.0, 35.0, 100, 1, 30.0, 30.0, False)
    masker = priced([with_cost(10.0, 90.0), with_cost(5.0, 150.0, seed=1)], estimate)
    assert (masker.seconds, masker.fitting) == (pytest.approx(0.15), 120)
    grad = priced([a_record("grad", cost={"images_per_second": 2.0})], estimate)
    figure = cost_figure([masker, grad])
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == ["CASM (+ 2 min)", "Grad"]
    assert priced([a_record()], estimate) is None  # says nothing about its speed


def test_evidence_is_mean_and_range_over_seeds(a_record):
    def found(seed, recall):
        metrics = {"evidence_recall_spot": recall, "evidence_precision": 40.0, "mask_mean": 0.1}
        return a_record(seed=seed, metrics=metrics)

    dots = list(evidence([found(0, 20.0), found(1, 30.0)]))
    drawn = columns(evidence_figure(dots))
    assert list(drawn) == ["recall, spot", "precision"]
    assert drawn["recall, spot"]["CASM", "o"] == 25
    assert drawn["recall, spot"]["CASM", "bar"] == (20, 30)


# --- curves that were added -------------------------------------------------------------------


def with_curve(record, y, x=(0.0, 0.5, 1.0)):
    edges = {"low": [v - 0.1 for v in y], "high": [v + 0.1 for v in y]}
    curves = {"insertion": {"x": list(x), "y": list(y)} | edges}
    return replace(record, added={"insertion-deletion": {"curves": curves}})


def test_one_seed_has_its_interval_and_several_their_range(a_record):
    one = with_curve(a_record(), (0.1, 0.5, 0.9))
    (curve,) = added_curves("insertion-deletion", [one])
    assert curve.low == pytest.approx([0.0, 0.4, 0.8])
    other = with_curve(a_record(seed=1), (0.3, 0.7, 0.9))
    (curve,) = added_curves("insertion-deletion", [one, other])
    assert list(curve.y) == pytest.approx([0.2, 0.6, 0.9])
    assert (list(curve.low), list(curve.high)) == ([0.1, 0.5, 0.9], [0.3, 0.7, 0.9])


def test_curves_that_cannot_be_joined_are_left_out(a_record):
    one = with_curve(a_record(), (0.1, 0.5, 0.9))
    other = with_curve(a_record(seed=1), (0.3, 0.7, 0.9), x=(0.0, 0.4, 1.0))
    assert not list(added_curves("insertion-deletion", [one, other]))
    assert not list(added_curves("insertion-deletion", [one, a_record(seed=1)]))
    assert not list(added_curves("randomized-weights", [one]))


def test_controls_are_grey_in_every_column(a_record):
    records = [with_curve(a_record(method), (0.1, 0.2, 0.3)) for method in ("casm", "grad", "full")]
    curves = [c for record in records for c in added_curves("insertion-deletion", [record])]
    figure = added_figure("insertion-deletion", curves)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["trained masker", "gradient"]
    for axes in panels:
        assert axes.lines[0].get_label() == "Whole frame"
        assert axes.lines[0].get_color() == "0.6"
    alone = added_figure("insertion-deletion", curves[2:])
    assert [axes.get_title() for axes in alone.axes if axes.axison] == ["control"]


def test_a_curve_without_the_first_stage_stands_at_its_own():
    """The random map has no masker that could be randomized."""
    stages = ["masker", "logits", "stem"]
    curves = [
        Curve(name, "spearman", column, x, y, y, y)
        for name, column, x, y in (
            ("Random map", "control", stages[1:], [1.0, 1.0]),
            ("CASM", "trained masker", stages, [0.1, 0.9, 0.0]),
        )
    ]
    axes = curve_grid(curves, "", "", reference="control").axes[0]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert drawn == {"Random map": [1, 2], "CASM": [0, 1, 2]}
    assert [text.get_text() for text in axes.get_xticklabels()] == stages


def test_stages_are_named_along_the_axis(a_record):
    record = with_curve(a_record(), (0.9, 0.5, 0.1), x=("logits", "layer4", "layer3"))
    curves = list(added_curves("insertion-deletion", [record]))
    axes = added_figure("randomized-weights", curves).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["logits", "layer4", "layer3"]


# --- how they are drawn -----------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), max_size=12))
def test_names_keep_their_order_and_distance(values):
    places = apart(values, 5.0, 0.0, 100.0)
    assert all(-1e-9 <= place <= 100 for place in places)
    ordered = [place for _, place in sorted(zip(values, places, strict=True), reverse=True)]
    gaps = -np.diff(sorted(ordered, reverse=True))
    assert (gaps >= 5 - 1e-9).all()


def test_looks_differ_without_colour():
    looks = [look(number) for number in range(LOOKS)]
    assert len({(one["marker"], one["linestyle"]) for one in looks}) == LOOKS


def test_figures_are_as_wide_as_the_text(a_record, rows):
    assert error_figure(measurements([a_record()], rows)).get_figwidth() == TEXT_WIDTH


# --- the same bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_a_matplotlibrc_changes_nothing(a_record, rows, kind):
    found = measurements([a_record()], rows)
    usual = render(error_figure(found), kind)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}), drawn_alike():
        assert render(error_figure(found), kind) == usual


SCRIPT = """
import sys
from pathlib import Path
from casm_bench.report.paper import write_paper
write_paper(Path(sys.argv[1]), Path(sys.argv[2]))
assert "torch" not in sys.modules
"""


def test_another_process_at_another_time_writes_the_same_bytes(saved, tmp_path):
    """Hash seeds, dates and SOURCE_DATE_EPOCH must leave no trace; and torch is not needed."""
    for name, hash_seed, epoch in (("one", "1", "0"), ("two", "2", "1700000000")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "SOURCE_DATE_EPOCH": epoch}
        command = [sys.executable, "-c", SCRIPT, str(saved), str(tmp_path / name)]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    written = sorted(path.name for path in (tmp_path / "one" / "generated").iterdir())
    assert written == [
        *("comparisons.csv", "comparisons.md"),
        *("figure1.pdf", "figure1.png", "le-madeup-quick.pdf", "le-madeup-quick.png"),
        *(
            "methods.md",
            "records.csv",
            "table1.csv",
            "table1.md",
            "table1.tex",
            "table2.md",
            "table2.tex",
        ),
        *("verdicts.csv", "verdicts.md"),
    ]
    for name in written:
        one, two = (tmp_path / run / "generated" / name for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name
