"""RISE: its masks the slow way, its average against the exact expectation over all masks."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from casm_bench import registry
from casm_bench.methods.rise import _enlargements


class Rivals(nn.Module):
    """Class 1 is likely when the upper left pixel is seen, and less so with its neighbour."""

    def forward(self, images_BCHW):
        left_B, right_B = images_BCHW[:, 0, 0, 0], images_BCHW[:, 0, 0, 1]
        return torch.stack([torch.zeros_like(left_B), left_B * (4 - 3 * right_B)], dim=1)


def make(classifier, **options):
    return registry.get("rise")(classifier, **options)


def slow_mask(bits_SS, size, down, across):
    """Enlarged as by the authors' resize(order=1, mode="reflect"), which mirrors at centres."""
    cells = len(bits_SS)
    wide = (cells + 1) * -(-size // cells)
    places = (np.arange(wide) + 0.5) * cells / wide - 0.5
    rows, columns = np.meshgrid(places, places, indexing="ij")
    large = ndimage.map_coordinates(bits_SS, [rows, columns], order=1, mode="mirror")
    return large[down : down + size, across : across + size]


@pytest.mark.parametrize(("size", "cells"), [(2, 2), (21, 7), (20, 7), (16, 3)])
def test_masks_are_enlarged_as_by_the_authors(size, cells):
    table_THS = _enlargements(size, cells).double()
    assert len(table_THS) == -(-size // cells)
    bits_SS = np.random.default_rng(0).integers(0, 2, (cells, cells)).astype(float)
    for down, across in product(range(len(table_THS)), repeat=2):
        mask_HW = table_THS[down] @ torch.from_numpy(bits_SS) @ table_THS[across].T
        np.testing.assert_allclose(mask_HW, slow_mask(bits_SS, size, down, across), atol=1e-6)


def exact_map(classifier, image_1CHW, label, p):
    """The expectation over all sixteen masks of 2×2 cells on 2×2 pixels, which have one place."""
    expected_HW = torch.zeros(2, 2, dtype=torch.float64)
    for bits in product((0.0, 1.0), repeat=4):
        mask_HW = torch.from_numpy(slow_mask(np.reshape(bits, (2, 2)), 2, 0, 0))
        chance = p ** sum(bits) * (1 - p) ** (4 - sum(bits))
        likely = classifier(image_1CHW * mask_HW).softmax(dim=1)[0, label]
        expected_HW += chance * likely * mask_HW / p
    return expected_HW


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_converges_to_the_exact_expectation(p):
    image_1CHW = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    exact_HW = exact_map(Rivals(), image_1CHW, label=1, p=p)
    maps = [
        make(Rivals(), masks=masks, cells=2, p=p, chunk=5000).maps(image_1CHW, torch.tensor([1]))
        for masks in (100, 200_000)
    ]
    few, many = ((map_1HW[0] - exact_HW).abs().max().item() for map_1HW in maps)
    assert many < 5 * (1 / p / 200_000) ** 0.5  # five standard errors of a value below 1
    assert many < few / 5
    assert exact_HW.max() - exact_HW.min() > 0.03


def test_all_ones_of_an_indifferent_classifier():
    """Every mask counts the same, so the map is the mean mask over p, times the probability."""
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).requires_grad_(False)
    nn.init.zeros_(classifier[1].weight)
    nn.init.zeros_(classifier[1].bias)
    method = make(classifier, masks=50, chunk=20)
    images_BCHW = torch.randn(2, 3, 8, 8)
    mean_HW = torch.cat(list(method._masks(images_BCHW))).mean(dim=0)[0]
    maps_BHW = method.maps(images_BCHW, torch.tensor([0, 3]))
    torch.testing.assert_close(maps_BHW, (0.25 * mean_HW / 0.5).expand(2, 8, 8))


def test_masks_lie_between_zero_and_one_with_mean_p():
    masks_M1HW = torch.cat(list(make(None, masks=3000, p=0.3)._masks(torch.empty(1, 3, 28, 28))))
    assert masks_M1HW.shape == (3000, 1, 28, 28)
    assert masks_M1HW.min() >= 0
    assert masks_M1HW.max() <= 1 + 1e-6
    assert masks_M1HW.mean().item() == pytest.approx(0.3, abs=0.005)


def test_neither_chunk_nor_neighbours_change_the_masks():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).requires_grad_(False)
    images_BCHW, labels_B = torch.randn(3, 3, 8, 8), torch.tensor([0, 3, 1])
    method = make(classifier, masks=40)
    maps_BHW = method.maps(images_BCHW, labels_B)
    chunked_BHW = make(classifier, masks=40, chunk=7).maps(images_BCHW, labels_B)
    torch.testing.assert_close(maps_BHW, chunked_BHW)
    assert torch.equal(method.maps(images_BCHW[2:], labels_B[2:])[0], maps_BHW[2])
    other_BHW = make(classifier, masks=40, seed=1).maps(images_BCHW, labels_B)
    assert (maps_BHW - other_BHW).abs().max() > 0.01


def test_published_settings_are_the_default():
    method = make(None)
    assert (method.masks, method.cells, method.p) == (8000, 7, 0.5)
