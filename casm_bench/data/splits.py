"""Checking splits, and parting training pictures from held-out ones."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import UsageError, WorkError
from .dataset import Dataset
from .stored import StoredDataset

logger = logging.getLogger("casm_bench")
NO_BOXES = np.zeros((0, 4))


def hold_out(
    dataset: Dataset,
    share: float,
    most_per_class: int | None = None,
    eligible_N: np.ndarray | None = None,
) -> tuple[Dataset, Dataset]:
    """Part a training set into (train, held-out).

    From every class the same number is drawn, `share` of the mean class size but at least one
    and at most `most_per_class`; a small class gives at most half of what it has. Only pictures
    marked in `eligible_N` are drawn. The draw never changes: the split is part of the data set,
    not of a run, so results over several seeds stay comparable.
    """
    rng = np.random.default_rng(0)
    classes, counts = np.unique(dataset.labels_N, return_counts=True)
    wanted = max(1, int(share * counts.mean()))
    if most_per_class is not None:
        wanted = min(wanted, most_per_class)
    held_N = np.zeros(len(dataset), dtype=bool)
    for label, count in zip(classes, counts, strict=True):
        rows = np.flatnonzero(_of_class(dataset, label, eligible_N))
        held_N[rng.permutation(rows)[: min(wanted, count // 2)]] = True
    train, held_out = (
        dataset.subset(np.flatnonzero(~held_N)),
        dataset.subset(np.flatnonzero(held_N)),
    )
    return replace(train, split="train"), replace(held_out, split="held-out")


def few_per_class(dataset: Dataset, count: int, seed: int) -> Dataset:
    """As many pictures as before, but only `count` different ones of every class, over and over.

    So an epoch stays as long as it was, and only the number of pictures differs between trainings.
    Which ones is drawn by the seed.
    """
    order_N = np.random.default_rng(seed).permutation(len(dataset))
    by_class = [order_N[dataset.labels_N[order_N] == k] for k in np.unique(dataset.labels_N)]
    chosen = np.concatenate([rows[:count] for rows in by_class])
    return dataset.subset(np.resize(np.sort(chosen), len(dataset)))


def _of_class(dataset: Dataset, label: int, eligible_N: np.ndarray | None) -> np.ndarray:
    of_class_N = dataset.labels_N == label
    return of_class_N if eligible_N is None else of_class_N & eligible_N


def without_copies(train: StoredDataset, evaluated: StoredDataset) -> Dataset:
    """`train` without the pictures whose bytes are also in `evaluated`; logs which they are."""
    seen = {evaluated.encoded(index) for index in range(len(evaluated))}
    copies = [index for index in range(len(train)) if train.encoded(index) in seen]
    if not copies:
        return train
    names = ", ".join(train.names[index] for index in copies)
    logger.warning(
        "%s: %d training pictures are byte for byte in the evaluated split and were left out: %s",
        train.name,
        len(copies),
        names,
    )
    return train.subset(np.setdiff1d(np.arange(len(train)), copies))


def shared_pictures(one: Dataset, other: Dataset) -> list[tuple[str, str]]:
    """Names (in one, in other) of pictures that both hold, whatever they are called.

    Told by a hash of the decoded pixels: another name, or another lossless file, hides nothing.
    A resized or recompressed copy is told by its name together with the size of the original;
    two data sets may put one file into different folders and give it different endings.
    """
    same_data = one.name == other.name
    known = {_called(one, index, same_data): one.names[index] for index in range(len(one))}
    if look := one.has_pixels and other.has_pixels:
        known |= {_pixel_hash(one, index): one.names[index] for index in range(len(one))}
    found = []
    for index, name in enumerate(other.names):
        here = known.get(_called(other, index, same_data))
        if here is None and look:
            here = known.get(_pixel_hash(other, index))
        if here is not None:
            found.append((here, name))
    return found


def _called(dataset: Dataset, index: int, in_full: bool) -> tuple[str, int, int]:
    name = dataset.names[index]
    width, height = dataset.sizes_N2[index].tolist()
    return name if in_full else PurePosixPath(name).stem, width, height


def _pixel_hash(dataset: Dataset, index: int) -> bytes:
    picture_HW3 = dataset.image(index)
    shape = np.array(picture_HW3.shape, np.int64).tobytes()
    return hashlib.sha256(shape + np.ascontiguousarray(picture_HW3).tobytes()).digest()


def checked(dataset: Dataset, source: Path, needs_boxes: bool = False) -> Dataset:
    """`dataset`, once it is known to be sound.

    Boxes of zero width or height stay: no prediction can hit them, and leaving them out would
    make the error of this copy of the data look smaller than that of others. Their number is
    logged. Raises UsageError for an empty split, repeated names and labels without a class,
    WorkError for pictures without boxes (if `needs_boxes`) and for boxes turned inside out.
    """
    where = f"{dataset.name}, {dataset.split} split, from {source}"
    if not len(dataset):
        raise UsageError(f"There are no pictures in {where}.")
    _check_names(dataset, where)
    _check_labels(dataset, where)
    _check_boxes(dataset, where, needs_boxes)
    return dataset


def _check_names(dataset: Dataset, where: str) -> None:
    name, count = Counter(dataset.names).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"Picture {name} appears {count} times in {where}. Names must be unique, because "
            "results and given maps are found by name."
        )


def _check_labels(dataset: Dataset, where: str) -> None:
    known_N = (dataset.labels_N >= 0) & (dataset.labels_N < len(dataset.classes))
    if not known_N.all():
        first = int(np.flatnonzero(~known_N)[0])
        raise UsageError(
            f"Picture {dataset.names[first]} has label {dataset.labels_N[first]}, but there are "
            f"{len(dataset.classes)} classes, 0 to {len(dataset.classes) - 1}: {where}."
        )


def _check_boxes(dataset: Dataset, where: str, needed: bool) -> None:
    counts_N = np.array([len(boxes) for boxes in dataset.boxes])
    if needed and not counts_N.all():
        bare = np.flatnonzero(counts_N == 0)
        raise WorkError(
            f"{len(bare)} of {len(dataset)} pictures have no box, the first of them "
            f"{dataset.names[bare[0]]}: {where}. Add their boxes or take these pictures out; "
            "without a true box a prediction cannot be judged."
        )
    boxes_M4 = np.concatenate([NO_BOXES, *dataset.boxes])
    owner_M = np.repeat(np.arange(len(dataset)), counts_N)
    sides_M2 = boxes_M4[:, 2:] - boxes_M4[:, :2]
    inverted = np.flatnonzero(~(sides_M2 >= 0).all(axis=1))  # not a number counts, too
    if len(inverted):
        box, name = boxes_M4[inverted[0]].tolist(), dataset.names[owner_M[inverted[0]]]
        raise WorkError(f"Box {box} of picture {name} ends before it begins: {where}. Correct it.")
    flat = int((sides_M2 == 0).any(axis=1).sum())
    if flat:
        logger.warning(
            "%s, %s split: %d of %d boxes have zero width or height; they count as missed.",
            dataset.name,
            dataset.split,
            flat,
            len(boxes_M4),
        )
