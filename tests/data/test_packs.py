from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from casm_bench.data.catalog import load_splits
from casm_bench.data.packs import (
    load_ilsvrc_boxes,
    load_ilsvrc_pack,
    load_imagenette_pack,
    read_class_list,
)
from casm_bench.errors import UsageError, WorkError


@pytest.fixture
def ilsvrc_rows(draw_picture):
    return [
        {
            "source": "even" if i % 2 == 0 else "odd",
            "name": f"ILSVRC2012_val_{i:08d}.JPEG",
            "wnid": f"n{i:08d}",
            "label": 7 * i,
            "orig_width": 90 + i,
            "orig_height": 60,
            "boxes_orig": [[0, 0, 30, 59], [10, 20, 89, 40]][: 1 + i % 2],
            "jpeg": draw_picture(i),
        }
        for i in range(4)
    ]


@pytest.fixture
def box_rows():
    return [
        {
            "name": "a",
            "label": 3,
            "width": 50,
            "height": 40,
            "boxes": [[1, 2, 3, 4], [5, 6, 49, 39]],
        },
        {"name": "b", "label": 999, "width": 30, "height": 20, "boxes": [[0, 0, 29, 19]]},
    ]


@pytest.fixture
def imagenette_rows(draw_picture):
    return [
        {
            "name": f"{wnid}_{i}.JPEG",
            "wnid": wnid,
            "label": label,
            "jpeg": draw_picture(100 * label + i, 32, 32),
        }
        for label, wnid in ((0, "n01440764"), (217, "n02102040"))
        for i in range(20)
    ]


def class_entries(count: int) -> list[dict[str, object]]:
    return [{"label": k, "wnid": f"n{k:08d}", "words": f"thing {k}"} for k in range(count)]


def test_ilsvrc_pack(write_pack, ilsvrc_rows):
    splits = load_ilsvrc_pack(write_pack("pack.parquet", ilsvrc_rows))
    dataset = splits.evaluated
    assert splits.train is None and splits.held_out is None
    assert dataset.names[3] == "ILSVRC2012_val_00000003.JPEG"
    assert dataset.labels_N.tolist() == [0, 7, 14, 21] and dataset.labels_N.dtype == np.int64
    assert dataset.sizes_N2.tolist() == [[90, 60], [91, 60], [92, 60], [93, 60]]
    assert dataset.groups == ["even", "odd", "even", "odd"]
    assert [boxes.tolist() for boxes in dataset.boxes[:2]] == [
        [[0, 0, 30, 59]],
        [[0, 0, 30, 59], [10, 20, 89, 40]],
    ]
    assert dataset.image(3).shape == (60, 93, 3)
    assert dataset.frame_image(3, "crop", 24).shape == (24, 24, 3)
    assert len(dataset.classes) == 1000
    assert dataset.classes[21] == "n00000003" and dataset.classes[22] == "22"


def test_subsets_take_sources_boxes_and_pixels_along(write_pack, ilsvrc_rows):
    whole = load_ilsvrc_pack(write_pack("pack.parquet", ilsvrc_rows)).evaluated
    part = whole.subset([3, 2])
    assert part.groups == ["odd", "even"] and len(part.boxes[0]) == 2
    assert np.array_equal(part.image(1), whole.image(2))


def test_class_names_come_from_the_list_beside_the_pack(write_pack, ilsvrc_rows, tmp_path):
    path = write_pack("pack.parquet", ilsvrc_rows)
    (tmp_path / "imagenet1k-classes.json").write_text(json.dumps(class_entries(1000)[::-1]))
    assert load_ilsvrc_pack(path).evaluated.classes[5] == "thing 5"


def test_boxes_without_pictures(write_pack, box_rows):
    dataset = load_splits("ilsvrc-boxes", str(write_pack("boxes.parquet", box_rows))).evaluated
    assert not dataset.has_pixels and len(dataset.classes) == 1000
    assert [boxes.tolist() for boxes in dataset.boxes] == [row["boxes"] for row in box_rows]
    assert dataset.boxes[0].dtype == np.float64
    assert dataset.sizes_N2.tolist() == [[50, 40], [30, 20]]


def test_imagenette_holds_out_a_tenth_of_each_class(write_pack, imagenette_rows):
    splits = load_imagenette_pack(write_pack("imagenette.parquet", imagenette_rows))
    assert Counter(splits.held_out.labels_N.tolist()) == {0: 2, 217: 2}
    assert Counter(splits.train.labels_N.tolist()) == {0: 18, 217: 18}
    assert not set(splits.train.names) & set(splits.held_out.names)
    assert splits.evaluated.names == splits.held_out.names
    assert all(boxes.shape == (0, 4) for boxes in splits.evaluated.boxes)
    assert len(splits.train.classes) == 1000 and splits.train.classes[217] == "n02102040"
    assert splits.train.image(0).shape == (32, 32, 3)


def test_imagenette_parts_in_a_folder_are_joined(write_pack, imagenette_rows, tmp_path):
    write_pack("imagenette224-train-0of2.parquet", imagenette_rows[:25])
    write_pack("imagenette224-train-1of2.parquet", imagenette_rows[25:])
    write_pack("something-else.parquet", [{"other": 1}])
    splits = load_imagenette_pack(tmp_path, seed=7)
    assert len(splits.train) + len(splits.held_out) == 40
    assert set(splits.train.names) <= {row["name"] for row in imagenette_rows}


LOADERS = pytest.mark.parametrize(
    "load", [load_ilsvrc_pack, load_ilsvrc_boxes, load_imagenette_pack]
)


@LOADERS
def test_a_missing_root_is_explained(load, tmp_path):
    with pytest.raises(UsageError, match="gone.parquet does not exist"):
        load(tmp_path / "gone.parquet")


@LOADERS
def test_another_kind_of_file_is_explained(load, tmp_path):
    path = tmp_path / "picture.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(UsageError, match="picture.parquet cannot be read as a parquet file"):
        load(path)


@LOADERS
def test_missing_columns_are_named(load, write_pack):
    path = write_pack("other.parquet", [{"name": "a", "wnid": "n1"}])
    with pytest.raises(UsageError, match="lacks the columns .*label"):
        load(path)


def test_a_folder_in_place_of_a_file_and_the_reverse(tmp_path):
    with pytest.raises(UsageError, match="is a folder; it must be a parquet file"):
        load_ilsvrc_pack(tmp_path)
    with pytest.raises(UsageError, match=r"There is no file imagenette\*\.parquet"):
        load_imagenette_pack(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label": 1000}, UsageError, "label 1000, but there are 1000 classes"),
        ({"label": None}, UsageError, "Column label .* has 1 empty cells"),
        ({"boxes": []}, WorkError, "1 of 2 pictures have no box, the first of them b"),
        ({"boxes": [[1, 2, 3]]}, UsageError, "Column boxes .* lists of four numbers"),
        ({"boxes": [[9, 9, 3, 3]]}, WorkError, "Box .* of picture b ends before it begins"),
        ({"name": "a"}, UsageError, "Picture a appears 2 times"),
    ],
)
def test_bad_rows_are_explained(write_pack, box_rows, change, error, message):
    path = write_pack("boxes.parquet", [box_rows[0], box_rows[1] | change])
    with pytest.raises(error, match=message) as caught:
        load_ilsvrc_boxes(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values"),
    [("label", ["cat", "dog"]), ("boxes", [1, 2]), ("boxes", [[1, 2], [3, 4]]), ("name", [1, 2])],
)
def test_columns_of_the_wrong_kind_are_named(write_pack, box_rows, column, values):
    rows = [row | {column: value} for row, value in zip(box_rows, values, strict=True)]
    with pytest.raises(UsageError, match=f"Column {column} of "):
        load_ilsvrc_boxes(write_pack("boxes.parquet", rows))


def test_a_corrupt_picture_is_found_when_it_is_read(write_pack, ilsvrc_rows):
    ilsvrc_rows[1]["jpeg"] = b"broken"
    dataset = load_ilsvrc_pack(write_pack("pack.parquet", ilsvrc_rows)).evaluated
    assert dataset.image(0).shape == (60, 90, 3)
    with pytest.raises(WorkError, match="ILSVRC2012_val_00000001.JPEG cannot be decoded"):
        dataset.frame_image(1, "warp", 64)


@pytest.mark.parametrize(
    "text", ["not json", "[1, 2]", '[{"label": 0}]', json.dumps(class_entries(3)[1:])]
)
def test_a_bad_class_list_is_explained(tmp_path, text):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="classes.json"):
        read_class_list(path, 3)


def test_the_real_pack(shared_data):
    dataset = load_ilsvrc_pack(shared_data / "ilsvrc-val-1400.parquet").evaluated
    assert len(dataset) == 1400
    assert Counter(dataset.groups) == {"acuity227": 1017, "imagenette224": 383}
    assert dataset.names[0] == "ILSVRC2012_val_00000347.JPEG" and dataset.labels_N[0] == 472
    assert dataset.classes[0] == "tench, Tinca tinca"
    assert dataset.boxes[0].shape == (8, 4) and dataset.boxes[0][0].tolist() == [20, 175, 111, 292]
    assert dataset.image(0).shape == (375, 500, 3)


def test_the_real_boxes(shared_data):
    dataset = load_ilsvrc_boxes(shared_data / "ilsvrc-val-boxes-50000.parquet").evaluated
    assert len(dataset) == 50_000
    assert sum(map(len, dataset.boxes)) == 80_477
    assert sum(len(boxes) > 1 for boxes in dataset.boxes) == 11_715
    right, bottom = np.concatenate(dataset.boxes)[:, 2:].T
    width, height = np.repeat(dataset.sizes_N2, [len(boxes) for boxes in dataset.boxes], axis=0).T
    assert (right <= width - 1).all() and (bottom <= height - 1).all()


def test_the_pack_agrees_with_the_list_of_all_boxes(shared_data):
    pack = load_ilsvrc_pack(shared_data / "ilsvrc-val-1400.parquet").evaluated
    whole = load_ilsvrc_boxes(shared_data / "ilsvrc-val-boxes-50000.parquet").evaluated
    row_of = {name: row for row, name in enumerate(whole.names)}
    listed = whole.subset([row_of[name] for name in pack.names])
    assert np.array_equal(pack.labels_N, listed.labels_N)
    assert np.array_equal(pack.sizes_N2, listed.sizes_N2)
    for here, there in zip(pack.boxes, listed.boxes, strict=True):
        assert sorted(here.tolist()) == sorted(there.tolist())


def test_the_real_imagenette(shared_data):
    splits = load_imagenette_pack(shared_data)
    assert len(splits.train) + len(splits.held_out) == 9103
    assert set(Counter(splits.held_out.labels_N.tolist()).values()) == {91}
    assert splits.train.image(0).shape == (224, 224, 3)
