"""Excitation backprop: where in the network the class's score was decided (Zhang et al. 2016).

Shapes: B images, C channels, H rows, W columns, K classes; h×w is the grid of a feature map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from casm_bench.api import SaliencyMethod, fong_rule, lazy, register
from casm_bench.settings import Within

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")
backward = lazy("casm_bench.methods._backward")
excitation = lazy("casm_bench.methods._excitation")


@register(
    "excitation-backprop",
    title="Excitation backprop",
    family="gradient",
    paper="Zhang, Lin, Brandt, Shen & Sclaroff 2016, Top-down Neural Attention by Excitation "
    "Backprop (ECCV)",
    summary="Fraction of each place of a feature map to be where a walk back from the class ends.",
    knows_class=True,
    trained=False,
    cost="1 forward, 1 backward down to stride 16",
    rule=fong_rule("energy", 0.60),
    upsample="bilinear",
    scale_free=True,
    deviations="Read at stride 16, as TorchRay does for ResNet-50; Fong & Vedaldi's published LE, "
    "38.71, is from GoogLeNet's pool2 at stride 8. Sums of branches, which the paper's networks "
    "do not have, part the chance in proportion to what the branches add; batch norm passes it "
    "on, as in TorchRay. Negative inputs of a layer (linear bottlenecks have them) count as zero.",
)
@dataclass
class ExcitationBackprop(SaliencyMethod):
    """saliency = Σ_c P_c, with P(class y) = 1 at the logits and, for every layer on the way down,

        P(j) = Σ_i P(i) · x_j⁺·w_ij⁺ / Σ_k x_k⁺·w_ik⁺

    the marginal winning probability (equations 4 and 5): no biases, no negative weights. What
    reaches a neuron without any excitation is lost. Raises UsageError for networks with
    other parts than convolutions, linear layers, pooling, batch norm, ReLUs and sums.
    """

    # Of the five feature maps; 1 has stride 4, 3 stride 16. What 0 gives is pooled aside, and
    # nothing comes back through it.
    tap: Annotated[int, Within(1, 4)] = 3

    def check(self) -> None:
        """Raises UsageError for a classifier with other parts, or without feature maps."""
        self.maps(*self.classifier.example())

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        images_BCHW = images_BCHW.detach().requires_grad_()
        with torch.enable_grad(), backward.Exchanged(excitation.rules()):
            logits_BK, taps = self.classifier.with_features(images_BCHW)
            score = logits_BK.gather(1, labels_B[:, None]).sum()
        (chance_BChw,) = torch.autograd.grad(score, taps[self.tap])
        return chance_BChw.sum(dim=1)
