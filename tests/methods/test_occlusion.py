"""Occlusion: against captum, the slow way with squares one by one, and a linear classifier."""

import pytest
import timm
import torch
from captum.attr import Occlusion
from torch import nn

from casm_bench import registry

SIZE = 16


class Linear(nn.Module):
    """Logits_BK = Σ weight_KCHW · image."""

    def __init__(self, weight_KCHW):
        super().__init__()
        self.weight_KCHW = nn.Parameter(weight_KCHW)

    def forward(self, images_BCHW):
        return torch.einsum("bchw,kchw->bk", images_BCHW, self.weight_KCHW)


def make(classifier, **options):
    return registry.get("occlusion")(classifier, **options)


def network():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10).eval()
    return network.requires_grad_(False)


def captum_maps(classifier, images_BCHW, labels_B, square, step):
    falls_BCHW = Occlusion(classifier).attribute(
        images_BCHW, (3, square, square), strides=(3, step, step), target=labels_B
    )
    return falls_BCHW[:, 0].clamp(min=0)


def test_equals_captum_where_squares_tile_the_image():
    classifier, labels_B = network(), torch.tensor([1, 9, 4])
    images_BCHW = torch.randn(3, 3, SIZE, SIZE)
    maps_BHW = make(classifier, positions=4, square=4).maps(images_BCHW, labels_B)
    expected_BHW = captum_maps(classifier, images_BCHW, labels_B, square=4, step=4)
    torch.testing.assert_close(maps_BHW, expected_BHW, rtol=0, atol=1e-5)
    assert maps_BHW.max() > 1e-3


def test_equals_captum_where_squares_overlap():
    """Up to the edges, over which captum moves no square."""
    classifier, labels_B = network(), torch.tensor([1, 9, 4])
    images_BCHW = torch.randn(3, 3, SIZE, SIZE)
    maps_BHW = make(classifier, positions=8, square=4).maps(images_BCHW, labels_B)
    expected_BHW = captum_maps(classifier, images_BCHW, labels_B, square=4, step=2)
    torch.testing.assert_close(maps_BHW[:, :14, :14], expected_BHW[:, :14, :14], rtol=0, atol=1e-5)


def slow_map(classifier, image_CHW, label, positions, square):
    fall_HW, times_HW = torch.zeros(2, SIZE, SIZE, dtype=torch.float64)
    whole = classifier(image_CHW[None])[0, label]
    for row in range(positions):
        for column in range(positions):
            y, x = int(row * SIZE / positions), int(column * SIZE / positions)
            hidden_CHW = image_CHW.clone()
            hidden_CHW[:, y : y + square, x : x + square] = 0
            fall = whole - classifier(hidden_CHW[None])[0, label]
            fall_HW[y : y + square, x : x + square] += fall
            times_HW[y : y + square, x : x + square] += 1
    return (fall_HW / times_HW).clamp(min=0)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_equals_squares_one_by_one(chunk):
    classifier = Linear(torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)).requires_grad_(False)
    images_BCHW = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    maps_BHW = make(classifier, positions=5, square=6, chunk=chunk).maps(
        images_BCHW, torch.tensor([1, 0])
    )
    for map_HW, image_CHW, label in zip(maps_BHW, images_BCHW, (1, 0), strict=True):
        expected_HW = slow_map(classifier, image_CHW, label, positions=5, square=6)
        torch.testing.assert_close(map_HW, expected_HW)


def test_by_hand():
    """Four pixels that add 1, 2, -3 and 4 to the logit, hidden one by one."""
    weight_KCHW = torch.tensor([[[[1.0, 2.0], [-3.0, 4.0]]]])
    image_1CHW = torch.ones(1, 1, 2, 2)
    maps_BHW = make(Linear(weight_KCHW), positions=2, square=1).maps(image_1CHW, torch.tensor([0]))
    assert maps_BHW.tolist() == [[[1.0, 2.0], [0.0, 4.0]]]


def test_pixels_that_no_square_hides_are_zero():
    weight_KCHW = torch.ones(1, 1, 4, 4)
    maps_BHW = make(Linear(weight_KCHW), positions=2, square=1).maps(
        torch.ones(1, 1, 4, 4), torch.tensor([0])
    )
    assert maps_BHW.nonzero().tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 0], [0, 2, 2]]


def test_probability_can_be_watched():
    classifier = Linear(torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)]))
    method = make(classifier, positions=1, square=2, score="probability")
    maps_BHW = method.maps(torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
    fall = torch.tensor(2.0).sigmoid() - 0.5
    torch.testing.assert_close(maps_BHW, fall.expand(1, 2, 2))


def test_a_batch_gives_every_image_the_very_same_map():
    classifier, labels_B = network(), torch.tensor([1, 9, 4])
    images_BCHW = torch.randn(3, 3, 32, 32)
    method = make(classifier, positions=3)
    together_BHW = method.maps(images_BCHW, labels_B)
    for i in range(3):
        assert torch.equal(
            method.maps(images_BCHW[i : i + 1], labels_B[i : i + 1])[0], together_BHW[i]
        )


def test_published_squares_are_the_default():
    spans_PS = make(None)._spans(224)
    assert [spans_PS[p].nonzero().flatten()[0].item() for p in (0, 1, 27)] == [0, 8, 216]
    assert spans_PS.sum(dim=1).tolist() == [35] * 24 + [32, 24, 16, 8]
