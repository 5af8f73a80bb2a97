"""SmoothGrad on classifiers whose mean gradient over noise is known."""

import pytest
import torch
from torch import nn

from casm_bench import registry


class Elementwise(nn.Module):
    """Logit y is the sum of y · function(pixel)."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images_BCHW):
        sums_B = self.function(images_BCHW).sum(dim=(1, 2, 3))
        return sums_B[:, None] * torch.arange(4)


def make(function, **options):
    return registry.get("smoothgrad")(Elementwise(function), **options)


def test_noise_changes_nothing_where_the_gradient_is_constant():
    maps_BHW = make(lambda x: 3 * x, samples=2).maps(torch.rand(2, 3, 4, 4), torch.tensor([1, 2]))
    torch.testing.assert_close(maps_BHW, torch.tensor([3.0, 6.0])[:, None, None].expand(2, 4, 4))


def test_opposite_signs_cancel():
    """The derivative of |x| at 0 plus noise is 1 or -1, each half the time."""
    image_1CHW = torch.zeros(1, 1, 20, 20)
    image_1CHW[..., 0, :2] = torch.tensor([5.0, -5.0])  # far from the kink, and gives the range
    map_HW = make(torch.abs, samples=100).maps(image_1CHW, torch.tensor([1]))[0]
    assert map_HW[0, :2].tolist() == [1.0, 1.0]
    assert map_HW[1:].mean().item() == pytest.approx((2 / torch.pi / 100) ** 0.5, rel=0.1)


@pytest.mark.parametrize(("noise", "samples", "chunk"), [(0.15, 25, 16), (0.4, 9, 2)])
def test_noise_is_a_share_of_the_range_of_values(noise, samples, chunk):
    """The gradient of x²/2 is x, so that the mean gradient is off by the mean noise."""
    image_1CHW = torch.full((1, 1, 60, 60), 50.0)
    image_1CHW[0, 0, 0, :2] = torch.tensor([48.0, 52.0])
    method = make(lambda x: x**2 / 2, noise=noise, samples=samples, chunk=chunk)
    off_HW = method.maps(image_1CHW, torch.tensor([1]))[0] - image_1CHW[0, 0]
    assert off_HW.std().item() == pytest.approx(4 * noise / samples**0.5, rel=0.05)
    assert off_HW.mean().abs() < 4 * noise / samples**0.5 / 12


def test_published_settings_are_the_default():
    method = make(torch.abs)
    assert method.samples == 50
    assert 0.1 <= method.noise <= 0.2
