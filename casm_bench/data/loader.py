"""Decode, augment and batch. Pictures stay uint8: they are normalised on the device.

Everything random is a pure function of (seed, epoch, position), never of the state of a shared
generator, so that a run resumed in the middle of an epoch sees exactly what it would have seen.

Tensor names end in their shape: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError, WorkError
from ..protocols import Frame
from .dataset import Dataset
from .frames import View, boxes_in_view

Augmentation = Literal["none", "flip", "crop-flip"]
# From a picture's width and height to its crop: x0, y0, x1, y1, half-open.
Cut = Callable[[int, int, np.random.Generator], tuple[int, int, int, int]]
LEAST_AREA = 0.08  # of a random crop, as a share of the picture (torchvision's default)
AUGMENTATIONS: tuple[Augmentation, ...] = ("none", "flip", "crop-flip")

# Pillow releases the interpreter lock while it decodes and resizes, so threads are enough.
_THREADS = min(16, os.cpu_count() or 1)
_logger = logging.getLogger("casm_bench")
_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


@dataclass(frozen=True)
class FrameBatch:
    """Evaluation pictures in one frame, and which ones could not be read on the way."""

    indices_B: np.ndarray  # int64, into the data set
    images_BCHW: Tensor  # uint8; on device "meta" for data without pixels
    labels_B: Tensor  # int64
    skipped: list[tuple[str, str]]  # name and reason


def frame_batches(
    dataset: Dataset,
    frame: Frame,
    size: int,
    batch_size: int,
    indices: Sequence[int] | np.ndarray | None = None,
) -> Iterator[FrameBatch]:
    """Pictures of `dataset` (all, or those at `indices`, in that order) as size×size batches.

    A picture that cannot be read is left out and listed in the `skipped` of a batch near it;
    the batches stay full. Every batch has at least one picture. Raises WorkError if there is
    not a single readable picture.
    """
    chosen_N = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
    if not dataset.has_pixels:
        yield from _batches_without_pixels(dataset, size, batch_size, chosen_N)
        return
    good: list[tuple[int, np.ndarray]] = []
    skipped: list[tuple[str, str]] = []
    read = partial(_read_frame, dataset, frame, size)
    for index, picture in _in_order(read, chosen_N.tolist(), ahead=batch_size):
        if isinstance(picture, WorkError):
            skipped.append((dataset.names[index], str(picture)))
            continue
        if len(good) == batch_size:  # only now: what is skipped at the end needs a batch as well
            yield _frame_batch(dataset, good, skipped)
            good, skipped = [], []
        good.append((index, picture))
    if good:
        yield _frame_batch(dataset, good, skipped)
    elif skipped:
        raise WorkError(f"None of {len(skipped)} pictures can be read. First: {skipped[0][1]}")


def _read_frame(
    dataset: Dataset, frame: Frame, size: int, index: int
) -> tuple[int, np.ndarray | WorkError]:
    try:
        return index, _channels_first(dataset.frame_image(index, frame, size))
    except WorkError as error:
        return index, error


def _frame_batch(
    dataset: Dataset, good: list[tuple[int, np.ndarray]], skipped: list[tuple[str, str]]
) -> FrameBatch:
    indices_B = np.array([index for index, _ in good], dtype=np.int64)
    images_BCHW = torch.from_numpy(np.stack([picture for _, picture in good]))
    return FrameBatch(indices_B, images_BCHW, _labels(dataset, indices_B), skipped)


def _batches_without_pixels(
    dataset: Dataset, size: int, batch_size: int, chosen_N: np.ndarray
) -> Iterator[FrameBatch]:
    for start in range(0, len(chosen_N), batch_size):
        indices_B = chosen_N[start : start + batch_size]
        shape = (len(indices_B), 3, size, size)
        images_BCHW = torch.empty(shape, dtype=torch.uint8, device="meta")
        yield FrameBatch(indices_B, images_BCHW, _labels(dataset, indices_B), [])


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Full batches in an epoch; one short batch if the data set is smaller than a batch."""
    return max(1, len(dataset) // batch_size)


def training_batches(
    dataset: Dataset,
    size: int,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: Augmentation = "none",
    start: int = 0,
    part: range | None = None,
    least_area: float = LEAST_AREA,
    scale: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
    """Shuffled batches number `start` and following of one epoch.

    Yields images_BCHW uint8, labels_B, and for each picture its boxes as seen in it: float32 n×4
    in pixels of the size×size picture, cropped and flipped like it but not clipped, so that they
    may leave the picture, or lie outside it.

    augment
        `none`; `flip`, left to right for every other picture; `crop-flip`, also a random crop with
        ratio 3/4-4/3 (torchvision's RandomResizedCrop, which the official code uses). Without
        random crops pictures are cropped as for evaluation.
    part
        Positions in every batch that are read and handed out; None: all of them.
    least_area
        Of a random crop, as a share of the picture.
    scale
        Pictures are resized to a short side of so many pixels, of which a size×size square is
        shown, anywhere if `crop-flip`, else from the centre (VGG's S, without jitter).

    A picture that cannot be read is replaced by the next readable one, with its label, and logged
    once. Raises UsageError for unknown augmentation and for data without pixels, WorkError if no
    picture can be read.
    """
    if augment not in AUGMENTATIONS:
        raise UsageError(f"Unknown augmentation {augment!r}; known are {', '.join(AUGMENTATIONS)}.")
    if not dataset.has_pixels:
        raise UsageError(f"Data set {dataset.name!r} has no pictures, so nothing can be trained.")
    order_N = np.random.default_rng((seed, epoch)).permutation(len(dataset))
    length = _epoch_length(dataset, batch_size)
    part = range(batch_size) if part is None else part
    positions = [p for p in range(start * batch_size, length) if p % batch_size in part]
    cut = _cut_for(augment, size, least_area, scale)
    show = partial(_augmented, dataset, size=size, flips=augment != "none", cut=cut)
    read = partial(_read_for_training, dataset, show, (seed, epoch), order_N)
    pictures = _in_order(read, positions, ahead=batch_size)
    for batch in _chunks(pictures, len(part)):
        indices_B = np.array([index for index, _, _ in batch])
        images_BCHW = torch.from_numpy(np.stack([picture for _, picture, _ in batch]))
        boxes = [torch.from_numpy(boxes_N4.astype(np.float32)) for _, _, boxes_N4 in batch]
        yield images_BCHW, _labels(dataset, indices_B), boxes


def _cut_for(augment: Augmentation, size: int, least_area: float, scale: int | None) -> Cut | None:
    """What chooses the crop of each training picture; None: the frame `crop`, as for evaluation."""
    anywhere = augment == "crop-flip"
    if scale is not None:
        return partial(crop_at_scale, share=size / scale, anywhere=anywhere)
    return partial(random_crop, least_area=least_area) if anywhere else None


def _epoch_length(dataset: Dataset, batch_size: int) -> int:
    return min(len(dataset), steps_per_epoch(dataset, batch_size) * batch_size)


def _read_for_training(
    dataset: Dataset,
    show: Callable[[int, np.random.Generator], tuple[np.ndarray, View]],
    key: tuple[int, int],
    order_N: np.ndarray,
    position: int,
) -> tuple[int, np.ndarray, np.ndarray]:
    first = int(order_N[position])
    for index in chain(range(first, len(dataset)), range(first)):
        try:
            picture_HW3, view = show(index, np.random.default_rng((*key, position)))
            boxes_N4 = boxes_in_view(dataset.boxes[index], *dataset.sizes_N2[index], view)
            return index, _channels_first(picture_HW3), boxes_N4
        except WorkError as error:
            _warn_once(f"Left out of training: {error}")
    raise WorkError(f"Not one of the {len(dataset)} training pictures can be read.")


@cache
def _warn_once(message: str) -> None:
    _logger.warning(message)


def _augmented(
    dataset: Dataset,
    index: int,
    rng: np.random.Generator,
    size: int,
    flips: bool,
    cut: Cut | None,
) -> tuple[np.ndarray, View]:
    """A training picture, and which part of the original it shows."""
    if cut is None:
        crop, picture_HW3 = None, dataset.frame_image(index, "crop", size)
    else:
        picture_HW3 = dataset.image(index)
        height, width = picture_HW3.shape[:2]
        crop = cut(width, height, rng)
        picture_HW3 = _cut_out(picture_HW3, crop, size)
    flipped = flips and bool(rng.random() < 0.5)
    return picture_HW3[:, ::-1] if flipped else picture_HW3, View(size, crop, flipped)


def _cut_out(picture_HW3: np.ndarray, crop: tuple[int, int, int, int], size: int) -> np.ndarray:
    x0, y0, x1, y1 = crop
    part = Image.fromarray(np.ascontiguousarray(picture_HW3[y0:y1, x0:x1]))
    return np.array(part.resize((size, size), Image.Resampling.BILINEAR))


def random_crop(
    width: int, height: int, rng: np.random.Generator, least_area: float = LEAST_AREA
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 (half-open) of a crop with 8-100 % of the area and ratio 3/4-4/3.

    Area uniform, ratio log-uniform, as in torchvision's RandomResizedCrop. Where ten draws do
    not fit into a long picture, its central part with the nearest allowed ratio.
    """
    for _ in range(10):
        area = width * height * rng.uniform(least_area, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x0, y0 = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return x0, y0, x0 + w, y0 + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    x0, y0 = (width - w) // 2, (height - h) // 2
    return x0, y0, x0 + w, y0 + h


def crop_at_scale(
    width: int, height: int, rng: np.random.Generator, share: float, anywhere: bool
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 (half-open) of a square of `share` of the short side, or in the centre."""
    side = max(1, round(min(width, height) * share))
    x0, y0 = (width - side) // 2, (height - side) // 2
    if anywhere:
        x0, y0 = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    return x0, y0, x0 + side, y0 + side


def _channels_first(picture_HW3: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture_HW3.transpose(2, 0, 1))


def _labels(dataset: Dataset, indices_B: np.ndarray) -> Tensor:
    return torch.from_numpy(dataset.labels_N[indices_B].astype(np.int64))


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    chunk: list[_Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """`map(work, items)` on threads, at most `ahead` items ahead of the consumer."""
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="casm_bench-loader") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # a consumer that stops early must not wait for pictures nobody wants
            for future in pending:
                future.cancel()
