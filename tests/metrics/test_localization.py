"""LE, OM and F1: golden values, and F1 by painting every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casm_bench.data.dataset import Dataset
from casm_bench.errors import WorkError
from casm_bench.metrics.localization import (
    box_f1,
    continuous_f1,
    localization_error,
    map_f1,
    score_boxes,
    true_boxes,
)
from casm_bench.metrics.overlap import visible_truth
from casm_bench.protocols import CASM, PROTOCOLS


def dataset(*boxes, sizes=None) -> Dataset:
    """Pictures with these boxes; sizes default to 224×224, where no frame changes anything."""
    count = len(boxes)
    return Dataset(
        name="made-up",
        split="evaluated",
        classes=["thing"],
        names=[f"picture-{i}" for i in range(count)],
        labels_N=np.zeros(count, np.int64),
        sizes_N2=np.array(sizes or [(224, 224)] * count, np.int64).reshape(-1, 2),
        boxes=[np.array(of_one, np.float64).reshape(-1, 4) for of_one in boxes],
    )


def filled(x0, y0, x1, y1) -> np.ndarray:
    map_HW = np.zeros((224, 224))
    map_HW[y0:y1, x0:x1] = 1
    return map_HW


# True box x0 y0 x1 y1, predicted box (half-open), F1 of that box as a map: official CASM scorer.
OFFICIAL_F1 = [
    ((50, 60, 150, 160), (50, 60, 150, 160), 0.99999949995025),
    ((0, 0, 100, 100), (50, 0, 150, 100), 0.49999949997550003),
    ((0, 0, 100, 101), (0, 0, 200, 100), 0.6644513813095564),
    ((0, 0, 100, 100), (0, 0, 199, 100), 0.6688958758629825),
    ((-100, 0, 100, 200), (0, 0, 100, 200), 0.6666662222114075),
    ((20, 30, 200, 220), (33, 33, 191, 191), 0.8438910678466903),
    ((-150, 0, 200, 224), (0, 0, 200, 224), 0.7272722644572013),
    ((100, 20, 260, 220), (100, 20, 224, 220), 0.8732389446387417),
    ((224, 10, 260, 100), (0, 0, 224, 224), 0.0),
    ((20, 30, 200, 220), (0, 0, 0, 0), 0.0),
]


@pytest.mark.parametrize(("truth", "pred", "expected"), OFFICIAL_F1)
def test_f1_equals_the_official_scorer(truth, pred, expected):
    assert continuous_f1(filled(*pred), np.array([truth]), CASM) == pytest.approx(
        (expected, expected), abs=1e-12
    )
    of_boxes = box_f1([pred], true_boxes(dataset([truth]), CASM, 224))
    assert np.ravel(of_boxes) == pytest.approx(expected, abs=1e-12)


def test_f1_of_a_continuous_map_equals_the_official_scorer():
    yy, xx = np.mgrid[:224, :224]
    map_HW = np.exp(-((yy - 100) ** 2 + (xx - 120) ** 2) / 1800.0)
    found = continuous_f1(map_HW, np.array([(60, 40, 180, 160)]), CASM)
    assert found == pytest.approx((0.5138725166749979,) * 2, abs=1e-12)


def slow_f1(map_HW, truth, protocol) -> float:
    x0, y0, x1, y1 = truth
    if protocol.coordinates == "inclusive":
        x1, y1 = x1 + 1, y1 + 1
    height, width = map_HW.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if y0 <= y < y1 and x0 <= x < x1]
    if not pixels:
        return 0.0
    inside = sum(float(map_HW[at]) for at in pixels)
    area = len(pixels) if protocol.truth_area == "clipped" else (x1 - x0) * (y1 - y0)
    precision, recall = inside / (float(map_HW.sum(dtype=float)) + 1e-6), inside / area
    return 2 * precision * recall / (precision + recall + 1e-6)


EDGES = st.tuples(*[st.integers(-10, 25)] * 2).map(sorted)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(EDGES, EDGES), min_size=1, max_size=3),
    st.sampled_from(sorted(PROTOCOLS)),
    st.sampled_from([(1, 1), (2, 2), (4, 2)]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_f1_equals_painting_every_pixel(seed, edges, name, cell):
    rows, columns = cell
    map_HW = np.random.default_rng(seed).random((16 // rows, 12 // columns), np.float32)
    frame_HW = np.kron(map_HW, np.ones(cell, np.float32))
    truth = np.array([(x[0], y[0], x[1], y[1]) for x, y in edges])
    expected = [slow_f1(frame_HW, box, PROTOCOLS[name]) for box in truth]
    visible = visible_truth(truth, (12, 16), PROTOCOLS[name])
    in_frame = continuous_f1(frame_HW, truth, PROTOCOLS[name])
    for found in (map_f1(map_HW, visible, cell), in_frame):
        assert found == pytest.approx((max(expected), np.mean(expected)), rel=1e-6, abs=1e-9)


def test_clipping_counts_in_recall():
    truth = np.array([(-100, 0, 100, 200)])
    best, _ = continuous_f1(filled(0, 0, 100, 200), truth, PROTOCOLS["casm-clipped"])
    assert best == pytest.approx(1, abs=1e-6)


def test_any_true_box_may_be_found():
    data = dataset([(0, 0, 10, 10), (100, 100, 200, 200)], [(5, 5, 50, 50)], [(0, 0, 20, 10)])
    pred = [(100, 100, 200, 190), (60, 60, 70, 70), (0, 0, 10, 10)]
    found = score_boxes(np.array(pred), data, CASM, 224)
    assert found["iou_N"].tolist() == [0.9, 0.0, 0.5]
    assert found["hit_N"].tolist() == [True, False, False]
    best, mean = box_f1(np.array(pred), true_boxes(data, CASM, 224))
    assert mean[0] == pytest.approx(best[0] / 2)


def test_true_boxes_in_every_frame():
    data = dataset([(0, 0, 499, 374)], sizes=[(500, 375)])
    crop = true_boxes(data, CASM, 224)
    assert crop.boxes_M4.tolist() == [[-37, 0, 260, 223]]
    assert crop.extent_N2.tolist() == [[224, 224]]
    assert crop.visible.boxes_M4.tolist() == [[0, 0, 224, 223]]
    assert true_boxes(data, PROTOCOLS["warp"], 224).boxes_M4.tolist() == [[0, 0, 223, 223]]
    original = true_boxes(data, PROTOCOLS["fong"], 224)
    assert original.boxes_M4.tolist() == [[0, 0, 499, 374]]
    assert original.extent_N2.tolist() == [[500, 375]]
    assert original.visible.area_M.tolist() == [500 * 375]


def test_wsol_multiplies_before_it_divides():
    """194 · 224 / 388 is 112; 224 / 388 · 194 is 111.99999999999999, and is truncated."""
    data = dataset([(16, 194, 208, 368)], sizes=[(500, 388)])
    tops = {name: true_boxes(data, PROTOCOLS[name], 224).boxes_M4[0, 1] for name in PROTOCOLS}
    assert (tops["warp"], tops["wsol"]) == (111, 112)


def test_le_is_a_percentage():
    assert localization_error(np.array([True, False, False, False])) == 75


@pytest.mark.parametrize(
    ("boxes", "problem"),
    [
        ([], "no true box"),
        ([(0, 0, 5, 5), (9, 0, 3, 5)], "impossible box"),
        ([(0, float("nan"), 5, 5)], "impossible box"),
        ([(0, 0, float("inf"), 5)], "impossible box"),
    ],
)
def test_bad_annotations_name_the_image(boxes, problem):
    with pytest.raises(WorkError, match=f"picture-1 in data set made-up .*{problem}"):
        true_boxes(dataset([(0, 0, 5, 5)], boxes, [(0, 0, 5, 5)]), CASM, 224)


def test_zero_area_boxes_are_misses_not_errors():
    data = dataset([(3, 3, 3, 9)])
    found = score_boxes(np.array([(0, 0, 224, 224)]), data, CASM, 224)
    assert not found["hit_N"].any()


def test_a_data_set_without_images_cannot_be_scored():
    with pytest.raises(WorkError, match="no images"):
        true_boxes(dataset(), CASM, 224)
