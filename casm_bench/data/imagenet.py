"""ImageNet-1k (ILSVRC 2012) on disk, in the layouts that users have.

Pictures: `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, or `val/*.JPEG`, directly below the root
or as Kaggle's `ILSVRC/Data/CLS-LOC`. Boxes: XML files anywhere below the root (`Annotations`,
`bbox`, Kaggle's `ILSVRC/Annotations/CLS-LOC`, …) or Kaggle's `LOC_val_solution.csv`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UsageError, WorkError
from ..progress import counted, progress
from .annotations import Annotation, AnnotationIndex, find_annotations
from .dataset import Splits
from .packs import IMAGENET_CLASSES, ClassList, read_class_list
from .splits import NO_BOXES, checked, hold_out
from .stored import FolderDataset, existing_folder

_NAME = "imagenet"
_SUFFIXES = (".jpeg", ".jpg", ".png")
_PICTURES = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_HELD_OUT_SHARE, _HELD_OUT_PER_CLASS = 0.05, 50


@dataclass(frozen=True, slots=True)
class _Picture:
    file: str  # below the split's folder
    wnid: str | None  # the class folder, if there are class folders
    annotation: Annotation | None = None

    @property
    def name(self) -> str:
        return self.file.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        return self.name.rsplit(".", 1)[0]


def load_imagenet(root: str | Path, *, seed: int = 0, train_boxes: bool = False) -> Splits:
    """ImageNet from folders: `val` is evaluated; of `train` at most 50 per class, 5 %, held out.

    Training pictures come without boxes, unless `train_boxes` asks for those of the pictures that
    the annotations cover (about half a million files are then read). Held-out ones have theirs if
    there is XML for training pictures, and are then drawn among those that it describes. Sizes of
    pictures without boxes are not looked up and stand as 0, 0. Classes are numbered by sorted wnid
    among those present; for a subset to keep ImageNet's labels 0-999, put imagenet1k-classes.json
    into `root`. `seed` changes nothing.

    Raises UsageError or WorkError naming the file when pictures or boxes are missing, or when a
    picture's boxes are of another class than its own.
    """
    folder = existing_folder(root, "the folder that holds train, val and the annotations")
    pictures = _pictures_folder(folder)
    train_folder, val_folder = pictures / "train", pictures / "val"
    index = find_annotations(folder, skip=train_folder)
    val = _all_annotated(list(_list_pictures(val_folder)), index, folder)
    has_train = train_folder.is_dir()
    train = (
        [picture for picture in _list_pictures(train_folder) if picture.wnid] if has_train else []
    )
    classes = _classes(folder, val, train)
    evaluated = checked(_dataset("evaluated", val_folder, val, classes), val_folder, True)
    if not has_train:
        return Splits(evaluated=evaluated)
    kept, held_out = _part(train, index, train_folder, classes)
    if train_boxes:
        kept = _with_boxes(kept, train, index, train_folder, classes)
    return Splits(train=kept, held_out=held_out, evaluated=evaluated)


def _pictures_folder(folder: Path) -> Path:
    for below in _PICTURES:
        if (folder / below / "val").is_dir():
            return folder / below
    tars = "; unpack its tar files first" if any(folder.glob("ILSVRC2012_*.tar")) else ""
    raise UsageError(
        f"No ImageNet pictures in {folder}: neither val nor ILSVRC/Data/CLS-LOC/val is there"
        f"{tars}. Name the folder that holds train, val and the annotations."
    )


def _list_pictures(folder: Path) -> Iterator[_Picture]:
    """Pictures directly in `folder` and those in its class folders, sorted."""
    for name in _picture_files(folder):
        yield _Picture(name, None)
    for wnid in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        for name in _picture_files(folder / wnid):
            yield _Picture(f"{wnid}/{name}", wnid)


def _picture_files(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(_SUFFIXES))


def _all_annotated(
    pictures: Sequence[_Picture], index: AnnotationIndex, folder: Path
) -> list[_Picture]:
    with progress(len(pictures), "files", "reading annotations") as bar:
        return [_annotated(picture, index, folder) for picture in counted(pictures, bar)]


def _annotated(picture: _Picture, index: AnnotationIndex, folder: Path) -> _Picture:
    if picture.stem not in index:
        raise UsageError(
            f"There are no boxes for picture {picture.file}: nowhere in {folder} is there a "
            f"{picture.stem}.xml, nor a LOC_val_solution.csv that lists it. Unpack the "
            "annotations (ILSVRC2012_bbox_val_v3.tgz) into that folder."
        )
    annotation = index.read(picture.stem)
    if picture.wnid not in (None, annotation.wnid):
        raise WorkError(
            f"Picture {picture.file} lies in the folder of class {picture.wnid}, but its boxes are "
            f"of class {annotation.wnid}. Sort the pictures into the right folders, or fetch the "
            "annotations of the same year."
        )
    return _Picture(picture.file, annotation.wnid, annotation)


def _classes(folder: Path, *splits: Sequence[_Picture]) -> ClassList:
    if (folder / IMAGENET_CLASSES).is_file():
        return read_class_list(folder / IMAGENET_CLASSES, 1000)
    wnids = sorted({picture.wnid for pictures in splits for picture in pictures})
    return ClassList(wnids, wnids)


def _part(
    train: list[_Picture], index: AnnotationIndex, folder: Path, classes: ClassList
) -> tuple[FolderDataset, FolderDataset]:
    """Train and held-out split, the latter with boxes if the annotations cover training."""
    has_boxes_N = np.array([picture.stem in index for picture in train])
    whole = checked(_dataset("train", folder, train, classes), folder)
    eligible_N = has_boxes_N if has_boxes_N.any() else None
    kept, held_out = hold_out(whole, _HELD_OUT_SHARE, _HELD_OUT_PER_CLASS, eligible_N)
    if eligible_N is None:
        return kept, held_out
    drawn = [train[position] for position in held_out.positions_N]
    pictures = _all_annotated(drawn, index, folder)
    return kept, checked(_dataset("held-out", folder, pictures, classes), folder, True)


def _with_boxes(
    kept: FolderDataset,
    train: list[_Picture],
    index: AnnotationIndex,
    folder: Path,
    classes: ClassList,
) -> FolderDataset:
    """The training pictures, with boxes wherever the annotations have some."""
    pictures = [train[position] for position in kept.positions_N]
    with progress(len(pictures), "files", "reading annotations of training pictures") as bar:
        pictures = [
            _annotated(picture, index, folder) if picture.stem in index else picture
            for picture in counted(pictures, bar)
        ]
    return checked(_dataset("train", folder, pictures, classes), folder)


def _dataset(
    split: str, folder: Path, pictures: Sequence[_Picture], classes: ClassList
) -> FolderDataset:
    label_of = {wnid: label for label, wnid in enumerate(classes.wnids)}
    for picture in pictures:
        if picture.wnid not in label_of:
            raise UsageError(
                f"Picture {folder / picture.file} has class {picture.wnid}, which is not one of "
                f"the {len(label_of)} known classes."
            )
    sizes = [_size(folder / picture.file, picture.annotation) for picture in pictures]
    return FolderDataset(
        name=_NAME,
        split=split,
        classes=classes.words,
        names=[picture.name for picture in pictures],
        labels_N=np.array([label_of[picture.wnid] for picture in pictures], dtype=np.int64),
        sizes_N2=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        boxes=[
            picture.annotation.boxes_n4 if picture.annotation else NO_BOXES for picture in pictures
        ],
        folder=folder,
        files=[picture.file for picture in pictures],
    )


def _size(path: Path, annotation: Annotation | None) -> tuple[int, int]:
    """Width and height: as annotated, or from the picture's header if that is silent."""
    if annotation is None:
        return 0, 0
    if annotation.width and annotation.height:
        return annotation.width, annotation.height
    try:
        with Image.open(path) as picture:
            return picture.size
    except OSError as error:
        raise WorkError(f"Picture {path} cannot be read; fetch it again.") from error
