"""What other classifiers are shown of masked pictures, and how their answers are ranked."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from casm_bench.images import inpaint
from casm_bench.metrics.masked import masked_pictures, ranks_of_labels


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
