"""Guided backpropagation: Grad through ReLUs that let only positive gradients pass.

Shapes: B images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from casm_bench.api import SaliencyMethod, fong_rule, lazy, register
from casm_bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")
F = lazy("torch.nn.functional")
backward = lazy("casm_bench.methods._backward")


@register(
    "guided-backprop",
    title="Guided backprop",
    family="gradient",
    paper="Springenberg, Dosovitskiy, Brox & Riedmiller 2015, Striving for Simplicity: The All "
    "Convolutional Net (ICLR workshop)",
    summary="Grad, but each ReLU stops negative gradients on their way back.",
    knows_class=True,
    trained=False,
    cost="1 forward, 1 backward (input only)",
    rule=fong_rule("mean", 4.5),
    scale_free=True,
    deviations="The paper shows single neurons and localizes nothing; class, largest absolute "
    "value over the channels and box are Fong & Vedaldi's (there LE 41.99 with GoogLeNet). ReLU6, "
    "which the paper does not know, is treated like ReLU.",
)
@dataclass
class GuidedBackprop(SaliencyMethod):
    """saliency = max_c |g_c|, g the derivative of the logit z_y with max(0, ·) before each ReLU.

    A ReLU passes R back as R · (R > 0) · (its input > 0) (figure 1). Raises UsageError for a
    classifier without ReLUs.
    """

    def check(self) -> None:
        """Raises UsageError for a classifier without ReLUs."""
        self.maps(*self.classifier.example())

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        images_BCHW = images_BCHW.detach().requires_grad_()
        guide = Guide()
        with torch.enable_grad(), backward.Exchanged(guide.rules()):
            logits_BK = self.classifier(images_BCHW)
            score = logits_BK.gather(1, labels_B[:, None]).sum()
        (gradient_BCHW,) = torch.autograd.grad(score, images_BCHW)
        if not guide.passed:
            raise UsageError(
                "Guided backprop changes the gradients of ReLUs and this classifier has none on "
                "the way to its images, so that it would be Grad; choose a classifier with ReLUs, "
                "such as resnet50."
            )
        return gradient_BCHW.abs().amax(dim=1)


class Guide:
    """Stands in for ReLUs; `passed` counts those that a gradient came through."""

    def __init__(self) -> None:
        self.passed = 0

    def rules(self) -> dict[Callable, Callable]:
        """For `Exchanged`: what to call in place of each kind of ReLU."""
        relus = (F.relu, F.relu6, torch.relu, torch.Tensor.relu)
        return dict.fromkeys(relus, self._guided) | {F.hardtanh: self._guided_from_zero}

    def _guided(self, function: Callable, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The same values, but gradients below zero end here."""
        # In-place functions get a copy: what is changed afterwards cannot carry the hook.
        values = function(inputs.clone(), *args, **kwargs)
        if values.requires_grad:
            values.register_hook(self._positive_part)
        return values

    def _guided_from_zero(
        self, function: Callable, inputs: Tensor, min_val: float = -1.0, *args: Any, **kwargs: Any
    ) -> Tensor:
        """ReLU6 layers call `hardtanh` from 0 to 6."""
        if min_val != 0:
            return function(inputs, min_val, *args, **kwargs)
        return self._guided(function, inputs, min_val, *args, **kwargs)

    def _positive_part(self, gradient: Tensor) -> Tensor:
        self.passed += 1
        return gradient.clamp(min=0)
