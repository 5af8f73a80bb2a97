"""Small data sets made of drawn pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from casm_bench.data.stored import PackedDataset


@pytest.fixture(scope="session")
def draw_picture() -> Callable[..., bytes]:
    """Smooth random pictures as encoded files; PNG keeps their pixels exactly."""

    def draw(seed: int, width: int = 64, height: int = 64, mode: str = "RGB", kind="PNG") -> bytes:
        rng = np.random.default_rng(seed)
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        picture = small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
        file = io.BytesIO()
        picture.save(file, kind)
        return file.getvalue()

    return draw


@pytest.fixture(scope="session")
def pixels_of() -> Callable[[bytes], np.ndarray]:
    return lambda encoded: np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.fixture
def write_pack(tmp_path) -> Callable[[str, list[dict[str, object]]], Path]:
    """Write rows to a parquet file in tmp_path."""

    def write(name: str, rows: list[dict[str, object]]) -> Path:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def make_packed(draw_picture) -> Callable[..., PackedDataset]:
    """A data set of `count` pictures in memory; those numbered in `corrupt` cannot be decoded."""

    def make(count: int, corrupt: tuple[int, ...] = (), name: str = "drawn", side: int = 48):
        pictures = [draw_picture(i, side, side) for i in range(count)]
        for i in corrupt:
            pictures[i] = b"this is no picture"
        return PackedDataset(
            name=name,
            split="train",
            classes=["a", "b", "c"],
            names=[f"{name}-{i}" for i in range(count)],
            labels_N=np.arange(count) % 3,
            sizes_N2=np.full((count, 2), side),
            boxes=[np.array([[0.0, 0.0, 9.0, 9.0]])] * count,
            jpegs=pa.array(pictures),
        )

    return make
