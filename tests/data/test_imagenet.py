from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from casm_bench.data.catalog import load_splits
from casm_bench.data.imagenet import load_imagenet
from casm_bench.errors import UsageError, WorkError

WNIDS = ["n01440764", "n02102040"]
BOX = (3, 4, 50, 39)
VAL = [(f"ILSVRC2012_val_{i:08d}", WNIDS[i % 2]) for i in range(1, 5)]
TRAIN = [(f"{wnid}_{i}", wnid) for wnid in WNIDS for i in range(40)]
SIZE = "<size><width>60</width><height>40</height></size>"


def xml(wnid: str, size: str = SIZE) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<annotation>{size}<object><name>{wnid}</name><bndbox>{corners}</bndbox></object>"
        "</annotation>"
    )


@pytest.fixture
def make_root(tmp_path, draw_picture):
    """Write folders: where pictures and XML of val and of train go, with {wnid} filled in."""

    def make(
        val: str, val_xml: str | None = None, train: str | None = None, train_xml=None
    ) -> Path:
        for seed, (stem, wnid) in enumerate(VAL):
            write(val.format(wnid=wnid), f"{stem}.JPEG", draw_picture(seed, 60, 40, kind="JPEG"))
            if val_xml is not None:
                write(val_xml.format(wnid=wnid), f"{stem}.xml", xml(wnid).encode())
        for seed, (stem, wnid) in enumerate(TRAIN if train else ()):
            picture = draw_picture(100 + seed, 60, 40, kind="JPEG")
            write(train.format(wnid=wnid), f"{stem}.JPEG", picture)
            if train_xml:
                write(train_xml.format(wnid=wnid), f"{stem}.xml", xml(wnid).encode())
        return tmp_path / "imagenet"

    def write(folder: str, name: str, content: bytes) -> None:
        (tmp_path / "imagenet" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "imagenet" / folder / name).write_bytes(content)

    return make


@pytest.fixture
def solution():
    rows = [f"{stem},{wnid} {' '.join(map(str, BOX))}" for stem, wnid in VAL]
    return "\n".join(["ImageId,PredictionString", *rows]) + "\n"


def check_evaluated(dataset) -> None:
    assert dict(zip(dataset.names, dataset.labels_N.tolist(), strict=True)) == {
        f"{stem}.JPEG": WNIDS.index(wnid) for stem, wnid in VAL
    }
    assert list(dataset.classes) == WNIDS
    assert dataset.sizes_N2.tolist() == [[60, 40]] * 4
    assert [boxes.tolist() for boxes in dataset.boxes] == [[list(BOX)]] * 4
    assert dataset.image(2).shape == (40, 60, 3)


LAYOUTS = {
    "class folders": ("val/{wnid}", "Annotations", "train/{wnid}"),
    "flat": ("val", "bbox/val", "train/{wnid}"),
    "kaggle": (
        "ILSVRC/Data/CLS-LOC/val",
        "ILSVRC/Annotations/CLS-LOC/val",
        "ILSVRC/Data/CLS-LOC/train/{wnid}",
    ),
    "xml beside the pictures": ("val/{wnid}", "val/{wnid}", "train/{wnid}"),
    "xml in a folder of any name": ("val", "my boxes/of val", "train/{wnid}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(make_root, layout):
    splits = load_splits("imagenet", str(make_root(*LAYOUTS[layout])))
    check_evaluated(splits.evaluated)
    assert Counter(splits.held_out.labels_N.tolist()) == {0: 2, 1: 2}
    assert Counter(splits.train.labels_N.tolist()) == {0: 38, 1: 38}
    assert not set(splits.train.names) & set(splits.held_out.names)
    assert all(boxes.shape == (0, 4) for boxes in [*splits.train.boxes, *splits.held_out.boxes])
    assert splits.train.image(50).shape == (40, 60, 3)
    assert splits.train.names[50].startswith("n02102040_")


def test_the_root_may_be_kaggles_inner_folder(make_root):
    root = make_root("ILSVRC/Data/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val")
    check_evaluated(load_imagenet(root / "ILSVRC").evaluated)


def test_kaggles_solution_file_gives_classes_and_boxes(make_root, solution):
    root = make_root("ILSVRC/Data/CLS-LOC/val")
    (root / "LOC_val_solution.csv").write_text(solution)
    splits = load_imagenet(root)
    check_evaluated(splits.evaluated)
    assert splits.train is None and splits.held_out is None


def test_held_out_pictures_have_boxes_where_training_annotations_exist(make_root):
    root = make_root("val", "Annotations/val", "train/{wnid}", "Annotations/train/{wnid}")
    for path in (root / "Annotations" / "train").rglob("*_1?.xml"):
        path.unlink()
    splits = load_imagenet(root)
    assert len(splits.held_out) == 4
    assert (
        splits.held_out.split == "held-out" and splits.held_out.sizes_N2.tolist() == [[60, 40]] * 4
    )
    assert [boxes.tolist() for boxes in splits.held_out.boxes] == [[list(BOX)]] * 4
    drawn = {name.split("_")[1].removesuffix(".JPEG") for name in splits.held_out.names}
    assert not drawn & {str(number) for number in range(10, 20)}
    picture = splits.held_out.image(3)
    assert np.array_equal(picture, load_imagenet(root).held_out.subset([3]).image(0))


def test_a_size_that_xml_leaves_out_is_read_from_the_picture(make_root):
    root = make_root("val", "Annotations")
    for stem, wnid in VAL:
        (root / "Annotations" / f"{stem}.xml").write_text(xml(wnid, size=""))
    check_evaluated(load_imagenet(root).evaluated)
    (root / "val" / f"{VAL[0][0]}.JPEG").write_bytes(b"broken")
    with pytest.raises(WorkError, match="ILSVRC2012_val_00000001.JPEG cannot be read"):
        load_imagenet(root)


def test_a_subset_keeps_imagenets_labels_beside_the_class_list(make_root):
    root = make_root("val", "Annotations")
    numbered = [f"n9{k:07d}" for k in range(998)]
    entries = [
        {"label": k, "wnid": wnid, "words": f"thing {k}"}
        for k, wnid in enumerate([*numbered[:5], WNIDS[1], *numbered[5:], WNIDS[0]])
    ]
    (root / "imagenet1k-classes.json").write_text(json.dumps(entries))
    dataset = load_imagenet(root).evaluated
    assert dataset.labels_N.tolist() == [5, 999, 5, 999]
    assert dataset.classes[999] == "thing 999"


def test_pictures_are_read_only_when_asked_for(make_root):
    root = make_root("val", "Annotations", "train/{wnid}")
    for path in root.rglob("*.JPEG"):
        path.write_bytes(b"broken")
    splits = load_imagenet(root)
    with pytest.raises(WorkError, match="ILSVRC2012_val_00000001.JPEG cannot be decoded"):
        splits.evaluated.image(0)


def test_a_class_that_differs_from_its_folder_is_an_error(make_root):
    root = make_root("val/{wnid}", "Annotations")
    (root / "Annotations" / "ILSVRC2012_val_00000002.xml").write_text(xml("n09999999"))
    with pytest.raises(WorkError, match="of class n01440764, but its boxes are of class n09999999"):
        load_imagenet(root)


def test_a_picture_without_annotation_is_named(make_root):
    root = make_root("val", "Annotations")
    (root / "Annotations" / "ILSVRC2012_val_00000003.xml").unlink()
    with pytest.raises(UsageError, match="no boxes for picture ILSVRC2012_val_00000003.JPEG"):
        load_imagenet(root)


def test_a_root_without_pictures_is_explained(tmp_path):
    with pytest.raises(UsageError, match="neither val nor ILSVRC/Data/CLS-LOC/val is there. Name"):
        load_imagenet(tmp_path)
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    with pytest.raises(UsageError, match="unpack its tar files first"):
        load_imagenet(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(UsageError, match="There are no pictures in imagenet, evaluated split"):
        load_imagenet(tmp_path)
    with pytest.raises(UsageError, match="gone does not exist"):
        load_imagenet(tmp_path / "gone")


def test_an_empty_train_folder_is_explained(make_root):
    root = make_root("val", "Annotations")
    (root / "train").mkdir()
    with pytest.raises(UsageError, match="There are no pictures in imagenet, train split"):
        load_imagenet(root)


def test_a_class_that_is_not_known_is_named(make_root):
    root = make_root("val", "Annotations")
    entries = [{"label": k, "wnid": f"n9{k:07d}", "words": "thing"} for k in range(1000)]
    (root / "imagenet1k-classes.json").write_text(json.dumps(entries))
    with pytest.raises(UsageError, match="has class n02102040, which is not one of the 1000"):
        load_imagenet(root)
