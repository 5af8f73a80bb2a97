"""Random: a map of coin tosses, a control for everything that happens after a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import SaliencyMethod, lazy, register
from casm_bench.images import image_seeds

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")

STRIDE = 4  # pixels per value and side, as in CASM's maps


@register(
    "random",
    title="Random map",
    family="control",
    paper="Zolna, Geras & Cho 2019, official scorer: its toy map on the masks' grid",
    summary="Each value of the map is 0 or 1 by the toss of a coin.",
    knows_class=False,
    trained=False,
    cost="none",
)
@dataclass
class Random(SaliencyMethod):
    """Bernoulli(0.5) on a grid of a quarter of the input, seeded by the image's own pixels.

    Through CASM's box rule all ones pass; at half the pixels they form no connected whole, and at
    224 pixels the largest patch fills 5 % of the frame and spans a box of 90×90 on average.
    """

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        height, width = (side // STRIDE for side in images_BCHW.shape[-2:])
        generators = [
            torch.Generator().manual_seed(seed) for seed in image_seeds(images_BCHW, self.seed)
        ]
        maps = [torch.randint(2, (height, width), generator=g) for g in generators]
        return torch.stack(maps).to(images_BCHW)
