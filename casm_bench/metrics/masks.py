"""Statistics of masks that say how much they cover and how decided and smooth they are.

As the official CASM scorer reports them, in the frame: mean, standard deviation of the per-image
means, entropy, total variation.
"""

from __future__ import annotations

import numpy as np

from ..maps import Upsample, block_factors, enlarges_by_blocks, to_grid


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
    horizontal_B = _sum_of_squares(np.diff(maps_BHW, axis=2)) * rows
    vertical_B = _sum_of_squares(np.diff(maps_BHW, axis=1)) * columns
    return {
        "mean": maps_BHW.mean(axis=(1, 2), dtype=np.float64),
        "entropy": _entropy(maps_BHW),
        "total_variation": (horizontal_B + vertical_B) / (size * (size - 1)),
    }


def _sum_of_squares(differences_BHW: np.ndarray) -> np.ndarray:
    return np.square(differences_BHW).sum(axis=(1, 2), dtype=np.float64)


def _entropy(maps_BHW: np.ndarray) -> np.ndarray:
    tiny = np.finfo(maps_BHW.dtype).tiny  # keeps log2 finite; 0 log2(tiny) and 1 log2(1) are 0
    terms_BHW = maps_BHW * np.log2(np.maximum(maps_BHW, tiny))
    return -terms_BHW.mean(axis=(1, 2), dtype=np.float64)


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
