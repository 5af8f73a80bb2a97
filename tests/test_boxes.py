"""Box rules: golden boxes of the official scorers, and a slow, obvious reimplementation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from casm_bench.boxes import (
    _ranked,
    binarise,
    box_from_map,
    box_from_mask,
    contour_box,
    fong_box,
    predict_box,
    quantile_threshold,
)
from casm_bench.conformance.maps import MAPS, SIDE
from casm_bench.errors import UsageError
from casm_bench.protocols import CASM_RULE, BoxRule, fong_rule

# Map, rank and value of the threshold, pixels above it, pixels of the largest component, its box
# (y0, x0, y1, x1, both ends inclusive): what the official CASM scorer finds, pooling in float32.
OFFICIAL = [
    ("gaussian", 44526, 0.36767512559890747, 5649, 5649, (58, 78, 142, 162)),
    ("ramp", 25089, 0.5022421479225159, 24864, 24864, (0, 113, 223, 223)),
    ("two-rectangles", 42735, 0.6000000238418579, 2400, 2400, (20, 30, 59, 89)),
    ("constant", 35130, 0.30000001192092896, 0, 0, None),
    ("zeros", 50176, 9.999999974752427e-07, 0, 0, None),
    ("ones", 1, 0.9999989867210388, 50176, 50176, (0, 0, 223, 223)),
    ("small-square", 40176, 9.999999974752427e-07, 10000, 10000, (50, 60, 149, 159)),
    ("large-rectangle", 9377, 0.9999989867210388, 40800, 40800, (10, 20, 213, 219)),
    ("corners-touch", 46976, 9.999999974752427e-07, 3200, 1600, (40, 40, 79, 79)),
    ("equal-areas", 48576, 9.999999974752427e-07, 1600, 800, (20, 10, 59, 29)),
]


@pytest.mark.parametrize(("name", "rank", "threshold", "pixels", "component", "box"), OFFICIAL)
def test_quantile_rule_equals_the_official_scorer(name, rank, threshold, pixels, component, box):
    map_HW = MAPS[name]
    found = quantile_threshold(map_HW)
    at_ranks_near = np.sort(map_HW, axis=None)[max(rank - 8, 0) : rank + 7]
    assert found == pytest.approx(threshold, abs=1e-7) or found in at_ranks_near
    mask_HW = binarise(map_HW, CASM_RULE)
    assert np.count_nonzero(mask_HW) == pixels
    x0y0x1y1 = box and (box[1], box[0], box[3] + 1, box[2] + 1)
    assert box_from_map(map_HW, CASM_RULE) == x0y0x1y1
    assert predict_box(map_HW, CASM_RULE, SIDE) == x0y0x1y1
    labels_HW, count = ndimage.label(mask_HW)
    assert component == max((np.sum(labels_HW == i + 1) for i in range(count)), default=0)


def test_the_quantiles_mean_is_not_rounded():
    """Half of these pixels are above 0.5, and the mean is 0.5: a mean in float32 misses it."""
    lower_3 = np.array([6791373, 1190311, 2305932], np.float32) / 2**24
    map_HW = np.stack([lower_3, 1 - lower_3])
    assert map_HW.mean(dtype=np.float64) == 0.5
    assert quantile_threshold(map_HW) == map_HW[map_HW > 0.5].min()


FONG_MAP = MAPS["six-by-six"].astype(np.float64)
# Rule, alpha, box (x0, y0, x1, y1; 1-based, both ends inclusive).
FONG_BOXES = [
    ("mean", 0, (2, 2, 6, 5)),
    ("mean", 0.5, (2, 2, 6, 5)),
    ("mean", 1.0, (2, 2, 6, 5)),
    ("mean", 2.5, (3, 3, 6, 5)),
    ("mean", 5.0, (3, 3, 6, 5)),
    ("mean", 9.0, (1, 1, 6, 6)),
    ("value", 0, (2, 2, 6, 5)),
    ("value", 0.1, (2, 2, 6, 5)),
    ("value", 0.25, (3, 3, 6, 5)),
    ("value", 0.5, (3, 3, 6, 5)),
    ("value", 0.9, (3, 3, 3, 3)),
    ("energy", 0, (1, 1, 6, 6)),
    ("energy", 0.1, (1, 1, 6, 6)),
    ("energy", 0.5, (3, 3, 6, 5)),
    ("energy", 0.6, (3, 3, 6, 5)),
    ("energy", 0.9, (2, 2, 6, 5)),
    ("energy", 0.95, (2, 2, 6, 5)),
]
# The same after resizing to 42×30. The source swaps the sides of the whole image when nothing
# survives: it has (1, 1, 30, 42) for energy 0.1.
FONG_BOXES_42_BY_30 = [
    ("mean", 0.5, (5, 4, 42, 27)),
    ("mean", 5.0, (12, 9, 42, 27)),
    ("energy", 0.1, (1, 1, 42, 30)),
    ("energy", 0.95, (5, 4, 42, 27)),
    ("value", 0.25, (12, 9, 42, 27)),
]


def one_based_inclusive(box):
    x0, y0, x1, y1 = box
    return x0 + 1, y0 + 1, x1, y1


@pytest.mark.parametrize(("rule", "alpha", "box"), FONG_BOXES)
def test_fong_rules_equal_the_official_code(rule, alpha, box):
    rule = fong_rule(rule, alpha)
    assert one_based_inclusive(box_from_map(FONG_MAP, rule)) == box
    assert one_based_inclusive(fong_box(FONG_MAP, rule, 6, 6)) == box


@pytest.mark.parametrize(("rule", "alpha", "box"), FONG_BOXES_42_BY_30)
def test_fong_boxes_in_the_original_picture(rule, alpha, box):
    assert one_based_inclusive(fong_box(FONG_MAP, fong_rule(rule, alpha), 42, 30)) == box


# A slow, obvious reimplementation of spec 2.5 and of Fong & Vedaldi's rules.


def slow_mask(map_HW: np.ndarray, rule: BoxRule) -> np.ndarray:
    values = sorted(float(value) for value in map_HW.ravel())
    lowest, highest, total = values[0], values[-1], math.fsum(values)
    mean = total / len(values)
    mask_HW = np.zeros(map_HW.shape, bool)
    energy = 0.0
    for at in sorted(np.ndindex(map_HW.shape), key=lambda at: -map_HW[at]):  # stable
        value = float(map_HW[at])
        energy += value
        if rule.kind == "quantile":
            threshold = values[math.floor((len(values) - 1) * (1 - mean) + 0.5)]
            mask_HW[at] = value > min(max(threshold, np.float32(1e-6)), np.float32(1 - 1e-6))
        elif rule.kind == "fixed":
            mask_HW[at] = value > rule.alpha
        elif rule.kind == "mean":
            mask_HW[at] = value > 0 and value >= rule.alpha * mean
        elif rule.kind == "value":
            mask_HW[at] = value > 0 and value - lowest >= rule.alpha * (highest - lowest)
        else:
            mask_HW[at] = value > 0 and energy < rule.alpha * total
    return mask_HW


def slow_box(mask_HW: np.ndarray, component: str, connectivity: int):
    if component == "largest":
        structure = np.ones((3, 3)) if connectivity == 8 else None
        labels_HW, count = ndimage.label(mask_HW, structure)
        sizes = [np.sum(labels_HW == label) for label in range(1, count + 1)]
        if not sizes:
            return None
        firsts = [np.flatnonzero(labels_HW == label)[0] for label in range(1, count + 1)]
        largest = min(range(count), key=lambda i: (-sizes[i], firsts[i]))
        mask_HW = labels_HW == largest + 1
    pixels = np.argwhere(mask_HW)
    if not len(pixels):
        return None
    (y0, x0), (y1, x1) = pixels.min(0), pixels.max(0)
    return x0, y0, x1 + 1, y1 + 1


RULES = [
    BoxRule(kind, alpha, component, connectivity)
    for (kind, alpha), component, connectivity in product(
        [
            ("quantile", None),
            ("fixed", 0.5),
            ("mean", 1.0),
            ("mean", 1.5),
            ("value", 0.5),
            ("energy", 0.5),
            ("energy", 0.95),
        ],
        ["largest", "all"],
        [4, 8],
    )
]


@st.composite
def small_maps(draw) -> np.ndarray:
    """Maps with many ties (a few levels, all exact in binary) or with none."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 3, 8, None]))
    if levels is None:
        return random.random((height, width), np.float32)
    return (random.integers(0, levels + 1, (height, width)) / levels).astype(np.float32)


@given(small_maps(), st.sampled_from(RULES))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_boxes_equal_the_slow_reimplementation(map_HW, rule):
    mask_HW = slow_mask(map_HW, rule)
    np.testing.assert_array_equal(binarise(map_HW, rule), mask_HW)
    assert box_from_map(map_HW, rule) == slow_box(mask_HW, rule.component, rule.connectivity)


@given(small_maps(), st.sampled_from(RULES))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_work_on_the_coarse_grid_equals_work_in_the_frame(map_HW, rule):
    size = map_HW.shape[0] * map_HW.shape[1]  # a whole multiple of both sides
    rows, columns = size // map_HW.shape[0], size // map_HW.shape[1]
    frame_HW = np.kron(map_HW, np.ones((rows, columns), np.float32))
    assert predict_box(map_HW, rule, size) == box_from_map(frame_HW, rule)


def test_the_rank_is_that_of_the_frames_pixels():
    """Of 16 pixels with mean 0.2 the 13th (1 + ⌊15 · 0.8 + ½⌋) is 0.8 already, which none exceeds;
    of four it would be the third (1 + ⌊3 · 0.8 + ½⌋), a zero."""
    map_HW = np.array([[0, 0], [0, 0.8]], np.float32)
    assert predict_box(map_HW, CASM_RULE, 4) is None
    assert predict_box(map_HW, CASM_RULE, 2) == (1, 1, 2, 2)
    assert quantile_threshold(map_HW, copies=4) == map_HW[1, 1]
    assert quantile_threshold(map_HW) == np.float32(1e-6)


def test_the_lowest_rank_is_the_first():
    """1 + ⌊1 · (1 - 0.55) + ½⌋ = 1: what exceeds the lowest value survives."""
    assert binarise(np.array([[0.2, 0.9]], np.float32), CASM_RULE).tolist() == [[False, True]]


@pytest.mark.parametrize("levels", [2, 5, 16, None])
def test_blocky_maps_from_56_to_224(levels):
    random = np.random.default_rng(levels)
    for _ in range(10):
        map_HW = random.random((56, 56), np.float32) ** 3
        if levels:
            map_HW = np.round(map_HW * levels) / np.float32(levels)
        frame_HW = np.kron(map_HW, np.ones((4, 4), np.float32))
        threshold = np.sort(frame_HW, axis=None)[
            math.floor((SIDE**2 - 1) * (1 - frame_HW.mean(dtype=np.float64)) + 0.5)
        ]
        mask_HW = frame_HW > np.clip(threshold, np.float32(1e-6), np.float32(1 - 1e-6))
        assert predict_box(map_HW, CASM_RULE, SIDE) == slow_box(mask_HW, "largest", 4)


@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_shifted_blob_shifts_its_box(seed, down, right):
    blob = np.random.default_rng(seed).random((6, 6)) > 0.4
    blob[2, 2] = True
    maps = np.zeros((2, 56, 56), np.float32)
    maps[0, 20:26, 20:26] = blob
    maps[1, 20 + down : 26 + down, 20 + right : 26 + right] = blob
    before, after = (np.array(predict_box(map_HW, CASM_RULE, SIDE)) for map_HW in maps)
    assert (after - before).tolist() == [4 * right, 4 * down, 4 * right, 4 * down]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_of_equal_components_the_first_in_raster_order_counts(connectivity):
    mask_HW = np.zeros((9, 9), bool)
    mask_HW[2:4, 6] = mask_HW[2:4, 3] = mask_HW[1, 0] = mask_HW[5:7, 0] = True
    assert box_from_mask(mask_HW, "largest", connectivity) == (3, 2, 4, 4)


def test_diagonal_neighbours_belong_together_only_with_eight():
    mask_HW = np.eye(3, dtype=bool)
    assert box_from_mask(mask_HW, "largest", 4) == (0, 0, 1, 1)
    assert box_from_mask(mask_HW, "largest", 8) == (0, 0, 3, 3)


@pytest.mark.parametrize("value", [0.01, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("side", [56, 224, 60])
def test_a_constant_map_is_always_a_failure(value, side):
    map_HW = np.full((side, side), value, np.float32)
    assert predict_box(map_HW, CASM_RULE, SIDE) is None


def test_an_empty_mask_may_stand_for_the_whole_frame():
    zeros = np.zeros((7, 7), np.float32)
    rule = BoxRule("fixed", 0.5, empty="full")
    assert predict_box(zeros, rule, 28) == (0, 0, 28, 28)
    assert box_from_map(zeros, rule) == (0, 0, 7, 7)


def test_energy_keeps_the_first_of_equal_pixels():
    map_HW = np.array([[1, 3, 1, 1]], np.float32)
    assert binarise(map_HW, BoxRule("energy", 0.75)).tolist() == [[True, True, False, False]]
    assert binarise(map_HW, BoxRule("energy", 0.0)).tolist() == [[False] * 4]


def test_energy_is_added_up_in_float64():
    """In float32, 2²⁴ + 1 is 2²⁴, and the first pixel would reach the whole sum."""
    map_HW = np.array([[2.0**24, 1, 1, 1]], np.float32)
    assert binarise(map_HW, BoxRule("energy", 1.0)).tolist() == [[True, True, True, False]]


def test_quantile_above_the_unit_range_keeps_what_exceeds_the_lowest_value():
    map_HW = np.array([[0.5, 3.0], [4.0, 0.5]])
    assert binarise(map_HW, CASM_RULE).tolist() == [[False, True], [True, False]]
    assert binarise(map_HW + 1, CASM_RULE).all()


def test_relative_rule_quantises_as_wsolevaluation():
    map_HW = np.array([[0.0, 0.25, 0.5, 1.0]])  # levels 0, 63, 127, 255
    assert binarise(map_HW, BoxRule("relative", 0.0)).tolist() == [[False, True, True, True]]
    assert binarise(map_HW, BoxRule("relative", 0.25)).tolist() == [[False, False, True, True]]
    assert binarise(map_HW + 7, BoxRule("relative", 0.25)).tolist() == [[False, False, True, True]]
    assert not binarise(np.full((3, 3), 0.7), BoxRule("relative", 0.0)).any()


def test_contour_box_reaches_one_pixel_further_except_at_the_border():
    mask_HW = np.zeros((10, 12), bool)
    mask_HW[2:5, 3:7] = True
    assert contour_box(mask_HW) == (3, 2, 8, 6)
    mask_HW[2:10, 3:12] = True
    assert contour_box(mask_HW) == (3, 2, 12, 10)
    assert contour_box(np.zeros((4, 4), bool)) is None
    rule = BoxRule("relative", 0.5, component="contour")
    assert box_from_map(mask_HW.astype(np.float32), rule) == (3, 2, 12, 10)


def test_contours_are_drawn_in_the_frame():
    """They reach one pixel of the frame further, not one cell of the map."""
    map_HW = np.zeros((4, 4), np.float32)
    map_HW[1, 1] = 1
    rule = BoxRule("relative", 0.5, component="contour")
    assert predict_box(map_HW, rule, 8) == (2, 2, 5, 5)


@pytest.mark.parametrize("turns", range(4))  # whichever contour is found first
def test_of_contours_the_largest_counts(turns):
    mask_HW = np.zeros((9, 9), bool)
    mask_HW[0:2, 0:2] = mask_HW[3:7, 4:6] = mask_HW[8, 8] = True
    expected = np.zeros((9, 9), bool)
    expected[3:7, 4:6] = True
    x0, y0, x1, y1 = box_from_mask(np.rot90(expected, turns), "all")
    assert contour_box(np.rot90(mask_HW, turns)) == (x0, y0, x1 + 1, y1 + 1)


@pytest.mark.parametrize("side", [255, 256, 512])  # of 256² pixels on, labels take 32 bits
def test_the_largest_of_very_many_components(side):
    """A chessboard's dark squares, of which there are up to 131,072, touch only by corners."""
    mask_HW = np.indices((side, side)).sum(axis=0) % 2 == 1
    mask_HW[side - 4, side - 4] = True  # joins its four neighbours
    assert box_from_mask(mask_HW) == (side - 5, side - 5, side - 2, side - 2)


def test_fong_box_with_components_keeps_only_the_largest():
    map_HW = np.zeros((6, 6), np.float32)
    map_HW[0, 0] = map_HW[3:5, 3:5] = 1
    assert fong_box(map_HW, BoxRule("fixed", 0.5, component="all"), 6, 6) == (0, 0, 5, 5)
    assert fong_box(map_HW, BoxRule("fixed", 0.5), 6, 6) == (3, 3, 5, 5)
    assert fong_box(np.zeros_like(map_HW), BoxRule("fixed", 0.5), 6, 6) is None
    assert fong_box(np.zeros_like(map_HW), fong_rule("energy", 0.5), 60, 30) == (0, 0, 60, 30)


@pytest.mark.parametrize(("value", "x0"), [(0.0019, 10), (0.0021, 4)])
def test_levels_of_the_resized_map_are_whole(value, x0):
    """⌊255 · value + ½⌋ is 0 or 1. At pixels 2 to 5 of 16 the level is 1 by ⅛, ⅜, ⅝ and ⅞, rounded
    to 0, 0, 1, 1; the highest pixel fades in from pixel 10 by ⅛."""
    box = fong_box(np.array([[0, value, 0, 1]]), fong_rule("mean", 0), 16, 1)
    assert box == (x0, 0, 16, 1)


def test_a_rule_that_needs_alpha_says_so():
    with pytest.raises(UsageError, match="'mean' needs alpha"):
        binarise(np.ones((2, 2)), BoxRule("mean"))


def test_contours_have_no_box_in_the_original_picture():
    with pytest.raises(UsageError, match="contour"):
        fong_box(np.ones((2, 2)), BoxRule("relative", 0.5, component="contour"), 10, 10)


@given(
    kind=st.sampled_from(["noise", "few values", "constant", "stripes", "smooth"]),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_ranks_among_many_pixels_are_exact(kind, share, seed):
    """Also of stripes that a sample of every 16th pixel sees but one value of."""
    rng = np.random.default_rng(seed)
    values = {
        "noise": rng.random(20_000),
        "few values": rng.integers(0, 3, 20_000) / 2,
        "constant": np.full(20_000, 0.3),
        "stripes": np.where(np.arange(20_000) % 16, rng.random(20_000), 0.9),
        "smooth": np.sin(np.arange(20_000) / 3000) + 1,
    }[kind].astype(np.float32)
    position = round(share * (values.size - 1))
    assert _ranked(values, position) == np.sort(values)[position]
