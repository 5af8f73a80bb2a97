"""Localization of the true boxes: LE and F1 under a named protocol."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..data.dataset import Dataset
from ..data.frames import boxes_to_original, truth_in_frame
from ..errors import WorkError
from ..maps import mass
from ..protocols import Protocol
from .overlap import VisibleTruth, areas, intersections, iou, succeeds, visible_truth

_TINY = 1e-6  # the official scorer's guard against division by zero


@dataclass(frozen=True)
class Truth:
    """All true boxes of a data set in a protocol's frame, image after image."""

    boxes_M4: np.ndarray  # int64, frame pixels, as annotated
    owner_M: np.ndarray  # int64, index of the image
    offsets: np.ndarray  # int64 N+1, each image's first row, and the end; no image is empty
    extent_N2: np.ndarray  # int64, width and height of the frame
    visible: VisibleTruth

    def of(self, index: int) -> VisibleTruth:
        """The true boxes of one image, as they are counted."""
        rows = slice(*self.offsets[index : index + 2])
        return VisibleTruth(self.visible.boxes_M4[rows], self.visible.area_M[rows])

    def best_per_image(self, score_M: np.ndarray) -> np.ndarray:
        """The best score among each image's true boxes."""
        return np.maximum.reduceat(score_M, self.offsets[:-1])

    def mean_per_image(self, score_M: np.ndarray) -> np.ndarray:
        """The mean score over each image's true boxes."""
        return np.add.reduceat(score_M, self.offsets[:-1]) / np.diff(self.offsets)


def true_boxes(dataset: Dataset, protocol: Protocol, size: int) -> Truth:
    """Collect the true boxes in the frame that `protocol` compares them in.

    Raises WorkError naming the image whose boxes are missing, inverted or not numbers. Boxes of
    zero width or height are allowed, as Tiny-ImageNet has hundreds: half-open they can't be hit.
    """
    if len(dataset) == 0:
        raise WorkError(f"The data set {dataset.name} has no images to score.")
    counts_N = np.array([len(boxes) for boxes in dataset.boxes])
    if not counts_N.all():
        _refuse(dataset, int(np.argmin(counts_N)), "no true box")
    owner_M = np.repeat(np.arange(len(dataset)), counts_N)
    original_M4 = np.concatenate([np.reshape(boxes, (-1, 4)) for boxes in dataset.boxes])
    ordered_M2 = original_M4[:, :2] <= original_M4[:, 2:]  # False for NaN, too
    bad_M = ~(ordered_M2.all(axis=1) & np.isfinite(original_M4).all(axis=1))
    if bad_M.any():
        row = int(np.argmax(bad_M))
        _refuse(dataset, int(owner_M[row]), f"the impossible box {original_M4[row].tolist()}")
    width_M, height_M = dataset.sizes_N2[owner_M].T
    where = (width_M, height_M, protocol.box_frame, size)
    as_wsol = protocol.coordinates == "inclusive"
    boxes_M4 = truth_in_frame(original_M4, *where, multiply_first=as_wsol)
    square_N2 = np.full_like(dataset.sizes_N2, size)
    extent_N2 = dataset.sizes_N2 if protocol.box_frame == "original" else square_N2
    offsets = np.concatenate(([0], np.cumsum(counts_N)))
    visible = visible_truth(boxes_M4, extent_N2[owner_M], protocol)
    return Truth(boxes_M4, owner_M, offsets, extent_N2, visible)


def _refuse(dataset: Dataset, index: int, problem: str) -> None:
    raise WorkError(
        f"{dataset.names[index]} in data set {dataset.name} ({dataset.split}) has {problem}; "
        "localization needs at least one box x0, y0, x1, y1 with x0 <= x1 and y0 <= y1 per image. "
        "Correct the annotation or leave the image out."
    )


def score_boxes(
    pred_N4: np.ndarray, dataset: Dataset, protocol: Protocol, size: int
) -> dict[str, np.ndarray]:
    """Score one predicted box per image of `dataset`.

    `pred_N4` is half-open, in pixels of the protocol's box frame, all zeros for no box. Returns
    `iou_N`, the best overlap with any true box of the image, and `hit_N`, whether it succeeds.
    """
    return score_against(pred_N4, true_boxes(dataset, protocol, size), protocol)


def score_against(pred_N4: np.ndarray, truth: Truth, protocol: Protocol) -> dict[str, np.ndarray]:
    """As `score_boxes`, with the true boxes already collected."""
    overlap_M = iou(pred_N4, truth.boxes_M4, truth.owner_M, truth.extent_N2, protocol)
    iou_N = truth.best_per_image(overlap_M)
    return {"iou_N": iou_N, "hit_N": succeeds(iou_N, protocol)}


def localization_error(hit_N: np.ndarray) -> float:
    """LE: percentage of images in which no true box was found."""
    return 100 * float(np.mean(~hit_N))


def continuous_f1(
    map_HW: np.ndarray, truth_n4: np.ndarray, protocol: Protocol
) -> tuple[float, float]:
    """F1 of a map against the true boxes of its image: the best box, and the mean over boxes.

    The map itself, in [0, 1] and as large as the frame, is the prediction (official CASM scorer):
    precision is the share of its mass inside the box, recall that mass over the area of the box,
    as the protocol counts it. `truth_n4` is in pixels of the frame, as annotated.
    """
    height, width = map_HW.shape
    visible = visible_truth(truth_n4, (width, height), protocol)
    return map_f1(map_HW, visible)


def map_f1(
    map_HW: np.ndarray, visible: VisibleTruth, cell: tuple[int, int] = (1, 1)
) -> tuple[float, float]:
    """As `continuous_f1`, with the true boxes already clipped and measured.

    `cell`: rows and columns of the frame that each value of the map stands for.
    """
    rows, columns = cell
    if cell == (1, 1):
        inside_n = np.array([mass(map_HW[y0:y1, x0:x1]) for x0, y0, x1, y1 in visible.boxes_M4])
    else:
        inside_n = _sums_in_boxes(map_HW, visible.boxes_M4, rows, columns)
    f1_n = _f1(inside_n, mass(map_HW) * rows * columns, visible.area_M)
    return float(f1_n.max()), float(f1_n.mean())


def _sums_in_boxes(map_HW: np.ndarray, boxes_n4: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Sum over the frame's pixels in each box, for a map whose cells cover rows × columns."""
    rows_nH = _coverage(boxes_n4[:, 1], boxes_n4[:, 3], map_HW.shape[0], rows)
    columns_nW = _coverage(boxes_n4[:, 0], boxes_n4[:, 2], map_HW.shape[1], columns)
    return ((rows_nH @ map_HW.astype(np.float64)) * columns_nW).sum(axis=1)


def _coverage(start_n: np.ndarray, stop_n: np.ndarray, cells: int, length: int) -> np.ndarray:
    """How many of each cell's `length` pixels lie in start <= pixel < stop; float64 n×cells."""
    first_c = np.arange(cells) * length
    before_stop = np.minimum(np.maximum(stop_n[:, None] - first_c, 0), length)
    before_start = np.minimum(np.maximum(start_n[:, None] - first_c, 0), length)
    return (before_stop - before_start).astype(np.float64)


def box_f1(pred_N4: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """F1 of predicted boxes, filled with ones as if they were maps: best and mean, float64 N."""
    pred_M4 = np.asarray(pred_N4, np.int64)[truth.owner_M]
    inside_M = intersections(pred_M4, truth.visible.boxes_M4)
    f1_M = _f1(inside_M, areas(pred_M4), truth.visible.area_M)
    return truth.best_per_image(f1_M), truth.mean_per_image(f1_M)


def _f1(inside_M: np.ndarray, mass_M: np.ndarray | float, area_M: np.ndarray) -> np.ndarray:
    precision_M = inside_M / (mass_M + _TINY)
    recall_M = inside_M / np.maximum(area_M, 1)  # nothing is inside a box without area
    return 2 * precision_M * recall_M / (precision_M + recall_M + _TINY)


def in_box_frame(
    boxes_N4: np.ndarray, dataset: Dataset, protocol: Protocol, size: int
) -> np.ndarray:
    """Boxes from the frame that the network saw to the frame in which they are compared."""
    if protocol.box_frame != "original":
        return np.asarray(boxes_N4, np.int64)
    width_N, height_N = dataset.sizes_N2.T
    return boxes_to_original(boxes_N4, width_N, height_N, protocol.input_frame, size)


def in_original(map_HW: np.ndarray, width: int, height: int) -> np.ndarray:
    """A map of the warped picture, stretched to the original bilinearly."""
    return cv2.resize(map_HW, (width, height), interpolation=cv2.INTER_LINEAR)
