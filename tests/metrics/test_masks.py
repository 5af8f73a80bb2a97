"""Mask statistics: golden values of the official scorer, and the formulas in the frame."""

from __future__ import annotations

import numpy as np
import pytest

from casm_bench.maps import to_grid
from casm_bench.metrics.masks import mask_statistics, summarise_masks


def test_statistics_equal_the_official_scorer():
    yy, xx = np.mgrid[:224, :224]
    maps_BHW = np.zeros((2, 224, 224), np.float32)
    maps_BHW[0] = np.exp(-((yy - 100) ** 2 + (xx - 120) ** 2) / 1800.0)
    maps_BHW[1, 20:60, 30:90] = 0.9
    maps_BHW[1, 120:200, 100:210] = 0.6
    assert summarise_masks(mask_statistics(maps_BHW, 224)) == {
        "mean": pytest.approx(0.13044807314872742, rel=1e-5),
        "std": pytest.approx(0.025229988619685173, abs=2e-5),  # of means that float32 pooled
        "entropy": pytest.approx(0.12290548, rel=1e-5),
        "total_variation": pytest.approx(0.0030222121866583824, abs=2e-7),
    }


def test_by_hand():
    statistics = mask_statistics(np.array([[[0.0, 1.0], [0.5, 0.25]]]), 2)
    assert statistics["mean"].tolist() == [0.4375]
    assert statistics["entropy"].tolist() == [(0.5 + 0.5) / 4]
    assert statistics["total_variation"].tolist() == [(1 + 0.0625) / 2 + (0.25 + 0.5625) / 2]


@pytest.mark.parametrize(
    ("shape", "upsample"), [((56, 56), "auto"), ((28, 56), "nearest"), ((7, 9), "bilinear")]
)
def test_statistics_on_the_coarse_grid_are_those_in_the_frame(shape, upsample):
    maps_BHW = np.random.default_rng(0).random((3, *shape))
    frame_BHW = np.stack([to_grid(map_HW, 224, 224, upsample) for map_HW in maps_BHW])
    coarse = mask_statistics(maps_BHW, 224, upsample)
    for name, values in mask_statistics(frame_BHW, 224).items():
        np.testing.assert_allclose(coarse[name], values, rtol=1e-9)


def test_one_image_has_no_deviation():
    assert "std" not in summarise_masks(mask_statistics(np.ones((1, 4, 4)), 4))
