"""From map to score, beside the obvious way of doing it: every pixel, one picture at a time.

The obvious way does what the official CASM scorer does, step by step: enlarge the map, sort all
its pixels, label the components, fill the box and count pixels.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from casm_bench.boxes import predict_boxes
from casm_bench.data.dataset import Dataset
from casm_bench.metrics.scoring import Scores, score_maps
from casm_bench.protocols import CASM_RULE, get_protocol

PICTURES = 64
SIZE = 224
pytestmark = pytest.mark.benchmark(group="64 maps, CPU seconds", timer=time.process_time)
GRIDS = {"CASM's 56-pixel maps": 56, "224-pixel maps": SIZE}


def blobs(side: int) -> np.ndarray:
    """Smooth random maps with some noise, float32 in (0, 1)."""
    random = np.random.default_rng(0)
    noise_NHW = random.normal(size=(PICTURES, side, side))
    smooth_NHW = ndimage.gaussian_filter(noise_NHW, (0, side / 8, side / 8))
    logits_NHW = 4 * smooth_NHW / smooth_NHW.std() + 0.5 * noise_NHW - 4
    return (1 / (1 + np.exp(-logits_NHW))).astype(np.float32)


def pictures() -> Dataset:
    """A data set without pixels, one or two boxes per picture."""
    random = np.random.default_rng(1)
    boxes = []
    for count in random.integers(1, 3, size=PICTURES):
        corner_M2 = random.uniform(0, 200, (count, 2))
        extent_M2 = random.uniform(20, 150, (count, 2))
        boxes.append(np.hstack([corner_M2, corner_M2 + extent_M2]))
    return Dataset(
        name="random boxes",
        split="evaluated",
        classes=["thing"],
        names=[f"picture{i}" for i in range(PICTURES)],
        labels_N=np.zeros(PICTURES, dtype=np.int64),
        sizes_N2=np.tile(np.array([500, 375]), (PICTURES, 1)),
        boxes=boxes,
        has_pixels=False,
    )


def enlarged(map_HW: np.ndarray) -> np.ndarray:
    factor = SIZE // len(map_HW)
    return map_HW.repeat(factor, axis=0).repeat(factor, axis=1)


def obvious_box(map_HW: np.ndarray) -> tuple[int, int, int, int]:
    map_HW = enlarged(map_HW)
    mean = map_HW.mean(dtype=np.float64)
    rank = int((map_HW.size - 1) * (1 - mean) + 0.5)
    above_HW = map_HW > np.clip(np.sort(map_HW, axis=None)[rank], 1e-6, 1 - 1e-6)
    labels_HW, _ = ndimage.label(above_HW)
    sizes = np.bincount(labels_HW.ravel())
    sizes[0] = 0
    if not sizes.any():
        return 0, 0, 0, 0
    rows, columns = np.nonzero(labels_HW == sizes.argmax())
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def filled(box: np.ndarray) -> np.ndarray:
    mask_HW = np.zeros((SIZE, SIZE), bool)
    x0, y0, x1, y1 = np.clip(box, 0, SIZE)
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


def area(box: np.ndarray) -> int:
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def obvious_iou(box: tuple[int, int, int, int], truth_4: np.ndarray) -> float:
    shared = (filled(box) & filled(truth_4)).sum()
    return shared / (area(box) + area(truth_4) - shared)


def obvious_f1(map_HW: np.ndarray, truth_4: np.ndarray) -> float:
    map_HW = enlarged(map_HW).astype(np.float64)
    inside = map_HW[filled(truth_4)].sum()
    precision, recall = inside / (map_HW.sum() + 1e-6), inside / area(truth_4)
    return 2 * precision * recall / (precision + recall + 1e-6)


def obvious_score(map_HW: np.ndarray, truth_M4: np.ndarray) -> tuple[float, float]:
    """IoU and F1, each the best over the true boxes."""
    box = obvious_box(map_HW)
    iou = max(obvious_iou(box, truth_4) for truth_4 in truth_M4)
    return iou, max(obvious_f1(map_HW, truth_4) for truth_4 in truth_M4)


def truth_in_crop(dataset: Dataset, index: int) -> np.ndarray:
    width, height = dataset.sizes_N2[index]
    scale = SIZE / min(width, height)
    cut = np.array([scale * width - SIZE, scale * height - SIZE] * 2) / 2
    return (dataset.boxes[index] * scale - cut).astype(np.int64)


@pytest.mark.parametrize("kind", GRIDS)
def test_boxes(kind, beside):
    maps_NHW = blobs(GRIDS[kind])

    def obvious_boxes() -> np.ndarray:
        return np.array([obvious_box(map_HW) for map_HW in maps_NHW])

    boxes_N4 = beside(lambda: predict_boxes(maps_NHW, CASM_RULE, SIZE, "nearest"), obvious_boxes)
    np.testing.assert_array_equal(boxes_N4, obvious_boxes())


@pytest.mark.parametrize("kind", GRIDS)
def test_scores(kind, beside):
    maps_NHW, dataset = blobs(GRIDS[kind]), pictures()

    def obvious_scores() -> np.ndarray:
        return np.array(
            [obvious_score(m, truth_in_crop(dataset, i)) for i, m in enumerate(maps_NHW)]
        )

    def ours() -> Scores:
        return score_maps(enumerate(maps_NHW), dataset, get_protocol("casm"), CASM_RULE, SIZE)

    scores = beside(ours, obvious_scores)
    iou_N, f1_N = obvious_scores().T
    np.testing.assert_allclose(scores.iou_N, iou_N)
    np.testing.assert_allclose(scores.f1_N, f1_N)
