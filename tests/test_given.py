"""`score`: maps from anybody, scored without method or network."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from casm_bench.cli import main

SIDE = 224  # square originals of this size make crop, warp and original frames agree
BOXES = {"ILSVRC2012_val_00000001": [20, 30, 120, 150], "ILSVRC2012_val_00000002": [0, 0, 224, 100]}
MAP_BOXES = {
    "ILSVRC2012_val_00000001": [20, 30, 120, 150],
    "ILSVRC2012_val_00000002": [0, 0, 112, 50],
}


@pytest.fixture
def pack(tmp_path):
    """Two pictures in the layout of the ILSVRC pack."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (90, 120, 30)).save(buffer, "JPEG")
    rows = [
        {
            "source": "made-up",
            "name": f"{name}.JPEG",
            "wnid": "n01440764",
            "label": 0,
            "orig_width": SIDE,
            "orig_height": SIDE,
            "width": SIDE,
            "height": SIDE,
            "boxes_orig": [box],
            "boxes": [box],
            "jpeg": buffer.getvalue(),
        }
        for name, box in BOXES.items()
    ]
    path = tmp_path / "pack.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def filled(box, side=SIDE):
    map_HW = np.zeros((side, side), dtype=np.float32)
    scale = side / SIDE
    x0, y0, x1, y1 = (round(corner * scale) for corner in box)
    map_HW[y0:y1, x0:x1] = 1
    return map_HW


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for name, box in MAP_BOXES.items():
        np.save(folder / f"{name}.npy", filled(box))
    return folder


def score(pack, maps, *options, protocols=("casm",), out=None):
    out = out or maps.parent / "scores.json"
    code = main(
        ["score", "--maps", str(maps), "--data", "ilsvrc-pack", "--root", str(pack)]
        + ["--protocols", *protocols, "--out", str(out), *options]
    )
    return code, out


def test_scores_worked_by_hand(pack, maps):
    """The first map is the true box; the second covers a quarter of it: IoU and recall 1/4."""
    code, out = score(pack, maps, protocols=("casm", "casm-clipped", "warp"))
    assert code == 0
    result = json.loads(out.read_text())
    first, second = 1.0, 2 * 0.25 / 1.25  # F1 of precision 1 and recall 1, and recall 1/4
    for scores in result["protocols"].values():
        assert scores["localization_error"] == 50.0
        assert scores["n_images"] == 2
        assert scores["f1"] == pytest.approx(100 * (first + second) / 2, abs=1e-3)
        assert scores["f1_mean"] == scores["f1"]
    assert result["per_image"] == "scores.parquet"


def test_maps_of_one_frame_scored_in_two_are_remarked_on(pack, maps, capsys):
    _, out = score(pack, maps, protocols=("casm", "warp"))
    assert json.loads(out.read_text())["remark"] is None  # square pictures look the same in both
    table = pq.read_table(pack)
    wide = table.set_column(table.column_names.index("orig_width"), "orig_width", [[300, 300]])
    pq.write_table(wide, pack)
    capsys.readouterr()
    score(pack, maps, protocols=("casm", "warp", "wsol"))
    assert "cropped pictures under casm and as of squashed ones under warp, wsol" in (
        capsys.readouterr().out
    )
    score(pack, maps, protocols=("warp", "wsol"))
    assert "cropped" not in capsys.readouterr().out


def test_a_row_per_image_and_protocol(pack, maps):
    _, out = score(pack, maps, protocols=("casm", "warp"))
    rows = pq.read_table(out.with_suffix(".parquet")).to_pylist()
    assert len(rows) == 4
    for row in rows:
        box = [row[side] for side in ("x0", "y0", "x1", "y1")]
        assert box == MAP_BOXES[row["name"].removesuffix(".JPEG")]
        assert row["hit"] is (row["name"] == "ILSVRC2012_val_00000001.JPEG")
    assert {row["protocol"] for row in rows} == {"casm", "warp"}


def test_names_with_the_pictures_suffix_and_folders(pack, maps):
    (maps / "val").mkdir()
    first, second = MAP_BOXES
    (maps / f"{first}.npy").rename(maps / f"{first}.JPEG.npy")
    code, out = score(pack, maps)
    assert code == 0
    assert json.loads(out.read_text())["protocols"]["casm"]["localization_error"] == 50.0


@pytest.mark.parametrize("side", [56, 112])
def test_coarser_maps_are_repeated_in_blocks(pack, maps, side):
    for name, box in BOXES.items():
        on_grid = [round(corner * side / SIDE) * SIDE // side for corner in box]
        np.save(maps / f"{name}.npy", filled(on_grid, side))
    _, out = score(pack, maps)
    rows = pq.read_table(out.with_suffix(".parquet")).to_pylist()
    cell = SIDE // side
    for row in rows:
        box = [row[corner] for corner in ("x0", "y0", "x1", "y1")]
        assert all(corner % cell == 0 for corner in box)
        assert row["hit"]


def test_all_protocols(pack, maps):
    names = ("casm", "casm-clipped", "warp", "fong", "wsol")
    code, out = score(pack, maps, protocols=names)
    assert code == 0
    result = json.loads(out.read_text())["protocols"]
    assert set(result) == set(names)
    assert result["wsol"]["policy"] == "oracle"
    assert all(scores["localization_error"] == 50.0 for scores in result.values())


def test_a_constant_map_is_a_failure_not_an_error(pack, maps):
    for name in MAP_BOXES:
        np.save(maps / f"{name}.npy", np.full((SIDE, SIDE), 0.3, np.float32))
    code, out = score(pack, maps)
    assert code == 0
    assert json.loads(out.read_text())["protocols"]["casm"]["localization_error"] == 100.0


@pytest.mark.parametrize(
    "bad",
    [
        np.full((8, 8), np.nan, np.float32),
        np.full((8, 8), np.inf, np.float32),
        -np.ones((8, 8), np.float32),
        np.full((8, 8), 3.0, np.float32),
        np.zeros((2, 8, 8), np.float32),
        np.zeros((0, 0), np.float32),
        np.array(["a", "b"]),
    ],
)
def test_bad_maps_are_named_and_nothing_is_written(pack, maps, bad, capsys):
    name = next(iter(MAP_BOXES))
    np.save(maps / f"{name}.npy", bad)
    code, out = score(pack, maps)
    assert code == 1
    message = capsys.readouterr().err
    assert name in message
    assert "Traceback" not in message
    assert not out.exists()
    assert not out.with_suffix(".parquet").exists()


def test_missing_maps(pack, maps, capsys):
    name = next(iter(MAP_BOXES))
    (maps / f"{name}.npy").unlink()
    code, out = score(pack, maps)
    assert code == 2
    assert "--partial" in capsys.readouterr().err
    code, out = score(pack, maps, "--partial")
    assert code == 0
    result = json.loads(out.read_text())
    assert result["missing"] == [f"{name}.JPEG"]
    assert result["protocols"]["casm"]["n_images"] == 1


def test_other_rules(pack, maps, capsys):
    for rule in ("quantile", "mean:1", "value:0.5", "energy:0.95", "fixed:0.5"):
        code, out = score(pack, maps, "--rule", rule)
        assert code == 0
        assert json.loads(out.read_text())["protocols"]["casm"]["localization_error"] == 50.0
    for rule in ("best", "fixed:5", "energy:-1", "value:nan"):
        assert score(pack, maps, "--rule", rule)[0] == 2
        assert f"--rule {rule}" in capsys.readouterr().err


def test_misspelt_protocols_and_folders(pack, maps, capsys):
    assert score(pack, maps, protocols=("casme",))[0] == 2
    assert "casm-clipped" in capsys.readouterr().err
    assert score(pack, maps / "nowhere")[0] == 2
    assert score(pack.with_name("none.parquet"), maps)[0] == 2
    assert "none.parquet" in capsys.readouterr().err


def test_where_nothing_can_be_written_is_noticed_before_scoring(pack, maps, monkeypatch, capsys):
    monkeypatch.setattr("casm_bench.given.load_splits", None)
    (maps.parent / "folder.json").mkdir()
    (maps.parent / "file").touch()
    for name in ("folder.json", "file/scores.json"):
        assert score(pack, maps, out=maps.parent / name)[0] == 2
        assert "folder" in capsys.readouterr().err


def test_a_missing_folder_is_made(pack, maps):
    out = maps.parent / "new" / "folder" / "scores.json"
    assert score(pack, maps, out=out)[0] == 0
    assert out.exists()


def test_no_protocol_and_no_frame(pack, maps, capsys):
    assert score(pack, maps, protocols=())[0] == 2
    for size in ("0", "-5"):
        assert score(pack, maps, "--size", size)[0] == 2
    assert "Traceback" not in capsys.readouterr().err
