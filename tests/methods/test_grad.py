"""Grad against a classifier whose gradient is known, and against captum."""

import timm
import torch
from captum.attr import Saliency
from torch import nn

from casm_bench import registry


class Linear(nn.Module):
    """Logits_BK = Σ weight_KCHW · image; the derivative of logit y is weight[y]."""

    def __init__(self, weight_KCHW):
        super().__init__()
        self.weight_KCHW = nn.Parameter(weight_KCHW)

    def forward(self, images_BCHW):
        return torch.einsum("bchw,kchw->bk", images_BCHW, self.weight_KCHW)


def test_linear_classifier_gives_its_largest_absolute_weight():
    weight_KCHW = torch.randn(4, 3, 6, 6)
    labels_B = torch.tensor([2, 0, 2])
    maps_BHW = registry.get("grad")(Linear(weight_KCHW)).maps(torch.rand(3, 3, 6, 6), labels_B)
    assert torch.equal(maps_BHW, weight_KCHW[labels_B].abs().amax(dim=1))


def test_by_hand():
    weight_KCHW = torch.tensor([[[[0.0]], [[0.0]]], [[[1.0]], [[-3.0]]]])
    maps_BHW = registry.get("grad")(Linear(weight_KCHW)).maps(
        torch.zeros(1, 2, 1, 1), torch.tensor([1])
    )
    assert maps_BHW.tolist() == [[[3.0]]]


def test_equals_captum_saliency():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10).eval()
    nn.init.normal_(network.get_classifier().weight)  # timm starts it near zero
    images_BCHW, labels_B = torch.randn(3, 3, 64, 64), torch.tensor([1, 9, 4])
    expected_BHW = Saliency(network).attribute(images_BCHW.clone().requires_grad_(), labels_B)
    maps_BHW = registry.get("grad")(network).maps(images_BCHW, labels_B)
    torch.testing.assert_close(maps_BHW, expected_BHW.amax(dim=1), rtol=0, atol=1e-6)
    assert maps_BHW.max() > 1e-4


def test_works_where_gradients_are_switched_off():
    with torch.no_grad():
        maps_BHW = registry.get("grad")(Linear(torch.ones(2, 3, 4, 4))).maps(
            torch.rand(1, 3, 4, 4), torch.tensor([0])
        )
    assert torch.equal(maps_BHW, torch.ones(1, 4, 4))
