"""Maps on disk: kept per batch, taken up again, and made anew where a file is damaged."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from casm_bench.cache import MARKER, MapCache, clear, size_of, trim
from casm_bench.cli import main
from casm_bench.errors import UsageError, WorkError
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


@pytest.mark.parametrize("flipped", [0x01, 0x80])
def test_whichever_byte_is_damaged_no_other_map_is_given(tmp_path, flipped):
    _, maps_BHW = fill(tmp_path / "maps")
    path = tmp_path / "maps" / "00000000.npz"
    sound = path.read_bytes()
    for place in range(len(sound)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ flipped]) + sound[place + 1 :])
        found = {i: map_HW for i, map_HW in MapCache(tmp_path / "maps") if i < 2}
        assert not found or all((found[i] == maps_BHW[i]).all() for i in (0, 1))


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk here")
def test_a_full_disk_is_told_in_words_where_torch_has_none(tmp_path):
    def fails(path):
        with open("/dev/full", "wb") as file:
            torch.save({"weights": torch.zeros(1000)}, file)

    with pytest.raises(WorkError, match="fitted.pt: (the disk took only a part|No space left)"):
        write_atomically(tmp_path / "fitted.pt", fails)


def test_a_position_in_a_file_is_no_reason(tmp_path):
    def fails(path):
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")

    with pytest.raises(WorkError, match="fitted.pt: the disk took only a part of it"):
        write_atomically(tmp_path / "fitted.pt", fails)


def test_a_single_flipped_bit_is_noticed(tmp_path):
    fill(tmp_path / "maps")
    path = tmp_path / "maps" / "00000000.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"maps_BHW.npy") + 150] ^= 1  # inside the array of maps
    path.write_bytes(content)
    assert MapCache(tmp_path / "maps").done == {2, 4}


def test_the_maps_longest_unused_go_first(tmp_path):
    folders = [tmp_path / "methods" / name / "maps" / "data" for name in ("old", "new", "newest")]
    for age, folder in zip((300, 200, 100), folders, strict=True):
        fill(folder)
        os.utime(folder, (1e9 - age, 1e9 - age))
    fitted = tmp_path / "methods" / "old" / "fitted.pt"
    fitted.write_bytes(b"weights")
    each = size_of(folders[0])
    assert trim(tmp_path, 3 * each) == []
    MapCache(folders[0])  # used again, and so the youngest
    assert trim(tmp_path, 2 * each) == [folders[1]]
    assert trim(tmp_path, 0) == [folders[2], folders[0]]
    assert fitted.exists()


def test_only_a_marked_cache_is_cleared(tmp_path, capsys):
    cache = tmp_path / "cache"
    fill(cache / "methods" / "m" / "maps" / "data")
    record = tmp_path / "shapes" / "quick" / "m-seed0.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(UsageError, match="no cache of a run"):
        clear(cache)
    (cache / MARKER).write_text("Signature: …")
    assert main(["clear-cache", "--out", str(tmp_path)]) == 0
    assert "MB freed" in capsys.readouterr().out
    assert not cache.exists()
    assert record.exists()
    assert clear(cache) == 0
    assert main(["clear-cache", "--out", str(tmp_path / "gone")]) == 2
    told = capsys.readouterr()
    assert "gone: there is no such folder" in told.err
    assert "freed" not in told.out
