"""Data sets whose pictures are encoded files (JPEG, PNG), in memory or on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UsageError, WorkError
from ..protocols import Frame
from .dataset import Dataset
from .frames import to_frame_image

_UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def existing_folder(root: str | Path, what: str) -> Path:
    """`root` as a path. Raises UsageError, saying that `what` is needed, if it is no folder."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"--root {folder} {found}; it must be {what}.")
    return folder


def decode_rgb(encoded: bytes, name: str, upright: bool = False) -> np.ndarray:
    """Decode a picture to uint8 H×W×3.

    Greyscale, also of 16 bits, and CMYK become RGB. A rotation noted in EXIF is applied only if
    `upright`, since annotators and the official loaders did not apply it. Raises WorkError naming
    the picture.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            turned = ImageOps.exif_transpose(picture) if upright else picture
            return np.array(_of_8_bits(turned, name).convert("RGB"))
    except UnidentifiedImageError as error:  # its text names a memory address, so leave it out
        raise _undecodable(name, "this is not a picture file") from error
    except _UNDECODABLE as error:
        raise _undecodable(name, str(error)) from error


def _of_8_bits(picture: Image.Image, name: str) -> Image.Image:
    """The picture as `convert` can take it, which cuts off whatever is above 255."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):  # nothing says what is white
        raise WorkError(
            f"Picture {name} holds 32-bit numbers without a known range. Save it with 8 or 16 bits."
        )
    return picture


def _undecodable(name: str, reason: str) -> WorkError:
    return WorkError(f"Picture {name} cannot be decoded: {reason}. Fetch it again.")


def stretch(picture_HW3: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize to width × height, bilinear, without keeping the aspect ratio."""
    if picture_HW3.shape[:2] == (height, width):
        return picture_HW3
    resized = Image.fromarray(picture_HW3).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


@dataclass(frozen=True, kw_only=True)
class StoredDataset(Dataset):
    """Pictures kept as encoded files. Subclasses say where the bytes come from."""

    def encoded(self, index: int) -> bytes:
        """The file of picture `index`. Raises WorkError naming it when it cannot be read."""
        raise NotImplementedError

    def image(self, index: int) -> np.ndarray:
        picture_HW3 = decode_rgb(self.encoded(index), self.names[index])
        height, width = picture_HW3.shape[:2]
        expected = tuple(int(side) for side in self.sizes_N2[index])
        if expected not in ((0, 0), (width, height)):
            raise WorkError(
                f"Picture {self.names[index]} is {width}×{height}, but its boxes belong to one of "
                f"{expected[0]}×{expected[1]}. Use the original picture, not a resized copy."
            )
        return picture_HW3

    def pixels_digest(self) -> str:
        sha = hashlib.sha256()
        for index in range(len(self)):
            sha.update(hashlib.sha256(self.encoded(index)).digest())
        return sha.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PackedDataset(StoredDataset):
    """Encoded pictures in memory, as read from parquet files."""

    jpegs: Sequence  # a pyarrow column of bytes; positions_N are its rows

    def encoded(self, index: int) -> bytes:
        return self.jpegs[int(self.positions_N[index])].as_py()


@dataclass(frozen=True, kw_only=True)
class SquashedDataset(PackedDataset):
    """Pictures stored squashed to a square, although `sizes_N2` are the originals' sizes.

    `image` stretches them back: detail is lost, geometry is right.
    """

    def image(self, index: int) -> np.ndarray:
        width, height = self.sizes_N2[index]
        return stretch(self._squashed(index), int(width), int(height))

    def frame_image(self, index: int, frame: Frame, size: int) -> np.ndarray:
        """Straight from the stored picture: a detour through the original size only blurs.

        Warped, the stored square is what we want. For the crop it is stretched at once to the
        size at which the short side is `size`, the long one rounded down as torchvision does.
        """
        squashed_HW3 = self._squashed(index)
        if frame == "warp":
            return to_frame_image(squashed_HW3, frame, size)
        width, height = (int(side) for side in self.sizes_N2[index])
        short = min(width, height)
        stretched = stretch(squashed_HW3, size * width // short, size * height // short)
        return to_frame_image(stretched, frame, size)

    def _squashed(self, index: int) -> np.ndarray:
        return decode_rgb(self.encoded(index), self.names[index])


@dataclass(frozen=True, kw_only=True)
class FolderDataset(StoredDataset):
    """Encoded pictures in a folder, read when asked for."""

    folder: Path
    files: Sequence[str]  # paths below folder; positions_N are indices into it

    def encoded(self, index: int) -> bytes:
        path = self.path(index)
        try:
            return path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise WorkError(f"Picture {path} cannot be read: {reason}.") from error

    def path(self, index: int) -> Path:
        return self.folder / self.files[self.positions_N[index]]

    def pixels_digest(self) -> str:
        """A hash of file sizes: reading all of ImageNet to name it would take far too long."""
        return hashlib.sha256("\n".join(self._file_sizes()).encode()).hexdigest()

    def _file_sizes(self) -> Iterator[str]:
        for index in range(len(self)):
            path = self.path(index)
            yield str(path.stat().st_size if path.is_file() else "missing")
