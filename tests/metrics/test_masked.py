"""What other classifiers are shown of masked pictures, and how their answers are ranked."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from casm_bench.images import inpaint
from casm_bench.metrics.masked import masked_correct, masked_pictures, ranks_of_labels


def test_black_fill_and_inpainting():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    shown = masked_pictures(picture, mask)
    assert (shown["masked_in"][mask] == picture[mask]).all()
    assert not shown["masked_in"][~mask].any()
    assert not shown["masked_out"][mask].any()
    assert (shown["masked_out"][~mask] == picture[~mask]).all()
    assert (shown["inpainted"] == inpaint(picture, mask)).all()
    assert all(image.dtype == np.uint8 for image in shown.values())


class Judge(nn.Module):
    """Logits are the mean of each channel, as it sees them; its size is 4 pixels."""

    input_size = 4
    mean = torch.zeros(1, 3, 1, 1)

    def normalize(self, images_BCHW):
        self.seen = images_BCHW
        return images_BCHW.float() / 255

    def forward(self, images_BCHW):
        return images_BCHW.mean(dim=(2, 3))


def test_ranks_count_the_more_probable_classes():
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    pictures[0] = (200, 100, 50)
    pictures[1] = (50, 100, 200)
    pictures[2] = (7, 7, 7)  # all the same: the lower index comes first
    judge = Judge()
    assert ranks_of_labels(judge, pictures, np.array([0, 0, 1])).tolist() == [0, 2, 1]
    assert judge.seen.shape == (3, 3, 4, 4)
    assert judge.seen[0, :, 0, 0].tolist() == [200, 100, 50]


def test_shrinking_weighs_all_pixels():
    """Antialiased to half the size, a pixel's weight falls from ½ at the new pixel's centre to 0
    two new pixels away: a bright column at 3 is ¾ / 2 of the new column 1 and ¼ / 2 of 2."""
    pictures = np.zeros((1, 8, 8, 3), np.uint8)
    pictures[:, :, 3] = 240
    judge = Judge()
    ranks_of_labels(judge, pictures, np.array([0]))
    assert judge.seen[0, 0, 1].tolist() == [0, 90, 30, 0]


class Means(nn.Module):
    """Keeps what it is shown; its top class is the image that was shown in that place first."""

    mean = torch.tensor([0.2, 0.5, 0.4]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 0.25, 2.0]).view(1, 3, 1, 1)

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images_BCHW):
        self.seen.append(images_BCHW)
        return torch.stack([images_BCHW[:, 0, 0, 0], images_BCHW[:, 0, 1, 1]], dim=1)


def test_what_is_masked_turns_black_or_mean():
    """Black is (0 - mean) / std: -0.4, -2, -0.2. The mask is the upper left pixel."""
    picture_CHW = torch.tensor([3.0, 5.0, 7.0]).view(3, 1, 1) + torch.tensor([[0.0, 0], [0, 1]])
    other_CHW = torch.tensor([-0.5, 0, 0]).view(3, 1, 1) + torch.tensor([[0.0, 0], [0, -1]])
    mask_B1HW = torch.tensor([[True, False], [False, False]]).expand(2, 1, 2, 2)
    judge, images_BCHW = Means(), torch.stack([picture_CHW, other_CHW])
    found = dict(masked_correct(judge, images_BCHW, torch.tensor([1, 1]), mask_B1HW))
    shown = dict(zip(found, judge.seen, strict=True))
    black, mean = torch.tensor([-0.4, -2, -0.2]), torch.zeros(3)
    for name, masked, elsewhere in (
        ("clean_accuracy", picture_CHW[:, 0, 0], picture_CHW[:, 1, 1]),
        ("masked_in_accuracy", picture_CHW[:, 0, 0], black),
        ("masked_out_accuracy", black, picture_CHW[:, 1, 1]),
        ("masked_out_accuracy_mean_fill", mean, picture_CHW[:, 1, 1]),
    ):
        torch.testing.assert_close(shown[name][0, :, 0, 0], masked)
        torch.testing.assert_close(shown[name][0, :, 1, 1], elsewhere)
    # Channel 0 at the masked pixel and at the last: 3 and 4, -0.5 and -1.5; black is -0.4.
    assert {name: correct_B.tolist() for name, correct_B in found.items()} == {
        "clean_accuracy": [True, False],
        "masked_in_accuracy": [False, True],
        "masked_out_accuracy": [True, False],
        "masked_out_accuracy_mean_fill": [True, False],
    }
