"""wsolevaluation's metadata folders: read, written, and the same afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from casm_bench.cli import main
from casm_bench.data.catalog import load_splits
from casm_bench.data.dataset import Dataset
from casm_bench.data.wsol_metadata import write_wsol_metadata
from casm_bench.errors import CasmBenchError

FILES = {
    "image_ids.txt": "val/a.JPEG\nval/b.JPEG\n",
    "class_labels.txt": "val/a.JPEG,65\nval/b.JPEG,970\n",
    "image_sizes.txt": "val/a.JPEG,500,375\nval/b.JPEG,333,500\n",
    "localization.txt": "val/a.JPEG,111,108,441,372\n"
    "val/b.JPEG,0,7,10,20\nval/b.JPEG,5,5,332,499\n",
}


def write(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def load(folder, **options):
    return load_splits("wsol-metadata", str(folder), **options)


def test_a_split_is_read(tmp_path):
    data = load(write(tmp_path)).evaluated
    assert data.names == ["val/a.JPEG", "val/b.JPEG"]
    assert data.labels_N.tolist() == [65, 970]
    assert data.sizes_N2.tolist() == [[500, 375], [333, 500]]
    assert [boxes.tolist() for boxes in data.boxes] == [
        [[111, 108, 441, 372]],
        [[0, 7, 10, 20], [5, 5, 332, 499]],
    ]
    assert (len(data.classes), data.has_pixels) == (971, False)
    assert len(load(tmp_path, classes=1000).evaluated.classes) == 1000


def test_files_come_out_as_they_went_in(tmp_path):
    data = load(write(tmp_path / "in")).evaluated
    paths = write_wsol_metadata(data, tmp_path / "out")
    assert {path.name: path.read_text() for path in paths} == FILES


coordinates = st.floats(0, 500, allow_nan=False) | st.integers(0, 500).map(float)
boxes = st.lists(st.tuples(*[coordinates] * 4).map(sorted), min_size=1, max_size=3)
ids = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(ids, st.integers(0, 9), boxes), min_size=1, unique_by=lambda r: r[0])
)
def test_any_split_survives_the_way_out_and_in(tmp_path, rows):
    names, labels, of_images = zip(*rows, strict=True)
    corners = [np.array(b)[:, [0, 1, 2, 3]] for b in of_images]  # sorted: x0 <= y0 <= x1 <= y1
    data = Dataset(
        name="any",
        split="evaluated",
        classes=[str(i) for i in range(10)],
        names=list(names),
        labels_N=np.array(labels),
        sizes_N2=np.tile([500, 375], (len(names), 1)),
        boxes=corners,
        has_pixels=False,
    )
    write_wsol_metadata(data, tmp_path)
    again = load(tmp_path, classes=10).evaluated
    assert again.digest() == data.digest()


def test_test_is_evaluated_and_val_held_out(tmp_path):
    write(tmp_path / "test")
    renamed = {name: text.replace("val/", "v2/") for name, text in FILES.items()}
    write(tmp_path / "val", renamed)
    splits = load(tmp_path)
    assert splits.evaluated.names[0] == "val/a.JPEG"
    assert (splits.held_out.names[0], splits.held_out.split) == ("v2/a.JPEG", "held-out")


def test_pictures_are_read_where_a_folder_is_named(tmp_path):
    write(tmp_path / "metadata")
    (tmp_path / "pictures" / "val").mkdir(parents=True)
    picture_HW3 = np.full((375, 500, 3), 7, np.uint8)
    Image.fromarray(picture_HW3).save(tmp_path / "pictures" / "val" / "a.JPEG", format="PNG")
    data = load(tmp_path / "metadata", images=str(tmp_path / "pictures")).evaluated
    np.testing.assert_array_equal(data.image(0), picture_HW3)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("class_labels.txt", "val/a.JPEG,65\n", "no line for 1 of the 2 images"),
        ("localization.txt", "val/a.JPEG,1,2,3,4\n", "1 of 2 pictures have no box"),
        ("localization.txt", "val/a.JPEG,1,2,3\n", "line 1"),
        ("image_sizes.txt", "val/a.JPEG,wide,2\n", "line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, file, text, message):
    write(tmp_path, FILES | {file: text})
    with pytest.raises(CasmBenchError, match=message):
        load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "localization.txt").unlink()
    with pytest.raises(CasmBenchError, match="localization.txt cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("ending", [".npy", ".JPEG.npy"])
def test_maps_named_by_image_id_are_scored(tmp_path, ending):
    write(tmp_path / "metadata")
    (tmp_path / "maps" / "val").mkdir(parents=True)
    for name in "ab":
        map_HW = np.zeros((224, 224), np.float32)
        map_HW[60:220, 50:190] = 1
        np.save(tmp_path / "maps" / "val" / f"{name}{ending}", map_HW)
    where = ("--maps", str(tmp_path / "maps"), "--root", str(tmp_path / "metadata"))
    out = tmp_path / "scores.json"
    data = ("--data", "wsol-metadata", "--protocols", "wsol", "--out", str(out))
    assert main(["score", *where, *data]) == 0
    assert json.loads(out.read_text())["protocols"]["wsol"]["n_images"] == 2
