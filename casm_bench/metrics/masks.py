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
    maps_BHW = maps_BHW.astype(np.float64, copy=False)
    # Inside a block nothing differs, so the frame's differences are the grid's, once per pixel
    # along the edge between two blocks.
    horizontal_B = np.square(np.diff(maps_BHW, axis=2)).sum(axis=(1, 2)) * rows
    vertical_B = np.square(np.diff(maps_BHW, axis=1)).sum(axis=(1, 2)) * columns
    return {
        "mean": maps_BHW.mean(axis=(1, 2)),
        "entropy": _pixel_entropy(maps_BHW).mean(axis=(1, 2)),
        "total_variation": (horizontal_B + vertical_B) / (size * (size - 1)),
    }


def _pixel_entropy(maps_BHW: np.ndarray) -> np.ndarray:
    inside = (maps_BHW > 0) & (maps_BHW < 1)
    return -maps_BHW * np.log2(maps_BHW, where=inside, out=np.zeros_like(maps_BHW))


def summarise_masks(statistics: dict[str, np.ndarray]) -> dict[str, float]:
    """Averages over images, and `std`: the unbiased standard deviation of the per-image means.

    The official scorer averages the `std` of batches of 128 images, which depends on the batch
    size; over one batch the two are the same.
    """
    summary = {name: float(values_N.mean()) for name, values_N in statistics.items()}
    means_N = statistics["mean"]
    summary["std"] = float(means_N.std(ddof=1)) if means_N.size > 1 else 0.0
    return summary
