"""wsolevaluation's metadata folders (Choe et al. 2020): four text files that describe a split.

`image_ids.txt` has an image id per line, a path below the pictures' folder; `class_labels.txt`
lines are `id,label`, `image_sizes.txt` `id,width,height`, and `localization.txt` `id,x0,y0,x1,y1`
with a line per box (0-based, right and bottom edge included). Read and written without loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UsageError, WorkError
from ..files import write_atomically
from ..settings import Count
from .dataset import Dataset, Splits
from .splits import NO_BOXES, checked
from .stored import FolderDataset, existing_folder

NAME = "wsol-metadata"
IDS, LABELS, SIZES, BOXES = (
    *("image_ids.txt", "class_labels.txt"),
    *("image_sizes.txt", "localization.txt"),
)
EVALUATED, HELD_OUT = "test", "val"  # as the source calls them: val is there to tune thresholds


def load_wsol_metadata(
    root: str | Path, *, seed: int = 0, images: str | None = None, classes: Count | None = None
) -> Splits:
    """A split from its folder, or `test` (evaluated) and `val` (held out) below the folder.

    images
        Folder of the pictures; without one there are boxes only, for controls and given maps.
    classes
        How many there are, where the split does not show the last of them.

    `seed` changes nothing. Raises UsageError for missing files, WorkError naming the line for one
    that cannot be read, and for evaluated images without a box.
    """
    folder = existing_folder(root, "a folder with image_ids.txt, or with test/image_ids.txt")
    whole = (folder / EVALUATED).is_dir()
    evaluated = _read(folder / EVALUATED if whole else folder, "evaluated", images, classes)
    held_out = None
    if whole and (folder / HELD_OUT / BOXES).is_file():
        held_out = _read(folder / HELD_OUT, "held-out", images, classes)
    return Splits(evaluated=evaluated, held_out=held_out)


def write_wsol_metadata(dataset: Dataset, folder: Path) -> list[Path]:
    """Write the four files of a split; returns their paths.

    Raises WorkError when the folder cannot be written.
    """
    names, boxes = dataset.names, dataset.boxes
    lines = {
        IDS: list(names),
        LABELS: [_line(name, [label]) for name, label in zip(names, dataset.labels_N, strict=True)],
        SIZES: [_line(name, size) for name, size in zip(names, dataset.sizes_N2, strict=True)],
        BOXES: [
            _line(name, box) for name, of_one in zip(names, boxes, strict=True) for box in of_one
        ],
    }
    for file, of_file in lines.items():
        write_atomically(folder / file, "".join(f"{line}\n" for line in of_file))
    return [folder / file for file in lines]


def _line(name: str, values: Sequence[float] | np.ndarray) -> str:
    """Whole numbers without a decimal point, others with all their digits."""
    plain = np.asarray(values).tolist()
    texts = (str(int(value)) if value == int(value) else repr(value) for value in plain)
    return ",".join((name, *texts))


def _read(folder: Path, split: str, images: str | None, classes: int | None) -> Dataset:
    names = [line for _, line in _lines(folder / IDS)]
    label_of = {name: values[0] for name, values in _values(folder / LABELS, 1)}
    size_of = dict(_values(folder / SIZES, 2))
    boxes_of: dict[str, list[list[float]]] = {}
    for name, box in _values(folder / BOXES, 4):
        boxes_of.setdefault(name, []).append(box)
    _check_described(names, {LABELS: label_of, SIZES: size_of}, folder)
    labels_N = np.array([label_of[name] for name in names], dtype=np.int64)
    count = classes or int(labels_N.max(initial=-1)) + 1
    described = {
        "name": NAME,
        "split": split,
        "classes": [str(label) for label in range(count)],
        "names": names,
        "labels_N": labels_N,
        "sizes_N2": np.array([size_of[name] for name in names], dtype=np.int64).reshape(-1, 2),
        "boxes": [np.array(boxes_of.get(name, NO_BOXES), np.float64) for name in names],
    }
    if images is None:
        return checked(Dataset(**described, has_pixels=False), folder, needs_boxes=True)
    pictures = FolderDataset(**described, folder=Path(images).expanduser(), files=names)
    return checked(pictures, folder, needs_boxes=True)


def _check_described(names: Sequence[str], described: dict[str, dict], folder: Path) -> None:
    for file, values in described.items():
        missing = [name for name in names if name not in values]
        if missing:
            raise UsageError(
                f"{folder / file} has no line for {len(missing)} of the {len(names)} images in "
                f"{IDS}, the first being {missing[0]}. Take all four files from the same split."
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}). A split of wsolevaluation's metadata has {IDS}, "
            f"{LABELS}, {SIZES} and {BOXES}."
        ) from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def _values(path: Path, count: int) -> Iterator[tuple[str, list[float]]]:
    """Image id and numbers of every line; a comma inside an id does no harm."""
    for number, line in _lines(path):
        name, *texts = line.rsplit(",", count)
        try:
            values = [float(text) for text in texts]
        except ValueError:
            values = []
        if len(values) != count:
            raise WorkError(
                f"{path}, line {number}: {line!r} is not an image id and {count} numbers. Fetch "
                "the file again."
            )
        yield name, values
