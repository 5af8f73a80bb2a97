"""PxAP of wsolevaluation (Choe et al. 2020, section 4.2): precision and recall of all pixels."""

from __future__ import annotations

import numpy as np

from ..errors import WorkError
from ..maps import unit_range

_EDGES = np.append(np.arange(0, 1, 0.001), (1.0, 2.0, 3.0))  # of the source's score histogram


class PixelAveragePrecision:
    """Pixels of all images, gathered in two histograms; memory does not grow with the data."""

    def __init__(self) -> None:
        self.on_object = np.zeros(len(_EDGES) - 1)
        self.elsewhere = np.zeros(len(_EDGES) - 1)

    def add(self, map_HW: np.ndarray, object_HW: np.ndarray) -> None:
        """Count one image's pixels; the map is min-max scaled, the object's mask bool."""
        share_HW = unit_range(map_HW.astype(np.float64))
        self.on_object += np.histogram(share_HW[object_HW], _EDGES)[0]
        self.elsewhere += np.histogram(share_HW[~object_HW], _EDGES)[0]

    def value(self) -> float:
        """PxAP in percent. Raises WorkError where no image shows any object."""
        if not self.on_object.any():
            raise WorkError("PxAP needs images that show an object; none was given.")
        true = np.cumsum(self.on_object[::-1])
        false = np.cumsum(self.elsewhere[::-1])
        counted = true + false > 0
        precision = true[counted] / (true + false)[counted]
        recall = true[counted] / true[-1]
        # The source leaves out the highest bin; it is empty, as no map exceeds 1.
        return 100 * float(np.sum(precision * np.diff(recall, prepend=0.0)))
