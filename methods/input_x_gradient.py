"""Input × gradient: how much each pixel adds to the class score, to first order (captum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from casm_bench.api import fong_rule, register

from ._captum import CaptumMethod, captum

if TYPE_CHECKING:
    from torch import nn


@register(
    "input-x-gradient",
    title="Input × gradient",
    family="gradient",
    paper="Shrikumar, Greenside, Shcherbina & Kundaje 2016, Not Just a Black Box "
    "(arXiv:1605.01713)",
    summary="Largest absolute product, over the channels, of a pixel and the derivative of the "
    "class's logit by it.",
    knows_class=True,
    trained=False,
    cost="1 forward, 1 backward (input only)",
    rule=fong_rule("mean", 5.0),
    scale_free=True,
    extra="captum",
    deviations="The paper localizes nothing; box by the rule published for Grad. Computed by "
    "captum's InputXGradient.",
)
@dataclass
class InputXGradient(CaptumMethod):
    """saliency = max_c |x_c · ∂z_y/∂x_c|, with z_y the logit and x the normalised image."""

    def attribution(self, forward: nn.Module) -> Any:
        return captum.InputXGradient(forward)
