"""Saliency maps on disk, one file per batch, so that an interrupted evaluation can go on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import write_atomically


@dataclass
class MapCache:
    """The maps of one method in one frame of one data set, under one folder."""

    folder: Path

    def __post_init__(self) -> None:
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
        """Keep a batch: indices into the data set, float32 maps, and what was skipped near it."""
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


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """One batch; a damaged file counts as not there and its maps are made again."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        path.unlink(missing_ok=True)
        return None
