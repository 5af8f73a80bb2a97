"""CASM with masked-in images as well: what is masked must suffice, what is left must not.

Phang, Park & Geras 2020 tried the variants of masking-based saliency one by one. Two mattered,
both objectives together and a classifier that learns alongside, and a masker that looks at the
two deepest features only does as well as any. This is their final "CA" model.

Shapes: B images, C channels, H rows, W columns, K classes; masks are B1hw on the features' grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from casm_bench.api import CASM_RULE, lazy, register
from casm_bench.images import masked_in, roughness
from casm_bench.settings import Amount

from ._algorithm1 import Algorithm1, Game, StrategyName

if TYPE_CHECKING:
    from torch import Tensor

    from casm_bench.backbones.arithmetic import Arithmetic

F = lazy("torch.nn.functional")
backbone = lazy("casm_bench.backbones.masker")


@register(
    "casm-inout",
    title="CASM, in and out",
    family="trained masker",
    paper="Phang, Park & Geras 2020, Investigating and Simplifying Masking-based Saliency Methods "
    "for Model Interpretability (arXiv 2010.09750)",
    summary="CASM that also asks whether the masked-in image suffices, from two deep features.",
    knows_class=False,
    trained=True,
    cost="one forward pass",
    rule=CASM_RULE,
    deviations="Past classifiers judge half the time, as in CASM; in the authors' code the current "
    "one always judges, and half the time does not learn from it. Boxes by CASM's rule, not by "
    "the mean as threshold. The recipe's batch size, not 72.",
)
@dataclass
class CasmInOut(Algorithm1):
    """Loss of the masker: CASM's, plus the judge's cross-entropy on masked-in images, plus

        R_in = -lambda_in · mean max(0, [right when masked in] - mean(m))

    plus the masks' roughness (Dabkowski & Gal's), for either objective. The defaults are the
    authors' "CA" model (assets/ca.json); their "FIX" is strategy=F, lambda_r=10.
    """

    strategy: StrategyName = "L100"
    objective: Literal["entropy"] = "entropy"  # of masked-out images
    lambda_in: Amount = 1.0
    smoothness: Amount = 1e-3  # weight of the roughness, once for each objective
    taps: tuple[int, ...] = (3, 4)

    @property
    def published_size_weight(self) -> float:
        """λ_r of the authors' "CA" model."""
        return 15.0

    def game(self, arithmetic: Arithmetic) -> Game:
        return InOutGame(self, arithmetic)


class InOutGame(Game):
    """Algorithm 1's loop body, in which every judge is shown the masked-in images, too."""

    def _further(
        self,
        terms: dict[str, Tensor],
        ask: Callable[[Tensor], Tensor],
        x_BCHW: Tensor,
        y_B: Tensor,
        mask_B1hw: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        mask_B1HW = backbone.enlarge(mask_B1hw, x_BCHW, self.method.upsample)
        logits_BK = ask(masked_in(x_BCHW, mask_B1HW))
        inside = inside_loss(self.method, logits_BK, y_B, mask_B1hw)
        inside["roughness"] = 2 * self.method.smoothness * roughness(mask_B1HW)
        loss = terms["loss"] + sum(inside.values())
        right_B = (logits_BK.argmax(1) == y_B).float()
        terms = terms | inside | {"loss": loss, "masked_in_accuracy": right_B.mean()}
        return terms, inside["inside_term"]


def inside_loss(
    method: CasmInOut, logits_BK: Tensor, y_B: Tensor, mask_B1hw: Tensor
) -> dict[str, Tensor]:
    """What the masker pays for masked-in images: the judge's cross-entropy, and R_in."""
    right_B = (logits_BK.argmax(1) == y_B).float()
    small_B = (right_B - mask_B1hw.mean((1, 2, 3))).clamp(min=0)
    return {
        "inside_term": F.cross_entropy(logits_BK, y_B),
        "inside_size_term": -method.lambda_in * small_B.mean(),
    }
