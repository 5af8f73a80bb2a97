"""Box rules: from a saliency map to one box.

A box is `x0, y0, x1, y1` in whole pixels, half-open: x1 and y1 are exclusive. No box is all zeros
in arrays, None for a single map.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from .errors import UsageError
from .maps import Upsample, block_factors, enlarges_by_blocks, mass, to_grid, unit_range
from .protocols import BoxRule

Box = tuple[int, int, int, int]

_UNIT_RANGE_RULES = ("quantile", "fixed")  # read values as shares; the others are scale-free
NO_BOX: Box = (0, 0, 0, 0)
_MANY = 10_000  # values, from which on a sample is drawn before they are sorted
_SAMPLED = 16  # one value in so many
_NEAR = 100  # places of the sorted sample that count as near, on either side
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 1e-6, 1 - 1e-6


def as_read_by(rule: BoxRule, map_HW: np.ndarray, scale_free: bool) -> np.ndarray:
    """A map as the rule wants it: `scale_free` maps, which have no scale of their own, are min-max
    scaled for rules that read values as shares, and for no other."""
    return unit_range(map_HW) if scale_free and rule.kind in _UNIT_RANGE_RULES else map_HW


def binarise(map_HW: np.ndarray, rule: BoxRule, copies: int = 1) -> np.ndarray:
    """Which pixels survive the rule's threshold, before components are looked at; bool H×W.

    `copies`: how many pixels of the frame each pixel of the map stands for; only the rank of
    `quantile` depends on it. Fong & Vedaldi's rules also drop pixels that are exactly zero, as
    their box is the extent of positive pixels. Raises UsageError when `alpha` is missing.

    `quantile` and `fixed` presume maps in [0, 1]: others go through `as_read_by` first. Of a map
    with a mean above one, `quantile` keeps what exceeds its lowest value or 1 - 1e-6,
    whichever is smaller.
    """
    if rule.kind == "quantile":
        return map_HW > quantile_threshold(map_HW, copies)
    if rule.alpha is None:
        raise UsageError(f"The box rule {rule.kind!r} needs alpha.")
    match rule.kind:
        case "fixed":
            return map_HW > rule.alpha
        case "relative":
            return _above_share_of_maximum(byte_levels(map_HW), rule.alpha)
        case "mean":
            return (map_HW >= rule.alpha * map_HW.mean(dtype=np.float64)) & (map_HW > 0)
        case "value":
            lowest, highest = np.float64(map_HW.min()), np.float64(map_HW.max())
            return (map_HW - lowest >= rule.alpha * (highest - lowest)) & (map_HW > 0)
        case "energy":
            return _highest_energy(map_HW, rule.alpha) & (map_HW > 0)


def quantile_threshold(map_HW: np.ndarray, copies: int = 1) -> np.floating:
    """The value that a share mean(map) of the pixels should exceed (official CASM scorer).

    The mean is taken in float64, where the scorer pools in float32: ranks differ by a few, boxes
    did not in any comparison.
    """
    values = map_HW.ravel()
    pixels = values.size * copies
    rank = 1 + math.floor((pixels - 1) * (1 - mass(map_HW) / values.size) + 0.5)
    position = (min(max(rank, 1), pixels) - 1) // copies
    threshold = _ranked(values, position)
    return np.clip(threshold, *np.array((_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD), values.dtype))


def _ranked(values: np.ndarray, position: int) -> np.floating:
    """The value at `position` of the sorted values.

    Of many values only those near it, as a sorted sample tells, are looked at; all of them where
    the sample misleads.
    """
    if values.size >= _MANY:
        sample = np.sort(values[::_SAMPLED])
        guess = position * sample.size // values.size
        lowest, highest = sample[[max(0, guess - _NEAR), min(sample.size - 1, guess + _NEAR)]]
        near = values[(values >= lowest) & (values <= highest)]
        rank = position - np.count_nonzero(values < lowest)
        if 0 <= rank < near.size:
            values, position = near, rank
    return np.partition(values, position)[position]


def byte_levels(map_HW: np.ndarray) -> np.ndarray:
    """The map min-max scaled to uint8, truncated, as wsolevaluation quantises it."""
    return (unit_range(map_HW) * 255).astype(np.uint8)


def _above_share_of_maximum(levels_HW: np.ndarray, share: float) -> np.ndarray:
    return levels_HW > int(share * levels_HW.max())


def _highest_energy(map_HW: np.ndarray, share: float) -> np.ndarray:
    """The highest pixels that together stay below `share` of the map's sum.

    The pixel that reaches the share goes too, with all after it. Among equal pixels the first in
    raster order stay; the source leaves this to an unstable sort.
    """
    values = map_HW.ravel()
    descending = np.sort(values)[::-1]
    energy = np.cumsum(descending, dtype=np.float64)
    kept = int(np.argmax(energy >= share * energy[-1]))
    threshold = descending[kept]
    keep = values > threshold
    tied = np.flatnonzero(values == threshold)
    keep[tied[: kept - np.count_nonzero(keep)]] = True
    return keep.reshape(map_HW.shape)


def box_from_mask(
    mask_HW: np.ndarray, component: str = "largest", connectivity: int = 4
) -> Box | None:
    """Tight box around the `largest` component or `all` of a boolean mask; None if it is empty.

    Of equally large components the first in raster order counts. `contour` is wsolevaluation's
    rectangle of the largest contour, which reaches one pixel further right and down.
    """
    match component:
        case "largest":
            return _box_of_largest_component(mask_HW, connectivity)
        case "all":
            return _extent(mask_HW)
        case _:
            return contour_box(mask_HW)


def _largest_component(mask_HW: np.ndarray, connectivity: int) -> np.ndarray | None:
    """The pixels of the largest component, bool H×W, or of the first in raster order of several."""
    narrow = mask_HW.size < 2**16  # so that no label exceeds 16 bits, which go faster
    count, labels_HW = cv2.connectedComponents(
        mask_HW.view(np.uint8),
        connectivity=connectivity,
        ltype=cv2.CV_16U if narrow else cv2.CV_32S,
    )
    if count == 1:  # the background alone
        return None
    labels = labels_HW[mask_HW]
    areas = np.bincount(labels, minlength=count)
    largest = np.flatnonzero(areas == areas.max())
    # OpenCV does not promise any order of labels.
    label = largest[0] if largest.size == 1 else labels[np.isin(labels, largest)][0]
    return labels_HW == label


def _box_of_largest_component(mask_HW: np.ndarray, connectivity: int) -> Box | None:
    largest_HW = _largest_component(mask_HW, connectivity)
    return None if largest_HW is None else _extent(largest_HW)


def _extent(mask_HW: np.ndarray) -> Box | None:
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask_HW).view(np.uint8))
    return (x, y, x + width, y + height) if width else None


def contour_box(mask_HW: np.ndarray) -> Box | None:
    """Bounding rectangle of the contour with the largest area (wsolevaluation).

    The source's inclusive right and bottom are one beyond the tight box, except at the border.
    It collects contours of holes as well; none is larger than the outer contour around it, so
    only outer ones are looked for, which is several times faster on noisy maps.
    """
    contours, _ = cv2.findContours(
        mask_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if not contours:
        return None
    return _around_contour(max(contours, key=cv2.contourArea), mask_HW)


def contour_boxes(mask_HW: np.ndarray) -> np.ndarray:
    """Bounding rectangles of all contours, those of holes included, int64 n×4 (wsolevaluation)."""
    contours, _ = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [_around_contour(contour, mask_HW) for contour in contours]
    return np.array(boxes, np.int64).reshape(-1, 4)


def _around_contour(contour: np.ndarray, mask_HW: np.ndarray) -> Box:
    left, top, width, height = cv2.boundingRect(contour)
    rows, columns = mask_HW.shape
    return left, top, min(left + width + 1, columns), min(top + height + 1, rows)


def box_from_map(map_HW: np.ndarray, rule: BoxRule, copies: int = 1) -> Box | None:
    """The box that the rule makes of a map, on the map's own grid; None if it makes none."""
    box = box_from_mask(binarise(map_HW, rule, copies), rule.component, rule.connectivity)
    if box is None and rule.empty == "full":
        height, width = map_HW.shape
        return 0, 0, width, height
    return box


def predict_box(
    map_HW: np.ndarray, rule: BoxRule, size: int, upsample: Upsample = "auto"
) -> Box | None:
    """The box of one map in a square frame of `size`.

    Where the map is enlarged by repeating its cells, the work is done on its own grid: there a
    component of the frame is a component of cells, and its box a multiple. Energy ties and
    contours do not carry over like that.
    """
    carries_over = rule.kind != "energy" and rule.component != "contour"
    if not (carries_over and enlarges_by_blocks(map_HW.shape, size, size, upsample)):
        return box_from_map(to_grid(map_HW, size, size, upsample), rule)
    rows, columns = block_factors(map_HW.shape, size, size)
    box = box_from_map(map_HW, rule, copies=rows * columns)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return x0 * columns, y0 * rows, x1 * columns, y1 * rows


def fong_box(map_HW: np.ndarray, rule: BoxRule, width: int, height: int) -> Box | None:
    """Box in an original of `width` × `height`, as Fong & Vedaldi 2017 draw it.

    What the rule rejects is set to zero in the frame, the rest of the map is resized to the
    original, and the box is the extent of positive pixels. Half-open and 0-based; the source's
    1-based inclusive box is (x0 + 1, y0 + 1, x1, y1). Their Python code swaps width and height
    of the whole image when nothing survives; this does not.
    Raises UsageError for the component `contour`, which has no survivors to resize.
    """
    if rule.component == "contour":
        raise UsageError("The box rule 'contour' works in the frame, not in the original picture.")
    survivors_HW = np.where(_surviving(map_HW, rule), map_HW, 0)
    box = _extent(_imresize(survivors_HW, width, height) > 0)
    if box is None and rule.empty == "full":
        return 0, 0, width, height
    return box


def _surviving(map_HW: np.ndarray, rule: BoxRule) -> np.ndarray:
    mask_HW = binarise(map_HW, rule)
    if rule.component == "all":
        return mask_HW
    largest_HW = _largest_component(mask_HW, rule.connectivity)
    return mask_HW if largest_HW is None else largest_HW


def _imresize(map_HW: np.ndarray, width: int, height: int) -> np.ndarray:
    """What scipy.misc.imresize did before it was removed: min-max to uint8, PIL's bilinear."""
    levels_HW = np.floor(unit_range(map_HW.astype(np.float64)) * 255 + 0.5).astype(np.uint8)
    return np.asarray(Image.fromarray(levels_HW).resize((width, height), Image.Resampling.BILINEAR))
