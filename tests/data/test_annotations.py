from __future__ import annotations

import pytest

from casm_bench.data.annotations import (
    find_annotations,
    parse_solution,
    read_solutions,
    read_xml,
)
from casm_bench.errors import UsageError, WorkError

# In the form of ILSVRC2012_bbox_val_v3, with made-up contents.
XML = """<annotation>
  <folder>val</folder>
  <filename>ILSVRC2012_val_00000007</filename>
  <source><database>ILSVRC_2012</database></source>
  <size><width>500</width><height>375</height><depth>3</depth></size>
  <segmented>0</segmented>
  <object>
    <name>n01751748</name>
    <pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
    <bndbox><xmin>111</xmin><ymin>108</ymin><xmax>441</xmax><ymax>193</ymax></bndbox>
  </object>
  <object>
    <name>n01751748</name>
    <bndbox><xmin>0</xmin><ymin>1</ymin><xmax>499</xmax><ymax>374</ymax></bndbox>
  </object>
</annotation>
"""


@pytest.fixture
def xml_file(tmp_path):
    def write(text: str):
        path = tmp_path / "ILSVRC2012_val_00000007.xml"
        path.write_text(text)
        return path

    return write


def test_xml_corners_are_used_as_they_are(xml_file):
    annotation = read_xml(xml_file(XML))
    assert annotation.wnid == "n01751748"
    assert (annotation.width, annotation.height) == (500, 375)
    assert annotation.boxes_n4.tolist() == [[111, 108, 441, 193], [0, 1, 499, 374]]


def test_xml_without_a_size_leaves_it_open(xml_file):
    start, end = XML.index("<size>"), XML.index("</size>") + len("</size>")
    annotation = read_xml(xml_file(XML[:start] + XML[end:]))
    assert (annotation.width, annotation.height) == (0, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "cannot be read"),
        ("<xmax>441</xmax>", "", "an object has no bndbox/xmax"),
        ("<xmax>441</xmax>", "<xmax>wide</xmax>", "wide"),
        ("<width>500</width>", "<width>five</width>", "five"),
        ("<name>n01751748</name>", "", "an object has no name"),
        ("<name>n01751748</name>", "<name>n07</name>", r"several classes \(n01751748, n07\)"),
        ("object>", "thing>", "no object"),
    ],
)
def test_damaged_xml_is_named(xml_file, old, new, message):
    text = XML.replace(old, new) if old == "object>" else XML.replace(old, new, 1)
    with pytest.raises(WorkError, match=message) as caught:
        read_xml(xml_file(text))
    assert "ILSVRC2012_val_00000007.xml" in str(caught.value)


def test_solutions(tmp_path):
    path = tmp_path / "LOC_val_solution.csv"
    path.write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000002,n03995372 85 1 499 272 \n"
        "ILSVRC2012_val_00000001,n03481172 131 0 499 254 n03481172 1 2 3 4 \n"
    )
    solutions = read_solutions(path)
    assert len(solutions) == 2
    stem = "ILSVRC2012_val_00000001"
    wnid, boxes_n4, width, height = parse_solution(stem, solutions[stem])
    assert (wnid, width, height) == ("n03481172", 0, 0)
    assert boxes_n4.tolist() == [[131, 0, 499, 254], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ("n03995372 85 1 499", "is not a series of"),
        ("n03995372 85 1 499 x", "a corner that is no number"),
        ("n1 1 2 3 4 n2 1 2 3 4", r"several classes \(n1, n2\)"),
        ("", "no object"),
    ],
)
def test_damaged_solutions_are_named(objects, message):
    with pytest.raises(WorkError, match=message) as caught:
        parse_solution("picture-3", objects)
    assert "picture-3" in str(caught.value)


def test_another_csv_is_explained(tmp_path):
    path = tmp_path / "LOC_val_solution.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="LOC_val_solution.csv must have the columns"):
        read_solutions(path)


def test_annotations_are_found_at_any_depth_but_not_among_training_pictures(tmp_path):
    for place in ("bbox/val/a.xml", "Annotations/CLS-LOC/train/n1/b.xml", "train/n1/c.xml"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(XML)
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nd,n1 1 2 3 4\n")
    (tmp_path / "circle").symlink_to(tmp_path)
    index = find_annotations(tmp_path, skip=tmp_path / "train")
    assert [stem in index for stem in "abcd"] == [True, True, False, True]
    assert index.read("a").wnid == "n01751748"
    assert index.read("d").boxes_n4.tolist() == [[1, 2, 3, 4]]


def test_linked_folders_are_followed_and_xml_goes_before_csv(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.xml").write_text(XML)
    root = tmp_path / "root"
    root.mkdir()
    (root / "Annotations").symlink_to(tmp_path / "elsewhere")
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\na,n1 1 2 3 4\n")
    assert find_annotations(root, skip=root / "train").read("a").wnid == "n01751748"
