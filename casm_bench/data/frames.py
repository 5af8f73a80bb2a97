"""Original picture <-> frame: the square the network sees, and where most protocols compare boxes.

Frames: `crop` scales the short side to `size` and keeps the centre square; `warp` squashes the
whole picture to the square; `original` is the picture itself. Pictures are resized the way
torchvision does it, boxes the way the official CASM scorer does it. The two round differently by
less than a pixel, as they do in the original work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..protocols import Frame


def _scale_and_cut(
    width: ArrayLike, height: ArrayLike, frame: Frame, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per coordinate of x0, y0, x1, y1: frame = scale * original - cut."""
    width, height = np.asarray(width, np.float64), np.asarray(height, np.float64)
    if frame == "warp":
        scale_x, scale_y = size / width, size / height
        cut_x = cut_y = np.zeros_like(width)
    else:
        scale_x = scale_y = size / np.minimum(width, height)
        # Only the long axis is cut; (short * scale - size) need not be zero in floating point.
        cut_x = np.where(width > height, (width * scale_x - size) / 2, 0.0)
        cut_y = np.where(width < height, (height * scale_y - size) / 2, 0.0)
    return (
        np.stack((scale_x, scale_y, scale_x, scale_y), axis=-1),
        np.stack((cut_x, cut_y, cut_x, cut_y), axis=-1),
    )


def truth_in_frame(
    boxes_N4: ArrayLike,
    width: ArrayLike,
    height: ArrayLike,
    frame: Frame,
    size: int,
    *,
    multiply_first: bool = False,
) -> np.ndarray:
    """True boxes from original pixels to pixels of the frame (official CASM scorer, resize_pos).

    `width` and `height` of the original are numbers, or arrays with one entry per box. Returns
    int64 N×4, truncated toward zero and not clipped: boxes may leave the frame. `original` only
    truncates. `multiply_first`: in `warp`, times `size` and then divided by the original's side,
    as wsolevaluation does. Rounding makes that another pixel for one in 1,500 boxes of ILSVRC.
    """
    boxes_N4 = np.asarray(boxes_N4, np.float64).reshape(-1, 4)
    if frame == "original":
        return boxes_N4.astype(np.int64)
    if multiply_first and frame == "warp":
        sides = np.stack(np.broadcast_arrays(width, height, width, height), axis=-1)
        return (boxes_N4 * size / sides).astype(np.int64)
    scale, cut = _scale_and_cut(width, height, frame, size)
    return (scale * boxes_N4 - cut).astype(np.int64)


def boxes_to_original(
    boxes_N4: ArrayLike, width: ArrayLike, height: ArrayLike, frame: Frame, size: int
) -> np.ndarray:
    """Half-open boxes from frame pixels back to original pixels, int64 N×4, rounded to nearest."""
    boxes_N4 = np.asarray(boxes_N4, np.float64).reshape(-1, 4)
    if frame == "original":
        return boxes_N4.astype(np.int64)
    scale, cut = _scale_and_cut(width, height, frame, size)
    return np.floor((boxes_N4 + cut) / scale + 0.5).astype(np.int64)


def resized_boxes(boxes_N4: ArrayLike, side: int, new_side: int) -> np.ndarray:
    """Boxes from a frame of `side` pixels to the same frame of `new_side`, int64 N×4, rounded."""
    boxes_N4 = np.asarray(boxes_N4, np.float64).reshape(-1, 4)
    return np.floor(boxes_N4 * (new_side / side) + 0.5).astype(np.int64)


@dataclass(frozen=True)
class View:
    """Which part of an original a training picture shows, and how."""

    size: int  # side of the picture in pixels
    crop: tuple[int, int, int, int] | None  # x0, y0, x1, y1 in the original; None: the frame `crop`
    flipped: bool  # left to right


def boxes_in_view(boxes_N4: ArrayLike, width: int, height: int, view: View) -> np.ndarray:
    """True boxes from original pixels to pixels of a training picture, float64 N×4.

    Neither rounded nor clipped, so that they follow the picture exactly; boxes may leave it.
    """
    boxes_N4 = np.asarray(boxes_N4, np.float64).reshape(-1, 4)
    if view.crop is None:
        wide, high, left, top = _centre_square(width, height, view.size)
        scale_x, scale_y = wide / width, high / height
        boxes_N4 = boxes_N4 * (scale_x, scale_y, scale_x, scale_y) - (left, top, left, top)
    else:
        x0, y0, x1, y1 = view.crop
        scale_x, scale_y = view.size / (x1 - x0), view.size / (y1 - y0)
        boxes_N4 = (boxes_N4 - (x0, y0, x0, y0)) * (scale_x, scale_y, scale_x, scale_y)
    if view.flipped:
        left_N, right_N = view.size - boxes_N4[:, 2], view.size - boxes_N4[:, 0]
        boxes_N4 = np.stack((left_N, boxes_N4[:, 1], right_N, boxes_N4[:, 3]), axis=1)
    return boxes_N4


def to_frame_image(image_HW3: np.ndarray, frame: Frame, size: int) -> np.ndarray:
    """A uint8 H×W×3 picture in the frame, bilinear with antialiasing.

    Equals torchvision's Resize(size) and CenterCrop(size) on a PIL image (`crop`), or
    Resize((size, size)) (`warp`), to the last bit.
    """
    return _to_frame(image_HW3, frame, size, Image.Resampling.BILINEAR)


def to_frame_mask(mask_HW: np.ndarray, frame: Frame, size: int) -> np.ndarray:
    """A boolean H×W mask in the frame: the geometry of `to_frame_image`, nearest pixel."""
    return _to_frame(np.asarray(mask_HW, bool), frame, size, Image.Resampling.NEAREST)


def _to_frame(
    pixels: np.ndarray, frame: Frame, size: int, resample: Image.Resampling
) -> np.ndarray:
    height, width = pixels.shape[:2]
    if frame == "original" or (height, width) == (size, size):
        return pixels
    picture = Image.fromarray(pixels)
    if frame == "warp":
        return np.asarray(picture.resize((size, size), resample))
    wide, high, left, top = _centre_square(width, height, size)
    picture = picture.resize((wide, high), resample)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def _centre_square(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Width and height after Resize(size), and where CenterCrop(size) begins: left and top."""
    short = min(width, height)
    wide, high = size * width // short, size * height // short
    return wide, high, round((wide - size) / 2), round((high - size) / 2)
