"""Smooth masks of Fong, Patrick & Vedaldi 2019, section 3.1. Imports torch: to be used by `lazy`.

Shapes: M masks of H×W pixels, made of h×w cells; Q blocks of P pixels each have N cells around.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

COLDNESS = 20  # of smooth maxima; infinite would be the maximum itself


class SmoothMasks:
    """Masks that are nowhere sharper than a bump of width `sigma`, made of cells `step` apart.

    A pixel is the smooth maximum of the cells around it, each times its bump's height there. The
    cells' grid ends with the image; a mask goes on for a margin of `sigma` pixels, so that it can
    fall off beyond the border as it does elsewhere. `like` has the images' size, device and type.
    """

    def __init__(self, like: Tensor, step: int, sigma: float) -> None:
        self.size = like.shape[-2:]
        self.step = step
        self.margin = sigma
        self.cells = tuple(ceil(side / step) for side in self.size)
        self.radius = 1 + ceil(sigma / step)
        self.padding = 1 + ceil((self.margin + sigma) / step)
        if not self._reaches_the_far_side():  # narrow bumps, as of sigma 6 with step 4
            self.padding += 1
        self.bumps_PN = self._bumps(sigma).to(like)

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many blocks of `step` pixels a mask with its margins has along each side."""
        return tuple(side + 2 * (self.padding - self.radius) for side in self.cells)

    def _reaches_the_far_side(self) -> bool:
        """Whether a mask, of whose last blocks only the first pixels count, covers its image."""
        sides = zip(self.size, self.blocks, strict=True)
        first = round(self.margin)
        return all(first + side <= (count - 1) * self.step + 1 for side, count in sides)

    def _bumps(self, sigma: float) -> Tensor:
        """Height at the pixels of a block of the bumps around it; the same in every block."""
        pixel_S = torch.arange(self.step, dtype=torch.float64)
        cell_R = torch.arange(2 * self.radius + 1) - self.padding
        apart_SR = pixel_S[:, None] - self.margin - self.step * cell_R
        distance_SSRR = torch.hypot(apart_SR[:, None, :, None], apart_SR[None, :, None])
        bump_SSRR = torch.exp(-2 * (distance_SSRR / sigma - 0.5).clamp(min=0) ** 2)
        return bump_SSRR.flatten(2).flatten(0, 1)

    def __call__(self, cells_Mhw: Tensor) -> tuple[Tensor, Tensor]:
        """The masks as the images see them, M×H×W, and with their margins."""
        around_MNQ = F.unfold(cells_Mhw[:, None], 2 * self.radius + 1, padding=self.padding)
        pixels_MPQ = _SmoothMaxima.apply(around_MNQ.mT.contiguous(), self.bumps_PN)
        blocks_MPhw = pixels_MPQ.unflatten(2, self.blocks)
        whole_MHW = F.pixel_shuffle(blocks_MPhw, self.step)[:, 0].clamp(0, 1)
        cut = self.step - 1  # of the last blocks only the first pixels count
        whole_MHW = whole_MHW[:, : whole_MHW.shape[1] - cut, : whole_MHW.shape[2] - cut]
        first, (height, width) = round(self.margin), self.size
        return whole_MHW[:, first : first + height, first : first + width], whole_MHW


class _SmoothMaxima(torch.autograd.Function):
    """Σ_n z_n·s_n, with z_n = cell_n · bump_n and s = softmax(COLDNESS · z) over the cells around.

    Mask by mask: what is computed on the way is N times the mask's size, and stays in the cache
    of a CPU if it is not kept for all masks until the gradient is asked for. It also makes each
    mask the same, to the last bit, in any batch.
    """

    @staticmethod
    def forward(ctx: Any, around_MQN: Tensor, bumps_PN: Tensor) -> Tensor:
        pixels_MPQ = around_MQN.new_empty(len(around_MQN), len(bumps_PN), around_MQN.shape[1])
        for around_QN, pixels_PQ in zip(around_MQN, pixels_MPQ, strict=True):
            values_PQN, weights_PQN = _weighted(around_QN, bumps_PN)
            torch.sum(values_PQN.mul_(weights_PQN), dim=2, out=pixels_PQ)
        ctx.save_for_backward(around_MQN, bumps_PN, pixels_MPQ)
        return pixels_MPQ

    @staticmethod
    def backward(ctx: Any, gradient_MPQ: Tensor) -> tuple[Tensor, None]:
        around_MQN, bumps_PN, pixels_MPQ = ctx.saved_tensors
        received_MQN = torch.empty_like(around_MQN)
        parts = zip(around_MQN, pixels_MPQ, gradient_MPQ, received_MQN, strict=True)
        for around_QN, pixels_PQ, gradient_PQ, received_QN in parts:
            values_PQN, weights_PQN = _weighted(around_QN, bumps_PN)
            # The derivative by z_n is s_n · (1 + COLDNESS · (z_n - pixel)).
            slope_PQN = values_PQN.sub_(pixels_PQ[:, :, None]).mul_(COLDNESS).add_(1)
            slope_PQN.mul_(weights_PQN).mul_(gradient_PQ[:, :, None]).mul_(bumps_PN[:, None])
            torch.sum(slope_PQN, dim=0, out=received_QN)
        return received_MQN, None


def _weighted(around_QN: Tensor, bumps_PN: Tensor) -> tuple[Tensor, Tensor]:
    values_PQN = around_QN * bumps_PN[:, None]
    return values_PQN, torch.softmax(COLDNESS * values_PQN, dim=2)
