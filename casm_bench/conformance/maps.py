"""The built-in maps: each is one line, so that anybody can make them again."""

from __future__ import annotations

import numpy as np

SIDE = 224
Edges = tuple[float, int, int, int, int]


def rectangles(*values_and_edges: Edges) -> np.ndarray:
    """Zeros with rectangles of (value, y0, y1, x0, x1), half-open; of two, the first is on top."""
    map_HW = np.zeros((SIDE, SIDE))
    for value, y0, y1, x0, x1 in reversed(values_and_edges):
        map_HW[y0:y1, x0:x1] = value
    return map_HW


yy, xx = np.mgrid[:SIDE, :SIDE]
MAPS: dict[str, np.ndarray] = {  # float32, rows from the top, columns from the left
    name: map_HW.astype(np.float32)
    for name, map_HW in {
        "gaussian": np.exp(-((yy - 100) ** 2 + (xx - 120) ** 2) / 1800.0),
        "ramp": xx / 223.0,
        "two-rectangles": rectangles((0.9, 20, 60, 30, 90), (0.6, 120, 200, 100, 210)),
        "constant": np.full((SIDE, SIDE), 0.3),
        "zeros": np.zeros((SIDE, SIDE)),
        "ones": np.ones((SIDE, SIDE)),
        "small-square": rectangles((1, 50, 150, 60, 160)),
        "large-rectangle": rectangles((1, 10, 214, 20, 220)),
        "corners-touch": rectangles((1, 40, 80, 40, 80), (1, 80, 120, 80, 120)),
        "equal-areas": rectangles((1, 100, 120, 150, 190), (1, 20, 60, 10, 30)),
        "six-by-six": np.array(
            [
                [0, 0, 0, 0, 0, 0],
                [0, 1, 2, 1, 0, 0],
                [0, 2, 9, 4, 1, 0],
                [0, 1, 4, 3, 0, 0],
                [0, 0, 1, 0, 0, 8],
                [0, 0, 0, 0, 0, 0],
            ]
        ),
    }.items()
}
