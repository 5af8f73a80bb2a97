"""Overlap of predicted and true boxes, for all images at once.

Boxes are `x0, y0, x1, y1` in whole pixels of the frame. Predictions are half-open; true boxes
are as annotated, and the protocol says whether their right and bottom edges belong to them.
`owner_M` is the image, a row of the predictions, that each true box belongs to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..protocols import Protocol


class VisibleTruth(NamedTuple):
    """True boxes as they are counted."""

    boxes_M4: np.ndarray  # int64, half-open, clipped to the frame
    area_M: np.ndarray  # int64, that the union and recall are taken with; zero if not visible


def visible_truth(truth_M4: np.ndarray, extent_M2: ArrayLike, protocol: Protocol) -> VisibleTruth:
    """Clip true boxes to the frame and take their areas the way `protocol` does.

    `extent_M2` is the frame's width and height, one pair or one per box. The official scorer
    keeps the area of the whole box, also what lies outside of the frame (spec of `casm`).
    """
    edge = np.array((0, 0, 1, 1)) if protocol.coordinates == "inclusive" else 0
    whole_M4 = np.asarray(truth_M4, np.int64).reshape(-1, 4) + edge
    limit = np.tile(np.asarray(extent_M2, np.int64), 2)
    clipped_M4 = np.clip(whole_M4, 0, limit)
    counted_M4 = whole_M4 if protocol.truth_area == "unclipped" else clipped_M4
    return VisibleTruth(clipped_M4, np.where(areas(clipped_M4) > 0, areas(counted_M4), 0))


def areas(boxes_M4: np.ndarray) -> np.ndarray:
    """Pixels in half-open boxes; inverted boxes have none."""
    sides_M2 = np.maximum(boxes_M4[:, 2:] - boxes_M4[:, :2], 0)
    return sides_M2[:, 0] * sides_M2[:, 1]


def intersections(a_M4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Pixels that half-open boxes share, row by row."""
    lower_M2 = np.maximum(a_M4[:, :2], b_M4[:, :2])
    upper_M2 = np.minimum(a_M4[:, 2:], b_M4[:, 2:])
    return areas(np.hstack((lower_M2, upper_M2)))


def iou(
    pred_B4: np.ndarray,
    truth_M4: np.ndarray,
    owner_M: np.ndarray,
    extent: ArrayLike,
    protocol: Protocol,
) -> np.ndarray:
    """Intersection over union of each true box with its image's predicted box, float64 M.

    `extent` is the frame's width and height: one pair, or one per image (B×2). A true box without
    any area in the frame scores 0, and so does the all-zero box that stands for no prediction.
    """
    extent = np.asarray(extent)
    extent_M2 = extent[owner_M] if extent.ndim == 2 else extent
    visible = visible_truth(truth_M4, extent_M2, protocol)
    pred_M4 = np.asarray(pred_B4, np.int64).reshape(-1, 4)[owner_M]
    shared_M = intersections(pred_M4, visible.boxes_M4)
    union_M = areas(pred_M4) + visible.area_M - shared_M
    return shared_M / np.maximum(union_M, 1)


def succeeds(iou_M: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Which overlaps count as found: IoU above the protocol's threshold, or at least at it."""
    if protocol.iou_at_least:
        return iou_M >= protocol.iou_threshold
    return iou_M > protocol.iou_threshold
