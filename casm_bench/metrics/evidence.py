"""Evidence recall: how much of what carries the class a mask covers.

Only data sets that are drawn know which pixels carry the class (`Dataset.evidence`). A mask can
find the box and still cover one part of the evidence only, which is what CASM sets out to avoid.
"""

from __future__ import annotations

import numpy as np

from ..data.dataset import Dataset
from ..data.frames import to_frame_mask
from ..protocols import Frame


def evidence_in_frame(
    index: int, mask_HW: np.ndarray, dataset: Dataset, frame: Frame = "crop"
) -> dict[str, float]:
    """Evidence recall per part that image `index` shows, and evidence precision, from 0 to 1.

    The mask is square and in the network's `frame`; either boolean, what a method's rule keeps
    before it selects components, or the map itself in [0, 1].
    """
    parts = dataset.evidence(index)
    framed = {part: to_frame_mask(parts[part], frame, len(mask_HW)) for part in parts}
    return evidence_scores(mask_HW, framed)


def evidence_scores(mask_HW: np.ndarray, parts: dict[str, np.ndarray]) -> dict[str, float]:
    """Evidence recall of one mask for each part that is seen, and its evidence precision.

    `parts` are boolean masks on the grid of `mask_HW`. A mask that is empty has precision 0.
    """
    scores = {
        f"evidence_recall_{part}": float(mask_HW[part_HW].mean(dtype=np.float64))
        for part, part_HW in parts.items()
        if part_HW.any()
    }
    evidence_HW = np.logical_or.reduce(list(parts.values()))
    mass = mask_HW.sum(dtype=np.float64)
    on_evidence = mask_HW[evidence_HW].sum(dtype=np.float64)
    scores["evidence_precision"] = float(on_evidence / mass) if mass else 0.0
    return scores
