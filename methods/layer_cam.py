"""LayerCAM: every place of the last feature map weighted by its own positive gradient.

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
    "layer-cam",
    title="LayerCAM",
    family="gradient",
    paper="Jiang, Zhang, Hou, Cheng & Wei 2021, LayerCAM (IEEE Transactions on Image Processing "
    "30)",
    summary="Positive part of the last feature map's sum over channels, each place weighted by "
    "the positive part of the class's derivative there.",
    knows_class=True,
    trained=False,
    cost="1 forward, backward through the head only",
    rule=fong_rule("value", 0.35),
    upsample="bilinear",
    scale_free=True,
    deviations="The last feature map only, where the paper also fuses earlier ones. Box by the "
    "rule published for Grad-CAM, for lack of one of its own.",
)
@dataclass
class LayerCAM(LastFeatureMethod):
    """saliency = ReLU(Σ_c w_c A_c) with w_c = ReLU(∂z_y/∂A_c), place by place."""

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        features_BChw, gradient_BChw = self.features_and_gradient(images_BCHW, labels_B)
        return (gradient_BChw.relu() * features_BChw).sum(dim=1).relu()
