"""Overlap: golden IoUs, and masks painted pixel by pixel as a slow oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casm_bench.metrics.overlap import iou, succeeds, visible_truth
from casm_bench.protocols import CASM, PROTOCOLS

SIDE = 12


# True box x0 y0 x1 y1, prediction (half-open), IoU and success by the official CASM scorer in 224.
OFFICIAL = [
    ((50, 60, 150, 160), (50, 60, 150, 160), 1.0, True),
    ((0, 0, 100, 100), (50, 0, 150, 100), 0.3333333333333333, False),
    ((0, 0, 100, 101), (0, 0, 200, 100), 0.4975124378109453, False),
    ((0, 0, 100, 100), (0, 0, 199, 100), 0.5025125628140703, True),
    ((-100, 0, 100, 200), (0, 0, 100, 200), 0.5, False),  # a perfect visible box fails
    ((20, 30, 200, 220), (33, 33, 191, 191), 0.7299415204678362, True),
    ((-150, 0, 200, 224), (0, 0, 200, 224), 0.5714285714285714, True),
    ((100, 20, 260, 220), (100, 20, 224, 220), 0.775, True),
    ((224, 10, 260, 100), (0, 0, 224, 224), 0.0, False),  # no width in the frame
    ((20, 30, 200, 220), (0, 0, 0, 0), 0.0, False),  # no prediction
    ((60, 40, 180, 160), (66, 45, 175, 155), 0.8326388888888889, True),
    ((60, 40, 61, 41), (60, 40, 62, 41), 0.5, False),  # one pixel of two
]


@pytest.mark.parametrize(("truth", "pred", "expected", "success"), OFFICIAL)
def test_casm_overlaps_equal_the_official_scorer(truth, pred, expected, success):
    found = iou([pred], [truth], np.array([0]), (224, 224), CASM)
    assert found.tolist() == [expected]
    assert succeeds(found, CASM).tolist() == [success]


# 1-based inclusive boxes of Fong & Vedaldi's code, which reports -1 where nothing overlaps.
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((1, 1, 10, 10), (1, 1, 10, 10), 1.0),
        ((1, 1, 10, 10), (6, 1, 15, 10), 0.3333333333333333),
        ((1, 1, 10, 10), (11, 1, 20, 10), 0.0),
        ((1, 1, 20, 10), (1, 1, 10, 10), 0.5),
    ],
)
def test_fong_overlaps_equal_the_official_code(a, b, expected):
    pred = np.subtract(a, (1, 1, 0, 0))  # half-open
    truth = np.subtract(b, 1)  # 0-based, inclusive
    found = iou([pred], [truth], np.array([0]), (30, 30), PROTOCOLS["fong"])
    assert found.tolist() == [expected]
    assert succeeds(found, PROTOCOLS["fong"]).tolist() == [expected >= 0.5]


def painted(x0, y0, x1, y1, margin=0) -> np.ndarray:
    """A canvas that goes `margin` beyond the frame on every side, with a half-open box on it."""
    canvas = np.zeros((SIDE + 2 * margin, SIDE + 2 * margin), bool)
    for y in range(y0, y1):
        for x in range(x0, x1):
            canvas[y + margin, x + margin] = True
    return canvas


def slow_iou(pred, truth, protocol) -> float:
    x0, y0, x1, y1 = truth
    if protocol.coordinates == "inclusive":
        x1, y1 = x1 + 1, y1 + 1
    whole = painted(x0, y0, x1, y1, margin=SIDE)
    visible = whole[SIDE : 2 * SIDE, SIDE : 2 * SIDE]
    if not visible.any():
        return 0.0
    area = (whole if protocol.truth_area == "unclipped" else visible).sum()
    shared = (visible & painted(*pred)).sum()
    return shared / (area + painted(*pred).sum() - shared)


def boxes(lowest: int, highest: int):
    edges = st.tuples(*[st.integers(lowest, highest)] * 2).map(sorted)
    return st.tuples(edges, edges).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))


@given(
    st.lists(
        st.tuples(boxes(0, SIDE), st.lists(boxes(-SIDE, 2 * SIDE - 1), max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(sorted(PROTOCOLS)),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_overlaps_equal_painted_masks(images, name):
    protocol = PROTOCOLS[name]
    preds = [pred for pred, _ in images]
    pairs = [(i, truth) for i, (_, truths) in enumerate(images) for truth in truths]
    owner = np.array([i for i, _ in pairs], int)
    truths = np.array([truth for _, truth in pairs], int).reshape(-1, 4)
    expected = [slow_iou(preds[i], truth, protocol) for i, truth in pairs]
    assert iou(preds, truths, owner, (SIDE, SIDE), protocol).tolist() == expected
    per_image = np.full((len(images), 2), SIDE)
    assert iou(preds, truths, owner, per_image, protocol).tolist() == expected


def test_clipping_decides_about_the_half_visible_object():
    args = ([(0, 0, 100, 200)], [(-100, 0, 100, 200)], np.array([0]), (224, 224))
    assert iou(*args, PROTOCOLS["casm"]).tolist() == [0.5]
    assert iou(*args, PROTOCOLS["casm-clipped"]).tolist() == [1.0]


def test_exactly_half_counts_only_under_at_least():
    half = np.array([0.5])
    assert not succeeds(half, CASM)
    assert succeeds(half, replace(CASM, iou_at_least=True))
    assert not succeeds(half, replace(CASM, iou_at_least=True, iou_threshold=0.7))


def test_a_box_without_area_scores_zero_half_open_and_is_a_line_of_pixels_inclusive():
    line = ([(3, 0, 4, 9)], [(3, 0, 3, 8)], np.array([0]), (SIDE, SIDE))
    assert iou(*line, CASM).tolist() == [0.0]
    assert iou(*line, PROTOCOLS["fong"]).tolist() == [1.0]
    nothing = ([(0, 0, 0, 0)], [(3, 3, 3, 3)], np.array([0]), (SIDE, SIDE))
    assert iou(*nothing, CASM).tolist() == [0.0]


def test_truth_that_cannot_be_seen_has_no_area():
    visible = visible_truth(np.array([(20, 0, 30, 9), (6, 0, 18, 12)]), (SIDE, SIDE), CASM)
    assert visible.area_M.tolist() == [0, 144]
    assert visible.boxes_M4[1].tolist() == [6, 0, 12, 12]
