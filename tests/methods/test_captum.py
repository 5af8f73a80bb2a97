"""The captum adapter: its Saliency is our Grad, its reductions by hand, its draws per image."""

import sys
from dataclasses import dataclass

import pytest
import timm
import torch
from torch import nn

from casm_bench import registry
from casm_bench.errors import UsageError
from casm_bench.methods._captum import CaptumMethod, _reduced, captum


@dataclass
class Saliency(CaptumMethod):
    def attribution(self, forward):
        return captum.Saliency(forward)


@dataclass
class Noisy(CaptumMethod):
    draws = True

    def attribution(self, forward):
        return captum.NoiseTunnel(captum.Saliency(forward))

    def arguments(self, images_nCHW):
        return {"nt_type": "smoothgrad", "nt_samples": 3, "stdevs": 0.1}


@dataclass
class Occluded(CaptumMethod):
    def attribution(self, forward):
        return captum.Occlusion(forward)

    def arguments(self, images_nCHW):
        return {"sliding_window_shapes": (3, 16, 16), "strides": (3, 16, 16)}


@dataclass
class Guided(CaptumMethod):
    def attribution(self, forward):
        return captum.GuidedBackprop(forward)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=10).eval().requires_grad_(False)
        nn.init.normal_(network.get_classifier().weight)  # timm starts it near zero
    return network


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 64, 64, generator=generator), torch.tensor([1, 9, 4])


@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_saliency_is_grad(chunk, network, batch):
    expected_BHW = registry.get("grad")(network).maps(*batch)
    maps_BHW = Saliency(network, chunk=chunk).maps(*batch)
    torch.testing.assert_close(maps_BHW, expected_BHW, rtol=0, atol=1e-6)
    assert maps_BHW.max() > 1e-4


def test_input_x_gradient_of_a_linear_classifier():
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False))
    images_BCHW = torch.randn(2, 2, 2, 2)
    products_BCHW = images_BCHW * network[1].weight[[2, 0]].reshape(2, 2, 2, 2)
    maps_BHW = registry.get("input-x-gradient")(network).maps(images_BCHW, torch.tensor([2, 0]))
    torch.testing.assert_close(maps_BHW, products_BCHW.abs().amax(dim=1).detach())


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("max-abs", [3, 2]), ("sum-abs", [4, 4]), ("abs-sum", [2, 4]), ("positive-sum", [0, 4])],
)
def test_reductions_by_hand(reduction, expected):
    values_1C12 = torch.tensor([[[[1.0, 2.0]], [[-3.0, 2.0]]]])
    assert _reduced(values_1C12, reduction).tolist() == [[expected]]


def test_draws_are_each_images_own(network, batch):
    images_BCHW, labels_B = batch
    before = torch.get_rng_state()
    together_BHW = Noisy(network, seed=7).maps(images_BCHW, labels_B)
    alone_1HW = Noisy(network, seed=7).maps(images_BCHW[1:2], labels_B[1:2])
    torch.testing.assert_close(alone_1HW, together_BHW[1:2], rtol=0, atol=1e-6)
    assert not torch.equal(Noisy(network, seed=8).maps(images_BCHW, labels_B), together_BHW)
    assert torch.equal(torch.get_rng_state(), before)


def test_perturbations_and_hooks_work_as_well(network, batch):
    with torch.no_grad():
        blocks_BHW = Occluded(network, reduction="positive-sum").maps(*batch)
        assert Guided(network).maps(*batch).max() > 0
    assert torch.equal(
        blocks_BHW[:, ::16, ::16].repeat_interleave(16, 1)[:, :, 0], blocks_BHW[:, :, 0]
    )
    assert not any(module._forward_hooks for module in network.modules())


def test_without_captum_the_pip_command_is_named(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(UsageError, match=r"pip install 'casm-bench\[captum\]'"):
        registry.get("input-x-gradient")(network).check()
