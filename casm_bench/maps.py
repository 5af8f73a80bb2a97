"""Saliency maps as arrays: checking, rescaling, resizing, files of them.

A map is a finite, non-negative H×W array, larger is more salient. H×W is the method's own grid;
`to_grid` brings it to the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import numpy as np

from .errors import UsageError, WorkError
from .files import write_atomically

Upsample = Literal["nearest", "bilinear", "cubic", "auto"]

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}
_PICTURE_SUFFIXES = {".jpeg", ".jpg", ".png"}


def check_map(map_HW: np.ndarray, name: str) -> np.ndarray:
    """Return the map of picture `name` as float32 (float64 stays), or raise WorkError.

    Raised for anything but a non-empty, finite, non-negative 2-D array of numbers. Zero-area and
    constant maps are no errors: the box rules say what they predict.
    """
    map_HW = np.asarray(map_HW)
    problem = _problem_of(map_HW)
    if problem:
        raise WorkError(
            f"The saliency map of {name} {problem}. A map is a non-empty height x width array of "
            "finite numbers >= 0; correct the method or the file that made it."
        )
    return map_HW if map_HW.dtype == np.float64 else map_HW.astype(np.float32, copy=False)


def _problem_of(map_HW: np.ndarray) -> str | None:
    if map_HW.dtype.kind not in "fiub":
        return f"holds {map_HW.dtype} instead of numbers"
    if map_HW.ndim != 2 or map_HW.size == 0:
        return f"has shape {map_HW.shape}"
    lowest, highest = map_HW.min(), map_HW.max()  # NaN anywhere makes both NaN
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        return "holds NaN or infinite values"
    if lowest < 0:
        return f"holds negative values (down to {lowest:g})"
    return None


def unit_range(map_HW: np.ndarray) -> np.ndarray:
    """Min-max scale a map to [0, 1]; a constant map becomes zeros.

    Used by `metrics.scoring` and `metrics.evidence` for maps without a scale of their own (such
    as gradients), wherever a rule or a score reads values as shares, and by the `relative` rule,
    whose source does the same (wsolevaluation, normalize_scoremap).
    """
    lowest, highest = map_HW.min(), map_HW.max()
    if lowest == highest:
        return np.zeros_like(map_HW)
    return (map_HW - lowest) / (highest - lowest)


def mass(map_HW: np.ndarray) -> float:
    """Sum of a map over its pixels, in float64; of other values, the sum of their magnitudes.

    numpy's sum takes several times as long; the last digit of cv2.sumElems depends on where the
    values lie in memory.
    """
    return cv2.norm(map_HW, cv2.NORM_L1)


def block_factors(shape: tuple[int, ...], height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of the frame that one cell of the map covers, if whole numbers."""
    rows, columns = shape
    if height % rows or width % columns:
        return None
    return height // rows, width // columns


def enlarges_by_blocks(shape: tuple[int, ...], height: int, width: int, upsample: Upsample) -> bool:
    """Whether `to_grid` only repeats cells, so that results on the map's own grid carry over."""
    if shape == (height, width):
        return True
    return upsample in ("nearest", "auto") and block_factors(shape, height, width) is not None


def to_grid(map_HW: np.ndarray, height: int, width: int, upsample: Upsample = "auto") -> np.ndarray:
    """The map on a grid of `height` × `width`; a map that has that size already is returned as is.

    `auto` repeats cells where both factors are whole numbers (CASM's 56 -> 224) and is bilinear
    otherwise. Pixel centres as in torch's align_corners=False. `cubic` may leave the range of
    the map; wsolevaluation rescales afterwards. Float32, or float64 if the map is.
    """
    if map_HW.shape == (height, width):
        return map_HW
    if map_HW.min() == map_HW.max():  # interpolation would add rounding noise that rules can see
        return np.full((height, width), map_HW[0, 0])
    if upsample == "auto":
        by_blocks = enlarges_by_blocks(map_HW.shape, height, width, upsample)
        upsample = "nearest" if by_blocks else "bilinear"
    return cv2.resize(map_HW, (width, height), interpolation=_INTERPOLATION[upsample])


def load_map(path: Path) -> np.ndarray:
    """Read and check one `.npy` map. Raises WorkError naming the file."""
    try:
        with open(path, "rb") as file:
            map_HW = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise WorkError(
            f"The saliency map {path} cannot be read as a .npy array ({error}). "
            "Write it again with numpy.save."
        ) from error
    return check_map(map_HW, str(path))


def save_map(path: Path, map_HW: np.ndarray) -> None:
    """Write one `.npy` map, atomically and as it is. Raises WorkError if that cannot be done."""
    write_atomically(path, lambda temporary: _save(temporary, map_HW))


def _save(path: Path, map_HW: np.ndarray) -> None:
    with path.open("wb") as file:  # numpy.save would add .npy to a name without it
        np.save(file, map_HW, allow_pickle=False)


def _without_suffixes(name: str) -> str:
    """`a/b.JPEG.npy`, `a/b.npy` and `a/b.JPEG` are all about picture `a/b`."""
    path = PurePosixPath(name)
    for suffixes in ({".npy"}, _PICTURE_SUFFIXES):
        if path.suffix.lower() in suffixes:
            path = path.with_suffix("")
    return str(path)


def find_maps(folder: Path, names: Sequence[str], partial: bool = False) -> list[Path | None]:
    """The `.npy` file in `folder` of each picture in `names`, with or without .JPEG before .npy.

    Raises UsageError when the folder is missing, when a picture has two maps, or none; `partial`
    gives None for a picture that has none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"There is no folder of maps at {folder}. Check --maps.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.npy")):
        picture = _without_suffixes(path.relative_to(folder).as_posix())
        if picture in found:
            raise UsageError(f"{found[picture]} and {path} are maps of one picture; remove one.")
        found[picture] = path
    missing = [name for name in names if _without_suffixes(name) not in found]
    if missing and not partial:
        raise UsageError(
            f"{folder} has no map for {len(missing)} of {len(names)} pictures, the first being "
            f"{missing[0]}. Every picture needs a file <name>.npy; --partial scores those that "
            "have one."
        )
    return [found.get(_without_suffixes(name)) for name in names]
