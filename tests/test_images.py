"""Image operations against SciPy, golden values and hand-worked cases."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from casm_bench.errors import WorkError
from casm_bench.images import (
    gaussian_blur,
    image_seeds,
    inpaint,
    masked_in,
    masked_out,
    total_variation,
)

MASK = [[0.0, 0.5, 1.0], [0.25, 0.75, 1.0], [0.0, 0.0, 0.5]]
# The authors' function tv_norm, run on MASK: β, value, gradient.
TV_GOLDEN = [
    (2, 2.0625, [[-1.5, -0.5, 1.0], [0.0, 2.5, 1.5], [-0.5, -2.5, 0.0]]),
    (
        3,
        1.2681843166278226,
        [
            [-1.25778824, -0.41926275, 0.83852549],
            [0.0, 2.44364236, 1.34292706],
            [-0.41926275, -2.52878118, 0.0],
        ],
    ),
]


@pytest.mark.parametrize("sigma", [0.7, 2.0, 5.0])
def test_blur_equals_scipy(sigma):
    images_BCHW = torch.rand(2, 3, 31, 45, dtype=torch.float64)
    expected = gaussian_filter(images_BCHW.numpy(), (0, 0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(gaussian_blur(images_BCHW, sigma), expected, atol=1e-12)


def test_blur_wider_than_the_image_keeps_its_mean_colour():
    images_BCHW = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(gaussian_blur(images_BCHW, 10.0), images_BCHW)


def test_blur_of_zero_changes_nothing():
    images_BCHW = torch.rand(1, 1, 4, 4)
    assert torch.equal(gaussian_blur(images_BCHW, 0), images_BCHW)


def test_blur_commutes_with_normalisation():
    images_BCHW = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    mean, std = torch.rand(1, 3, 1, 1), 0.1 + torch.rand(1, 3, 1, 1)
    normalised_first = gaussian_blur((images_BCHW - mean) / std, 3.0)
    torch.testing.assert_close(normalised_first, (gaussian_blur(images_BCHW, 3.0) - mean) / std)


def test_blur_first_used_without_gradients_still_carries_them_later():
    with torch.inference_mode():
        gaussian_blur(torch.rand(1, 1, 17, 17), 1.3)
    images_BCHW = torch.rand(1, 1, 17, 17, requires_grad=True)
    gaussian_blur(images_BCHW, 1.3).sum().backward()
    assert images_BCHW.grad.sum() == pytest.approx(17 * 17, rel=1e-5)


@pytest.mark.parametrize(("beta", "value", "gradient"), TV_GOLDEN)
def test_total_variation_golden(beta, value, gradient):
    mask_B1HW = torch.tensor(MASK, dtype=torch.float64).view(1, 1, 3, 3).requires_grad_()
    total = total_variation(mask_B1HW, beta)
    total.sum().backward()
    assert total.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(mask_B1HW.grad[0, 0], gradient, atol=1e-7)


def test_total_variation_is_per_image_and_finite_where_flat():
    masks_B1HW = torch.stack([torch.tensor(MASK), torch.full((3, 3), 0.5)])[:, None]
    masks_B1HW.requires_grad_()
    totals_B = total_variation(masks_B1HW, 3.0)
    totals_B.sum().backward()
    assert totals_B.tolist() == pytest.approx([1.2681843, 0.0])
    assert torch.equal(masks_B1HW.grad[1], torch.zeros(1, 3, 3))


def test_masked_in_and_out_by_hand():
    images_BCHW = torch.full((1, 3, 1, 2), 0.8)
    mask_B1HW = torch.tensor([[[[1.0, 0.25]]]])
    assert masked_in(images_BCHW, mask_B1HW)[0, 0, 0].tolist() == pytest.approx([0.8, 0.2])
    grey = masked_out(images_BCHW, mask_B1HW, fill=0.35)
    assert grey[0, 2, 0].tolist() == pytest.approx([0.35, 0.8 * 0.75 + 0.35 * 0.25])


def test_masked_in_and_out_add_up_to_the_image():
    images_BCHW, mask_B1HW = torch.rand(2, 3, 5, 5), torch.rand(2, 1, 5, 5)
    total = masked_in(images_BCHW, mask_B1HW) + masked_out(images_BCHW, mask_B1HW)
    torch.testing.assert_close(total, images_BCHW)


def test_inpaint_fills_the_hole_from_its_rim_and_leaves_the_rest():
    image_HW3 = np.full((20, 20, 3), (10, 120, 230), dtype=np.uint8)
    hole_HW = np.zeros((20, 20), dtype=bool)
    hole_HW[5:9, 6:12] = True
    damaged = np.where(hole_HW[..., None], np.uint8(255), image_HW3)
    filled = inpaint(damaged, hole_HW)
    np.testing.assert_array_equal(filled[~hole_HW], image_HW3[~hole_HW])
    np.testing.assert_allclose(filled[hole_HW], image_HW3[hole_HW], atol=4)  # Telea rounds


@given(order=st.permutations(range(4)), seed=st.integers(-(2**40), 2**40))
def test_image_seeds_follow_the_image_not_its_place(order, seed):
    images_BCHW = torch.linspace(0, 1, 4 * 3 * 6 * 6).view(4, 3, 6, 6)
    seeds = image_seeds(images_BCHW, seed)
    shuffled = images_BCHW[order].contiguous(memory_format=torch.channels_last)
    assert image_seeds(shuffled, seed) == [seeds[i] for i in order]
    assert len(set(seeds)) == 4
    assert not set(seeds) & set(image_seeds(images_BCHW, seed + 1))


def test_image_seeds_fit_a_torch_generator():
    for seed in image_seeds(torch.rand(8, 1, 2, 2), 7):
        torch.Generator().manual_seed(seed)


def test_image_seeds_need_pixels():
    with pytest.raises(WorkError, match="no pixels"):
        image_seeds(torch.empty(2, 3, 8, 8, device="meta"), 0)
