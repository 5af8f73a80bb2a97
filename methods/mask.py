"""Mask: the smallest region whose blurring destroys the classifier's evidence.

Fong & Vedaldi 2017, section 4, with the values of their localization experiment as in their code
(optimize_mask.py, defaults.py). Here, as there, the mask being optimised says what to *keep*; the
saliency map is one minus it.

Shapes: B images, C channels, H rows, W columns, K classes; G the mask's grid, T the classes whose
evidence is destroyed, R radii.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from casm_bench.api import SaliencyMethod, fong_rule, lazy, register
from casm_bench.errors import UsageError
from casm_bench.images import gaussian_blur, image_seeds, masked_in, total_variation
from casm_bench.settings import Amount, Count, Whole, Within

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from casm_bench.backbones.classifier import Classifier

torch = lazy("torch")
F = lazy("torch.nn.functional")
frozen = lazy("casm_bench.backbones.frozen")

CELL = 8  # pixels that one value of the mask covers per side, where `grid` is not given
# The initial disc, in pixels of a 224×224 input; scaled in proportion for other inputs.
RADII = range(0, 175, 5)
DISC_BLUR = 10
ENOUGH = 0.01  # of the fall in score that the largest disc brings about


@register(
    "mask",
    title="Mask",
    family="perturbation",
    paper="Fong & Vedaldi 2017, Interpretable Explanations of Black Boxes by Meaningful "
    "Perturbation (ICCV)",
    summary="Optimises, image by image, a small mask whose blurred region takes away the "
    "probability of the classes predicted first.",
    knows_class=True,  # only in the initial disc
    trained=False,
    cost="300 forward and backward (input only), 36 forward",
    rule=fong_rule("energy", 0.95),
    published="Mask",
    deviations="The mask is blurred in floating point, not as an 8-bit picture. The blurred image "
    "and the jitter are made from the network's input, not from the picture in its original "
    "size. Any classifier, torchvision's googlenet among them, instead of Caffe's GoogLeNet.",
)
@dataclass
class Mask(SaliencyMethod):
    """Minimises, over the mask m of every image (1 = keep, 0 = blur),

        J = Σ_{k∈T} p_k(Φ(m)) + l1 · Σ |m - 1| + tv · Σ (dx² + dy²)^(tv_beta/2)

    where Φ(m) = m·x + (1-m)·blur(x), T are the `top` classes predicted for x, and both penalties
    are sums over the mask's own grid. Images are optimised side by side: the sum of their
    objectives, Adam, which works elementwise, and a classifier in eval mode leave each image's
    course unchanged.
    """

    iterations: Count = 300
    learning_rate: Amount = 0.1
    l1: Amount = 1e-3  # per value of the mask
    tv: Amount = 1e-2  # 0 leaves the term out, as one listing of the authors' runs may say
    tv_beta: Annotated[float, Within(2)] = 2.0  # below 2, no gradient where the mask is constant
    top: Count = 5  # number of predicted classes whose probability is destroyed; not all there are
    grid: Count | None = None  # values of the mask per side; by default one for 8 pixels, 28 of 224
    mask_blur: Amount = 5.0  # sigma in pixels of the blur after enlarging the mask
    null_blur: Amount = 10.0  # sigma in pixels of the blur that hides
    jitter: Whole = 4  # pixels by which the input is enlarged for random crops
    init: Literal["disc", "uniform"] = "disc"  # disc: smallest centred one that hides the class
    blur_gradient: Literal["straight-through", "exact"] = "straight-through"  # of the mask's blur

    def check(self) -> None:
        """Raises UsageError for a classifier of one class, whose probability nothing changes."""
        if self.classifier.model.num_classes < 2:
            raise UsageError(
                "Mask takes away the probability of classes, so it needs at least two."
            )

    @cached_property
    def judge(self) -> Classifier:
        """The classifier, in the form whose gradients by the image cost least."""
        return frozen.frozen_copy(self.classifier)

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        # The weights of a blur add up to one, so blurring normalised pixels is the same as
        # normalising blurred ones.
        null_BCHW = gaussian_blur(images_BCHW, self.null_blur)
        generators = [
            torch.Generator().manual_seed(seed) for seed in image_seeds(images_BCHW, self.seed)
        ]
        with torch.no_grad():
            logits_BK = self.judge(images_BCHW)
            # All of them together always have the probability 1, and there would be no evidence.
            top_BT = logits_BK.topk(min(self.top, logits_BK.shape[1] - 1)).indices
            if self.init == "disc":
                mask_B1GG = self._disc_mask(images_BCHW, null_BCHW, labels_B)
            else:
                mask_B1GG = self._uniform_mask(images_BCHW, generators)
        views = self._jittered(images_BCHW, null_BCHW, generators)
        with torch.enable_grad():
            mask_B1GG = self._optimise(mask_B1GG, views, top_BT)
        keep_B1HW = self._enlarge(mask_B1GG, images_BCHW)
        return (1 - keep_B1HW[:, 0]).clamp(min=0)  # the blur's rounding can exceed 1

    def _optimise(
        self, mask_B1GG: Tensor, views: Iterator[tuple[Tensor, Tensor]], top_BT: Tensor
    ) -> Tensor:
        mask_B1GG.requires_grad_()
        adam = torch.optim.Adam([mask_B1GG], lr=self.learning_rate)
        for images_BCHW, null_BCHW in views:
            objective_B = self._objective(mask_B1GG, images_BCHW, null_BCHW, top_BT)
            # Asked for by name, so that no gradients of the classifier's weights are computed.
            (mask_B1GG.grad,) = torch.autograd.grad(objective_B.sum(), mask_B1GG)
            adam.step()
            mask_B1GG.data.clamp_(0, 1)
        return mask_B1GG.detach()

    def _objective(
        self, mask_B1GG: Tensor, images_BCHW: Tensor, null_BCHW: Tensor, top_BT: Tensor
    ) -> Tensor:
        keep_B1HW = self._enlarge(mask_B1GG, images_BCHW)
        perturbed_BCHW = masked_in(images_BCHW, keep_B1HW, fill=null_BCHW)
        probabilities_BK = self.judge(perturbed_BCHW).softmax(dim=1)
        evidence_B = probabilities_BK.gather(1, top_BT).sum(dim=1)
        area_B = (mask_B1GG - 1).abs().sum(dim=(1, 2, 3))
        return evidence_B + self.l1 * area_B + self.tv * total_variation(mask_B1GG, self.tv_beta)

    def _enlarge(self, mask_B1GG: Tensor, images_BCHW: Tensor) -> Tensor:
        """The mask at the images' resolution: blocks, then blurred."""
        blocks_B1HW = F.interpolate(mask_B1GG, size=images_BCHW.shape[-2:], mode="nearest")
        if self.blur_gradient == "exact":
            return gaussian_blur(blocks_B1HW, self.mask_blur)
        # The authors' gradient passes the blur by: blurred in value, unblurred in derivative.
        sharp_B1HW = blocks_B1HW.detach()
        return blocks_B1HW + (gaussian_blur(sharp_B1HW, self.mask_blur) - sharp_B1HW)

    def _jittered(
        self, images_BCHW: Tensor, null_BCHW: Tensor, generators: list[Generator]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each iteration, the image and its blur, cut out at the same random place."""
        size = images_BCHW.shape[-1]
        wide_BCHW, wide_null_BCHW = (
            F.interpolate(pixels, size=size + self.jitter, mode="bilinear", align_corners=False)
            for pixels in (images_BCHW, null_BCHW)
        )
        places = max(self.jitter, 1)
        offsets_BI2 = torch.stack(
            [torch.randint(places, (self.iterations, 2), generator=g) for g in generators]
        ).to(images_BCHW.device)
        for offsets_B2 in offsets_BI2.unbind(dim=1):
            yield _crop(wide_BCHW, offsets_B2, size), _crop(wide_null_BCHW, offsets_B2, size)

    def _uniform_mask(self, images_BCHW: Tensor, generators: list[Generator]) -> Tensor:
        grid = self._grid(images_BCHW)
        masks = [torch.rand(1, grid, grid, generator=generator) for generator in generators]
        return torch.stack(masks).to(images_BCHW)

    def _disc_mask(self, images_BCHW: Tensor, null_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """All but the smallest centred disc whose blurring takes the labelled class's score down
        to within 1 % of where the largest disc brings it."""
        keep_R1HW = _all_but_discs(images_BCHW)
        scores = []
        for keep_1HW in keep_R1HW:
            logits_BK = self.judge(masked_in(images_BCHW, keep_1HW, fill=null_BCHW))
            scores.append(logits_BK.softmax(dim=1).gather(1, labels_B[:, None])[:, 0])
        scores_RB = torch.stack(scores)
        fall_B = scores_RB[0] - scores_RB[-1]
        enough_RB = scores_RB - scores_RB[-1] < ENOUGH * fall_B
        enough_RB[-1] = True
        smallest_B = enough_RB.int().argmax(dim=0)  # the first of equal maxima
        grid = self._grid(images_BCHW)
        return F.interpolate(keep_R1HW[smallest_B], size=(grid, grid), mode="nearest-exact")

    def _grid(self, images_BCHW: Tensor) -> int:
        return self.grid or images_BCHW.shape[-1] // CELL


def _all_but_discs(images_BCHW: Tensor) -> Tensor:
    """keep_R1HW, for each radius zero in a centred disc with a smooth rim; radius 0 is no disc."""
    size = images_BCHW.shape[-1]
    scale = size / 224
    from_centre_S = torch.arange(size).to(images_BCHW) - (size - 1) / 2
    distance_SS = torch.hypot(from_centre_S[:, None], from_centre_S)
    radii_R = torch.tensor(RADII).to(images_BCHW) * scale
    discs_R1SS = (distance_SS < radii_R[:, None, None, None]).to(images_BCHW.dtype)
    return 1 - gaussian_blur(discs_R1SS, DISC_BLUR * scale)


def _crop(images_BCHW: Tensor, offsets_B2: Tensor, size: int) -> Tensor:
    """Of each image the size×size pixels below and right of its own offset (row, column).

    Indexing puts the channels last in memory, the layout in which convolutions are fastest.
    """
    steps_S = torch.arange(size, device=images_BCHW.device)
    batch_B11 = torch.arange(len(images_BCHW), device=images_BCHW.device)[:, None, None]
    rows_BS1 = offsets_B2[:, 0, None, None] + steps_S[:, None]
    columns_B1S = offsets_B2[:, 1, None, None] + steps_S
    return images_BCHW[batch_B11, :, rows_BS1, columns_B1S].permute(0, 3, 1, 2)
