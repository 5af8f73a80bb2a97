"""Grad: how strongly the class score reacts to each pixel (Simonyan, Vedaldi & Zisserman 2014).

Shapes: B images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import SaliencyMethod, fong_rule, lazy, register

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")


@register(
    "grad",
    title="Grad",
    family="gradient",
    paper="Simonyan, Vedaldi & Zisserman 2014, Deep Inside Convolutional Networks (ICLR workshop)",
    summary="Largest absolute derivative over the channels of the class's logit by the pixel.",
    knows_class=True,
    trained=False,
    cost="1 forward, 1 backward (input only)",
    rule=fong_rule("mean", 5.0),
    scale_free=True,
    published="Grad",
    deviations="Box by Fong & Vedaldi's mean rule, as the published 41.7, instead of the paper's "
    "GraphCut; any classifier instead of their ConvNet or GoogLeNet.",
)
@dataclass
class Grad(SaliencyMethod):
    """saliency = max_c |∂z_y/∂x_c|, with z_y the logit, before the softmax (section 3)."""

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        images_BCHW = images_BCHW.detach().requires_grad_()
        with torch.enable_grad():
            logits_BK = self.classifier(images_BCHW)
            # One image's logit does not depend on another image, so one backward serves them all.
            score = logits_BK.gather(1, labels_B[:, None]).sum()
        (gradient_BCHW,) = torch.autograd.grad(score, images_BCHW)
        return gradient_BCHW.abs().amax(dim=1)
