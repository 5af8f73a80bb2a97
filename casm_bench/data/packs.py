"""Pictures and boxes in parquet files: ILSVRC validation, Imagenette, boxes without pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from ..errors import UsageError
from .dataset import Dataset, Splits
from .splits import NO_BOXES, checked, hold_out
from .stored import PackedDataset, SquashedDataset

IMAGENET_CLASSES = "imagenet1k-classes.json"

_TEXT = ("text", lambda kind: types.is_string(kind) or types.is_large_string(kind))
_INTEGER = ("whole numbers", types.is_integer)
_BYTES = ("bytes", lambda kind: types.is_binary(kind) or types.is_large_binary(kind))
_LISTS = ("lists of boxes", lambda kind: types.is_list(kind) or types.is_large_list(kind))
_KINDS = {
    **dict.fromkeys(("name", "wnid", "source"), _TEXT),
    **dict.fromkeys(("label", "width", "height", "orig_width", "orig_height"), _INTEGER),
    **dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), _INTEGER),
    **dict.fromkeys(("boxes", "boxes_orig"), _LISTS),
    "jpeg": _BYTES,
}


def load_ilsvrc_pack(root: str | Path, *, seed: int = 0) -> Splits:
    """ILSVRC validation pictures with all their boxes: nothing to train on, all evaluated.

    `root` is a parquet file with a row per picture: name, wnid, label (0-999), source,
    orig_width, orig_height, boxes_orig (x0, y0, x1, y1 in pixels of the original) and jpeg, the
    whole picture squashed to a square. `groups` are the sources. `seed` changes nothing.
    Raises UsageError or WorkError naming the file and what is wrong with it.
    """
    path = Path(root).expanduser()
    columns = ("name", "wnid", "source", "label", "orig_width", "orig_height", "boxes_orig", "jpeg")
    table = read_pack(path, columns)
    evaluated = SquashedDataset(
        name="ilsvrc-pack",
        split="evaluated",
        classes=imagenet_words(path.parent, _wnid_of_label(table)),
        names=table["name"].to_pylist(),
        labels_N=integers(table, "label"),
        sizes_N2=integers(table, "orig_width", "orig_height"),
        boxes=box_lists(table, "boxes_orig", path),
        groups=table["source"].to_pylist(),
        jpegs=table["jpeg"],
    )
    return Splits(evaluated=checked(evaluated, path, needs_boxes=True))


def load_ilsvrc_boxes(root: str | Path, *, seed: int = 0) -> Splits:
    """Class, size and boxes of ILSVRC validation pictures, without the pictures.

    `root` is a parquet file with a row per picture: name, label (0-999), width, height, boxes.
    `seed` changes nothing. Raises UsageError or WorkError naming the file.
    """
    path = Path(root).expanduser()
    table = read_pack(path, ("name", "label", "width", "height", "boxes"))
    evaluated = Dataset(
        name="ilsvrc-boxes",
        split="evaluated",
        classes=imagenet_words(path.parent, {}),
        names=table["name"].to_pylist(),
        labels_N=integers(table, "label"),
        sizes_N2=integers(table, "width", "height"),
        boxes=box_lists(table, "boxes", path),
        has_pixels=False,
    )
    return Splits(evaluated=checked(evaluated, path, needs_boxes=True))


def load_imagenette_pack(root: str | Path, *, seed: int = 0) -> Splits:
    """ImageNet training pictures of ten classes, without boxes; labels are ImageNet's 0-999.

    `root` is one parquet file (name, wnid, label, jpeg) or a folder with several called
    imagenette*.parquet. A tenth, the same number from each class, is held out; having no boxes,
    it also stands in as the evaluated split, on which localization cannot be scored. `seed`
    changes nothing. Raises UsageError naming the file and what is wrong with it.
    """
    path = Path(root).expanduser()
    table = read_packs(path, "imagenette*.parquet", ("name", "wnid", "label", "jpeg"))
    folder = path if path.is_dir() else path.parent
    pictures = PackedDataset(
        name="imagenette-pack",
        split="train",
        classes=imagenet_words(folder, _wnid_of_label(table)),
        names=table["name"].to_pylist(),
        labels_N=integers(table, "label"),
        sizes_N2=np.zeros((len(table), 2), dtype=np.int64),
        boxes=[NO_BOXES] * len(table),
        jpegs=table["jpeg"],
    )
    train, held_out = hold_out(checked(pictures, path), share=0.1)
    return Splits(train=train, held_out=held_out, evaluated=replace(held_out, split="evaluated"))


def read_pack(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read `columns` of a parquet file. Raises UsageError if it is not what is needed."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"--root {path} {found}; it must be a parquet file.")
    try:
        missing = [name for name in columns if name not in pq.read_schema(path).names]
        table = None if missing else pq.read_table(path, columns=list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} cannot be read as a parquet file: {error}") from error
    if missing:
        raise UsageError(f"{path} lacks the columns {', '.join(missing)}. Is it another data set?")
    for name in columns:
        _check_column(table, name, path)
    return table


def read_packs(path: Path, pattern: str, columns: Sequence[str]) -> pa.Table:
    """Read one parquet file, or all in a folder whose names match `pattern`, as one table."""
    if not path.is_dir():
        return read_pack(path, columns)
    parts = sorted(path.glob(pattern))
    if not parts:
        raise UsageError(f"There is no file {pattern} in {path}.")
    tables = [read_pack(part, columns) for part in parts]
    return pa.concat_tables(tables, promote_options="permissive")


def _check_column(table: pa.Table, name: str, path: Path) -> None:
    column, (description, is_right) = table[name], _KINDS[name]
    if not is_right(column.type):
        raise UsageError(f"Column {name} of {path} is {column.type}, not {description}.")
    if column.null_count:
        raise UsageError(f"Column {name} of {path} has {column.null_count} empty cells.")


def integers(table: pa.Table, *columns: str) -> np.ndarray:
    """Columns as int64: length N for one, N×columns for several."""
    arrays = [table[column].to_numpy().astype(np.int64) for column in columns]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)


def box_lists(table: pa.Table, name: str, path: Path) -> list[np.ndarray]:
    """A column of lists of x0, y0, x1, y1 as one float64 n×4 per row."""
    lists = table[name].combine_chunks()
    corners = lists.flatten()
    is_nested = hasattr(corners, "flatten") and types.is_nested(corners.type)
    lengths = pc.list_value_length(corners) if is_nested else pa.array([])
    if not is_nested or not np.all(lengths.to_numpy(zero_copy_only=False) == 4):
        raise UsageError(f"Column {name} of {path} must hold lists of four numbers per box.")
    boxes_M4 = corners.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, 4)
    counts_N = pc.list_value_length(lists).to_numpy()
    return np.split(boxes_M4, np.cumsum(counts_N)[:-1])


class ClassList(NamedTuple):
    """Classes in the order of their labels."""

    wnids: list[str]
    words: list[str]


def read_class_list(path: Path, count: int) -> ClassList:
    """Read a JSON list of {label, wnid, words}; labels must be 0 to count - 1.

    Raises UsageError naming the file and what is wrong with it.
    """
    try:
        entries = sorted(json.loads(path.read_text("utf-8")), key=lambda entry: entry["label"])
        labels = [entry["label"] for entry in entries]
        classes = ClassList(*([entry[key] for entry in entries] for key in ("wnid", "words")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not a list of classes with label, wnid and words ({error!r})."
        ) from error
    if labels != list(range(count)):
        raise UsageError(f"{path} must have the labels 0 to {count - 1}, each once.")
    return classes


def imagenet_words(folder: Path, wnid_of_label: Mapping[int, str]) -> list[str]:
    """The names of ImageNet's 1,000 classes: in words if the class list lies in `folder`."""
    path = folder / IMAGENET_CLASSES
    if path.is_file():
        return read_class_list(path, 1000).words
    return [wnid_of_label.get(label, str(label)) for label in range(1000)]


def _wnid_of_label(table: pa.Table) -> dict[int, str]:
    return dict(zip(table["label"].to_pylist(), table["wnid"].to_pylist(), strict=True))
