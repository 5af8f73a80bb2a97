"""Maps: checks that name the picture, resizing against torch, and finding files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from casm_bench.errors import UsageError, WorkError
from casm_bench.maps import (
    block_factors,
    check_map,
    enlarges_by_blocks,
    find_maps,
    load_map,
    mass,
    save_map,
    to_grid,
    unit_range,
)

BAD_MAPS = [
    (np.array([[0.1, np.nan]]), "NaN"),
    (np.array([[0.1, np.inf]]), "infinite"),
    (np.array([[0.1, -0.1]]), "negative"),
    (np.zeros((3, 4, 4)), r"shape \(3, 4, 4\)"),
    (np.zeros(4), r"shape \(4,\)"),
    (np.zeros((0, 4)), r"shape \(0, 4\)"),
    (np.array([["a"]]), "instead of numbers"),
    (np.array([[1 + 1j]]), "instead of numbers"),
]


@pytest.mark.parametrize(("map_HW", "problem"), BAD_MAPS)
def test_bad_maps_are_refused_by_name(map_HW, problem):
    with pytest.raises(WorkError, match=f"saliency map of cat.png .*{problem}"):
        check_map(map_HW, "cat.png")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, bool])
def test_good_maps_become_floats_and_keep_their_values(dtype):
    map_HW = np.array([[0, 1], [1, 0]], dtype)
    checked = check_map(map_HW, "cat.png")
    assert checked.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(checked, map_HW)


def test_unit_range():
    assert unit_range(np.array([[2.0, 3.0], [4.0, 6.0]])).tolist() == [[0, 0.25], [0.5, 1]]
    assert unit_range(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
    assert unit_range(np.full((2, 2), 7.0, np.float32)).dtype == np.float32


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9)
)
def test_auto_repeats_cells_for_whole_factors(height, width, rows, columns, seed):
    map_HW = np.random.default_rng(seed).random((height, width), np.float32)
    expected = np.kron(map_HW, np.ones((rows, columns), np.float32))
    found = to_grid(map_HW, height * rows, width * columns)
    assert enlarges_by_blocks(map_HW.shape, *expected.shape, "auto")
    assert block_factors(map_HW.shape, *expected.shape) == (rows, columns)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("shape", "size"), [((7, 7), 224), ((13, 20), 64), ((30, 40), 50)])
def test_bilinear_is_torchs(shape, size):
    map_HW = np.random.default_rng(0).random(shape, np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(map_HW)[None, None], (size, size), mode="bilinear", align_corners=False
    )
    found = to_grid(map_HW, size, size, "bilinear")
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(13, 20), (13, 16), (16, 20)])  # of either side, or of one
def test_auto_is_bilinear_for_broken_factors(shape):
    map_HW = np.random.default_rng(0).random(shape, np.float32)
    assert block_factors(shape, 64, 64) is None
    assert not enlarges_by_blocks(map_HW.shape, 64, 64, "auto")
    np.testing.assert_array_equal(to_grid(map_HW, 64, 64), to_grid(map_HW, 64, 64, "bilinear"))


def test_cubic_is_torchs():
    map_HW = np.random.default_rng(0).random((7, 7), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(map_HW)[None, None], (56, 56), mode="bicubic", align_corners=False
    )
    found = to_grid(map_HW, 56, 56, "cubic")
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "cubic", "auto"])
@pytest.mark.parametrize("value", [0.1, 0.4, 1 / 3])
def test_a_constant_map_stays_constant(upsample, value):
    for side in (7, 9, 300):
        map_HW = np.full((side, side), value, np.float32)
        assert np.unique(to_grid(map_HW, 224, 224, upsample)).tolist() == [np.float32(value)]


def test_a_map_that_fits_is_left_alone():
    map_HW = np.random.default_rng(0).random((9, 9))
    assert to_grid(map_HW, 9, 9, "cubic") is map_HW


def save(path, map_HW=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.eye(3) if map_HW is None else map_HW)
    return path


def test_maps_are_found_with_and_without_the_suffix_of_the_picture(tmp_path):
    plain, with_jpeg = save(tmp_path / "a.npy"), save(tmp_path / "b.JPEG.npy")
    nested, dotted = save(tmp_path / "n01/c_1.npy"), save(tmp_path / "v0.5.npy")
    names = ["a.JPEG", "b.JPEG", "n01/c_1.JPEG", "v0.5", "b"]
    assert find_maps(tmp_path, names) == [plain, with_jpeg, nested, dotted, with_jpeg]


def test_only_suffixes_of_pictures_are_left_out(tmp_path):
    for name in ("a.1.npy", "a.2.jpeg.npy"):
        (tmp_path / name).touch()
    assert find_maps(tmp_path, ["a.2", "a.1.JPEG"]) == [
        tmp_path / "a.2.jpeg.npy",
        tmp_path / "a.1.npy",
    ]


@pytest.mark.parametrize("name", ["a.npy", "a.JPEG.npy", "a"])  # numpy would add to the last
def test_what_is_saved_is_read_again(tmp_path, name):
    map_HW = np.random.default_rng(0).random((3, 5))
    save_map(tmp_path / name, map_HW)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(load_map(tmp_path / name), map_HW)


def test_missing_maps_are_counted_and_named(tmp_path):
    path = save(tmp_path / "a.npy")
    with pytest.raises(UsageError, match=r"no map for 2 of 3 pictures.* b\.JPEG"):
        find_maps(tmp_path, ["a.JPEG", "b.JPEG", "c.JPEG"])
    assert find_maps(tmp_path, ["a.JPEG", "b.JPEG"], partial=True) == [path, None]


def test_a_missing_folder_and_two_maps_of_one_picture(tmp_path):
    with pytest.raises(UsageError, match="no folder of maps"):
        find_maps(tmp_path / "nowhere", [])
    save(tmp_path / "a.npy"), save(tmp_path / "a.JPEG.npy")
    with pytest.raises(UsageError, match="maps of one picture"):
        find_maps(tmp_path, ["a"])


def test_maps_are_read_and_checked(tmp_path):
    np.testing.assert_array_equal(load_map(save(tmp_path / "a.npy")), np.eye(3))
    with pytest.raises(WorkError, match=r"a\.npy.*NaN"):
        load_map(save(tmp_path / "a.npy", np.full((2, 2), np.nan)))


def truncated(path):
    save(path)
    path.write_bytes(path.read_bytes()[:-5])


UNREADABLE = {
    "truncated": truncated,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("0.1 0.2"),
    "pickle": lambda path: np.save(path, np.array([[{}]]), allow_pickle=True),
    "archive": lambda path: path.write_bytes(b"PK\x03\x04 and so on"),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_unreadable_files_are_named(tmp_path, damage):
    UNREADABLE[damage](tmp_path / "a.npy")
    with pytest.raises(WorkError, match=r"a\.npy cannot be read"):
        load_map(tmp_path / "a.npy")


def test_the_mass_is_float64s_wherever_the_map_lies_in_memory():
    map_HW = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    room = np.empty(map_HW.nbytes + 64, np.uint8)
    sums = set()
    for start in range(0, 64, 4):
        moved_HW = room[start : start + map_HW.nbytes].view(np.float32).reshape(map_HW.shape)
        moved_HW[:] = map_HW
        sums.add(mass(moved_HW))
    assert list(sums) == [pytest.approx(map_HW.astype(np.float64).sum(), rel=1e-15)]
    assert mass(map_HW[:0]) == 0
