"""Excitation backprop: by hand, chance is conserved, and TorchRay where it is installed."""

from unittest.mock import Mock

import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from casm_bench import registry
from casm_bench.backbones.classifier import build_classifier
from casm_bench.errors import UsageError
from casm_bench.methods import _backward, _excitation
from casm_bench.settings import check_fields


class Tapped(nn.Module):
    """Two parts of a network; the first one's output is the feature map that is read."""

    def __init__(self, bottom, top):
        super().__init__()
        self.bottom, self.top = bottom, top

    def forward(self, images_BCHW):
        return self.top(self.bottom(images_BCHW))

    def with_features(self, images_BCHW):
        features_BChw = self.bottom(images_BCHW)
        return self.top(features_BChw), [features_BChw] * 5


def maps_of(top, features_BChw, labels, bottom=None):
    classifier = Tapped(bottom or nn.Identity(), top)
    return registry.get("excitation-backprop")(classifier).maps(features_BChw, torch.tensor(labels))


def linear(*rows, bias=None):
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    layer.weight.data = torch.tensor(rows)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def pixels(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_two_layers_by_hand():
    """Both hidden neurons are 3; of the class 1/3 goes to the first and 2/3 to the second, which
    has a positive weight from the first pixel only."""
    top = nn.Sequential(
        *(nn.Flatten(), linear([1.0, 1.0], [2.0, -1.0], bias=[0.0, 0.0]), nn.ReLU()),
        linear([5.0, 5.0], [1.0, 2.0], bias=[0.0, 9.0]),
    )
    map_1hw = maps_of(top, pixels(2.0, 1.0), [1])
    torch.testing.assert_close(map_1hw, torch.tensor([[[8 / 9, 1 / 9]]]))


@pytest.mark.parametrize("in_place", [False, True])
def test_branches_by_hand(in_place):
    """3a + (-b, b): the sum's first neuron owes all to 3a, the second 6 of its 8."""

    class Branches(nn.Module):
        def forward(self, x_BCHW):
            a_BP = self.triple(x_BCHW.flatten(1))
            b_BP = self.flip(x_BCHW.flatten(1))
            if in_place:
                a_BP += b_BP
            else:
                a_BP = a_BP + b_BP
            return self.last(a_BP)

    top = Branches()
    top.triple, top.flip = linear([3.0, 0.0], [0.0, 3.0]), linear([-1.0, 0.0], [1.0, 0.0])
    top.last = linear([1.0, 1.0])
    # pixels 2 and 2: 3a = (6, 6), b = (-2, 2), their sum (4, 8), so P = (1/3, 2/3)
    map_1hw = maps_of(top, pixels(2.0, 2.0), [0])
    second = 2 / 3 * 6 / 8
    torch.testing.assert_close(map_1hw, torch.tensor([[[1 - second, second]]]))


def test_pooling_by_hand():
    """The mean is shared by size; the maximum takes it all."""
    values = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).reshape(1, 1, 2, 2)
    average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear([7.0]))
    torch.testing.assert_close(maps_of(average, values, [0])[0], values[0, 0] / 8)
    largest = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), linear([7.0]))
    assert maps_of(largest, values, [0])[0].tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_chance_without_excitation_is_lost():
    top = nn.Sequential(nn.Flatten(), linear([-1.0, 0.0], bias=[5.0]))
    assert maps_of(top, pixels(1.0, 1.0), [0]).tolist() == [[[0.0, 0.0]]]


def test_a_saturated_relu6_passes_chance_on():
    top = nn.Sequential(nn.Flatten(), linear([4.0, 4.0]), nn.ReLU6(), linear([1.0]))
    map_1hw = maps_of(top, pixels(3.0, 1.0), [0])
    torch.testing.assert_close(map_1hw, torch.tensor([[[0.75, 0.25]]]))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x_BCHW):
        return F.relu(x_BCHW + self.second(F.relu(self.first(x_BCHW))), inplace=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), pool=st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)]))
def test_chance_is_conserved_without_biases(seed, pool):
    """What is above zero without a bias has some excitation, and so nothing is lost."""
    torch.manual_seed(seed)
    top = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), pool, Residual(4), Residual(4)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False)),
    ).double()
    features_BChw = torch.rand(2, 3, 10, 10, dtype=torch.float64)
    likely_B = top(features_BChw).max(dim=1)
    assume(likely_B.values.min() > 0)
    maps_Bhw = maps_of(top, features_BChw, likely_B.indices.tolist())
    ones_B = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(maps_Bhw.sum(dim=(1, 2)), ones_B, rtol=1e-9, atol=0)
    assert maps_Bhw.min() >= 0


@pytest.mark.parametrize(
    "name", ["test_resnet", "tf_efficientnet_lite0", "densenet121", "inception_v3"]
)
def test_values_of_real_networks_stay_as_they_are(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=4).eval()
        images_BCHW = torch.randn(1, 3, 96, 96)
    expected_BK = network(images_BCHW)
    rules = {function: Mock(wraps=rule) for function, rule in _excitation.rules().items()}
    with _backward.Exchanged(rules):
        assert torch.equal(network(images_BCHW), expected_BK)
    assert sum(rule.call_count for rule in rules.values()) > 10


def test_a_real_network_keeps_most_of_the_chance():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = build_classifier("resnet18", 4, input_size=64).eval()
        nn.init.normal_(classifier.model.get_classifier().weight)
        images_BCHW = torch.randn(2, 3, 64, 64)
    for tap, side in ((2, 8), (3, 4)):
        method = registry.get("excitation-backprop")(classifier, tap=tap)
        maps_Bhw = method.maps(images_BCHW, torch.tensor([0, 1]))
        assert maps_Bhw.shape == (2, side, side)
        assert maps_Bhw.sum(dim=(1, 2)).min() > 0.5
        assert maps_Bhw.sum(dim=(1, 2)).max() < 1 + 1e-5


@pytest.mark.parametrize(("name", "part"), [("efficientnet_b0", "silu"), ("convnext_atto", "norm")])
def test_other_networks_are_refused(name, part):
    classifier = build_classifier(name, 4, input_size=64).eval()
    with pytest.raises(UsageError, match=f"also calls .*{part}"):
        registry.get("excitation-backprop")(classifier).maps(
            torch.zeros(1, 3, 64, 64), torch.tensor([0])
        )


def test_every_tap_that_can_be_asked_for_is_reached():
    classifier = build_classifier("test_resnet", 4, 64).eval()
    sides = {}
    for tap in range(5):
        try:
            check_fields("excitation-backprop", registry.get("excitation-backprop"), {"tap": tap})
        except UsageError:
            continue
        method = registry.get("excitation-backprop")(classifier, tap=tap)
        sides[tap] = method.maps(*classifier.example()).shape[1]
    assert sides == {1: 16, 2: 8, 3: 4, 4: 2}


def test_products_of_branches_are_refused():
    class Gated(nn.Module):
        def forward(self, x_BCHW):
            return (2 * x_BCHW * x_BCHW.amax(dim=3, keepdim=True)).flatten(1)

    with pytest.raises(UsageError, match="also calls mul"):
        maps_of(Gated(), pixels(1.0, 2.0), [0])


def test_equals_torchray():
    torchray = pytest.importorskip("torchray.attribution.excitation_backprop")
    torch.manual_seed(0)
    bottom = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    top = nn.Sequential(
        *(nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )
    network = Tapped(bottom, top).double().eval()
    images_BCHW, labels = torch.randn(3, 3, 24, 24, dtype=torch.float64), [1, 4, 0]
    expected_B1hw = torchray.excitation_backprop(
        network, images_BCHW, torch.tensor(labels), saliency_layer="bottom.1"
    )
    maps_Bhw = maps_of(top, images_BCHW, labels, bottom)
    torch.testing.assert_close(maps_Bhw, expected_B1hw[:, 0], rtol=1e-9, atol=1e-12)
    assert maps_Bhw.sum() > 1
