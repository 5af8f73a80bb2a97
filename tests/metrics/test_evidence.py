"""Evidence recall and precision, by hand and on drawn pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from casm_bench.data.dataset import Dataset
from casm_bench.metrics.evidence import evidence_in_frame, evidence_scores
from casm_bench.pipeline.method_run import by_metric, present


def block(x0, y0, x1, y1, side=10) -> np.ndarray:
    mask_HW = np.zeros((side, side), bool)
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


PARTS = {"spot": block(0, 0, 2, 2), "stripes": block(2, 0, 6, 2)}  # 4 and 8 pixels


@pytest.mark.parametrize(
    ("mask", "spot", "stripes", "precision"),
    [
        (block(0, 0, 2, 2), 1.0, 0.0, 1.0),
        (block(1, 0, 4, 4), 0.5, 0.5, 0.5),
        (block(0, 0, 10, 10), 1.0, 1.0, 0.12),
        (block(0, 0, 0, 0), 0.0, 0.0, 0.0),
        (0.25 * block(0, 0, 2, 4), 0.25, 0.0, 0.5),  # the map itself, not thresholded
    ],
)
def test_shares_by_hand(mask, spot, stripes, precision):
    assert evidence_scores(mask, PARTS) == {
        "evidence_recall_spot": pytest.approx(spot),
        "evidence_recall_stripes": pytest.approx(stripes),
        "evidence_precision": pytest.approx(precision),
    }


def test_overlapping_parts_count_once_in_precision():
    scores = evidence_scores(block(0, 0, 2, 2), {"object": block(0, 0, 2, 2), **PARTS})
    assert scores["evidence_precision"] == 1


@dataclass(frozen=True, kw_only=True)
class Drawn(Dataset):
    masks: list[dict[str, np.ndarray]]

    def evidence(self, index: int) -> dict[str, np.ndarray]:
        return self.masks[index]


def drawn(*masks) -> Drawn:
    count = len(masks)
    return Drawn(
        name="drawn",
        split="evaluated",
        classes=["thing"],
        names=[str(i) for i in range(count)],
        labels_N=np.zeros(count, np.int64),
        sizes_N2=np.full((count, 2), 10),
        boxes=[np.zeros((0, 4))] * count,
        masks=list(masks),
    )


def test_a_part_is_averaged_over_the_pictures_that_show_it():
    data = drawn(PARTS, {"spot": block(0, 0, 0, 0), "stripes": block(0, 0, 4, 1)})
    rows = [(i, evidence_in_frame(i, block(0, 0, 2, width), data)) for i, width in ((1, 1), (0, 2))]
    assert {name: present(values).mean() for name, values in by_metric(rows).items()} == {
        "evidence_recall_spot": 1.0,
        "evidence_recall_stripes": pytest.approx((0.5 + 0.0) / 2),
        "evidence_precision": 1.0,
    }


@pytest.mark.parametrize(("frame", "precision"), [("crop", 1.0), ("warp", 0.5)])
def test_evidence_goes_to_the_frame_of_the_mask(frame, precision):
    # In 20×10 the object spans x 5 to 15: all of the centre crop, half of the squashed picture.
    object_HW = np.zeros((10, 20), bool)
    object_HW[:, 5:15] = True
    mask_HW = np.ones((40, 40), bool)
    metrics = evidence_in_frame(0, mask_HW, drawn({"object": object_HW}), frame)
    assert metrics["evidence_recall_object"] == 1.0
    assert metrics["evidence_precision"] == precision
