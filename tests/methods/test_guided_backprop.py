"""Guided backprop: by hand, against captum, and in networks that captum cannot do."""

import warnings

import pytest
import timm
import torch
from captum.attr import GuidedBackprop
from torch import nn
from torch.nn import functional as F

from casm_bench import registry
from casm_bench.backbones.classifier import build_classifier
from casm_bench.errors import UsageError


def make(classifier):
    return registry.get("guided-backprop")(classifier)


def network(name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=10, **options).eval().requires_grad_(False)
        nn.init.normal_(network.get_classifier().weight)  # timm starts it near zero
    return network


def batch(size=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, size, size, generator=generator), torch.tensor([1, 9, 4])


def captum_maps(classifier, images_BCHW, labels_B):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        gradient_BCHW = GuidedBackprop(classifier).attribute(
            images_BCHW.clone().requires_grad_(), target=labels_B
        )
    return gradient_BCHW.abs().amax(dim=1)


class ByHand(nn.Module):
    """Three pixels, two ReLUs: z = -ReLU(a - b) + 2 ReLU(b + c), then z⁺ again."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu

    def forward(self, images_BCHW):
        a, b, c = images_BCHW.flatten(1).unbind(dim=1)
        z = -self.relu(a - b) + 2 * self.relu(b + c)
        return self.relu(z)[:, None]


RELUS = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "six": nn.ReLU6(inplace=True),
    "function": F.relu,
    "torch": torch.relu,
    "method": torch.Tensor.relu,
}


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_by_hand(relu):
    """a=2, b=1, c=0.5: the gradient of z is (-1, 1 + 2, 2); the path through -ReLU is stopped."""
    images_BCHW = torch.tensor([2.0, 1.0, 0.5]).reshape(1, 1, 1, 3)
    map_1HW = make(ByHand(relu)).maps(images_BCHW, torch.tensor([0]))
    assert map_1HW.tolist() == [[[0.0, 2.0, 2.0]]]
    plain_1HW = registry.get("grad")(ByHand(F.relu)).maps(images_BCHW, torch.tensor([0]))
    assert plain_1HW.tolist() == [[[1.0, 3.0, 2.0]]]


def test_a_saturated_relu6_passes_nothing():
    images_BCHW = torch.tensor([0.0, 4.0, 3.0]).reshape(1, 1, 1, 3)  # z would be 12
    assert make(ByHand(F.relu6)).maps(images_BCHW, torch.tensor([0])).max() == 0


@pytest.mark.parametrize("residual", [True, False])
def test_equals_captum(residual):
    classifier = network("test_resnet") if residual else small_vgg()
    images_BCHW, labels_B = batch()
    maps_BHW = make(classifier).maps(images_BCHW, labels_B)
    expected_BHW = captum_maps(classifier, images_BCHW, labels_B)
    torch.testing.assert_close(maps_BHW, expected_BHW, rtol=1e-5, atol=1e-6)
    plain_BHW = registry.get("grad")(classifier).maps(images_BCHW, labels_B)
    assert (maps_BHW - plain_BHW).abs().max() > 0.1 * maps_BHW.max()


def small_vgg():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3)]
    head = [nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*layers, *head).requires_grad_(False)


def test_equals_captum_in_a_network_with_relu6():
    """Captum knows ReLU only; where nothing reaches 6 it is the same function."""
    with_six, with_relu = (
        network("tf_efficientnet_lite0", act_layer=layer) for layer in ("relu6", "relu")
    )
    with_relu.load_state_dict(with_six.state_dict())
    images_BCHW, labels_B = batch()
    expected_BHW = captum_maps(with_relu, images_BCHW / 10, labels_B)
    maps_BHW = make(with_six).maps(images_BCHW / 10, labels_B)
    torch.testing.assert_close(maps_BHW, expected_BHW, rtol=1e-4, atol=1e-6 * maps_BHW.max().item())
    assert maps_BHW.max() > 0


def test_a_network_without_relus_is_refused():
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with pytest.raises(UsageError, match="this classifier has none"):
        make(classifier).maps(torch.randn(1, 3, 8, 8), torch.tensor([0]))


@pytest.mark.parametrize("frozen", [False, True])
def test_relus_off_the_way_to_the_image_do_not_count(frozen):
    """They make the relative positions of a transformer whose own activations are others."""
    tiny = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    classifier = build_classifier("vit_relpos_small_patch16_224", 2, 32, tiny).eval()
    with pytest.raises(UsageError, match="this classifier has none"):
        make(classifier.requires_grad_(not frozen)).check()


def test_gradients_are_as_before_afterwards():
    classifier, (images_BCHW, labels_B) = small_vgg(), batch()
    before_BHW = registry.get("grad")(classifier).maps(images_BCHW, labels_B)
    make(classifier).maps(images_BCHW, labels_B)
    assert torch.equal(registry.get("grad")(classifier).maps(images_BCHW, labels_B), before_BHW)
