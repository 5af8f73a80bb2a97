"""Mask: its gradient by hand, its crops and initial disc by the slow way, and what it finds."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from casm_bench import registry
from casm_bench.backbones.classifier import build_classifier
from casm_bench.errors import UsageError
from casm_bench.images import gaussian_blur, total_variation
from casm_bench.settings import check_fields

SIZE = 64
PATCH = (slice(8, 24), slice(36, 52))  # rows, columns of the evidence, away from the middle


class PatchClassifier(nn.Module):
    """Class y is likely when its own fine chequered texture is seen in PATCH; class 0 otherwise."""

    def __init__(self, classes=3):
        super().__init__()
        rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        texture = ((rows // 2 + columns // 2) % 2 * 2 - 1).double()
        template_KHW = torch.zeros(classes, SIZE, SIZE, dtype=torch.float64)
        template_KHW[1][PATCH], template_KHW[2][PATCH] = texture[PATCH], -texture[PATCH]
        self.texture_HW = texture
        self.template_KHW = nn.Parameter(template_KHW)

    def forward(self, images_BCHW):
        seen_BK = torch.einsum("bchw,khw->bk", images_BCHW, self.template_KHW) / 64
        return seen_BK + torch.tensor([4.0, 0.0, 0.0], dtype=torch.float64)


def make(**options):
    return registry.get("mask")(PatchClassifier(), **({"jitter": 0, "top": 1} | options))


def textured_images(count, seed=0):
    """Images with class 1's texture everywhere, each with its own noise."""
    noise = torch.randn(
        count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return PatchClassifier().texture_HW + 0.3 * noise


LABELS_B = torch.ones(3, dtype=torch.int64)


def test_it_hides_the_evidence_and_little_else():
    # The published weight of the variation smooths over six cells, most of this small grid.
    map_HW = make(tv=1e-3).maps(textured_images(1), LABELS_B[:1])[0]
    elsewhere_HW = torch.ones(SIZE, SIZE, dtype=torch.bool)
    elsewhere_HW[:40, 20:] = False
    assert map_HW.shape == (SIZE, SIZE)
    assert map_HW[PATCH].mean() > 0.4
    assert map_HW[elsewhere_HW].mean() < 0.05


def test_blurring_what_it_marks_takes_the_class_away():
    method, images_BCHW = make(), textured_images(1)
    keep_B1HW = 1 - method.maps(images_BCHW, LABELS_B[:1])[:, None]
    perturbed = images_BCHW * keep_B1HW + gaussian_blur(images_BCHW, 10) * (1 - keep_B1HW)
    before, after = (
        method.classifier(pixels).softmax(dim=1)[0, 1] for pixels in (images_BCHW, perturbed)
    )
    assert before > 0.9
    assert after < 0.2


def test_neighbours_in_the_batch_change_nothing():
    images_BCHW, labels_B = textured_images(3), torch.tensor([1, 0, 2])
    method = make(iterations=40, jitter=4, init="uniform")
    together = method.maps(images_BCHW, labels_B)
    for i in range(3):
        alone = method.maps(images_BCHW[i : i + 1], labels_B[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-9)
    backwards = method.maps(images_BCHW.flip(0), labels_B.flip(0))
    torch.testing.assert_close(backwards.flip(0), together, rtol=0, atol=1e-9)


def test_seed_decides_start_and_jitter():
    images_BCHW = textured_images(1)
    first, again, other = (
        make(iterations=2, init="uniform", seed=seed).maps(images_BCHW, LABELS_B[:1])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


def objective_and_gradient(method, mask_B1GG, images_BCHW, null_BCHW, top_BT):
    mask_B1GG = mask_B1GG.clone().requires_grad_()
    objective_B = method._objective(mask_B1GG, images_BCHW, null_BCHW, top_BT)
    return objective_B, *torch.autograd.grad(objective_B.sum(), mask_B1GG)


def gradient_by_hand(method, mask_B1GG, images_BCHW, null_BCHW, top_BT):
    """The authors' recipe: the pixels' gradient summed over channels and over each block."""
    blocks = mask_B1GG.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    keep_B1HW = gaussian_blur(blocks, method.mask_blur)
    pixels = (images_BCHW * keep_B1HW + null_BCHW * (1 - keep_B1HW)).requires_grad_()
    evidence = method.classifier(pixels).softmax(dim=1).gather(1, top_BT).sum()
    (by_pixel,) = torch.autograd.grad(evidence, pixels)
    by_keep = (by_pixel * (images_BCHW - null_BCHW)).sum(dim=1)
    grid = SIZE // 8
    by_block = by_keep.view(-1, grid, 8, grid, 8).sum(dim=(2, 4))[:, None]
    variation = mask_B1GG.clone().requires_grad_()
    (tv_gradient,) = torch.autograd.grad(
        total_variation(variation, method.tv_beta).sum(), variation
    )
    return by_block + method.l1 * torch.sign(mask_B1GG - 1) + method.tv * tv_gradient


def test_gradient_passes_the_blur_by():
    images_BCHW, top_BT = textured_images(2), torch.tensor([[1, 0], [2, 1]])
    null_BCHW = gaussian_blur(images_BCHW, 10)
    mask_B1GG = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    inputs = (mask_B1GG, images_BCHW, null_BCHW, top_BT)
    _, gradient = objective_and_gradient(make(), *inputs)
    torch.testing.assert_close(gradient, gradient_by_hand(make(), *inputs))


def test_exact_gradient_is_that_of_the_objective():
    images_BCHW, top_BT = textured_images(1), torch.tensor([[1]])
    null_BCHW = gaussian_blur(images_BCHW, 10)
    mask_B1GG = 0.1 + 0.8 * torch.rand(1, 1, 8, 8, dtype=torch.float64)
    inputs = (images_BCHW, null_BCHW, top_BT)
    method = make(blur_gradient="exact")
    _, exact = objective_and_gradient(method, mask_B1GG, *inputs)
    _, past_blur = objective_and_gradient(make(), mask_B1GG, *inputs)
    step = torch.randn_like(mask_B1GG) * 1e-5
    rise = method._objective(mask_B1GG + step, *inputs) - method._objective(
        mask_B1GG - step, *inputs
    )
    assert rise.item() == pytest.approx(2 * (exact * step).sum().item(), rel=1e-4)
    assert (exact - past_blur).abs().max() > 1e-4


def test_objective_by_hand():
    class Even(nn.Module):
        def forward(self, images_BCHW):
            return torch.zeros(len(images_BCHW), 10, dtype=images_BCHW.dtype)

    method = registry.get("mask")(Even(), l1=0.5, tv=2.0)
    images_BCHW = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    mask_B1GG = torch.tensor([[[[1.0, 0.5], [1.0, 1.0]]]], dtype=torch.float64)
    top_BT = torch.arange(5)[None]
    objective_B = method._objective(mask_B1GG, images_BCHW, images_BCHW, top_BT)
    variation = 0.25 + 0.25  # the step right of the first value, the step below the second
    assert objective_B.item() == pytest.approx(5 / 10 + 0.5 * 0.5 + 2.0 * variation)


def test_crops_of_image_and_blur_share_their_place():
    method = make(jitter=4, iterations=100)
    images_BCHW = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    wide = nn.functional.interpolate(images_BCHW, size=SIZE + 4, mode="bilinear")
    places = set()
    for crop_BCHW, double_BCHW in method._jittered(images_BCHW, 2 * images_BCHW, generators):
        torch.testing.assert_close(double_BCHW, 2 * crop_BCHW)
        assert crop_BCHW.is_contiguous(memory_format=torch.channels_last)
        for image_CHW, crop_CHW in zip(wide, crop_BCHW, strict=True):
            places.add(place_of(crop_CHW, image_CHW))
    assert places == {(row, column) for row in range(4) for column in range(4)}


def place_of(crop_CHW, image_CHW):
    (place,) = [
        (row, column)
        for row in range(5)
        for column in range(5)
        if torch.equal(image_CHW[:, row : row + SIZE, column : column + SIZE], crop_CHW)
    ]
    return place


def test_initial_disc_is_the_smallest_that_suffices():
    method, images_BCHW = make(), textured_images(2)
    images_BCHW[1] = 0.0  # nothing to hide: no disc changes the score, so the largest is taken
    null_BCHW = gaussian_blur(images_BCHW, 10)
    with torch.no_grad():
        mask_B1GG = method._disc_mask(images_BCHW, null_BCHW, LABELS_B[:2])
    expected = smallest_sufficient_disc(method.classifier, images_BCHW[0], null_BCHW[0], label=1)
    np.testing.assert_allclose(mask_B1GG[0, 0], expected, atol=1e-9)
    assert 0.1 < mask_B1GG[0].mean() < 0.9
    assert mask_B1GG[1].mean() < 0.03


def smallest_sufficient_disc(classifier, image_CHW, null_CHW, label):
    middle, scale = (SIZE - 1) / 2, SIZE / 224
    ys, xs = np.mgrid[:SIZE, :SIZE]
    scores, keeps = [], []
    for radius in range(0, 171, 5):
        disc = np.hypot(ys - middle, xs - middle) < radius * scale
        disc = gaussian_blur(torch.from_numpy(disc).double()[None, None], 10 * scale)[0, 0]
        perturbed = image_CHW * (1 - disc) + null_CHW * disc
        scores.append(classifier(perturbed[None]).softmax(dim=1)[0, label].item())
        keeps.append(1 - disc)
    limit = scores[-1] + 0.01 * (scores[0] - scores[-1])
    first = next(i for i, score in enumerate(scores) if score < limit)
    return keeps[first][4::8, 4::8].numpy()


def test_top_leaves_out_one_class_at_least():
    """All classes together are certain whatever is hidden: nothing would be worth hiding."""
    images_BCHW, labels_B = textured_images(1), LABELS_B[:1]
    map_1HW = make(top=5, iterations=20).maps(images_BCHW, labels_B)
    torch.testing.assert_close(map_1HW, make(top=2, iterations=20).maps(images_BCHW, labels_B))
    assert map_1HW.max() > 0.1


def test_one_class_alone_is_refused():
    with pytest.raises(UsageError, match="at least two"):
        registry.get("mask")(build_classifier("test_resnet", 1)).check()


@pytest.mark.parametrize(("beta", "fits"), [(1.0, False), (2, True), (3.0, True)])
def test_only_a_total_variation_with_a_gradient_is_taken(beta, fits):
    """Below 2 its gradient is not a number wherever the mask is constant, so from the start."""
    refused = contextlib.nullcontext() if fits else pytest.raises(UsageError, match="at least 2")
    with refused:
        check_fields("mask", registry.get("mask"), {"tv_beta": beta})


def test_published_settings_are_the_default():
    method = registry.get("mask")(None)
    assert (method.iterations, method.learning_rate, method.jitter) == (300, 0.1, 4)
    assert (method.l1, method.tv, method.tv_beta, method.top) == (1e-3, 1e-2, 2.0, 5)
    assert (method.mask_blur, method.null_blur, method.init) == (5.0, 10.0, "disc")
    assert method._grid(torch.empty(1, 3, 224, 224, device="meta")) == 28


def test_the_mask_stays_within_zero_and_one():
    """One step of Adam at this rate would take it from a half to about ten or minus ten."""
    method, images_BCHW = make(learning_rate=10.0, iterations=2, init="uniform"), textured_images(1)
    views = [(images_BCHW, gaussian_blur(images_BCHW, 10))] * 2
    for start in (0.0, 0.5, 1.0):
        mask_B1GG = torch.full((1, 1, 8, 8), start, dtype=torch.float64)
        found = method._optimise(mask_B1GG, iter(views), torch.tensor([[1]]))
        assert found.min() >= 0
        assert found.max() <= 1
        assert not found.requires_grad


def test_two_classes_are_enough():
    registry.get("mask")(build_classifier("test_resnet", 2)).check()
