from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from casm_bench.data.tiny_imagenet import load_tiny_imagenet
from casm_bench.errors import UsageError, WorkError

WNIDS = ["n00000001", "n00000002", "n00000005"]


@pytest.fixture
def make_rows(draw_picture):
    """Rows of a pack: `per_class` pictures of each of three classes."""

    def make(split: str, per_class: int) -> list[dict[str, object]]:
        rows = []
        for label, wnid in enumerate(WNIDS):
            for i in range(per_class):
                name = (
                    f"{wnid}_{i}.JPEG" if split == "train" else f"val_{label * per_class + i}.JPEG"
                )
                row = {"split": split, "name": name, "wnid": wnid, "label": label, "mode": "RGB"}
                corners = {"xmin": i % 5, "ymin": 2, "xmax": 40, "ymax": 63}
                rows.append(row | corners | {"jpeg": draw_picture(zlib.crc32(name.encode()))})
        return rows

    return make


@pytest.fixture
def packs(tmp_path, write_pack, make_rows) -> Path:
    rows = make_rows("train", 40)
    write_pack("tiny200-train-0of2.parquet", rows[:50])
    write_pack("tiny200-train-1of2.parquet", rows[50:])
    write_pack("tiny200-val.parquet", make_rows("val", 4))
    return tmp_path


@pytest.fixture
def unzipped(tmp_path, make_rows) -> Path:
    """The same pictures as in `packs`, in the folders of the original archive."""
    root = tmp_path / "tiny-imagenet-200"
    for row in make_rows("train", 40):
        folder = root / "train" / row["wnid"]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / row["name"]).write_bytes(row["jpeg"])
        with (folder / f"{row['wnid']}_boxes.txt").open("a") as file:
            print(row["name"], *corners(row), sep="\t", file=file)
    (root / "val" / "images").mkdir(parents=True)
    for row in make_rows("val", 4):
        (root / "val" / "images" / row["name"]).write_bytes(row["jpeg"])
        with (root / "val" / "val_annotations.txt").open("a") as file:
            print(row["name"], row["wnid"], *corners(row), sep="\t", file=file)
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    (root / "words.txt").write_text("n00000002\tcat, house cat\nn00000001\tdog\nn00009999\tother\n")
    return root


def corners(row: dict[str, object]) -> list[int]:
    return [row[key] for key in ("xmin", "ymin", "xmax", "ymax")]


def test_packs(packs, make_rows):
    splits = load_tiny_imagenet(packs)
    assert (len(splits.train), len(splits.held_out), len(splits.evaluated)) == (114, 6, 12)
    assert np.bincount(splits.held_out.labels_N).tolist() == [2, 2, 2]
    assert not set(splits.train.names) & set(splits.held_out.names)
    evaluated, rows = splits.evaluated, make_rows("val", 4)
    assert evaluated.names == [row["name"] for row in rows]
    assert [boxes.tolist() for boxes in evaluated.boxes] == [[corners(row)] for row in rows]
    assert evaluated.sizes_N2.tolist() == [[64, 64]] * 12
    assert len(evaluated.classes) == 200 and evaluated.classes[2] == "n00000005"


def test_the_unzipped_folder_is_the_same_data(packs, unzipped):
    one, other = load_tiny_imagenet(packs), load_tiny_imagenet(unzipped)
    for split in ("train", "held_out", "evaluated"):
        packed, files = getattr(one, split), getattr(other, split)
        assert packed.names == files.names
        assert np.array_equal(packed.labels_N, files.labels_N)
        assert np.array_equal(np.stack(packed.boxes), np.stack(files.boxes))
        assert np.array_equal(packed.image(1), files.image(1))
    assert other.evaluated.classes == ["dog", "cat, house cat", "n00000005"]


def test_class_names_come_from_the_list_beside_the_packs(packs):
    entries = [{"label": k, "wnid": f"n{k}", "words": f"thing {k}"} for k in range(200)]
    (packs / "tiny200-classes.json").write_text(json.dumps(entries))
    assert load_tiny_imagenet(packs).train.classes[199] == "thing 199"


def test_a_training_picture_that_is_evaluated_is_left_out(packs, write_pack, make_rows, caplog):
    rows = make_rows("train", 40)
    rows[7]["jpeg"] = make_rows("val", 4)[3]["jpeg"]
    write_pack("tiny200-train-0of2.parquet", rows[:50])
    splits = load_tiny_imagenet(packs)
    assert rows[7]["name"] not in {*splits.train.names, *splits.held_out.names}
    assert "1 training pictures are byte for byte in the evaluated split" in caplog.text
    assert caplog.text.strip().endswith(rows[7]["name"])


def test_without_training_pictures_there_is_only_the_evaluated_split(
    write_pack, make_rows, tmp_path
):
    write_pack("tiny200-val.parquet", make_rows("val", 2))
    splits = load_tiny_imagenet(tmp_path)
    assert splits.train is None and splits.held_out is None and len(splits.evaluated) == 6


def test_zero_size_boxes_stay_and_are_counted(write_pack, make_rows, tmp_path, caplog):
    rows = make_rows("val", 2)
    rows[0]["xmax"] = rows[0]["xmin"]
    write_pack("tiny200-val.parquet", rows)
    assert len(load_tiny_imagenet(tmp_path).evaluated) == 6
    assert "evaluated split: 1 of 6 boxes have zero width or height" in caplog.text


def test_a_picture_of_another_size_is_refused(write_pack, make_rows, draw_picture, tmp_path):
    rows = make_rows("val", 1)
    rows[1]["jpeg"] = draw_picture(1, 32, 32)
    write_pack("tiny200-val.parquet", rows)
    with pytest.raises(WorkError, match="val_1.JPEG is 32×32"):
        load_tiny_imagenet(tmp_path).evaluated.image(1)


def test_another_folder_is_explained(tmp_path):
    with pytest.raises(UsageError, match="is not Tiny-ImageNet"):
        load_tiny_imagenet(tmp_path)
    with pytest.raises(UsageError, match="does not exist; it must be a folder with tiny200-val"):
        load_tiny_imagenet(tmp_path / "gone")


@pytest.mark.parametrize(
    ("file", "text", "error", "message"),
    [
        ("val/val_annotations.txt", None, UsageError, "val_annotations.txt cannot be read"),
        ("val/val_annotations.txt", "val_0.JPEG\tn00000001\t1\t2\n", WorkError, "txt, line 1"),
        ("val/val_annotations.txt", "val_0.JPEG\tn00000001\t1\t2\t3\tx", WorkError, "line 1"),
        ("val/val_annotations.txt", "val_0.JPEG\tn7\t1\t2\t3\t4", UsageError, "class n7, which is"),
        ("val/val_annotations.txt", "", UsageError, "There are no pictures"),
        ("train/n00000002/n00000002_boxes.txt", None, UsageError, "n00000002_boxes.txt cannot"),
    ],
)
def test_damaged_folders_are_explained(unzipped, file, text, error, message):
    (unzipped / file).unlink()
    if text is not None:
        (unzipped / file).write_text(text)
    with pytest.raises(error, match=message):
        load_tiny_imagenet(unzipped)


def test_a_training_picture_that_is_gone_is_named(unzipped):
    (unzipped / "train/n00000001/images/n00000001_3.JPEG").unlink()
    with pytest.raises(WorkError, match=r"n00000001_3\.JPEG cannot be read"):
        load_tiny_imagenet(unzipped)


def flat_boxes(boxes: list[np.ndarray]) -> int:
    x0, y0, x1, y1 = np.concatenate(boxes).T
    return int(((x0 == x1) | (y0 == y1)).sum())


def test_the_real_packs(shared_data, caplog):
    splits = load_tiny_imagenet(shared_data)
    train, held_out, evaluated = splits.train, splits.held_out, splits.evaluated
    assert len(evaluated) == 10_000 and flat_boxes(evaluated.boxes) == 41
    assert "41 of 10000 boxes have zero width or height" in caplog.text
    # A quarter of the training pictures lies there; all of them hold seven copies.
    copies = 25_000 - len(train) - len(held_out)
    assert 1 <= copies <= 7
    assert f"{copies} training pictures are byte for byte in the evaluated split" in caplog.text
    assert np.bincount(held_out.labels_N).tolist() == [6] * 200
    corners_N4 = np.concatenate(evaluated.boxes)
    assert corners_N4.min() == 0 and corners_N4.max() == 63
    assert train.classes[0] == "goldfish, Carassius auratus"
    assert train.image(0).shape == (64, 64, 3)
