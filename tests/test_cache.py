"""Maps on disk: kept per batch, taken up again, and made anew where a file is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from casm_bench.cache import MapCache
from casm_bench.errors import WorkError
from casm_bench.files import write_atomically


def fill(folder):
    cache = MapCache(folder)
    maps_BHW = np.random.default_rng(0).random((2, 3, 3), dtype=np.float32)
    cache.add(np.array([0, 1]), maps_BHW, [("broken.jpg", "cannot be decoded")], 1.5)
    cache.add(np.array([2, 4]), maps_BHW + 1, [], 0.5)
    return cache, maps_BHW


def test_a_second_session_sees_what_the_first_left(tmp_path):
    _, maps_BHW = fill(tmp_path / "maps")
    again = MapCache(tmp_path / "maps")
    assert again.done == {0, 1, 2, 4}
    assert again.skipped == {"broken.jpg": "cannot be decoded"}
    assert again.seconds == 2.0
    kept = dict(again)
    assert list(kept) == [0, 1, 2, 4]
    assert np.array_equal(kept[4], maps_BHW[1] + 1)


def test_a_damaged_batch_counts_as_missing(tmp_path):
    fill(tmp_path / "maps")
    (tmp_path / "maps" / "00000002.npz").write_bytes(b"PK cut off")
    again = MapCache(tmp_path / "maps")
    assert again.done == {0, 1}
    assert [index for index, _ in again] == [0, 1]


def test_nothing_half_written_when_the_disk_is_full(tmp_path):
    def fails(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    target = tmp_path / "record.json"
    target.write_text("whole")
    with pytest.raises(WorkError, match=r"record\.json.*No space left on device.*--out"):
        write_atomically(target, fails)
    assert target.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_full_disk_as_torch_reports_it(tmp_path):
    def fails(path):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3")

    with pytest.raises(WorkError, match="PytorchStreamWriter failed"):
        write_atomically(tmp_path / "fitted.pt", fails)
    assert not list(tmp_path.iterdir())
