"""Pointing game and energy pointing: does a map's peak, does its mass lie on the object?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TOLERANCE = 15  # pixels of the frame; TorchRay measures them in the original picture


def pointing(map_HW: np.ndarray, boxes_n4: np.ndarray) -> Iterator[tuple[str, float]]:
    """(name, score) of one map in the frame, shares from 0 to 1.

    pointing_game
        Whether the highest pixel, the first in raster order of several, lies in a true box
        (Zhang et al. 2018).
    pointing_game_15px
        Whether it lies less than TOLERANCE pixels from a true box's nearest pixel (TorchRay).
    energy_pointing
        Share of the map's sum inside the union of true boxes (Wang et al. 2020, Score-CAM); 0
        for an empty map.

    `boxes_n4` are half-open, whole pixels, clipped to the frame; those without area are never hit.
    """
    boxes_n4 = boxes_n4[(boxes_n4[:, 2:] > boxes_n4[:, :2]).all(axis=1)]
    row, column = divmod(int(map_HW.argmax()), map_HW.shape[1])
    point = np.array((column, row))
    beyond_n2 = np.maximum(np.maximum(boxes_n4[:, :2] - point, point - boxes_n4[:, 2:] + 1), 0)
    squared_n = (beyond_n2**2).sum(axis=1)
    yield "pointing_game", float((squared_n == 0).any())
    yield "pointing_game_15px", float((squared_n < TOLERANCE**2).any())
    inside_HW = np.zeros(map_HW.shape, bool)
    for x0, y0, x1, y1 in boxes_n4:
        inside_HW[y0:y1, x0:x1] = True
    total = map_HW.sum(dtype=np.float64)
    yield (
        "energy_pointing",
        float(map_HW[inside_HW].sum(dtype=np.float64) / total) if total else 0.0,
    )


def class_mean(values_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Mean over classes of each class's mean, as TorchRay averages hits; classes shown only."""
    _, label_N = np.unique(labels_N, return_inverse=True)
    return float((np.bincount(label_N, weights=values_N) / np.bincount(label_N)).mean())
