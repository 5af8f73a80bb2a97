"""Occlusion: how far the class score falls when a square hides a place (Zeiler & Fergus 2014).

Shapes: B images, N squares of one chunk, P positions per side, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import SaliencyMethod, fong_rule, lazy, register
from casm_bench.settings import Count

from ._masked import Score, credited_scores

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")

SHARE = 35 / 224  # of the image's side: the square in Fong & Vedaldi's comparison


@register(
    "occlusion",
    title="Occlusion",
    family="perturbation",
    paper="Zeiler & Fergus 2014, Visualizing and Understanding Convolutional Networks (ECCV)",
    summary="How far the class's logit falls, on average over the squares that hide the pixel.",
    knows_class=True,
    trained=False,
    cost="785 forward",
    rule=fong_rule("mean", 1.0),
    scale_free=True,
    deviations="Squares, score and box as in Fong & Vedaldi's comparison (there LE 48.58 with "
    "GoogLeNet), for the paper names no sizes and watches the probability. Where hiding raises "
    "the score the map is zero; how they made a map without negative values is not published.",
)
@dataclass
class Occlusion(SaliencyMethod):
    """saliency = max(0, z_y(x) - mean of z_y over the squares that hide the pixel).

    The squares' upper left corners are a grid of `positions` × `positions` over the image; the
    image cuts off those at its lower and right edges. They have the data set's mean colour.
    """

    positions: Count = 28  # per side: every 8 pixels of 224
    square: Count | None = None  # pixels per side; by default 35 of 224
    score: Score = "logit"  # what is watched
    chunk: Count = 64  # squares shown at once

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        rows_PH, columns_PW = (self._spans(size).to(images_BCHW) for size in images_BCHW.shape[-2:])
        everything_11HW = torch.ones_like(images_BCHW[:1, :1])
        squares = _products(rows_PH, columns_PW, self.chunk)

        def credited(chunks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
            return credited_scores(self.classifier, images_BCHW, labels_B, chunks, self.score)

        with torch.no_grad():
            whole_BHW = credited([(everything_11HW, everything_11HW)])
            hidden_BHW = credited((1 - hidden_N1HW, hidden_N1HW) for hidden_N1HW in squares)
        times_hidden_HW = rows_PH.sum(dim=0)[:, None] * columns_PW.sum(dim=0)
        fall_BHW = torch.where(times_hidden_HW > 0, whole_BHW - hidden_BHW / times_hidden_HW, 0)
        return fall_BHW.clamp(min=0)

    def _spans(self, size: int) -> Tensor:
        """spans_PS, of the squares' sides along one axis: true where the pixel is inside."""
        side = self.square or max(1, round(SHARE * size))
        starts_P1 = torch.arange(self.positions)[:, None] * size // self.positions
        pixels_S = torch.arange(size)
        return (starts_P1 <= pixels_S) & (pixels_S < starts_P1 + side)


def _products(rows_PH: Tensor, columns_PW: Tensor, chunk: int) -> Iterator[Tensor]:
    """Every span of rows with every span of columns, as squares_N1HW, `chunk` at a time."""
    positions = torch.cartesian_prod(torch.arange(len(rows_PH)), torch.arange(len(columns_PW)))
    for rows_N, columns_N in (part.unbind(dim=1) for part in positions.split(chunk)):
        yield (rows_PH[rows_N, :, None] * columns_PW[columns_N, None])[:, None]
