"""RISE: which pixels were seen when the class was likely, over random masks (Petsiuk et al. 2018).

Shapes: B images, M masks, N of one chunk, C channels, H rows, W columns; a mask is made of S×S
cells and cut out at one of T places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Annotated

from casm_bench.api import SaliencyMethod, lazy, register
from casm_bench.settings import Count, Share, Within

from ._masked import credited_scores

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")


@register(
    "rise",
    title="RISE",
    family="perturbation",
    paper="Petsiuk, Das & Saenko 2018, RISE: Randomized Input Sampling for Explanation of "
    "Black-box Models (BMVC)",
    summary="Average of random masks, each weighted by the class's probability where only it is "
    "seen.",
    knows_class=True,
    trained=False,
    cost="8,000 forward",
    scale_free=True,
    deviations="The paper names no rule for boxes; CASM's is used.",
)
@dataclass
class RISE(SaliencyMethod):
    """saliency = 1/(N·p) · Σ p_y(x ⊙ M_i) · M_i, over N masks M_i (equation 6).

    A mask is a grid of `cells` × `cells` random bits, enlarged bilinearly to one cell more than
    the image and cut out at a random place. All images see the same masks, drawn from the seed.
    """

    masks: Count = 8000
    cells: Annotated[int, Within(2)] = 7  # per side, at least 2
    p: Share = 0.5  # chance of a cell to be seen
    chunk: Count = 64  # masks shown at once

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        chunks = ((masks_N1HW, masks_N1HW) for masks_N1HW in self._masks(images_BCHW))
        with torch.no_grad():
            sums_BHW = credited_scores(
                self.classifier, images_BCHW, labels_B, chunks, "probability"
            )
        return sums_BHW / (self.masks * self.p)

    def _masks(self, images_BCHW: Tensor) -> Iterator[Tensor]:
        """The masks_N1HW, in chunks. Drawn on the CPU, so that every device sees the same."""
        generator = torch.Generator().manual_seed(self.seed)
        bits_MSS = torch.rand(self.masks, self.cells, self.cells, generator=generator) < self.p
        rows_THS, columns_TWS = (
            _enlargements(size, self.cells).to(images_BCHW) for size in images_BCHW.shape[-2:]
        )
        down_M = torch.randint(len(rows_THS), (self.masks,), generator=generator)
        across_M = torch.randint(len(columns_TWS), (self.masks,), generator=generator)
        parts = (drawn.split(self.chunk) for drawn in (bits_MSS, down_M, across_M))
        for bits_NSS, down_N, across_N in zip(*parts, strict=True):
            bits_NSS = bits_NSS.to(images_BCHW)
            yield (rows_THS[down_N] @ bits_NSS @ columns_TWS[across_N].mT)[:, None]


def _enlargements(size: int, cells: int) -> Tensor:
    """For each place T of the cutout along one axis, how its pixels are made of the cells, T×H×S.

    `cells` become cells + 1 times the pixels of a cell; beyond the outermost cell's centre the
    interpolation is mirrored there, as in the authors' code.
    """
    cell = ceil(size / cells)
    wide = (cells + 1) * cell
    place_L = (torch.arange(wide) + 0.5) * cells / wide - 0.5  # where the pixel is, in cells
    place_L = (cells - 1) - ((cells - 1) - place_L.abs()).abs()
    shares_LS = (1 - (place_L[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return shares_LS.unfold(0, size, 1)[:cell].mT
