"""Rank correlation and SSIM: hand-worked values, and slow, obvious computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from casm_bench.metrics.similarity import similarity, spearman, ssim

SIDE = 13
maps = arrays(np.float64, (SIDE, SIDE), elements=st.floats(0, 1, width=32))


def test_ranks_by_hand():
    """Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 · 2 / (4 · 15) = 0.8."""
    a_HW = np.array([[0.1, 0.2], [0.3, 0.4]])
    assert spearman(a_HW, np.array([[0, 1], [9, 8]])) == pytest.approx(0.8)
    assert spearman(a_HW, -a_HW) == -1


def test_ties_share_their_rank():
    """Ranks 1.5 1.5 3 4 against 1 2 3 4: covariance 4.5, variances 4.5 and 5."""
    a_HW = np.array([[0, 0], [1, 2]])
    assert spearman(a_HW, np.array([[0, 1], [2, 3]])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


@given(maps, maps)
def test_ranks_as_scipy_does_it(a_HW, b_HW):
    if np.ptp(a_HW) and np.ptp(b_HW):
        expected = spearmanr(a_HW.ravel(), b_HW.ravel()).statistic
        assert spearman(a_HW, b_HW) == pytest.approx(expected, abs=1e-9)


def test_constant_maps_rank_nothing():
    flat_HW, ramp_HW = np.full((SIDE, SIDE), 0.3), np.arange(SIDE**2).reshape(SIDE, SIDE)
    assert spearman(flat_HW, ramp_HW) == 0
    assert spearman(ramp_HW, flat_HW) == 0
    assert spearman(flat_HW, np.zeros((SIDE, SIDE))) == 1


def slow_ssim(a_HW, b_HW):
    """Window by window, as equation 13 is written, for maps that span [0, 1]."""
    at = np.arange(-5, 6)
    weight_KK = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weight_KK /= weight_KK.sum()
    values = []
    for row in range(a_HW.shape[0] - 10):
        for column in range(a_HW.shape[1] - 10):
            x, y = (m[row : row + 11, column : column + 11] for m in (a_HW, b_HW))
            mx, my = (weight_KK * x).sum(), (weight_KK * y).sum()
            vx = (weight_KK * (x - mx) ** 2).sum()
            vy = (weight_KK * (y - my) ** 2).sum()
            cov = (weight_KK * (x - mx) * (y - my)).sum()
            top = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
            values.append(top / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return np.mean(values)


@given(maps, maps)
def test_ssim_as_it_is_written(a_HW, b_HW):
    for map_HW in (a_HW, b_HW):
        map_HW[0, 0], map_HW[-1, -1] = 0, 1
    assert ssim(a_HW, b_HW) == pytest.approx(slow_ssim(a_HW, b_HW), abs=1e-9)


@given(maps, st.floats(0.5, 10), st.floats(0, 3))
def test_a_map_is_like_itself_in_any_scale(map_HW, factor, shift):
    map_HW[0, 0], map_HW[-1, -1] = 0, 1
    found = dict(similarity(map_HW, factor * np.round(map_HW, 3) + shift))
    assert found["ssim"] == pytest.approx(1, abs=1e-2)
    assert dict(similarity(map_HW, map_HW)) == {
        "spearman": pytest.approx(1),
        "ssim": pytest.approx(1),
    }


def test_opposite_maps_are_unlike():
    ramp_HW = np.arange(SIDE**2).reshape(SIDE, SIDE) / (SIDE**2 - 1)
    found = dict(similarity(ramp_HW, 1 - ramp_HW))
    assert found["spearman"] == -1
    assert found["ssim"] < 0.5
