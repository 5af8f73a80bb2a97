"""Extremal perturbation: its parts by hand and against TorchRay, and an image with a known answer.

TorchRay is compared where it is installed. Its course and ours part after a few iterations, for
where mask values are equal the order in which they are sorted decides, and that is arbitrary.
"""

import math

import pytest
import torch
from torch import nn

from casm_bench import registry
from casm_bench.methods._smooth_masks import SmoothMasks, _SmoothMaxima
from casm_bench.methods.extremal_perturbation import _blurred, _perturbed

SIZE = 24
PATCH = (slice(4, 13), slice(9, 18))  # rows, columns


class Patch(nn.Module):
    """Class 1's logit is the mean of PATCH, or what of it the mirrored image shows."""

    def __init__(self, strength=30.0):
        super().__init__()
        self.strength = strength

    def forward(self, images_BCHW):
        both_BCHW = torch.maximum(images_BCHW, images_BCHW.flip(-1))
        seen_B = both_BCHW[..., *PATCH].mean(dim=(1, 2, 3)) * self.strength
        return torch.stack([torch.zeros_like(seen_B), seen_B], dim=1)


def make(classifier=None, **options):
    small = {"step": 3, "sigma": 5.0, "blur": 4.0}
    return registry.get("extremal-perturbation")(classifier, **small | options)


def images(count=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 1 + 0.1 * torch.randn(count, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


def slow_mask(cells_hw, size, step, sigma):
    """Every pixel beside every cell around it; cells beyond the grid are 0."""
    radius, padding = 1 + math.ceil(sigma / step), 1 + math.ceil(2 * sigma / step)
    mask = torch.zeros(size, size, dtype=torch.float64)
    for y in range(size):
        for x in range(size):
            row, column = y + round(sigma), x + round(sigma)  # counted from the margin's corner
            values = []
            for i in range(2 * radius + 1):
                for j in range(2 * radius + 1):
                    cell_y, cell_x = row // step + i - padding, column // step + j - padding
                    apart = math.hypot(row - sigma - step * cell_y, column - sigma - step * cell_x)
                    bump = math.exp(-2 * max(0, apart / sigma - 0.5) ** 2)
                    inside = 0 <= cell_y < len(cells_hw) and 0 <= cell_x < len(cells_hw)
                    values.append(bump * cells_hw[cell_y, cell_x].item() if inside else 0.0)
            weights = [math.exp(20 * value) for value in values]
            total = sum(value * weight for value, weight in zip(values, weights, strict=True))
            mask[y, x] = total / sum(weights)
    return mask


@pytest.mark.parametrize("step", [1, 3, 4, 7, 30])
@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0, 6.0, 11.0])
def test_masks_cover_their_images(step, sigma):
    masks = SmoothMasks(torch.empty(1, 1, 12, 16), step, sigma)
    shown_1HW, _ = masks(torch.ones(1, *masks.cells))
    assert shown_1HW.shape == (1, 12, 16)


@pytest.mark.parametrize(("step", "sigma"), [(3, 5.0), (4, 4.0), (4, 6.0), (4, 2.0)])
def test_masks_are_smooth_maxima_of_cells(step, sigma):
    masks = SmoothMasks(torch.empty(1, 1, 12, 12, dtype=torch.float64), step, sigma)
    generator = torch.Generator().manual_seed(0)
    cells_2hw = torch.rand(2, *masks.cells, generator=generator, dtype=torch.float64)
    shown_2HW, whole_2HW = masks(cells_2hw)
    first = round(sigma)
    assert torch.equal(whole_2HW[:, first : first + 12, first : first + 12], shown_2HW)
    for cells_hw, shown_HW in zip(cells_2hw, shown_2HW, strict=True):
        torch.testing.assert_close(shown_HW, slow_mask(cells_hw, 12, step, sigma))


def test_a_single_cell_makes_a_round_bump():
    masks = SmoothMasks(torch.empty(1, 1, 25, 25, dtype=torch.float64), 5, 6.0)
    cells_1hw = torch.zeros(1, 5, 5, dtype=torch.float64)
    cells_1hw[0, 2, 2] = 1
    shown_HW = masks(cells_1hw)[0][0]
    torch.testing.assert_close(shown_HW, shown_HW.T)
    # The cell is at pixel 10; its bump is flat to a distance of half a sigma.
    torch.testing.assert_close(shown_HW[10, 7:14], shown_HW[10, 10].expand(7))
    assert shown_HW[10, 10] > 0.9
    assert shown_HW[10, 22] < 0.01


def test_the_gradient_of_smooth_maxima():
    generator = torch.Generator().manual_seed(0)
    around_MQN, bumps_PN = (
        torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 4), (5, 4))
    )
    assert torch.autograd.gradcheck(_SmoothMaxima.apply, (around_MQN.requires_grad_(), bumps_PN))


def test_excess_by_hand():
    method = make(areas=(0.5, 0.25))
    mask_HW = torch.tensor([[1.0, 0.0], [0.2, 1.0]])
    excess_BA = method._excess(mask_HW.expand(1, 2, 2, 2))
    # Sorted (0, 0.2, 1, 1), wanted (0, 0, 1, 1) and (0, 0, 0, 1).
    torch.testing.assert_close(excess_BA, torch.tensor([[0.04 / 4, 1.04 / 4]]))


def test_levels_are_interpolated():
    pyramid_BLCHW = torch.tensor([0.0, 10.0, 40.0]).reshape(1, 3, 1, 1, 1)
    masks_BAHW = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0]).reshape(1, 5, 1, 1)
    seen = _perturbed(pyramid_BLCHW, masks_BAHW).flatten().tolist()
    assert seen == pytest.approx([0, 5, 10, 34, 40])


def test_the_last_level_is_the_image():
    image_1CHW = images()
    for perturbation in ("blur", "fade"):
        pyramid_BLCHW = make(perturbation=perturbation)._pyramid(image_1CHW)
        assert pyramid_BLCHW.shape == (1, 8, 3, SIZE, SIZE)
        torch.testing.assert_close(pyramid_BLCHW[:, -1], image_1CHW, rtol=0, atol=0)
    assert pyramid_BLCHW[:, 0].abs().max() == 0  # faded
    torch.testing.assert_close(pyramid_BLCHW[:, 3], image_1CHW * 3 / 7)


def test_blurs_fall_off_at_the_border():
    blurred_HW = _blurred(torch.ones(1, 1, 40, 40, dtype=torch.float64), 2.0)[0, 0]
    assert blurred_HW[20, 20].item() == pytest.approx(1)
    edge = blurred_HW[0, 20].item()
    assert 0.5 < edge < 0.65
    assert blurred_HW[0, 0].item() == pytest.approx(edge**2)


@pytest.mark.parametrize("perturbation", ["blur", "fade"])
def test_the_mask_goes_where_the_evidence_is(perturbation):
    """81 of 576 pixels are evidence, symmetric so that mirroring changes nothing."""
    area = 81 / SIZE**2
    image_1CHW = torch.ones(1, 3, SIZE, SIZE, dtype=torch.float64)
    image_1CHW[..., *PATCH] = 3.0
    method = make(
        Patch(),
        areas=(area,),
        iterations=60,
        learning_rate=0.1,
        growth=1.04,
        smooth=0.0,
        perturbation=perturbation,
    )
    map_HW = method.maps(image_1CHW, torch.tensor([1]))[0]
    inside_HW = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inside_HW[PATCH] = True
    inside_HW |= inside_HW.flip(-1)
    assert map_HW[PATCH].mean() > 0.6
    assert map_HW[~inside_HW].mean() < 0.25


def test_areas_are_kept():
    areas = (0.1, 0.4)
    method = make(Patch(1.0), areas=areas, iterations=60, learning_rate=0.1, growth=1.04)
    image_1CHW = images()
    whole = method._optimised(method._pyramid(image_1CHW), torch.tensor([1]))
    # Areas are counted with the margin, of which the image is 24² of about 36² pixels.
    assert whole[0, 0].mean() < 0.3
    assert whole[0, 1].mean() > 0.5


def test_neighbours_in_the_batch_change_nothing():
    images_BCHW, labels_B = images(3), torch.tensor([1, 0, 1])
    method = make(Patch(), iterations=15, areas=(0.1, 0.3))
    together_BHW = method.maps(images_BCHW, labels_B)
    for i in range(3):
        alone_BHW = method.maps(images_BCHW[i : i + 1], labels_B[i : i + 1])
        torch.testing.assert_close(together_BHW[i : i + 1], alone_BHW, rtol=0, atol=1e-9)
    assert (together_BHW[0] - together_BHW[2]).abs().max() > 1e-5


def test_published_settings_are_the_default():
    method = registry.get("extremal-perturbation")(None)
    assert (method.iterations, method.learning_rate, method.momentum) == (800, 0.01, 0.9)
    assert (method.step, method.sigma, method.area_weight) == (7, 21, 300)
    assert (method.areas, method.smooth) == ((0.025, 0.05, 0.1, 0.2), 0.09)


torchray_warns = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def torchray():
    return pytest.importorskip("torchray.attribution.extremal_perturbation")


@torchray_warns
def test_masks_equal_those_of_torchray():
    masks = SmoothMasks(torch.empty(1, 1, 64, 64), 4, 8.0)
    cells_M1hw = torch.rand(3, 1, *masks.cells, generator=torch.Generator().manual_seed(0))
    shown_MHW, whole_MHW = masks(cells_M1hw[:, 0])
    expected, expected_whole = torchray().MaskGenerator((64, 64), 4, 8).generate(cells_M1hw)
    torch.testing.assert_close(shown_MHW, expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(whole_MHW, expected_whole[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("perturbation", "levels"), [("blur", 2), ("fade", 8)])
def test_perturbed_images_equal_those_of_torchray(perturbation, levels):
    """With two levels of blur: TorchRay cuts Gaussians off at four sigma, rounded up."""
    method = make(perturbation=perturbation, levels=levels)
    image_1CHW = images().float()
    mask_1HW = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    theirs = torchray().Perturbation(image_1CHW, levels, max_blur=4, type=perturbation)
    seen_1CHW = _perturbed(method._pyramid(image_1CHW), mask_1HW[None])[0]
    torch.testing.assert_close(seen_1CHW, theirs.apply(mask_1HW[None]), rtol=0, atol=1e-5)


@torchray_warns
def test_the_first_step_equals_that_of_torchray():
    """Values after one step, from before equal values could be sorted in another order."""
    method = make(Patch(), iterations=1, perturbation="fade", areas=(0.1, 0.3))
    image_1CHW = images().float()
    masks_BAHW = method._optimised(method._pyramid(image_1CHW), torch.tensor([1]))
    expected, _ = torchray().extremal_perturbation(
        Patch(), image_1CHW, 1, areas=[0.1, 0.3], perturbation="fade", max_iter=1, step=3, sigma=5
    )
    torch.testing.assert_close(masks_BAHW[0], expected[:, 0], rtol=0, atol=1e-5)


@torchray_warns
def test_it_gets_as_far_as_torchray():
    """Reward and areas at the end of the same number of iterations."""
    method = make(Patch(), iterations=60, perturbation="fade", areas=(0.1, 0.3))
    image_1CHW = images().float()
    masks_AHW = method._optimised(method._pyramid(image_1CHW), torch.tensor([1]))[0]
    theirs_A1HW, _ = torchray().extremal_perturbation(
        Patch(), image_1CHW, 1, areas=[0.1, 0.3], perturbation="fade", max_iter=60, step=3, sigma=5
    )
    for mask_HW, their_HW in zip(masks_AHW, theirs_A1HW[:, 0], strict=True):
        assert mask_HW.mean().item() == pytest.approx(their_HW.mean().item(), abs=0.01)
        assert mask_HW[PATCH].mean().item() == pytest.approx(
            their_HW[PATCH].mean().item(), abs=0.02
        )
