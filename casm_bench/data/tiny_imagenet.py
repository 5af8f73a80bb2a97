"""Tiny-ImageNet-200: 64 px, 200 classes, one box per picture, from parquet packs or its folder.

Its boxes are xmin, ymin, xmax, ymax from 0 to 63, so a box over the whole picture is 0, 0, 63, 63:
the last column and row are inside it, as in ILSVRC's annotations (right edge ≤ width - 1). Like
those they are used as they are, and the protocol decides whether a side counts one pixel more.

475 of the 110,000 boxes (41 of the 10,000 evaluated ones) have zero width or height. Where areas
are half-open nothing can hit these; they count as missed, for every method alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import UsageError, WorkError
from .dataset import Splits
from .packs import integers, read_class_list, read_pack, read_packs
from .splits import checked, hold_out, without_copies
from .stored import FolderDataset, PackedDataset, StoredDataset, existing_folder

_NAME = "tiny-imagenet"
_SIDE = 64
_HELD_OUT_SHARE = 0.05
_TRAIN_PACKS, _VAL_PACK, _CLASSES = (
    "tiny200-train-*.parquet",
    "tiny200-val.parquet",
    "tiny200-classes.json",
)
_COLUMNS = ("name", "wnid", "label", "xmin", "ymin", "xmax", "ymax", "jpeg")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_Row = tuple[str, str, list[float]]  # file below the folder, wnid, box


def load_tiny_imagenet(root: str | Path, *, seed: int = 0) -> Splits:
    """Tiny-ImageNet: its validation pictures are evaluated, 5 % of its training pictures held out.

    `root` holds tiny200-val.parquet and tiny200-train-*.parquet, or is the unzipped folder
    tiny-imagenet-200 (wnids.txt, words.txt, train/, val/). Without training pictures only the
    evaluated split is there. Training pictures that are also evaluated, byte for byte, are left
    out and logged. `seed` changes nothing. Raises UsageError or WorkError naming the file.
    """
    folder = existing_folder(root, f"a folder with {_VAL_PACK}, or the unzipped tiny-imagenet-200")
    if (folder / _VAL_PACK).is_file():
        train, evaluated = _read_packs(folder)
    elif (folder / "wnids.txt").is_file():
        train, evaluated = _read_folder(folder)
    else:
        raise UsageError(
            f"{folder} is not Tiny-ImageNet: it holds neither {_VAL_PACK} nor wnids.txt. Name the "
            "folder with the parquet files, or the unzipped tiny-imagenet-200."
        )
    checked(evaluated, folder, needs_boxes=True)
    if train is None:
        return Splits(evaluated=evaluated)
    original = without_copies(checked(train, folder, needs_boxes=True), evaluated)
    train, held_out = hold_out(original, _HELD_OUT_SHARE)
    return Splits(train=train, held_out=held_out, evaluated=evaluated)


def _read_packs(folder: Path) -> tuple[StoredDataset | None, StoredDataset]:
    val = read_pack(folder / _VAL_PACK, _COLUMNS)
    train = None
    if any(folder.glob(_TRAIN_PACKS)):
        train = read_packs(folder, _TRAIN_PACKS, _COLUMNS)
    classes = _pack_classes(folder, [val] if train is None else [val, train])
    evaluated = _packed("evaluated", val, classes)
    return train and _packed("train", train, classes), evaluated


def _packed(split: str, table: pa.Table, classes: list[str]) -> PackedDataset:
    return PackedDataset(
        name=_NAME,
        split=split,
        classes=classes,
        names=table["name"].to_pylist(),
        labels_N=integers(table, "label"),
        sizes_N2=np.full((len(table), 2), _SIDE),
        boxes=list(integers(table, *_CORNERS).astype(np.float64)[:, None, :]),
        jpegs=table["jpeg"],
    )


def _pack_classes(folder: Path, tables: Iterable[pa.Table]) -> list[str]:
    if (folder / _CLASSES).is_file():
        return read_class_list(folder / _CLASSES, 200).words
    wnids = [str(label) for label in range(200)]
    for table in tables:
        for label, wnid in zip(*(table[key].to_pylist() for key in ("label", "wnid")), strict=True):
            if 0 <= label < 200:
                wnids[label] = wnid
    return wnids


def _read_folder(folder: Path) -> tuple[StoredDataset | None, StoredDataset]:
    wnids = sorted((folder / "wnids.txt").read_text("utf-8").split())
    words = _words(folder / "words.txt")
    classes = {wnid: words.get(wnid, wnid) for wnid in wnids}
    val = [
        (f"val/images/{name}", wnid, box)
        for name, wnid, *box in _table(folder / "val/val_annotations.txt", 6)
    ]
    train = []
    for wnid in wnids if (folder / "train").is_dir() else ():
        train += [
            (f"train/{wnid}/images/{name}", wnid, box)
            for name, *box in _table(folder / f"train/{wnid}/{wnid}_boxes.txt", 5)
        ]
    evaluated = _unzipped("evaluated", folder, val, classes)
    return (_unzipped("train", folder, train, classes) if train else None), evaluated


def _table(path: Path, columns: int) -> list[list[str]]:
    """Lines of a text file as words. Raises UsageError if missing, WorkError if damaged."""
    try:
        rows = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); unzip Tiny-ImageNet again.") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != columns or not all(word.isdigit() for word in row[-4:]):
            raise WorkError(
                f"{path}, line {number}: expected a name and four whole numbers, found "
                f"{' '.join(row)!r}. Unzip Tiny-ImageNet again."
            )
    return rows


def _words(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def _unzipped(split: str, folder: Path, rows: list[_Row], classes: dict[str, str]) -> FolderDataset:
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    for file, wnid, _ in rows:
        if wnid not in label_of:
            raise UsageError(
                f"Picture {file} has class {wnid}, which is not in wnids.txt: {folder}."
            )
    return FolderDataset(
        name=_NAME,
        split=split,
        classes=list(classes.values()),
        names=[file.rsplit("/", 1)[1] for file, _, _ in rows],
        labels_N=np.array([label_of[wnid] for _, wnid, _ in rows], dtype=np.int64),
        sizes_N2=np.full((len(rows), 2), _SIDE),
        boxes=[np.array([box], dtype=np.float64) for _, _, box in rows],
        folder=folder,
        files=[file for file, _, _ in rows],
    )
