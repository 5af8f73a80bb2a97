"""MaxBoxAcc of wsolevaluation (Choe et al. 2020, section 4): the best threshold in hindsight.

Every map makes one box per threshold. The threshold that serves the evaluated images best is
chosen on those very images, so the result is an upper bound, not what a user would get.
"""

from __future__ import annotations

import numpy as np

from ..boxes import box_from_mask, byte_levels
from ..protocols import Component, Protocol
from .localization import Truth, score_against

THRESHOLDS = np.arange(0, 1, 0.01)  # T; shares of the map's maximum, as in the source's script
ALPHAS = {  # by kind of rule, what is tried; the first three as Fong & Vedaldi 2017
    "value": np.arange(20) / 20,
    "energy": np.arange(20) / 20,
    "mean": np.arange(21) / 2,
    "fixed": np.arange(20) / 20,
    "relative": THRESHOLDS,
}


def sweep_boxes(
    map_HW: np.ndarray, component: Component = "contour", connectivity: int = 4
) -> np.ndarray:
    """The box around the largest contour at each of THRESHOLDS, int16 T×4; zeros for none.

    `map_HW` has the size of the frame; the source gets it there by cubic interpolation. Int16
    keeps the sweep of 50,000 images at 40 MB.
    """
    levels_HW = byte_levels(map_HW)
    highest = int(levels_HW.max())
    masks = (levels_HW > int(share * highest) for share in THRESHOLDS)
    boxes = [box_from_mask(mask_HW, component, connectivity) for mask_HW in masks]
    return np.array([box or (0, 0, 0, 0) for box in boxes], np.int16)


def best_threshold(box_NT4: np.ndarray, truth: Truth, protocol: Protocol) -> int:
    """Index of the threshold that finds most images' boxes, the lowest such."""
    hits_T = [
        score_against(box_N4, truth, protocol)["hit_N"].sum() for box_N4 in box_NT4.swapaxes(0, 1)
    ]
    return int(np.argmax(hits_T))
