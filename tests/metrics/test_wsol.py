"""MaxBoxAcc: hand-worked boxes, and a slow reimplementation with the source's contour mode."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casm_bench.boxes import predict_box
from casm_bench.data.dataset import Dataset
from casm_bench.maps import to_grid
from casm_bench.metrics.scoring import score_maps
from casm_bench.metrics.wsol import ALPHAS, THRESHOLDS, best_overlaps, hits_at_best, sweep_boxes
from casm_bench.protocols import PROTOCOLS, BoxRule

WSOL = PROTOCOLS["wsol"]


def slow_box(map_HW: np.ndarray, share: float) -> list[int]:
    """Inclusive x0, y0, x1, y1 as wsolevaluation has them, holes' contours included."""
    height, width = map_HW.shape
    lowest, highest = map_HW.min(), map_HW.max()
    scaled_HW = (map_HW - lowest) / (highest - lowest) if highest > lowest else 0 * map_HW
    levels_HW = (scaled_HW * 255).astype(np.uint8)
    above_HW = (levels_HW > int(share * levels_HW.max())).astype(np.uint8)
    contours, _ = cv2.findContours(above_HW, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [0, 0, 0, 0]
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return [x, y, min(x + w, width - 1), min(y + h, height - 1)]


@given(st.integers(0, 2**32 - 1), st.integers(2, 24), st.integers(2, 24), st.integers(1, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sweep_equals_the_slow_reimplementation(seed, height, width, levels):
    random = np.random.default_rng(seed)
    map_HW = (random.integers(0, levels + 1, (height, width)) / levels).astype(np.float32)
    for share, box in zip(THRESHOLDS, sweep_boxes(map_HW).tolist(), strict=True):
        expected = slow_box(map_HW, share)
        half_open = [*expected[:2], expected[2] + 1, expected[3] + 1] if any(expected) else [0] * 4
        assert box == half_open


def test_thresholds_are_those_of_the_source():
    assert len(THRESHOLDS) == 100
    assert THRESHOLDS[[0, 1, -1]] == pytest.approx([0, 0.01, 0.99])
    assert ALPHAS["relative"] is THRESHOLDS
    for kind in ("value", "energy", "fixed"):  # Fong & Vedaldi 2017: 0, 0.05, … 0.95
        assert ALPHAS[kind] == pytest.approx([0.05 * i for i in range(20)])
    assert ALPHAS["mean"] == pytest.approx([0.5 * i for i in range(21)])  # 0, 0.5, … 10


def made_up(boxes) -> Dataset:
    return Dataset(
        name="made-up",
        split="evaluated",
        classes=["thing"],
        names=[str(i) for i in range(len(boxes))],
        labels_N=np.zeros(len(boxes), np.int64),
        sizes_N2=np.full((len(boxes), 2), 100),
        boxes=[np.array([box], np.float64) for box in boxes],
    )


def two_steps() -> np.ndarray:
    """A low plateau of 60×60 and a high one of 30×30 inside."""
    map_HW = np.zeros((100, 100), np.float32)
    map_HW[20:80, 20:80] = 0.5
    map_HW[20:50, 20:50] = 1.0
    return map_HW


def test_the_threshold_that_serves_most_images_wins():
    # Two images want the high plateau, one the low one. 127 of 255 is first exceeded by nothing
    # of the low plateau at 0.5: int(0.5 * 255) = 127.
    data = made_up([(20, 20, 49, 49), (20, 20, 49, 49), (20, 20, 79, 79)])
    scores = score_maps(((i, two_steps()) for i in range(3)), data, WSOL, size=100)
    assert scores.threshold == pytest.approx(0.5)
    assert scores.hit_N.tolist() == [True, True, False]
    assert scores.box_N4.tolist() == [[20, 20, 51, 51]] * 3
    assert scores.summary()["localization_error"] == pytest.approx(100 / 3)
    assert scores.summary()["threshold"] == scores.threshold


def test_of_equally_good_thresholds_the_lowest_wins():
    scores = score_maps([(0, two_steps())], made_up([(20, 20, 79, 79)]), WSOL, size=100)
    assert scores.threshold == 0
    assert scores.box_N4.tolist() == [[20, 20, 81, 81]]


def test_overrides_the_methods_rule_and_resizes_cubically():
    map_HW = np.random.default_rng(0).random((7, 7), np.float32)
    data = made_up([(10, 10, 60, 60)])
    scores = score_maps([(0, map_HW)], data, WSOL, BoxRule("fixed", 0.9), size=100)
    rule = BoxRule("relative", scores.threshold, component="contour")
    assert tuple(scores.box_N4[0]) == predict_box(map_HW, rule, 100, "cubic")
    assert tuple(scores.box_N4[0]) == predict_box(to_grid(map_HW, 100, 100, "cubic"), rule, 100)


def test_a_constant_map_finds_nothing():
    scores = score_maps([(0, np.full((7, 7), 0.4))], made_up([(0, 0, 99, 99)]), WSOL, size=100)
    assert scores.summary()["n_without_box"] == 1
    assert not scores.hit_N.any()


# --- MaxBoxAccV2 ------------------------------------------------------------------------------


def two_blobs() -> np.ndarray:
    """A large weak one and a small strong one, apart."""
    map_HW = np.zeros((100, 100), np.float32)
    map_HW[10:50, 10:50] = 0.4
    map_HW[70:80, 70:80] = 1.0
    return map_HW


def test_any_contour_may_match_any_true_box():
    # Contours reach one pixel beyond: 41×41 and 11×11. Inclusive true boxes of the same size.
    truth_n4 = np.array([[70, 70, 80, 80], [10, 10, 50, 50]])
    for order in (1, -1):  # whichever contour is found first
        overlap_T = best_overlaps(two_blobs(), truth_n4[::order], WSOL)
        assert overlap_T == pytest.approx(1.0)  # below 0.4 either, above only the small one
    small = best_overlaps(two_blobs(), truth_n4[1:], WSOL)
    assert small[[0, 39]] == pytest.approx([1, 1])
    assert small[[41, 99]] == pytest.approx([0, 0])


def test_no_contour_overlaps_nothing():
    assert not best_overlaps(np.zeros((9, 9), np.float32), np.array([[0, 0, 8, 8]]), WSOL).any()


def test_the_threshold_is_chosen_for_each_iou_apart():
    overlap_NT = np.array([[0.6, 0.35], [0.2, 0.35], [0.2, 0.35]])
    assert hits_at_best(overlap_NT, 0.3).tolist() == [True, True, True]
    assert hits_at_best(overlap_NT, 0.5).tolist() == [True, False, False]
    assert hits_at_best(overlap_NT, 0.7).tolist() == [False, False, False]
    assert hits_at_best(overlap_NT, 0.6).tolist() == [True, False, False]  # at least


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_overlaps_equal_the_slow_reimplementation(seed):
    random = np.random.default_rng(seed)
    map_HW = (random.integers(0, 4, (12, 16)) / 3).astype(np.float32)
    x0, y0 = random.integers(0, 10), random.integers(0, 8)  # at most up to the last pixel
    truth = [x0, y0, x0 + 5, y0 + 4]
    overlap_T = best_overlaps(map_HW, np.array([truth]), WSOL)
    levels_HW = (to_unit(map_HW) * 255).astype(np.uint8)
    for t in (0, 30, 50, 90):
        above_HW = (levels_HW > int(THRESHOLDS[t] * levels_HW.max())).astype(np.uint8)
        found, _ = cv2.findContours(above_HW, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        rectangles = [cv2.boundingRect(contour) for contour in found]
        best = max((inclusive_iou(r, truth) for r in rectangles), default=0)
        assert overlap_T[t] == pytest.approx(best)


def to_unit(map_HW: np.ndarray) -> np.ndarray:
    return (map_HW - map_HW.min()) / max(map_HW.max() - map_HW.min(), 1e-12)


def inclusive_iou(rectangle: tuple[int, ...], truth: list[int]) -> float:
    """wsolevaluation's own arithmetic: inclusive corners, +1 for every side."""
    x, y, w, h = rectangle
    box = [x, y, min(x + w, 15), min(y + h, 11)]
    wide = max(0, min(box[2], truth[2]) - max(box[0], truth[0]) + 1)
    high = max(0, min(box[3], truth[3]) - max(box[1], truth[1]) + 1)
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, truth)]
    return wide * high / (sum(areas) - wide * high)
