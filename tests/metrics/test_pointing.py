"""Pointing game and energy pointing, worked by hand and painted pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from casm_bench.metrics.pointing import TOLERANCE, class_mean, pointing


def peak(row, column, size=64):
    map_HW = np.zeros((size, size), np.float32)
    map_HW[row, column] = 1
    return map_HW


@pytest.mark.parametrize(
    ("row", "column", "hit", "near"),
    [
        (10, 20, 1, 1),  # the box's first pixel
        (19, 29, 1, 1),  # its last
        (20, 29, 0, 1),  # one below
        (33, 29, 0, 1),  # 14 below the last row
        (34, 29, 0, 0),  # 15: TorchRay wants less
        (28, 41, 0, 0),  # 9 down and 12 right: exactly 15
        (28, 40, 0, 1),  # 9 and 11: less
    ],
)
def test_the_peak_beside_one_box(row, column, hit, near):
    found = dict(pointing(peak(row, column), np.array([[20, 10, 30, 20]])))
    assert (found["pointing_game"], found["pointing_game_15px"]) == (hit, near)
    assert found["energy_pointing"] == hit


boxes = st.lists(
    st.tuples(*[st.integers(0, 47)] * 2, *[st.integers(0, 16)] * 2), min_size=1, max_size=3
)


@given(boxes, st.integers(0, 63), st.integers(0, 63))
def test_tolerance_as_a_distance_transform(corners, row, column):
    boxes_n4 = np.array([(x, y, x + w, y + h) for x, y, w, h in corners])
    object_HW = np.zeros((64, 64), bool)
    for x0, y0, x1, y1 in boxes_n4:
        object_HW[y0:y1, x0:x1] = True
    found = dict(pointing(peak(row, column), boxes_n4))
    assert found["pointing_game"] == object_HW[row, column]
    distance_HW = distance_transform_edt(~object_HW) if object_HW.any() else np.full((64, 64), 99)
    assert found["pointing_game_15px"] == (distance_HW[row, column] < TOLERANCE)


def test_of_several_peaks_the_first_counts():
    map_HW = peak(5, 5) + peak(40, 40)
    found = dict(pointing(map_HW, np.array([[40, 40, 41, 41]])))
    assert (found["pointing_game"], found["energy_pointing"]) == (0, 0.5)


def test_energy_counts_overlapping_boxes_once():
    map_HW = np.ones((10, 10), np.float32)
    two = np.array([[0, 0, 6, 10], [4, 0, 8, 10]])
    assert dict(pointing(map_HW, two))["energy_pointing"] == pytest.approx(0.8)
    assert dict(pointing(0 * map_HW, two))["energy_pointing"] == 0


def test_boxes_without_area_are_never_hit():
    found = dict(pointing(peak(10, 20), np.array([[20, 10, 20, 30]])))
    assert set(found.values()) == {0}


def test_mean_over_classes_counts_classes_not_images():
    values_N, labels_N = np.array([1, 1, 1, 0, 0.5]), np.array([7, 7, 7, 2, 2])
    assert class_mean(values_N, labels_N) == pytest.approx((1 + 0.25) / 2)
