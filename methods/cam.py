"""CAM: the last feature map, its channels weighted as the linear layer behind their mean does.

Shapes: B images, C channels, H rows, W columns, K classes; h×w the feature map's own grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import BoxRule, lazy, register
from casm_bench.errors import UsageError

from ._cam import LastFeatureMethod

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")


@register(
    "cam",
    title="CAM",
    family="gradient",
    paper="Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, Learning Deep Features for "
    "Discriminative Localization (CVPR)",
    summary="Sum of the last feature map's channels, weighted as the class's logit weights their "
    "means.",
    knows_class=True,
    trained=False,
    cost="1 forward",
    rule=BoxRule("value", alpha=0.2),
    upsample="bilinear",
    scale_free=True,
    deviations="Shifted so that the smallest value is 0. Any classifier that ends in a global "
    "average pool and one linear layer, instead of the paper's changed and retrained networks.",
)
@dataclass
class CAM(LastFeatureMethod):
    """saliency = M - min M with M = Σ_c w_yc f_c (equation 2); its mean is the logit but for the
    bias. Box: largest component above 20 % of the maximum (section 3.2)."""

    def check(self) -> None:
        """Raises UsageError unless logits are a linear function of the features' means."""
        example_1CHW, _ = self.classifier.example()
        logits_1K, features_1Chw = self.classifier.with_last_features(example_1CHW)
        linear = self.classifier.model.get_classifier()
        fits = isinstance(linear, torch.nn.Linear) and linear.in_features == features_1Chw.shape[1]
        if not fits or not torch.allclose(linear(features_1Chw.mean((2, 3))), logits_1K, atol=1e-4):
            raise UsageError(
                f"CAM needs a classifier that ends in a global average pool and one linear layer, "
                f"such as resnet50, which {self.classifier.name!r} does not; grad-cam serves any."
            )

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        _, features_BChw = self.classifier.with_last_features(images_BCHW)
        weight_BC = self.classifier.model.get_classifier().weight[labels_B]
        map_Bhw = torch.einsum("bc,bchw->bhw", weight_BC, features_BChw).detach()
        return map_Bhw - map_Bhw.amin(dim=(1, 2), keepdim=True)
