"""How alike two saliency maps are: rank correlation, and structural similarity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import correlate1d
from scipy.stats import rankdata

from ..maps import unit_range

SIGMA, RADIUS = 1.5, 5  # of the Gaussian window: 11×11 pixels
C1, C2 = 0.01**2, 0.03**2  # for maps in [0, 1]


def similarity(a_HW: np.ndarray, b_HW: np.ndarray) -> Iterator[tuple[str, float]]:
    """(`spearman`, in [-1, 1]) and (`ssim`, at most 1) of two maps of one size; 1 for equal ones.

    Adebayo et al. 2018, section 2.1, compare the maps of a network with those of its randomized
    copies by these two.
    """
    yield "spearman", spearman(a_HW, b_HW)
    yield "ssim", ssim(a_HW, b_HW)


def spearman(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    """Spearman's rank correlation of the pixels, ties by their mean rank.

    A constant map ranks nothing: it is like another constant map (1) and unlike any other (0).
    """
    a, b = (rankdata(map_HW, axis=None) for map_HW in (a_HW, b_HW))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    if norm == 0:
        return float(not a.any() and not b.any())
    return float(np.clip(a @ b / norm, -1, 1))


def ssim(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    """Mean structural similarity (Wang et al. 2004, equation 13) of maps min-max scaled to [0, 1].

    Over all windows that lie inside the map, which must have at least 11 pixels a side.
    """
    a_HW, b_HW = (unit_range(map_HW.astype(np.float64)) for map_HW in (a_HW, b_HW))
    mean_a, mean_b = _windowed(a_HW), _windowed(b_HW)
    var_a = _windowed(a_HW * a_HW) - mean_a**2
    var_b = _windowed(b_HW * b_HW) - mean_b**2
    cov = _windowed(a_HW * b_HW) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * cov + C2) / (var_a + var_b + C2)
    return float((luminance * structure).mean())


def _windowed(values_HW: np.ndarray) -> np.ndarray:
    """Gaussian means over windows, one for each that lies inside."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        values_HW = correlate1d(values_HW, weights, axis=axis)
    return values_HW[RADIUS:-RADIUS, RADIUS:-RADIUS]
