from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from casm_bench.data.dataset import Dataset
from casm_bench.data.frames import View, boxes_in_view, to_frame_image
from casm_bench.data.loader import (
    AUGMENTATIONS,
    FrameBatch,
    crop_at_scale,
    frame_batches,
    random_crop,
    steps_per_epoch,
    training_batches,
)
from casm_bench.errors import UsageError, WorkError


def collect(batches) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of training batches."""
    images, labels, _ = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(collect(one), collect(other), strict=True))


class TestFrameBatches:
    def test_every_picture_once_in_order(self, make_packed):
        dataset = make_packed(10)
        batches = list(frame_batches(dataset, "crop", 32, batch_size=4))
        assert [len(batch.indices_B) for batch in batches] == [4, 4, 2]
        assert np.concatenate([batch.indices_B for batch in batches]).tolist() == list(range(10))
        for batch in batches:
            assert batch.images_BCHW.shape == (len(batch.indices_B), 3, 32, 32)
            assert batch.images_BCHW.dtype == torch.uint8 and batch.images_BCHW.is_contiguous()
            assert batch.labels_B.dtype == torch.int64 and batch.skipped == []
            for index, image_CHW, label in zip(
                batch.indices_B, batch.images_BCHW, batch.labels_B, strict=True
            ):
                expected_HW3 = to_frame_image(dataset.image(index), "crop", 32)
                assert np.array_equal(image_CHW.permute(1, 2, 0).numpy(), expected_HW3)
                assert label == dataset.labels_N[index]

    def test_chosen_pictures_in_the_order_asked_for(self, make_packed):
        dataset = make_packed(10)
        (batch,) = frame_batches(dataset, "warp", 48, batch_size=8, indices=[7, 2, 2, 9])
        assert batch.indices_B.tolist() == [7, 2, 2, 9]
        assert torch.equal(batch.images_BCHW[1], batch.images_BCHW[2])
        assert np.array_equal(batch.images_BCHW[0].permute(1, 2, 0).numpy(), dataset.image(7))

    def test_unreadable_pictures_are_listed_and_batches_stay_full(self, make_packed):
        dataset = make_packed(9, corrupt=(0, 4, 8))
        batches = list(frame_batches(dataset, "warp", 32, batch_size=3))
        assert [batch.indices_B.tolist() for batch in batches] == [[1, 2, 3], [5, 6, 7]]
        skipped = [entry for batch in batches for entry in batch.skipped]
        assert [name for name, _ in skipped] == ["drawn-0", "drawn-4", "drawn-8"]
        assert all("cannot be decoded" in reason for _, reason in skipped)

    def test_nothing_readable_is_an_error(self, make_packed):
        with pytest.raises(WorkError, match="None of 3 pictures can be read. First: .*drawn-0"):
            list(frame_batches(make_packed(3, corrupt=(0, 1, 2)), "warp", 32, 2))

    def test_other_errors_are_not_swallowed(self):
        with pytest.raises(NotImplementedError):
            list(frame_batches(bare(3), "warp", 32, 2))

    def test_data_without_pixels(self):
        batches = list(frame_batches(replace(bare(5), has_pixels=False), "crop", 224, batch_size=2))
        assert [batch.images_BCHW.shape for batch in batches] == [(2, 3, 224, 224)] * 2 + [
            (1, 3, 224, 224)
        ]
        assert all(batch.images_BCHW.device.type == "meta" for batch in batches)
        assert torch.cat([batch.labels_B for batch in batches]).tolist() == [0, 1, 2, 0, 1]

    def test_no_pictures_no_batches(self, make_packed):
        assert list(frame_batches(make_packed(2), "crop", 32, 2, indices=[])) == []

    def test_at_most_a_batch_is_read_ahead_and_stopping_early_is_quick(self):
        dataset = Slow(500)
        batch: FrameBatch = next(frame_batches(dataset, "warp", 8, batch_size=5))
        assert batch.indices_B.tolist() == [0, 1, 2, 3, 4]
        assert len(dataset.read) <= 5 + 1 + 5 + 1

    def test_threads_do_not_disturb_the_order(self):
        dataset = Slow(40)
        batches = frame_batches(dataset, "warp", 8, batch_size=16)
        values = torch.cat([batch.images_BCHW[:, 0, 0, 0] for batch in batches])
        assert values.tolist() == list(range(40))


def bare(count: int, kind: type[Dataset] = Dataset) -> Dataset:
    return kind(
        name="bare",
        split="evaluated",
        classes=["a", "b", "c"],
        names=[str(i) for i in range(count)],
        labels_N=np.arange(count) % 3,
        sizes_N2=np.full((count, 2), 8),
        boxes=[np.ones((1, 4))] * count,
    )


class _SlowDataset(Dataset):
    """Picture i is filled with i; the earlier ones take longer."""

    def image(self, index: int) -> np.ndarray:
        self.read.append((index, threading.get_ident()))
        time.sleep(0.01 if index % 2 == 0 else 0)
        return np.full((8, 8, 3), index, np.uint8)


def Slow(count: int) -> _SlowDataset:
    dataset = bare(count, _SlowDataset)
    object.__setattr__(dataset, "read", [])
    return dataset


class TestTrainingBatches:
    def test_an_epoch_shows_every_picture_once(self, make_packed):
        dataset = make_packed(12)
        images_BCHW, labels_B = collect(training_batches(dataset, 48, 4, seed=0, epoch=0))
        shown = {
            image.permute(1, 2, 0).numpy().tobytes(): int(label)
            for image, label in zip(images_BCHW, labels_B, strict=True)
        }
        assert shown == {dataset.image(i).tobytes(): i % 3 for i in range(12)}

    @pytest.mark.parametrize(
        ("count", "steps", "last"), [(10, 2, 4), (8, 2, 4), (3, 1, 3), (4, 1, 4)]
    )
    def test_only_full_batches_unless_there_is_none(self, make_packed, count, steps, last):
        dataset = make_packed(count)
        batches = list(training_batches(dataset, 16, 4, seed=0, epoch=0))
        assert len(batches) == steps == steps_per_epoch(dataset, 4)
        assert len(batches[-1][1]) == last

    @pytest.mark.parametrize("augment", AUGMENTATIONS)
    def test_resuming_gives_the_same_batches(self, make_packed, augment):
        def batches(start: int):
            return training_batches(make_packed(14), 32, 4, 3, 5, augment, start=start)

        whole = list(batches(0))
        assert same(whole, batches(0))
        assert same(whole[2:], batches(2))
        assert list(batches(3)) == []

    @pytest.mark.parametrize("augment", AUGMENTATIONS)
    def test_seeds_and_epochs_differ(self, make_packed, augment):
        dataset = make_packed(14)
        runs = [collect(training_batches(dataset, 32, 7, *key, augment)) for key in KEYS]
        assert len({images_BCHW.numpy().tobytes() for images_BCHW, _ in runs}) == len(KEYS)

    def test_the_order_does_not_depend_on_the_batch_size(self, make_packed):
        dataset = make_packed(12)
        assert same(
            training_batches(dataset, 32, 3, 0, 1, "crop-flip"),
            training_batches(dataset, 32, 4, 0, 1, "crop-flip"),
        )

    def test_half_of_the_pictures_are_flipped(self, make_packed):
        dataset = make_packed(3).subset([0] * 400)
        images_BCHW, _ = collect(training_batches(dataset, 48, 100, 0, 0, "flip"))
        straight = torch.from_numpy(dataset.image(0)).permute(2, 0, 1)
        flipped_N = (images_BCHW == straight.flip(-1)).flatten(1).all(1)
        assert ((images_BCHW == straight).flatten(1).all(1) ^ flipped_N).all()
        assert 150 < flipped_N.sum() < 250

    def test_crops_show_parts_of_the_picture(self):
        images_BCHW, _ = collect(training_batches(Ramp(60), 16, 20, 0, 0, "crop-flip"))
        columns_BW = images_BCHW[:, 0].float().mean(1)
        rows_BH = images_BCHW[:, 1].float().mean(2)
        spread_B = (columns_BW[:, -1] - columns_BW[:, 0]).abs()
        assert ((columns_BW.diff(dim=1) >= 0).all(1) | (columns_BW.diff(dim=1) <= 0).all(1)).all()
        assert (rows_BH.diff(dim=1) >= 0).all()  # never upside down
        assert (spread_B > 40).all() and spread_B.max() > 180 and spread_B.min() < 120
        assert 15 < (columns_BW[:, -1] < columns_BW[:, 0]).sum() < 45

    def test_without_crops_pictures_are_framed_as_for_evaluation(self):
        dataset = Ramp(4)
        (batch,) = frame_batches(dataset, "crop", 16, 4)
        images_BCHW, _ = collect(training_batches(dataset, 16, 4, 0, 0))
        assert torch.equal(images_BCHW, batch.images_BCHW)

    def test_an_unreadable_picture_is_replaced_by_the_next_and_logged_once(
        self, make_packed, caplog
    ):
        dataset = make_packed(6, corrupt=(2, 3), name="replaced")
        with caplog.at_level(logging.WARNING, "casm_bench"):
            for epoch in range(3):
                images_BCHW, labels_B = collect(training_batches(dataset, 48, 3, 0, epoch))
                assert len(images_BCHW) == 6
                # Pictures 2 and 3, of classes 2 and 0, gave way to picture 4, of class 1.
                assert np.bincount(labels_B).tolist() == [1, 4, 1]
        assert len(caplog.records) == 2
        assert "replaced-2 cannot be decoded" in caplog.text

    def test_nothing_readable_is_an_error(self, make_packed):
        dataset = make_packed(3, corrupt=(0, 1, 2), name="hopeless")
        with pytest.raises(WorkError, match="Not one of the 3 training pictures"):
            list(training_batches(dataset, 48, 3, 0, 0))

    def test_unknown_augmentation_and_missing_pixels_are_explained(self, make_packed):
        with pytest.raises(UsageError, match="'mixup'; known are none, flip, crop-flip"):
            next(training_batches(make_packed(3), 48, 3, 0, 0, "mixup"))
        with pytest.raises(UsageError, match="'bare' has no pictures"):
            next(training_batches(replace(bare(3), has_pixels=False), 48, 3, 0, 0))


class _BrightDataset(Dataset):
    """Dark pictures in which the pixels of the box are bright; the box is drawn by the index."""

    def image(self, index: int) -> np.ndarray:
        width, height = self.sizes_N2[index]
        picture_HW3 = np.zeros((height, width, 3), np.uint8)
        x0, y0, x1, y1 = self.boxes[index][0].astype(int)
        picture_HW3[y0:y1, x0:x1] = 255
        return picture_HW3


def Bright(count: int) -> _BrightDataset:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (90, 60), (count, 2))
    sides = rng.integers(20, 40, (count, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, (120, 90))], axis=1)
    return replace(
        bare(count, _BrightDataset),
        sizes_N2=np.tile((120, 90), (count, 1)),
        boxes=list(boxes[:, None, :].astype(float)),
    )


class TestBoxesOfTrainingBatches:
    @pytest.mark.parametrize("scale", [None, 80])
    @pytest.mark.parametrize("augment", AUGMENTATIONS)
    def test_boxes_follow_the_pixels(self, augment, scale):
        """The oracle is the extent of the bright pixels in the picture that is handed out."""
        dataset, seen = Bright(40), 0
        batches = training_batches(dataset, 64, 8, 0, 0, augment, scale=scale)
        for images_BCHW, _, boxes in batches:
            for image_CHW, boxes_N4 in zip(images_BCHW, boxes, strict=True):
                rows, columns = (image_CHW[0] > 127).nonzero().unbind(1)
                visible_4 = boxes_N4[0].clamp(0, 64)
                if (visible_4[2:] - visible_4[:2]).min() < 2:
                    continue
                extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert (visible_4 - torch.stack(extent)).abs().max() <= 1.01
                seen += 1
        assert seen >= 20

    def test_a_flip_and_a_crop_by_hand(self):
        box = [(30, 20, 50, 60)]
        crop = View(64, (20, 10, 60, 90), flipped=False)  # 40×80 pixels: ×1.6 and ×0.8
        assert boxes_in_view(box, 120, 90, crop).tolist() == [[16, 8, 48, 40]]
        assert boxes_in_view(box, 120, 90, replace(crop, flipped=True)).tolist() == [
            [16, 8, 48, 40]  # it lies in the middle
        ]
        assert boxes_in_view(box, 120, 90, View(90, None, True)).tolist() == [[55, 20, 75, 60]]

    @given(st.integers(0, 90), st.integers(0, 60), st.integers(1, 99), st.integers(1, 99))
    def test_a_crop_is_its_own_whole_view_and_mirrors_itself(self, left, top, wide, high):
        crop = View(64, (left, top, left + wide, top + high), flipped=False)
        (whole,) = boxes_in_view([crop.crop], 999, 999, crop)
        assert whole.tolist() == pytest.approx([0, 0, 64, 64], abs=1e-12)
        box = [(left + 1, top, left + wide / 2, top + high)]
        (seen,) = boxes_in_view(box, 999, 999, crop)
        (mirrored,) = boxes_in_view(box, 999, 999, replace(crop, flipped=True))
        assert mirrored.tolist() == [64 - seen[2], seen[1], 64 - seen[0], seen[3]]

    def test_at_a_scale_a_square_is_shown_by_hand(self):
        """Of 120×90 pixels at a short side of 80, 64 are 72 of the original: [24, 96) × [9, 81)."""
        dataset = Bright(1)
        (images_BCHW, _, (boxes_N4,)) = next(training_batches(dataset, 64, 1, 0, 0, scale=80))
        assert images_BCHW.shape == (1, 3, 64, 64)
        x0, y0, x1, y1 = dataset.boxes[0][0]
        expected = [(x0 - 24) / 72, (y0 - 9) / 72, (x1 - 24) / 72, (y1 - 9) / 72]
        assert (boxes_N4[0] / 64).tolist() == pytest.approx(expected, abs=1e-6)
        rng = np.random.default_rng(0)
        crops = {crop_at_scale(120, 90, rng, 0.8, anywhere=True) for _ in range(300)}
        assert {(x1 - x0, y1 - y0) for x0, y0, x1, y1 in crops} == {(72, 72)}
        assert (min(crops)[0], max(crops)[0]) == (0, 120 - 72)
        assert {y0 for _, y0, _, _ in crops} == set(range(90 - 72 + 1))
        assert crop_at_scale(90, 90, rng, 1.0, anywhere=True) == (0, 0, 90, 90)

    def test_pictures_without_boxes_have_none(self, make_packed):
        dataset = make_packed(4).without_boxes()
        (batch,) = training_batches(dataset, 48, 4, 0, 0, "crop-flip")
        assert [tuple(boxes_N4.shape) for boxes_N4 in batch[2]] == [(0, 4)] * 4


KEYS = [(0, 0), (0, 1), (1, 0), (1, 1)]


class _RampDataset(Dataset):
    """Wide pictures whose red grows to the right and whose green grows downwards."""

    def image(self, index: int) -> np.ndarray:
        x, y = np.meshgrid(np.linspace(0, 255, 120), np.linspace(0, 255, 90))
        return np.stack([x, y, x], axis=-1).astype(np.uint8)


def Ramp(count: int) -> _RampDataset:
    return bare(count, _RampDataset)


class TestRandomCrop:
    @given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**32))
    def test_crops_lie_inside(self, width, height, seed):
        x0, y0, x1, y1 = random_crop(width, height, np.random.default_rng(seed))
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height

    def test_areas_are_uniform_and_ratios_log_uniform(self):
        rng = np.random.default_rng(0)
        x0, y0, x1, y1 = np.array([random_crop(1000, 1000, rng) for _ in range(4000)]).T
        share, ratio = (x1 - x0) * (y1 - y0) / 1e6, (x1 - x0) / (y1 - y0)
        assert share.min() > 0.079 and share.max() <= 1
        fits = share < 0.75  # larger ones are thrown away where they do not fit at their ratio
        assert abs(np.median(share[fits]) - (0.08 + 0.75) / 2) < 0.02
        assert ratio.min() > 0.745 and ratio.max() < 1.34
        assert abs(np.median(np.log(ratio))) < 0.02
        assert abs(((x0 + x1) / 2).mean() - 500) < 10  # nothing drifts to a side

    def test_smaller_crops_can_be_ruled_out(self):
        rng = np.random.default_rng(0)
        crops = np.array([random_crop(1000, 1000, rng, least_area=0.3) for _ in range(1000)])
        shares = (crops[:, 2] - crops[:, 0]) * (crops[:, 3] - crops[:, 1]) / 1e6
        assert 0.299 < shares.min() < 0.31

    def test_it_draws_what_torchvision_draws(self):
        """The same distribution as RandomResizedCrop's, on an oblong picture."""
        from torchvision.transforms import RandomResizedCrop

        rng = np.random.default_rng(0)
        ours = np.array([random_crop(500, 200, rng) for _ in range(3000)])
        torch.manual_seed(0)
        picture = torch.empty(3, 200, 500)
        draws = [
            RandomResizedCrop.get_params(picture, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(3000)
        ]
        top, left, height, width = np.array(draws).T
        theirs = np.stack([left, top, left + width, top + height], axis=1)
        quantiles = np.linspace(0.05, 0.95, 10)
        apart = np.quantile(ours, quantiles, axis=0) - np.quantile(theirs, quantiles, axis=0)
        assert np.abs(apart).max() < 16

    def test_a_picture_too_long_for_any_crop_gives_its_central_part(self):
        crops = {random_crop(1200, 30, np.random.default_rng(seed)) for seed in range(5)}
        assert crops == {(580, 0, 620, 30)}
        assert random_crop(30, 1200, np.random.default_rng(0)) == (0, 580, 30, 620)
