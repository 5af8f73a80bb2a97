"""Extremal perturbations: of all smooth masks of a given area, the one that serves the class best.

Fong, Patrick & Vedaldi 2019, with the values of their code (TorchRay) for the pointing game.

Shapes: B images, A areas, C channels, H rows, W columns, K classes, L levels of blur. A mask is
made of h×w cells. All masks M of all images are optimised side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal

from casm_bench.api import SaliencyMethod, lazy, register
from casm_bench.images import gaussian_blur
from casm_bench.settings import Amount, Count, Fraction, Positive, Share, Within

if TYPE_CHECKING:
    from torch import Tensor

    from casm_bench.backbones.classifier import Classifier

torch = lazy("torch")
F = lazy("torch.nn.functional")
frozen = lazy("casm_bench.backbones.frozen")
smooth_masks = lazy("casm_bench.methods._smooth_masks")


@register(
    "extremal-perturbation",
    title="Extremal perturbation",
    family="perturbation",
    paper="Fong, Patrick & Vedaldi 2019, Understanding Deep Networks via Extremal Perturbations "
    "and Smooth Masks (ICCV)",
    summary="Optimises, image by image, smooth masks of four fixed areas under which the class's "
    "logit stays largest, and adds them up.",
    knows_class=True,
    trained=False,
    cost="3,200 forward, 3,200 backward (input only)",
    scale_free=True,
    deviations="The paper scores points, not boxes; CASM's rule is used. Areas and smoothing are "
    "those of the authors' pointing game on VOC.",
)
@dataclass
class ExtremalPerturbation(SaliencyMethod):
    """saliency = Σ_a m_a, blurred, where for each area a the mask m_a maximises

        z_y(m ⊗ x) - weight · mean (sorted(m) - r_a)²

    z_y is the logit, m ⊗ x blurs the image the more, the smaller m (section 3.2), and r_a is a
    share 1 - a of zeros, then ones, to which the sorted mask is drawn (equation 4), more strongly
    with each iteration. In every other iteration the image is mirrored.
    """

    areas: tuple[Share, ...] = (0.025, 0.05, 0.1, 0.2)  # shares of the image
    iterations: Count = 800
    learning_rate: Amount = 0.01
    momentum: Fraction = 0.9
    area_weight: Amount = 300.0
    growth: Positive = 1.0035  # of the area's weight, per iteration
    step: Count = 7  # pixels between the cells of a mask
    sigma: Positive = 21.0  # pixels: width of what a single cell covers
    perturbation: Literal["blur", "fade"] = "blur"  # fade: to the mean colour
    levels: Annotated[int, Within(2)] = 8  # of the perturbation; between them it is interpolated
    blur: Amount = 20.0  # sigma in pixels of the strongest blur
    smooth: Amount = 0.09  # sigma of the final blur, as a share of the image's side

    @cached_property
    def judge(self) -> Classifier:
        """The classifier, in the form whose gradients by the image cost least."""
        return frozen.frozen_copy(self.classifier)

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        with torch.no_grad():
            pyramid_BLCHW = self._pyramid(images_BCHW)
        with torch.enable_grad():
            masks_BAHW = self._optimised(pyramid_BLCHW, labels_B)
        saliency_B1HW = masks_BAHW.mean(dim=1, keepdim=True)
        blurred_B1HW = _blurred(saliency_B1HW, self.smooth * min(saliency_B1HW.shape[-2:]))
        return blurred_B1HW[:, 0].clamp(min=0)

    def _optimised(self, pyramid_BLCHW: Tensor, labels_B: Tensor) -> Tensor:
        masks = smooth_masks.SmoothMasks(pyramid_BLCHW, self.step, self.sigma)
        shape_BA = (len(labels_B), len(self.areas))
        cells_Mhw = pyramid_BLCHW.new_ones(len(labels_B) * len(self.areas), *masks.cells)
        cells_Mhw.requires_grad_()
        # The first step is not dampened, in torch as in the authors' runs.
        sgd = torch.optim.SGD(
            [cells_Mhw], lr=self.learning_rate, momentum=self.momentum, dampening=self.momentum
        )
        weight = self.area_weight
        for iteration in range(self.iterations):
            shown_MHW, whole_MHW = masks(cells_Mhw)
            masks_BAHW = shown_MHW.unflatten(0, shape_BA)
            reward_BA = self._reward(pyramid_BLCHW, masks_BAHW, labels_B, iteration % 2 == 0)
            excess_BA = self._excess(whole_MHW.unflatten(0, shape_BA))
            energy = (reward_BA - weight * excess_BA).sum()
            (cells_Mhw.grad,) = torch.autograd.grad(-energy, cells_Mhw)
            sgd.step()
            cells_Mhw.data.clamp_(0, 1)
            weight *= self.growth
        return masks_BAHW.detach()

    def _reward(
        self, pyramid_BLCHW: Tensor, masks_BAHW: Tensor, labels_B: Tensor, mirrored: bool
    ) -> Tensor:
        """The class's logit under each mask, shape B×A."""
        seen_NCHW = _perturbed(pyramid_BLCHW, masks_BAHW).flatten(0, 1)
        if mirrored:
            seen_NCHW = seen_NCHW.flip(-1)
        seen_NCHW = seen_NCHW.contiguous(memory_format=torch.channels_last)
        labels_N1 = labels_B.repeat_interleave(len(self.areas))[:, None]
        return self.judge(seen_NCHW).gather(1, labels_N1).view(masks_BAHW.shape[:2])

    def _excess(self, whole_BAHW: Tensor) -> Tensor:
        """How far each sorted mask is from zeros, then ones in its area's proportion, B×A."""
        sorted_BAM = whole_BAHW.flatten(2).sort(dim=2, stable=True).values
        device, count = sorted_BAM.device, sorted_BAM.shape[2]
        zeros_A = torch.tensor([int(count * (1 - area)) for area in self.areas], device=device)
        wanted_AM = torch.arange(count, device=device) >= zeros_A[:, None]
        return (sorted_BAM - wanted_AM.to(sorted_BAM.dtype)).square().mean(dim=2)

    def _pyramid(self, images_BCHW: Tensor) -> Tensor:
        """The images from most to not at all perturbed, in `levels` even steps, B×L×C×H×W."""
        shares = [level / (self.levels - 1) for level in range(self.levels)]
        if self.perturbation == "fade":
            return torch.stack([images_BCHW * share for share in shares], dim=1)
        blurs = [_blurred(images_BCHW, (1 - share) * self.blur) for share in shares]
        return torch.stack(blurs, dim=1)


def _perturbed(pyramid_BLCHW: Tensor, masks_BAHW: Tensor) -> Tensor:
    """Each image under each mask, B×A×C×H×W: where the mask is 0 the pyramid's first level."""
    last = pyramid_BLCHW.shape[1] - 1
    level_BA1HW = masks_BAHW[:, :, None] * last
    below_BA1HW = level_BA1HW.detach().floor()
    channels = (-1, -1, pyramid_BLCHW.shape[2], -1, -1)

    def pixels_at(level_BA1HW: Tensor) -> Tensor:
        index_BACHW = level_BA1HW.long().clamp(max=last).expand(channels)
        return pyramid_BLCHW.gather(1, index_BACHW)

    return torch.lerp(pixels_at(below_BA1HW), pixels_at(below_BA1HW + 1), level_BA1HW - below_BA1HW)


def _blurred(images_BCHW: Tensor, sigma: float) -> Tensor:
    """Blurred as by the authors: beyond the border everything is 0, the mean colour."""
    reach = ceil(4 * sigma)
    if not reach:
        return images_BCHW
    padded = gaussian_blur(F.pad(images_BCHW, (reach,) * 4), sigma)
    return padded[..., reach:-reach, reach:-reach]
