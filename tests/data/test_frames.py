"""Frames: golden coordinates of the official scorer, and pixels equal to torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from casm_bench.data.dataset import Dataset
from casm_bench.data.frames import (
    boxes_to_original,
    to_frame_image,
    to_frame_mask,
    truth_in_frame,
)
from casm_bench.metrics.localization import true_boxes
from casm_bench.protocols import PROTOCOLS

SIZES = [(500, 375), (375, 500), (333, 500), (224, 224), (300, 300), (100, 61), (640, 427)]

# Width, height, box, frame, box in the frame of 224: what the official scorer computes.
OFFICIAL = [
    (500, 375, (0, 0, 499, 374), "crop", (-37, 0, 260, 223)),
    (500, 375, (0, 0, 499, 374), "warp", (0, 0, 223, 223)),
    (500, 375, (1, 1, 500, 375), "warp", (0, 0, 224, 224)),
    (500, 375, (125, 93, 375, 281), "crop", (37, 55, 186, 167)),
    (500, 375, (0, 0, 62, 46), "crop", (-37, 0, 0, 27)),
    (500, 375, (0, 0, 62, 46), "warp", (0, 0, 27, 27)),
    (500, 375, (450, 338, 499, 374), "warp", (201, 201, 223, 223)),
    (375, 500, (0, 0, 374, 499), "crop", (0, -37, 223, 260)),
    (375, 500, (1, 1, 375, 500), "crop", (0, -36, 224, 261)),
    (375, 500, (1, 1, 375, 500), "warp", (0, 0, 224, 224)),
    (375, 500, (93, 125, 281, 375), "warp", (55, 56, 167, 168)),
    (375, 500, (0, 0, 46, 62), "crop", (0, -37, 27, 0)),
    (375, 500, (338, 450, 374, 499), "crop", (201, 231, 223, 260)),
    (375, 500, (338, 450, 374, 499), "warp", (201, 201, 223, 223)),
    (500, 500, (0, 0, 499, 499), "warp", (0, 0, 223, 223)),
    (500, 500, (1, 1, 500, 500), "crop", (0, 0, 224, 224)),
    (500, 500, (125, 125, 375, 375), "crop", (56, 56, 168, 168)),
    (500, 500, (125, 125, 375, 375), "warp", (56, 56, 168, 168)),
    (500, 500, (0, 0, 62, 62), "warp", (0, 0, 27, 27)),
    (500, 500, (450, 450, 499, 499), "crop", (201, 201, 223, 223)),
    (333, 500, (0, 0, 332, 499), "crop", (0, -56, 223, 279)),
    (333, 500, (0, 0, 332, 499), "warp", (0, 0, 223, 223)),
    (333, 500, (1, 1, 333, 500), "warp", (0, 0, 224, 224)),
    (333, 500, (83, 125, 249, 375), "crop", (55, 27, 167, 196)),
    (333, 500, (0, 0, 41, 62), "crop", (0, -56, 27, -14)),
    (333, 500, (0, 0, 41, 62), "warp", (0, 0, 27, 27)),
    (333, 500, (300, 450, 332, 499), "warp", (201, 201, 223, 223)),
    (501, 333, (0, 0, 500, 332), "crop", (-56, 0, 279, 223)),
    (501, 333, (1, 1, 501, 333), "crop", (-55, 0, 280, 224)),
    (501, 333, (1, 1, 501, 333), "warp", (0, 0, 224, 224)),
    (501, 333, (125, 83, 375, 249), "warp", (55, 55, 167, 167)),
    (501, 333, (0, 0, 62, 41), "crop", (-56, 0, -14, 27)),
    (501, 333, (451, 300, 500, 332), "crop", (246, 201, 279, 223)),
    (501, 333, (451, 300, 500, 332), "warp", (201, 201, 223, 223)),
    (640, 427, (0, 0, 639, 426), "warp", (0, 0, 223, 223)),
    (640, 427, (1, 1, 640, 427), "crop", (-55, 0, 279, 224)),
    (640, 427, (160, 106, 480, 320), "crop", (28, 55, 195, 167)),
    (640, 427, (160, 106, 480, 320), "warp", (56, 55, 168, 167)),
    (640, 427, (0, 0, 80, 53), "warp", (0, 0, 28, 27)),
    (640, 427, (576, 385, 639, 426), "crop", (246, 201, 279, 223)),
    (224, 224, (0, 0, 223, 223), "crop", (0, 0, 223, 223)),
    (224, 224, (0, 0, 223, 223), "warp", (0, 0, 223, 223)),
    (224, 224, (1, 1, 224, 224), "warp", (1, 1, 224, 224)),
    (224, 224, (56, 56, 168, 168), "crop", (56, 56, 168, 168)),
    (224, 224, (0, 0, 28, 28), "crop", (0, 0, 28, 28)),
    (224, 224, (0, 0, 28, 28), "warp", (0, 0, 28, 28)),
    (224, 224, (202, 202, 223, 223), "warp", (202, 202, 223, 223)),
    (100, 300, (0, 0, 99, 299), "crop", (0, -224, 221, 445)),
    (100, 300, (1, 1, 100, 300), "crop", (2, -221, 224, 448)),
    (100, 300, (1, 1, 100, 300), "warp", (2, 0, 224, 224)),
    (100, 300, (25, 75, 75, 225), "warp", (56, 56, 168, 168)),
    (100, 300, (0, 0, 12, 37), "crop", (0, -224, 26, -141)),
    (100, 300, (90, 270, 99, 299), "crop", (201, 380, 221, 445)),
    (100, 300, (90, 270, 99, 299), "warp", (201, 201, 221, 223)),
    (4288, 2848, (0, 0, 4287, 2847), "warp", (0, 0, 223, 223)),
    (4288, 2848, (1, 1, 4288, 2848), "crop", (-56, 0, 280, 224)),
    (4288, 2848, (1072, 712, 3216, 2136), "crop", (27, 56, 196, 168)),
    (4288, 2848, (1072, 712, 3216, 2136), "warp", (56, 56, 168, 168)),
    (4288, 2848, (0, 0, 536, 356), "warp", (0, 0, 28, 28)),
    (4288, 2848, (3860, 2564, 4287, 2847), "crop", (246, 201, 280, 223)),
]


@pytest.mark.parametrize(("width", "height", "box", "frame", "expected"), OFFICIAL)
def test_boxes_are_where_the_official_scorer_has_them(width, height, box, frame, expected):
    found = truth_in_frame([box], width, height, frame, 224)
    assert found.dtype == np.int64
    assert found.tolist() == [list(expected)]


@pytest.mark.parametrize("frame", ["crop", "warp"])
def test_many_pictures_at_once(frame):
    rows = [row for row in OFFICIAL if row[3] == frame]
    widths, heights, boxes, _, expected = zip(*rows, strict=True)
    found = truth_in_frame(np.array(boxes), np.array(widths), np.array(heights), frame, 224)
    assert found.tolist() == [list(box) for box in expected]


def test_wsolevaluation_multiplies_before_it_divides():
    """194 · 224 / 388 is 112; 224 / 388 · 194 is 111.99999999999999."""
    box, size = [[16.0, 194, 208, 368]], (500, 388)
    expected = [[int(x * 224.0 / side) for x, side in zip(box[0], size * 2, strict=True)]]
    found = truth_in_frame(box, *size, "warp", 224, multiply_first=True)
    assert found.tolist() == expected == [[7, 112, 93, 212]]
    assert truth_in_frame(box, *size, "warp", 224).tolist() == [[7, 111, 93, 212]]  # casme
    sizes = {"sizes_N2": np.array([size])}
    bare = {"name": "n", "split": "evaluated", "classes": ["c"], "names": ["a"]}
    data = Dataset(**bare, **sizes, labels_N=np.zeros(1, int), boxes=[np.array(box)])
    tops = {
        name: true_boxes(data, PROTOCOLS[name], 224).boxes_M4[0, 1] for name in ("warp", "wsol")
    }
    assert tops == {"warp": 111, "wsol": 112}


def test_coordinates_are_truncated_toward_zero():
    # 500×375: the cut is 37.33, so the left edge lies at -37.33, and floor would give -38.
    assert truth_in_frame([(0, 0, 62, 46)], 500, 375, "crop", 224).tolist() == [[-37, 0, 0, 27]]


def test_original_frame_keeps_boxes():
    assert truth_in_frame([(1, 2, 30, 40)], 100, 50, "original", 224).tolist() == [[1, 2, 30, 40]]


def test_no_boxes():
    assert truth_in_frame(np.zeros((0, 4)), 100, 50, "crop", 224).shape == (0, 4)


@given(
    st.integers(30, 600),
    st.integers(30, 600),
    st.sampled_from(["crop", "warp", "original"]),
    st.tuples(*[st.integers(0, 224)] * 4),
)
def test_boxes_return_to_the_original(width, height, frame, box):
    back = boxes_to_original([box], width, height, frame, 224)
    again = truth_in_frame(back, width, height, frame, 224)
    coarsest = 1 if frame == "original" else max(1, 224 / min(width, height))
    assert np.abs(again - np.array(box)).max() <= 0.5 * coarsest + 1


def test_whole_frame_is_the_whole_picture():
    assert boxes_to_original([(0, 0, 224, 224)], 500, 375, "warp", 224).tolist() == [
        [0, 0, 500, 375]
    ]
    assert boxes_to_original([(0, 0, 224, 224)], 500, 375, "crop", 224).tolist() == [
        [63, 0, 438, 375]
    ]


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_crop_equals_torchvision(width, height):
    image = noise(width, height)
    transform = transforms.Compose([transforms.Resize(224), transforms.CenterCrop(224)])
    expected = np.asarray(transform(Image.fromarray(image)))
    np.testing.assert_array_equal(to_frame_image(image, "crop", 224), expected)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_warp_equals_torchvision(width, height):
    image = noise(width, height)
    expected = np.asarray(transforms.Resize((224, 224))(Image.fromarray(image)))
    np.testing.assert_array_equal(to_frame_image(image, "warp", 224), expected)


@pytest.mark.parametrize("frame", ["crop", "warp", "original"])
def test_a_mask_lies_where_its_box_lies(frame):
    mask = np.zeros((200, 300), bool)
    mask[60:150, 90:210] = True
    framed = to_frame_mask(mask, frame, 100)
    assert framed.dtype == bool
    rows, columns = np.flatnonzero(framed.any(1)), np.flatnonzero(framed.any(0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    expected = truth_in_frame([(90, 60, 210, 150)], 300, 200, frame, 100)[0]
    assert np.abs(found - expected).max() <= 1
