"""Grad-CAM: the last feature map, its channels weighted by the class's mean gradient.

Shapes: B images, C channels, H rows, W columns; h×w the feature map's own grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import fong_rule, register

from ._cam import LastFeatureMethod

if TYPE_CHECKING:
    from torch import Tensor


@register(
    "grad-cam",
    title="Grad-CAM",
    family="gradient",
    paper="Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra 2017, Grad-CAM (ICCV)",
    summary="Positive part of the last feature map's sum over channels, each weighted by the mean "
    "derivative of the class's logit by it.",
    knows_class=True,
    trained=False,
    cost="1 forward, backward through the head only",
    rule=fong_rule("value", 0.35),
    upsample="bilinear",
    scale_free=True,
    deviations="Box by the rule that served Grad-CAM best in Fong & Vedaldi's validation, instead "
    "of the paper's largest segment above 15 % of the maximum. The features are those that the "
    "network's head pools, in vision transformers the normed input of the last attention.",
)
@dataclass
class GradCAM(LastFeatureMethod):
    """saliency = ReLU(Σ_c α_c A_c) with α_c = mean over places of ∂z_y/∂A_c (equations 1 and 2)."""

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        features_BChw, gradient_BChw = self.features_and_gradient(images_BCHW, labels_B)
        alpha_BC11 = gradient_BChw.mean(dim=(2, 3), keepdim=True)  # (1)
        return (alpha_BC11 * features_BChw).sum(dim=1).relu()  # (2)
