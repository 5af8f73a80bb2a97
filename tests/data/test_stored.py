from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from casm_bench.data.frames import to_frame_image
from casm_bench.data.stored import (
    FolderDataset,
    SquashedDataset,
    decode_rgb,
    existing_folder,
    stretch,
)
from casm_bench.errors import UsageError, WorkError


def test_decoding_keeps_every_pixel(draw_picture, pixels_of):
    encoded = draw_picture(1, 30, 20)
    picture = decode_rgb(encoded, "one")
    assert picture.shape == (20, 30, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, pixels_of(encoded))


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("CMYK", "JPEG"), ("P", "PNG")])
def test_other_modes_become_rgb(draw_picture, mode, kind):
    assert decode_rgb(draw_picture(1, 30, 20, mode, kind), "one").shape == (20, 30, 3)


@pytest.mark.parametrize("upright", [False, True])
def test_grey_of_16_bits_keeps_its_shades(upright):
    grey_HW = np.array([[0, 255, 256], [25700, 65279, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(grey_HW).save(file, kind)
        picture = decode_rgb(file.getvalue(), "deep", upright)
        assert picture.dtype == np.uint8
        assert picture[..., 1].tolist() == [[0, 0, 1], [100, 254, 255]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_range_are_refused(dtype):
    file = io.BytesIO()
    Image.fromarray(np.ones((2, 3), dtype=dtype)).save(file, "TIFF")
    with pytest.raises(WorkError, match=r"deep\.tif holds 32-bit numbers"):
        decode_rgb(file.getvalue(), "deep.tif")


def test_corrupt_pictures_are_named_without_memory_addresses(draw_picture):
    whole = draw_picture(1, kind="JPEG")
    cut = whole[: len(whole) // 2]
    for damaged in (b"", b"nothing", cut, whole[:-1], draw_picture(1)[:60]):
        with pytest.raises(WorkError, match="Picture broken.JPEG cannot be decoded") as caught:
            decode_rgb(damaged, "broken.JPEG")
        assert "0x" not in str(caught.value)


def test_a_rotation_in_exif_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees for display
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "JPEG", exif=exif)
    assert decode_rgb(file.getvalue(), "one").shape == (20, 30, 3)


def test_stretch_changes_width_and_height_apart():
    halves = np.zeros((10, 10, 3), np.uint8)
    halves[:, 5:] = 200
    wide = stretch(halves, 40, 10)
    assert wide.shape == (10, 40, 3)
    assert (wide[:, :17] == 0).all() and (wide[:, 23:] == 200).all()
    assert stretch(halves, 10, 10) is halves


def squashed(encoded: bytes, width: int, height: int) -> SquashedDataset:
    return SquashedDataset(
        name="squashed",
        split="evaluated",
        classes=["a"],
        names=["one"],
        labels_N=np.zeros(1, np.int64),
        sizes_N2=np.array([[width, height]]),
        boxes=[np.array([[0.0, 0.0, 9.0, 9.0]])],
        jpegs=pa.array([encoded]),
    )


def bright_square(x0: int, y0: int, x1: int, y1: int) -> bytes:
    """A 64×64 picture, black but for a white rectangle."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[y0:y1, x0:x1] = 255
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def test_squashed_pictures_are_stretched_back_to_their_geometry():
    picture = squashed(bright_square(16, 16, 32, 32), 128, 96).image(0)
    assert picture.shape == (96, 128, 3)
    y, x = np.nonzero(picture[..., 0] > 127)
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (32, 64, 24, 48)


def test_the_warp_frame_of_a_squashed_picture_is_the_stored_picture(draw_picture, pixels_of):
    encoded = draw_picture(3)
    assert np.array_equal(squashed(encoded, 90, 60).frame_image(0, "warp", 64), pixels_of(encoded))


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (500, 375), (64, 64), (101, 67)])
def test_the_crop_frame_of_a_squashed_picture_agrees_with_the_long_way(draw_picture, width, height):
    dataset = squashed(draw_picture(4), width, height)
    straight = dataset.frame_image(0, "crop", 64).astype(int)
    long_way = to_frame_image(dataset.image(0), "crop", 64).astype(int)
    assert straight.shape == (64, 64, 3)
    # The pictures are smooth, so only a displaced frame could make them differ by much.
    assert np.abs(straight - long_way).mean() < 2


def folder_dataset(folder, files, sizes=(64, 64)) -> FolderDataset:
    return FolderDataset(
        name="folder",
        split="train",
        classes=["a"],
        names=list(files),
        labels_N=np.zeros(len(files), np.int64),
        sizes_N2=np.array([sizes] * len(files)),
        boxes=[np.zeros((0, 4))] * len(files),
        folder=folder,
        files=list(files),
    )


def test_folder_pictures_survive_subsets_of_subsets(tmp_path, draw_picture, pixels_of):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(draw_picture(i))
    chosen = (
        folder_dataset(tmp_path, [f"{i}.png" for i in range(4)]).subset([3, 1, 2]).subset([2, 0])
    )
    assert chosen.names == ["2.png", "3.png"]
    assert np.array_equal(chosen.image(0), pixels_of(draw_picture(2)))
    assert np.array_equal(chosen.image(1), pixels_of(draw_picture(3)))


def test_a_missing_file_and_a_wrong_size_are_explained(tmp_path, draw_picture):
    (tmp_path / "here.png").write_bytes(draw_picture(1, 60, 50))
    dataset = folder_dataset(tmp_path, ["here.png", "gone.png"], sizes=(50, 60))
    with pytest.raises(WorkError, match="gone.png cannot be read"):
        dataset.image(1)
    with pytest.raises(WorkError, match="here.png is 60×50, but its boxes belong to one of 50×60"):
        dataset.image(0)


def test_an_unknown_size_is_not_checked(tmp_path, draw_picture):
    (tmp_path / "here.png").write_bytes(draw_picture(1, 60, 50))
    assert folder_dataset(tmp_path, ["here.png"], sizes=(0, 0)).image(0).shape == (50, 60, 3)


def test_the_digest_notices_changed_pixels_in_memory(make_packed):
    dataset = make_packed(4)
    assert dataset.digest() == make_packed(4).digest()
    assert dataset.digest() != make_packed(4, corrupt=(2,)).digest()
    assert dataset.subset([0, 1]).digest() == make_packed(4, corrupt=(2,)).subset([0, 1]).digest()


def test_the_digest_notices_changed_and_missing_files(tmp_path, draw_picture):
    path = tmp_path / "a.png"
    path.write_bytes(draw_picture(1))
    dataset = folder_dataset(tmp_path, ["a.png"])
    digests = {dataset.digest()}
    path.write_bytes(draw_picture(1) + b"more")
    digests.add(dataset.digest())
    path.unlink()
    digests.add(dataset.digest())
    assert len(digests) == 3


def test_root_must_be_a_folder(tmp_path):
    (tmp_path / "file").touch()
    assert existing_folder(str(tmp_path), "a folder") == tmp_path
    with pytest.raises(UsageError, match="gone does not exist; it must be the right folder"):
        existing_folder(tmp_path / "gone", "the right folder")
    with pytest.raises(UsageError, match="file is a file"):
        existing_folder(tmp_path / "file", "the right folder")
