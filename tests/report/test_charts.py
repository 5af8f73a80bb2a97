"""Charts hold what the records say, all series on one axis."""

from __future__ import annotations

from casm_bench.report.charts import charts


def epochs(*losses, start=1):
    return [{"epoch": start + i, "loss": loss, "seconds": 1.0} for i, loss in enumerate(losses)]


def added(x, y):
    edges = {"low": y, "high": y}
    return {"randomized-weights": {"curves": {"ssim, cascading": {"x": x, "y": y} | edges}}}


def test_seeds_share_an_axis_and_gaps_stay_empty(a_record):
    records = [a_record(training=epochs(3.0, 2.0)), a_record(seed=1, training=epochs(1.0, start=2))]
    (chart,) = charts(records)
    assert chart == {
        "title": "loss",
        "axis": "epoch",
        "x": [1, 2],
        "series": [{"label": "seed 0", "y": [3.0, 2.0]}, {"label": "seed 1", "y": [None, 1.0]}],
    }


def test_stages_keep_their_order_and_names(a_record):
    record = a_record(added=added(["logits", "layer4"], [0.9, 0.1]))
    (chart,) = charts([record])
    assert (chart["x"], chart["stages"]) == ([0, 1], ["logits", "layer4"])
    assert chart["series"] == [{"label": "seed 0", "y": [0.9, 0.1]}]


def test_what_is_no_number_makes_no_chart(a_record):
    assert charts([a_record(training=[{"epoch": 1, "note": "text", "seconds": 2.0}])]) == []
    assert charts([a_record()]) == []
