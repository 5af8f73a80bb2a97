"""From annotation and map to scores, beside what the official CASM scorer does for each image.

The official steps are restated here one by one, with the libraries that it uses: BeautifulSoup and
html5lib for the annotation, torch for the threshold, scipy for the components, whole images for
IoU and F1, numpy for the mask statistics. Goals: 12 times as fast for CASM's own maps, 5 times for
maps of any kind, the boxes all equal.
"""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from casm_bench.boxes import NO_BOX, Box, predict_box
from casm_bench.data.annotations import read_xml
from casm_bench.data.dataset import Dataset
from casm_bench.metrics.masks import mask_statistics
from casm_bench.metrics.scoring import Scores, score_maps
from casm_bench.protocols import CASM, CASM_RULE

bs4 = pytest.importorskip("bs4", reason="the official scorer reads XML with it")
PICTURES = 64
SIZE = 224
pytestmark = [
    pytest.mark.benchmark(group="64 maps, CPU seconds", timer=time.process_time),
    pytest.mark.usefixtures("one_thread"),
]
GRIDS = {"CASM's 56-pixel maps": 56, "224-pixel maps": SIZE}


def blobs(side: int) -> np.ndarray:
    """Smooth random maps with some noise, float32 in (0, 1)."""
    random = np.random.default_rng(0)
    noise_NHW = random.normal(size=(PICTURES, side, side))
    smooth_NHW = ndimage.gaussian_filter(noise_NHW, (0, side / 8, side / 8))
    logits_NHW = 4 * smooth_NHW / smooth_NHW.std() + 0.5 * noise_NHW - 4
    return (1 / (1 + np.exp(-logits_NHW))).astype(np.float32)


XML = """<annotation>
\t<folder>val</folder>
\t<filename>{name}</filename>
\t<source>
\t\t<database>ILSVRC_2012</database>
\t</source>
\t<size>
\t\t<width>500</width>
\t\t<height>375</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{objects}</annotation>
"""
OBJECT = """\t<object>
\t\t<name>n01440764</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{}</xmin>
\t\t\t<ymin>{}</ymin>
\t\t\t<xmax>{}</xmax>
\t\t\t<ymax>{}</ymax>
\t\t</bndbox>
\t</object>
"""


EDGES = ("xmin", "ymin", "xmax", "ymax")


@pytest.fixture
def annotations(tmp_path: Path) -> list[Path]:
    """An XML file per picture as ILSVRC has them, with one or two boxes."""
    random = np.random.default_rng(1)
    paths = []
    for i, count in enumerate(random.integers(1, 3, size=PICTURES)):
        corner_M2 = random.integers(0, 200, (count, 2))
        boxes_M4 = np.hstack([corner_M2, corner_M2 + random.integers(20, 150, (count, 2))])
        objects = "".join(OBJECT.format(*box) for box in boxes_M4.tolist())
        paths.append(tmp_path / f"picture{i}.xml")
        paths[-1].write_text(XML.format(name=f"picture{i}", objects=objects))
    return paths


def enlarged(map_HW: np.ndarray) -> np.ndarray:
    factor = SIZE // len(map_HW)
    return map_HW.repeat(factor, axis=0).repeat(factor, axis=1)


# --- the official scorer, step by step ----------------------------------------------------------


def official_boxes(path: Path) -> list[list[int]]:
    """True boxes in the crop, from BeautifulSoup's tree of the XML read as HTML."""
    lines = path.read_text().splitlines(keepends=True)
    tree = bs4.BeautifulSoup("".join(line.strip("\t") for line in lines), "html5lib")
    sides = (tree.find_all("size")[0].find_all(side)[0] for side in ("width", "height"))
    width, height = (int(side.contents[0]) for side in sides)
    scale = SIZE / min(width, height)
    cut = (scale * width - SIZE) / 2, (scale * height - SIZE) / 2
    boxes = []
    for thing in tree.find_all("object"):
        assert [str(name.contents[0]) for name in thing.find_all("name")] == ["n01440764"]
        corners = thing.find_all("bndbox")[0]
        edges = [int(corners.find_all(edge)[0].contents[0]) for edge in EDGES]
        boxes.append([int(scale * edge - cut[i % 2]) for i, edge in enumerate(edges)])
    return boxes


def official_threshold(map_HW: torch.Tensor) -> torch.Tensor:
    """Which pixels exceed the k-th smallest, bool H×W."""
    mean = torch.nn.functional.avg_pool2d(map_HW[None, None], SIZE, stride=1).item()
    rank = 1 + int((map_HW.numel() - 1) * (1 - mean) + 0.5)
    threshold, _ = torch.kthvalue(map_HW.flatten(), rank)
    return map_HW.gt(threshold.clamp(1e-6, 1 - 1e-6)).float()


def official_box(binary_HW: np.ndarray) -> np.ndarray:
    """The box of the largest component as a picture of ones and zeros."""
    rectangle_HW = np.zeros((SIZE, SIZE), np.float32)
    if not binary_HW.any():
        return rectangle_HW
    labels_HW, _ = ndimage.label(binary_HW)
    sizes = np.bincount(labels_HW.ravel(), weights=binary_HW.ravel())
    largest_HW = labels_HW == sizes.argmax()
    rows, columns = largest_HW.any(axis=1), largest_HW.any(axis=0)
    top, left = rows.argmax(), columns.argmax()
    bottom, right = rows.cumsum().argmax(), columns.cumsum().argmax()
    rectangle_HW[top : bottom + 1, left : right + 1] = 1
    return rectangle_HW


def official_scores(
    map_HW: np.ndarray, rectangle_HW: np.ndarray, box: list[int]
) -> tuple[float, float]:
    """IoU and F1 against one true box, by multiplying pictures."""
    x0, y0, x1, y1 = box
    area = (x1 - x0) * (y1 - y0)
    truth_HW = np.zeros((SIZE, SIZE))
    x0, y0, x1, y1 = np.clip(box, 0, SIZE)
    if x0 == x1 or y0 == y1:
        return 0.0, 0.0
    truth_HW[y0:y1, x0:x1] = 1
    inside = (map_HW * truth_HW).sum()
    precision, recall = inside / (map_HW.sum() + 1e-6), inside / area
    shared = (rectangle_HW * truth_HW).sum()
    iou = shared / (rectangle_HW.sum() + area - shared)
    return iou, 2 * precision * recall / (precision + recall + 1e-6)


def official_statistics(maps_N1HW: torch.Tensor) -> dict[str, float]:
    """Mean, std of means, entropy and total variation of a batch."""
    flat = maps_N1HW.flatten().numpy()
    strict = flat[(flat > 0)]
    strict = strict[strict < 1]
    down = (maps_N1HW[:, :, 1:] - maps_N1HW[:, :, :-1]).pow(2).mean()
    right = (maps_N1HW[..., 1:] - maps_N1HW[..., :-1]).pow(2).mean()
    return {
        "mean": maps_N1HW.mean().item(),
        "std": torch.nn.functional.avg_pool2d(maps_N1HW, SIZE, stride=1).std().item(),
        "entropy": -np.sum(strict * np.log2(strict)) / flat.size,
        "total_variation": (down + right).item(),
    }


def official_rectangles(maps_NHW: np.ndarray) -> np.ndarray:
    maps_NHW = torch.from_numpy(maps_NHW)
    return np.stack([official_box(official_threshold(map_HW).numpy()) for map_HW in maps_NHW])


def official_scorer(maps_NHW: np.ndarray, paths: list[Path]) -> tuple[np.ndarray, dict[str, float]]:
    """IoU and F1 of every image, best over its true boxes, N×2; and the mask statistics."""
    rectangles_NHW = official_rectangles(maps_NHW)
    statistics = official_statistics(torch.from_numpy(maps_NHW)[:, None])
    rows = []
    for map_HW, rectangle_HW, path in zip(maps_NHW, rectangles_NHW, paths, strict=True):
        scores = [official_scores(map_HW, rectangle_HW, box) for box in official_boxes(path)]
        rows.append(np.max(scores, axis=0))
    return np.stack(rows), statistics


# --- ours ---------------------------------------------------------------------------------------


def ours(maps_NHW: np.ndarray, paths: list[Path]) -> tuple[Scores, dict[str, np.ndarray]]:
    dataset = annotated(paths)
    rows = [mask_statistics(map_HW[None], SIZE, "nearest") for map_HW in maps_NHW]
    statistics = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return score_maps(enumerate(maps_NHW), dataset, CASM, CASM_RULE, SIZE), statistics


def annotated(paths: list[Path]) -> Dataset:
    read = [read_xml(path) for path in paths]
    return Dataset(
        name="XML files",
        split="evaluated",
        classes=["n01440764"],
        names=[path.stem for path in paths],
        labels_N=np.zeros(len(paths), dtype=np.int64),
        sizes_N2=np.array([(one.width, one.height) for one in read]),
        boxes=[one.boxes_n4 for one in read],
        has_pixels=False,
    )


@pytest.mark.parametrize("kind", GRIDS)
def test_boxes(kind, beside):
    maps_NHW = blobs(GRIDS[kind])
    large_NHW = np.stack([enlarged(map_HW) for map_HW in maps_NHW])

    def ours() -> list[Box]:
        return [predict_box(map_HW, CASM_RULE, SIZE, "nearest") or NO_BOX for map_HW in maps_NHW]

    def official() -> np.ndarray:
        return official_rectangles(large_NHW)

    boxes = beside(ours, official)
    filled_NHW = np.zeros((PICTURES, SIZE, SIZE))
    for filled_HW, (x0, y0, x1, y1) in zip(filled_NHW, boxes, strict=True):
        filled_HW[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(filled_NHW, official())


@pytest.mark.parametrize("kind", GRIDS)
def test_scores(kind, beside, annotations):
    maps_NHW = blobs(GRIDS[kind])
    large_NHW = np.stack([enlarged(map_HW) for map_HW in maps_NHW])

    def official() -> tuple[np.ndarray, dict[str, float]]:
        return official_scorer(large_NHW, annotations)

    scores, statistics = beside(lambda: ours(maps_NHW, annotations), official)
    expected_N2, expected = official()
    np.testing.assert_allclose(scores.iou_N, expected_N2[:, 0], rtol=1e-6)
    np.testing.assert_allclose(scores.f1_N, expected_N2[:, 1], rtol=1e-5)  # float32 sums
    for name in ("mean", "entropy", "total_variation"):
        assert statistics[name].mean() == pytest.approx(expected[name], rel=1e-4)


def peak_bytes(count: int) -> int:
    """Of scoring `count` maps that are made one at a time."""
    dataset = Dataset(
        name="many",
        split="evaluated",
        classes=["thing"],
        names=[f"picture{i}" for i in range(count)],
        labels_N=np.zeros(count, np.int64),
        sizes_N2=np.full((count, 2), SIZE),
        boxes=[np.array([[10.0, 20, 100, 120]])] * count,
        has_pixels=False,
    )
    map_HW = blobs(SIZE)[0]
    tracemalloc.start()
    score_maps(((i, map_HW * 0.5) for i in range(count)), dataset, CASM, CASM_RULE, SIZE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_maps():
    """Per image a handful of numbers stays, not its map of 200 kB."""
    few, many = peak_bytes(50), peak_bytes(450)
    assert (many - few) / 400 < 4000
