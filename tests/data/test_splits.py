from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casm_bench.data.dataset import Dataset
from casm_bench.data.splits import (
    checked,
    few_per_class,
    hold_out,
    shared_pictures,
    without_copies,
)
from casm_bench.errors import UsageError, WorkError


def bare_dataset(labels: list[int], **changes: object) -> Dataset:
    count = len(labels)
    fields = {
        "name": "bare",
        "split": "train",
        "classes": [f"class {k}" for k in range(10)],
        "names": [f"picture-{i}" for i in range(count)],
        "labels_N": np.array(labels, dtype=np.int64),
        "sizes_N2": np.full((count, 2), 64),
        "boxes": [np.array([[1.0, 2.0, 30.0, 40.0]])] * count,
    }
    return Dataset(**fields | changes)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=300), st.floats(0.01, 0.5))
def test_held_out_and_train_part_the_data(labels, share):
    train, held_out = hold_out(bare_dataset(labels), share)
    both = [*train.positions_N, *held_out.positions_N]
    assert sorted(both) == list(range(len(labels)))
    assert (train.split, held_out.split) == ("train", "held-out")
    assert set(held_out.labels_N) <= set(train.labels_N)  # no class is lost to training


def test_every_class_gives_the_same_number():
    train, held_out = hold_out(bare_dataset([0] * 100 + [1] * 120 + [2] * 80), share=0.05)
    assert Counter(held_out.labels_N.tolist()) == {0: 5, 1: 5, 2: 5}
    assert len(train) == 285


def test_small_classes_and_caps():
    _, held_out = hold_out(bare_dataset([0] * 100 + [1] * 3 + [2]), share=0.3, most_per_class=7)
    assert Counter(held_out.labels_N.tolist()) == {0: 7, 1: 1}


def test_the_draw_is_always_the_same_but_not_the_first_pictures():
    first, second = (hold_out(bare_dataset([0] * 100), share=0.1)[1].names for _ in range(2))
    assert first == second
    assert first != [f"picture-{i}" for i in range(10)]


def test_only_eligible_pictures_are_held_out():
    eligible_N = np.arange(100) % 2 == 0
    _, held_out = hold_out(bare_dataset([0] * 100), share=0.2, eligible_N=eligible_N)
    assert len(held_out) == 20
    assert all(position % 2 == 0 for position in held_out.positions_N)


def test_training_pictures_that_are_evaluated_are_left_out_and_listed(make_packed, caplog):
    evaluated = make_packed(3, name="evaluated")
    jpegs = make_packed(6).jpegs.to_pylist()
    train = replace(make_packed(6), jpegs=pa.array([*jpegs[3:], jpegs[1], b"other", jpegs[0]]))
    with caplog.at_level(logging.WARNING, "casm_bench"):
        kept = without_copies(train, evaluated)
    assert kept.names == ["drawn-0", "drawn-1", "drawn-2", "drawn-4"]
    assert "2 training pictures" in caplog.text and "drawn-3, drawn-5" in caplog.text


def test_nothing_is_logged_where_there_are_no_copies(make_packed, caplog):
    train = make_packed(6).subset([3, 4, 5])
    assert without_copies(train, make_packed(3)) is train
    assert not caplog.records


def test_sound_data_is_handed_back(tmp_path, caplog):
    dataset = bare_dataset([0, 1, 2])
    assert checked(dataset, tmp_path, needs_boxes=True) is dataset
    assert not caplog.records


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"names": ["a", "b", "a"]}, UsageError, "Picture a appears 2 times"),
        (
            {"labels_N": np.array([0, 10, 1])},
            UsageError,
            "picture-1 has label 10, but there are 10",
        ),
        ({"labels_N": np.array([0, 1, -1])}, UsageError, "picture-2 has label -1"),
        (
            {"boxes": [np.zeros((0, 4)), np.ones((1, 4)), np.zeros((0, 4))]},
            WorkError,
            "2 of 3 pictures have no box, the first of them picture-0",
        ),
        (
            {"boxes": [np.ones((1, 4)), np.array([[1, 1, 2, 2], [5.0, 5, 9, 4]]), np.ones((1, 4))]},
            WorkError,
            r"Box \[5.0, 5.0, 9.0, 4.0\] of picture picture-1 ends before it begins",
        ),
        ({"boxes": [np.full((1, 4), np.nan)] * 3}, WorkError, "picture-0 ends before"),
    ],
)
def test_unsound_data_is_explained(tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        checked(bare_dataset([0, 1, 2], **changes), tmp_path, needs_boxes=True)
    assert str(tmp_path) in str(caught.value)


def test_an_empty_split_is_explained(tmp_path):
    with pytest.raises(UsageError, match="There are no pictures in bare, train split"):
        checked(bare_dataset([]), tmp_path)


def test_boxes_may_be_missing_where_they_are_not_needed(tmp_path):
    checked(bare_dataset([0, 1], boxes=[np.zeros((0, 4))] * 2), tmp_path)


def test_zero_area_boxes_stay_and_are_counted(tmp_path, caplog):
    boxes = [np.array([[3.0, 3, 3, 9]]), np.array([[3.0, 3, 9, 9], [1, 5, 2, 5]])]
    dataset = checked(bare_dataset([0, 1], boxes=boxes), tmp_path, needs_boxes=True)
    assert len(dataset) == 2
    assert "2 of 3 boxes have zero width or height; they count as missed" in caplog.text


@dataclass(frozen=True, kw_only=True)
class Painted(Dataset):
    """Pictures of one grey each."""

    greys: tuple[int, ...]

    def image(self, index: int) -> np.ndarray:
        return np.full((4, 4, 3), self.greys[self.positions_N[index]], np.uint8)


def painted(*greys: int, prefix: str = "a") -> Painted:
    bare = bare_dataset([0] * len(greys), names=[f"{prefix}{i}" for i in range(len(greys))])
    return Painted(**vars(bare), greys=greys)


def test_the_same_picture_is_found_under_another_name():
    one, other = painted(1, 2, 3), painted(9, 3, 8, prefix="b")
    assert shared_pictures(one, other) == [("a2", "b1")]
    assert shared_pictures(one, other.subset([0, 2])) == []
    assert shared_pictures(one.subset([1]), other) == []


def test_a_recompressed_copy_is_found_by_its_name():
    names = [f"val/class/{name}.JPEG" for name in ("a", "b")]
    one = replace(painted(1, 2), names=names)
    other = replace(painted(7, 8), name="a copy", names=["b.png", "c.png"])
    assert shared_pictures(one, other) == [("val/class/b.JPEG", "b.png")]
    without_pixels = replace(bare_dataset([0, 0]), name="a copy", names=["c.png", "b.png"])
    assert shared_pictures(one, replace(without_pixels, has_pixels=False)) == [
        ("val/class/b.JPEG", "b.png")
    ]
    assert shared_pictures(one, replace(other, sizes_N2=np.full((2, 2), 65))) == []


def test_one_data_set_may_use_a_name_in_several_folders():
    one = replace(painted(1, 2), names=["0/0.jpeg", "1/0.jpeg"])
    assert shared_pictures(one.subset([0]), one.subset([1])) == []


class TestFewPerClass:
    def test_an_epoch_stays_as_long_as_it_was(self):
        dataset = bare_dataset([0] * 50 + [1] * 20 + [2] * 3)
        few = few_per_class(dataset, 4, seed=0)
        assert len(few) == len(dataset)
        different = Counter(dict.fromkeys(few.names))
        assert len(different) == 4 + 4 + 3
        assert set(few.names) <= set(dataset.names)
        shown = Counter(few.names)
        assert max(shown.values()) - min(shown.values()) <= 1
        for name, label in zip(few.names, few.labels_N, strict=True):
            assert label == dataset.labels_N[dataset.names.index(name)]

    def test_the_seed_draws_the_pictures(self):
        dataset = bare_dataset([0] * 40 + [1] * 40)
        drawn = [set(few_per_class(dataset, 5, seed).names) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_more_than_there_are_is_all_there_are(self):
        dataset = bare_dataset([0, 1, 1])
        assert sorted(few_per_class(dataset, 9, seed=0).names) == sorted(dataset.names)
