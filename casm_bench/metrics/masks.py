"""Statistics of masks that say how much they cover and how decided and smooth they are.

As the official CASM scorer reports them, in the frame: mean, standard deviation of the per-image
means, entropy, total variation.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..maps import Upsample, block_factors, enlarges_by_blocks, mass, to_grid


def mask_statistics(
    maps_BHW: np.ndarray, size: int, upsample: Upsample = "auto"
) -> dict[str, np.ndarray]:
    """Per-image statistics of maps in [0, 1], taken in a square frame of `size`; float64 B each.

    mean
        Share of the frame that is masked.
    entropy
        Mean over pixels of -m log2 m; zero where m is 0 or 1.
    total_variation
        Mean squared difference of horizontal neighbours plus that of vertical ones.
    """
    if not enlarges_by_blocks(maps_BHW.shape[1:], size, size, upsample):
        maps_BHW = np.stack([to_grid(map_HW, size, size, upsample) for map_HW in maps_BHW])
    rows, columns = block_factors(maps_BHW.shape[1:], size, size)
    # Inside a block nothing differs, so the frame's differences are the grid's, once per pixel
    # along the edge between two blocks.
    horizontal_B = _squared_distances(maps_BHW[:, :, 1:], maps_BHW[:, :, :-1]) * rows
    vertical_B = _squared_distances(maps_BHW[:, 1:], maps_BHW[:, :-1]) * columns
    return {
        "mean": _means(maps_BHW),
        "entropy": _entropy(maps_BHW),
        "total_variation": (horizontal_B + vertical_B) / (size * (size - 1)),
    }


def _squared_distances(a_BHW: np.ndarray, b_BHW: np.ndarray) -> np.ndarray:
    """Sum over pixels of (a - b)², in float64."""
    pairs = zip(a_BHW, b_BHW, strict=True)
    return np.array([cv2.norm(a_HW, b_HW, cv2.NORM_L2SQR) for a_HW, b_HW in pairs])


def _entropy(maps_BHW: np.ndarray) -> np.ndarray:
    tiny = np.finfo(maps_BHW.dtype).tiny  # keeps log2 finite; 0 log2(tiny) and 1 log2(1) are 0
    finite_BHW = maps_BHW if maps_BHW.min() >= tiny else np.maximum(maps_BHW, tiny)
    return _means(maps_BHW * np.log2(finite_BHW))  # of magnitudes: log2 m is nowhere positive


def _means(values_BHW: np.ndarray) -> np.ndarray:
    return np.array([mass(values_HW) / values_HW.size for values_HW in values_BHW])


def summarise_masks(statistics: dict[str, np.ndarray]) -> dict[str, float]:
    """Averages over images, and `std`: the unbiased standard deviation of the per-image means.

    The official scorer averages the `std` of batches of 128 images, which depends on the batch
    size; over one batch the two are the same. A single image has no `std`.
    """
    summary = {name: float(values_N.mean()) for name, values_N in statistics.items()}
    means_N = statistics["mean"]
    if means_N.size > 1:
        summary["std"] = float(means_N.std(ddof=1))
    return summary
