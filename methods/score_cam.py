"""Score-CAM: the last feature map, its channels weighted by the score of what each one lets see.

Shapes: B images, C channels, H rows, W columns, K classes; h×w the feature map's own grid; n
channels of a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import fong_rule, lazy, register
from casm_bench.images import masked_in
from casm_bench.settings import Count

from ._cam import LastFeatureMethod

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")
F = lazy("torch.nn.functional")


@register(
    "score-cam",
    title="Score-CAM",
    family="perturbation",
    paper="Wang, Wang, Du, Yang, Zhang, Ding, Mardziel & Hu 2020, Score-CAM (CVPR workshops)",
    summary="Positive part of the last feature map's sum over channels, each weighted by the "
    "class's logit for the image seen through that channel.",
    knows_class=True,
    trained=False,
    cost="1 forward and one more per channel of the last feature map (ResNet-50: 2,048)",
    rule=fong_rule("value", 0.35),
    upsample="bilinear",
    scale_free=True,
    deviations="Box by the rule published for Grad-CAM, since the paper draws none. Channels are "
    "seen on the network's normalised input, so that what is hidden takes the mean colour.",
)
@dataclass
class ScoreCAM(LastFeatureMethod):
    """saliency = ReLU(Σ_c α_c A_c), α = softmax over channels of z_y(x ∘ s(A_c)), where s enlarges
    and stretches to [0, 1] (equations 5 to 9). The baseline's logit, which the paper subtracts,
    is the same for all channels and leaves the softmax as it is."""

    channels: Count | None = None  # only so many, those that vary most over the image; None: all
    batch_size: Count = 64  # masked images at a time; memory grows with it, maps stay the same

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        with torch.no_grad():
            features_BChw = self._features(images_BCHW)
            triples = zip(images_BCHW, features_BChw, labels_B, strict=True)
            scores_BC = torch.stack([self._scores(*triple) for triple in triples])
        alpha_BC11 = scores_BC.softmax(dim=1)[..., None, None]
        return (alpha_BC11 * features_BChw).sum(dim=1).relu()

    def _features(self, images_BCHW: Tensor) -> Tensor:
        features_BChw = self.classifier.with_last_features(images_BCHW)[1].detach()
        if self.channels is None or self.channels >= features_BChw.shape[1]:
            return features_BChw
        spread_BC = features_BChw.var(dim=(2, 3), correction=0)  # one place alone has none
        chosen_Bc = spread_BC.topk(self.channels, sorted=False).indices
        return features_BChw.take_along_dim(chosen_Bc[..., None, None], dim=1)

    def _scores(self, image_CHW: Tensor, features_Chw: Tensor, label: Tensor) -> Tensor:
        """For each channel, the class's logit for what of the image it lets see."""
        scores = []
        for part_nhw in features_Chw.split(self.batch_size):
            mask_n1HW = F.interpolate(part_nhw[:, None], image_CHW.shape[-2:], mode="bilinear")
            logits_nK = self.classifier(masked_in(image_CHW, _stretched(mask_n1HW)))
            scores.append(logits_nK[:, label])
        return torch.cat(scores)


def _stretched(mask_n1HW: Tensor) -> Tensor:
    """Each mask to [0, 1]; one that is the same everywhere shows nothing."""
    low_n111 = mask_n1HW.amin(dim=(1, 2, 3), keepdim=True)
    range_n111 = mask_n1HW.amax(dim=(1, 2, 3), keepdim=True) - low_n111
    return (mask_n1HW - low_n111) / range_n111.clamp(min=1e-8)
