"""Shapes: reproducible, exactly boxed, and saying nothing about the class but by its two cues."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import ndimage

from casm_bench.data.catalog import digest_now, load_splits
from casm_bench.data.shapes import PARTS, Drawing, draw, load_shapes
from casm_bench.errors import UsageError


@pytest.fixture(scope="module")
def evaluated():
    return load_shapes(seed=4, train=1, held_out=1, evaluated=64).evaluated


def test_a_picture_is_a_function_of_seed_split_and_number():
    some, more = (load_shapes(seed=1, train=3, held_out=2, evaluated=n) for n in (5, 9))
    for i in range(5):
        assert np.array_equal(some.evaluated.image(i), more.evaluated.image(i))
    assert not np.array_equal(some.evaluated.image(0), some.train.image(0))
    assert not np.array_equal(some.held_out.image(0), some.train.image(0))
    other = load_shapes(seed=2, train=1, held_out=1, evaluated=1).evaluated
    assert not np.array_equal(some.evaluated.image(0), other.image(0))


def test_boxes_are_tight_around_the_object(evaluated):
    for i in range(len(evaluated)):
        rows, columns = ndimage.find_objects(evaluated.evidence(i)["object"].astype(int))[0]
        expected = [[columns.start, rows.start, columns.stop, rows.stop]]
        assert evaluated.boxes[i].tolist() == expected


def test_objects_are_connected_and_inside(evaluated):
    for i in range(len(evaluated)):
        object_HW = evaluated.evidence(i)["object"]
        assert ndimage.label(object_HW)[1] == 1
        edges = (object_HW[0], object_HW[-1], object_HW[:, 0], object_HW[:, -1])
        assert not any(edge.any() for edge in edges)


def test_spot_and_body_make_up_the_object(evaluated):
    assert evaluated.evidence_parts == PARTS == ("object", "spot", "body")
    for i in range(len(evaluated)):
        parts = evaluated.evidence(i)
        assert parts["spot"].any()
        assert not (parts["spot"] & parts["body"]).any()
        assert np.array_equal(parts["spot"] | parts["body"], parts["object"])


def test_classes_are_balanced(evaluated):
    assert np.bincount(evaluated.labels_N).tolist() == [8] * 8
    assert len(evaluated.classes) == 8


def test_the_spot_alone_tells_the_class(evaluated):
    """The hue of the spot's mean colour, by the textbook's hexagon, is the label's."""
    for i in range(len(evaluated)):
        red, green, blue = evaluated.image(i)[evaluated.evidence(i)["spot"]].mean(0) / 255
        y, x = np.sqrt(3) * (green - blue), 2 * red - green - blue
        hue = np.arctan2(y, x) / (2 * np.pi) % 1
        assert round(hue * 8) % 8 == evaluated.labels_N[i]


def test_the_stripes_alone_tell_the_class():
    """With strong stripes, the phase-free match of the body to each orientation finds it."""
    data = load_shapes(seed=4, train=1, held_out=1, evaluated=64, stripes=0.2, noise=0.0)
    data = data.evaluated
    centres = (np.arange(64) + 0.5) / 64
    y, x = centres[:, None], centres[None, :]
    found = []
    for i in range(len(data)):
        body_HW = data.evidence(i)["body"]
        grey = data.image(i).mean(2)[body_HW]
        grey = grey - grey.mean()
        strength = []
        for angle in np.pi * np.arange(8) / 8:
            wave = 2j * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 0.11
            strength.append(abs((grey * np.exp(wave)[body_HW]).sum()))
        found.append(np.argmax(strength))
    assert np.array_equal(found, data.labels_N)


def test_without_its_cues_a_picture_does_not_know_its_class():
    """The same key drawn for another class differs on the object only."""
    key = (0, 2, 5)
    (a, parts), (b, others) = (draw(Drawing(classes=n), key) for n in (6, 8))
    assert key[2] % 6 == key[2] % 8  # same label number, other hue and orientation
    assert np.array_equal(parts["object"], others["object"])
    assert np.array_equal(a[~parts["object"]], b[~parts["object"]])
    assert not np.array_equal(a[parts["object"]], b[parts["object"]])


def test_centre_and_whole_frame_do_badly():
    data = load_shapes(seed=9, train=1, held_out=1, evaluated=400).evaluated
    boxes_N4 = np.concatenate(data.boxes)
    area_N = np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2], axis=1)
    assert (area_N / 64**2 <= 0.5).all()  # the whole frame never succeeds
    inner_N2 = np.minimum(boxes_N4[:, 2:], 55) - np.maximum(boxes_N4[:, :2], 9)
    shared_N = inner_N2.clip(0).prod(axis=1)
    iou_N = shared_N / (46**2 + area_N - shared_N)
    assert (iou_N > 0.5).mean() < 0.5


@pytest.mark.parametrize("size", [16, 65, 224])
def test_any_size(size):
    data = load_shapes(train=1, held_out=1, evaluated=2, size=size).evaluated
    assert data.image(1).shape == (size, size, 3)
    assert data.image(1).dtype == np.uint8
    assert data.sizes_N2.tolist() == [[size, size]] * 2


def test_the_digest_follows_seed_and_knobs_and_subsets():
    def digest(**options):
        return load_shapes(train=1, held_out=1, evaluated=4, **options).evaluated.digest()

    digests = [digest(), digest(seed=1), digest(stripes=0.02), digest(distractors=0)]
    assert len(set(digests)) == 4
    assert digest() == digests[0]


def test_subsets_keep_their_pictures(evaluated):
    subset = evaluated.subset([9, 3])
    assert subset.names == [evaluated.names[9], evaluated.names[3]]
    assert np.array_equal(subset.image(1), evaluated.image(3))
    assert np.array_equal(subset.evidence(0)["spot"], evaluated.evidence(9)["spot"])
    assert subset.digest() != evaluated.digest()


def test_pictures_survive_pickling_and_callers(evaluated):
    picture = evaluated.image(2)
    expected = picture.copy()
    picture[:] = 0
    assert np.array_equal(pickle.loads(pickle.dumps(evaluated)).image(2), expected)
    assert np.array_equal(evaluated.image(2), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "somewhere"}, "drop --root"),
        ({"evaluated": 0}, "evaluated=0"),
        ({"size": 8}, "at least 16"),
        ({"classes": 1}, "classes=1: must be int from 2 to 64"),
        ({"stripes": 0.9}, "stripes=0.9: must be float from 0 to 0.3"),
        ({"colour": 1}, "colour"),
        ({"size": "big"}, "size=big: must be int of at least 16, not 'big'"),
        ({"train": "many"}, "train=many: must be int of at least 1"),
        ({"radius": 3}, "radius=3: must be tuple of 2"),
    ],
)
def test_bad_knobs_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        load_shapes(**options)


def test_the_digest_alone_is_that_of_the_pictures():
    options = {"train": 3, "held_out": 2, "evaluated": 4, "size": 32, "stripes": 0.02}
    splits = load_splits("shapes", None, seed=5, **options)
    assert digest_now("shapes", 5, options) == splits.evaluated.digest()
    assert digest_now("shapes", 6, options) != splits.evaluated.digest()
    assert digest_now("imagenet", 5, {}) is None
    assert digest_now("unheard-of", 5, {}) is None
