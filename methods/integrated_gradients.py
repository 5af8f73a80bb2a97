"""Integrated gradients: what each pixel adds on the way from a black image (captum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from casm_bench.api import fong_rule, lazy, register
from casm_bench.settings import Count

from ._captum import CaptumMethod, Reduction, captum

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = lazy("torch")

AT_ONCE = 64  # points on the way, of all images of a part


@register(
    "integrated-gradients",
    title="Integrated gradients",
    family="gradient",
    paper="Sundararajan, Taly & Yan 2017, Axiomatic Attribution for Deep Networks (ICML)",
    summary="How much each pixel adds to the class's probability on the straight way from a black "
    "image.",
    knows_class=True,
    trained=False,
    cost="50 forward, 50 backward (input only)",
    rule=fong_rule("mean", 5.0),
    scale_free=True,
    extra="captum",
    deviations="The paper localizes nothing; box by the rule published for Grad. Computed by "
    "captum's IntegratedGradients, whose points are those of Gauss-Legendre quadrature instead "
    "of a Riemann sum.",
)
@dataclass
class IntegratedGradients(CaptumMethod):
    """saliency = |Σ_c (x_c - b_c) · ∫ ∂p_y/∂x_c at b + t·(x - b) dt|, t from 0 to 1.

    b is the baseline. Before absolute values are taken, a map adds up to p_y(x) - p_y(b).
    """

    steps: Count = 50
    baseline: Literal["black", "mean"] = "black"
    score: Literal["probability", "logit"] = "probability"
    reduction: Reduction = "abs-sum"

    def attribution(self, forward: nn.Module) -> Any:
        if self.score == "logit":
            return captum.IntegratedGradients(forward)
        return captum.IntegratedGradients(lambda images_nCHW: forward(images_nCHW).softmax(dim=1))

    def arguments(self, images_nCHW: Tensor) -> dict[str, Any]:
        nothing_1CHW = torch.zeros_like(images_nCHW[:1])
        if self.baseline == "black":
            nothing_1CHW = self.classifier.normalize(nothing_1CHW)
        return {
            "baselines": nothing_1CHW.expand_as(images_nCHW),
            "n_steps": self.steps,
            "internal_batch_size": max(AT_ONCE, len(images_nCHW)),
        }
