"""Saliency maps on disk, one file per batch, so that an interrupted evaluation can go on.

Maps lie in `<cache>/methods/<method>/maps/<data and frame>/`. Files carry checksums (CRC-32, as
every zip file) and a damaged one counts as not there. `trim` keeps all of them below a limit.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import UsageError
from .files import write_atomically

MARKER = "CACHEDIR.TAG"  # says that a folder is a cache; nothing without it is ever cleared
# What reading a zip file raises where any of its bytes is wrong; RuntimeError: it seems encrypted.
DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile)


@dataclass
class MapCache:
    """The maps of one method in one frame of one data set, under one folder."""

    folder: Path

    def __post_init__(self) -> None:
        if self.folder.exists():
            os.utime(self.folder)  # so that `trim` knows when it was last used
        self.skipped: dict[str, str] = {}  # name → reason, of pictures that could not be read
        self.seconds = 0.0  # spent on making the maps, over all sessions
        self.done: set[int] = set()
        for path in self._files():
            batch = _read(path)
            if batch is not None:
                self._note(batch)

    def add(
        self,
        index_B: np.ndarray,
        maps_BHW: np.ndarray,
        skipped: list[tuple[str, str]],
        seconds: float,
    ) -> None:
        """Keep a batch: indices into the data set, their maps as float32, the name and reason of
        pictures that could not be read on the way, and the seconds it took."""
        batch = {
            "index_B": index_B,
            "maps_BHW": maps_BHW.astype(np.float32, copy=False),
            "skipped": np.array(skipped, dtype=str).reshape(-1, 2),
            "seconds": np.array(seconds),
        }
        path = self.folder / f"{int(index_B[0]):08d}.npz"
        write_atomically(path, lambda temporary: _save(temporary, batch))
        self._note(batch)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Index and map of every kept picture, in the order of the data set."""
        for path in self._files():
            batch = _read(path)
            if batch is not None:
                yield from zip(batch["index_B"].tolist(), batch["maps_BHW"], strict=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npz"))

    def _note(self, batch: dict[str, np.ndarray]) -> None:
        self.done.update(batch["index_B"].tolist())
        self.skipped.update({str(name): str(reason) for name, reason in batch["skipped"]})
        self.seconds += float(batch["seconds"])


def trim(cache: Path, limit_bytes: float) -> list[Path]:
    """Remove maps until what is left fits into `limit_bytes`, those longest unused first.

    Fitted methods and classifiers stay. Returns the folders of maps that were removed.
    """
    folders = sorted(cache.glob("methods/*/maps/*"), key=_last_use)
    sizes = {folder: size_of(folder) for folder in folders}
    total, removed = sum(sizes.values()), []
    for folder in folders:
        if total <= limit_bytes:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]
        removed.append(folder)
    return removed


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def clear(cache: Path) -> int:
    """Remove a cache with all it holds; returns how many bytes that were.

    Raises UsageError for a folder that no run has marked as its cache.
    """
    if not cache.exists():
        return 0
    if not (cache / MARKER).is_file():
        raise UsageError(f"{cache} is no cache of a run ({MARKER} is missing); it stays.")
    size = size_of(cache)
    shutil.rmtree(cache)
    return size


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """One batch; a damaged file counts as not there and its maps are made again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("index_B", "maps_BHW", "skipped", "seconds")}
    except DAMAGED:
        path.unlink(missing_ok=True)
        return None
