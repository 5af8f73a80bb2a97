"""Insertion, deletion and SM: golden values, and classifiers whose answers are known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from casm_bench.metrics.faithfulness import (
    auc,
    blurred,
    insertion_deletion,
    saliency_metric,
    shares_changed,
    sm_value,
)

SIZE = 8


@pytest.mark.parametrize(
    ("scores", "area"),
    [([1, 0.5, 0.0], 0.5), ([0.9, 0.7, 0.2, 0.1], 0.46666666666666673), ([0, 1], 0.5)],
)
def test_area_under_the_scores_golden(scores, area):
    assert auc(np.array(scores)) == pytest.approx(area)


@pytest.mark.parametrize(
    ("area_px", "p", "value"),
    [
        (50176, 0.9, 0.10536051565782628),
        (25088, 0.5, 0.0),
        (12544, 0.8, -1.1631508098056809),
        (1000, 0.3, -1.7917594692280547),
        (2508, 0.99, -2.9856819377004893),
    ],
)
def test_saliency_metric_golden(area_px, p, value):
    assert sm_value(area_px / 224**2, math.log(p)) == pytest.approx(value, abs=1e-12)


class Bright(nn.Module):
    """p(class 0) is the share of the image's pixels that are 1, p(class 1) the rest."""

    def forward(self, images_BCHW):
        share_B = images_BCHW.mean(dim=(1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([share_B, 1 - share_B], dim=1).log()


def test_deletion_of_a_bright_picture_is_a_straight_line():
    map_HW = np.random.default_rng(0).random((SIZE, SIZE))
    found = dict(insertion_deletion(Bright(), torch.ones(3, SIZE, SIZE), map_HW, rows_per_step=1))
    assert found["deletion"] == pytest.approx(1 - np.arange(9) / 8, abs=1e-5)
    assert auc(found["insertion"]) > 0.5  # it starts from a blurred picture, not from nothing


def test_pixels_change_in_the_order_of_the_map():
    """The upper half is bright; a map that finds it first makes p fall early."""
    image_CHW = torch.zeros(3, SIZE, SIZE)
    image_CHW[:, : SIZE // 2 + 1] = 1  # 5 of 8 rows: top-1 is class 0
    rows_HW = np.tile(np.arange(SIZE)[:, None], (1, SIZE)).astype(float)
    down = dict(insertion_deletion(Bright(), image_CHW, SIZE - rows_HW, rows_per_step=1))
    up = dict(insertion_deletion(Bright(), image_CHW, rows_HW, rows_per_step=1))
    share = np.clip(5 - np.arange(9), 0, None) / 8  # of bright rows as rows go from the top
    assert down["deletion"] == pytest.approx(share, abs=1e-5)
    late = np.array([5, 5, 5, 5, 4, 3, 2, 1, 0]) / 8
    assert up["deletion"] == pytest.approx(late, abs=1e-5)


def test_steps_that_do_not_divide_the_picture_end_with_all_of_it():
    map_HW = np.random.default_rng(0).random((SIZE, SIZE))
    found = dict(insertion_deletion(Bright(), torch.ones(3, SIZE, SIZE), map_HW, rows_per_step=3))
    assert found["deletion"] == pytest.approx(np.array([8, 5, 2, 0]) / 8, abs=1e-5)
    assert shares_changed((SIZE, SIZE), 3).tolist() == [0, 3 / 8, 6 / 8, 1]
    assert shares_changed((4, SIZE), 1).tolist() == [0, 1 / 4, 2 / 4, 3 / 4, 1]


def test_equal_pixels_change_from_the_top_and_more_steps_than_are_classified_at_once():
    rows = 70
    image_CHW = torch.zeros(3, rows, 2)
    image_CHW[:, :40] = 1
    found = dict(insertion_deletion(Bright(), image_CHW, np.ones((rows, 2)), rows_per_step=1))
    bright = np.clip(40 - np.arange(rows + 1), 0, None) / rows
    assert found["deletion"] == pytest.approx(bright, abs=1e-5)


def kernel_of_rise() -> np.ndarray:
    """What scipy's filter of sigma 5 makes of an 11-pixel impulse: the Gaussian, cut off at four
    sigma, with what leaves the window mirrored back into it. Summed up term by term."""
    gauss = {d: math.exp(-(d**2) / (2 * 5**2)) for d in range(-20, 21)}
    taps = [0.0] * 11
    for d, weight in gauss.items():
        at = (5 + d) % 22  # mirrored with the outermost pixel repeated: a period of 2 · 11
        taps[at if at < 11 else 21 - at] += weight / sum(gauss.values())
    return np.array(taps)


def test_blur_is_rises_kernel_and_dark_beyond_the_border():
    image_CHW = torch.zeros(2, 21, 25)
    image_CHW[1, 8, 12] = 1
    soft_CHW, taps = blurred(image_CHW), kernel_of_rise()
    assert not soft_CHW[0].any()
    expected = np.zeros((21, 25))
    expected[3:14, 7:18] = np.outer(taps, taps)
    assert soft_CHW[1].numpy() == pytest.approx(expected, abs=1e-7)
    edge = blurred(torch.ones(1, 21, 21))[0]
    assert edge[10, 10] == pytest.approx(1, abs=1e-5)
    assert edge[0, 0] == pytest.approx(taps[5:].sum() ** 2, abs=1e-5)


class Corner(nn.Module):
    """p(class 1) is the mean of what it is shown."""

    def forward(self, images_BCHW):
        mean_B = images_BCHW.mean(dim=(1, 2, 3)).clamp(0.01, 0.99)
        return torch.stack([1 - mean_B, mean_B], dim=1).log()


def test_saliency_metric_of_a_box():
    image_CHW = torch.zeros(3, SIZE, SIZE)
    image_CHW[:, 2:6, 1:5] = 0.5
    box = (1, 2, 5, 6)  # x0, y0, x1, y1: exactly what is grey
    expected = math.log(16 / 64) - math.log(0.5)
    assert saliency_metric(Corner(), image_CHW, 1, box) == pytest.approx(expected, abs=1e-5)
    nothing = saliency_metric(Corner(), image_CHW, 0, None)
    assert nothing == pytest.approx(math.log(0.05) - math.log(0.99), abs=1e-5)


class Watched(nn.Module):
    """Keeps what it is shown."""

    def forward(self, images_BCHW):
        self.seen = images_BCHW
        return torch.zeros(len(images_BCHW), 2)


def test_the_box_is_cut_out_and_enlarged_as_opencv_does_it():
    """Its cubic interpolation has the coefficients of torch's, from the same pixel centres."""
    picture_HWC = np.random.default_rng(0).random((6, 12, 3), np.float32)
    watched = Watched()
    saliency_metric(watched, torch.from_numpy(picture_HWC).movedim(-1, 0), 1, (2, 1, 9, 4))
    expected = cv2.resize(picture_HWC[1:4, 2:9], (12, 6), interpolation=cv2.INTER_CUBIC)
    assert watched.seen[0].movedim(0, -1).numpy() == pytest.approx(expected, abs=1e-5)
