"""Extremal perturbations: of all smooth masks of a given area, the one that serves the class best.

Fong, Patrick & Vedaldi 2019, with the values of their code (TorchRay) for the pointing game.

Shapes: B images, A areas, C channels, H rows, W columns, K classes, L levels of blur. A mask is
made of h×w cells by smooth maxima over N neighbours; every cell has P pixels. Cells and masks of
all areas of an image are optimised side by side, as are images.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

from casm_bench.api import SaliencyMethod, lazy, register
from casm_bench.images import gaussian_blur

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")
F = lazy("torch.nn.functional")

COLDNESS = 20  # of smooth maxima; infinite would be the maximum itself


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

    areas: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)  # shares of the image
    iterations: int = 800
    learning_rate: float = 0.01
    momentum: float = 0.9
    area_weight: float = 300.0
    growth: float = 1.0035  # of the area's weight, per iteration
    step: int = 7  # pixels between the cells of a mask
    sigma: float = 21.0  # pixels: width of what a single cell covers
    perturbation: Literal["blur", "fade"] = "blur"  # fade: to the mean colour
    levels: int = 8  # of the perturbation; between them it is interpolated
    blur: float = 20.0  # sigma in pixels of the strongest blur
    smooth: float = 0.09  # sigma of the final blur, as a share of the image's side

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        with torch.no_grad():
            pyramid_BLCHW = self._pyramid(images_BCHW)
        with torch.enable_grad():
            masks_BAHW = self._optimised(pyramid_BLCHW, labels_B)
        saliency_B1HW = masks_BAHW.mean(dim=1, keepdim=True)
        blurred_B1HW = _blurred(saliency_B1HW, self.smooth * min(saliency_B1HW.shape[-2:]))
        return blurred_B1HW[:, 0].clamp(min=0)

    def _optimised(self, pyramid_BLCHW: Tensor, labels_B: Tensor) -> Tensor:
        masks = SmoothMasks(pyramid_BLCHW, self.step, self.sigma)
        cells_BAhw = pyramid_BLCHW.new_ones(len(labels_B), len(self.areas), *masks.cells)
        cells_BAhw.requires_grad_()
        # The first step is not dampened, in torch as in the authors' runs.
        sgd = torch.optim.SGD(
            [cells_BAhw], lr=self.learning_rate, momentum=self.momentum, dampening=self.momentum
        )
        weight = self.area_weight
        for iteration in range(self.iterations):
            # Image by image: the same mask must be the same to the last bit in any batch, for
            # values that are all but equal are sorted.
            shown, whole = zip(*(masks(cells_Ahw) for cells_Ahw in cells_BAhw), strict=True)
            masks_BAHW = torch.stack(shown)
            reward_BA = self._reward(pyramid_BLCHW, masks_BAHW, labels_B, iteration % 2 == 0)
            excess_BA = torch.stack([self._excess(whole_AHW) for whole_AHW in whole])
            energy = (reward_BA - weight * excess_BA).sum()
            (gradient_BAhw,) = torch.autograd.grad(-energy, cells_BAhw)
            cells_BAhw.grad = gradient_BAhw
            sgd.step()
            cells_BAhw.data.clamp_(0, 1)
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
        return self.classifier(seen_NCHW).gather(1, labels_N1).view(masks_BAHW.shape[:2])

    def _excess(self, whole_AHW: Tensor) -> Tensor:
        """How far each sorted mask is from zeros, then ones in its area's proportion, shape A."""
        sorted_AM = whole_AHW.flatten(1).sort(dim=1, stable=True).values
        count = sorted_AM.shape[1]
        zeros_A = torch.tensor([int(count * (1 - area)) for area in self.areas])
        wanted_AM = torch.arange(count) >= zeros_A[:, None]
        return (sorted_AM - wanted_AM.to(sorted_AM)).square().mean(dim=1)

    def _pyramid(self, images_BCHW: Tensor) -> Tensor:
        """The images from most to not at all perturbed, in `levels` even steps, B×L×C×H×W."""
        shares = [level / (self.levels - 1) for level in range(self.levels)]
        if self.perturbation == "fade":
            return torch.stack([images_BCHW * share for share in shares], dim=1)
        blurs = [_blurred(images_BCHW, (1 - share) * self.blur) for share in shares]
        return torch.stack(blurs, dim=1)


class SmoothMasks:
    """Masks that are nowhere sharper than a bump of width `sigma`, made of cells `step` apart.

    A pixel is the smooth maximum of its neighbouring cells, each times a bump around the cell
    (section 3.1, "smooth masks"). The cells' grid ends with the image; the mask goes on for a
    margin of `sigma` pixels, so that at the border it can fall off as it does elsewhere.
    """

    def __init__(self, images: Tensor, step: int, sigma: float) -> None:
        self.size = images.shape[-2:]
        self.step = step
        self.margin = sigma
        self.cells = tuple(ceil(side / step) for side in self.size)
        self.radius = 1 + ceil(sigma / step)
        self.padding = 1 + ceil((self.margin + sigma) / step)
        self.blocks = tuple(side + 2 * (self.padding - self.radius) for side in self.cells)
        self.bumps_PN = self._bumps(sigma).to(images)

    def _bumps(self, sigma: float) -> Tensor:
        """What a neighbouring cell contributes to a pixel; the same in every block of pixels."""
        pixel_S = torch.arange(self.step, dtype=torch.float64)
        cell_R = torch.arange(2 * self.radius + 1) - self.padding
        apart_SR = pixel_S[:, None] - self.margin - self.step * cell_R
        distance_SSRR = torch.hypot(apart_SR[:, None, :, None], apart_SR[None, :, None])
        bump_SSRR = torch.exp(-2 * (distance_SSRR / sigma - 0.5).clamp(min=0) ** 2)
        return bump_SSRR.flatten(2).flatten(0, 1)

    def __call__(self, cells_Ahw: Tensor) -> tuple[Tensor, Tensor]:
        """The masks as the images see them, A×H×W, and with their margins."""
        neighbours_ANQ = F.unfold(cells_Ahw[:, None], 2 * self.radius + 1, padding=self.padding)
        blocks_AQP = smooth_maximum(neighbours_ANQ.mT[:, :, None] * self.bumps_PN)
        blocks_APhw = blocks_AQP.mT.unflatten(2, self.blocks)
        whole_AHW = F.pixel_shuffle(blocks_APhw, self.step)[:, 0].clamp(0, 1)
        cut = self.step - 1  # the last cell's pixels but the first lie beyond it
        whole_AHW = whole_AHW[:, : whole_AHW.shape[1] - cut, : whole_AHW.shape[2] - cut]
        top, (height, width) = round(self.margin), self.size
        return whole_AHW[:, top : top + height, top : top + width], whole_AHW


def smooth_maximum(values: Tensor) -> Tensor:
    """The mean over the last axis, weighted by softmax(COLDNESS · values) (equation 6)."""
    return (values * torch.softmax(COLDNESS * values, dim=-1)).sum(dim=-1)


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
