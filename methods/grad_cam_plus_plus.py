"""Grad-CAM++: Grad-CAM with more weight for places of their own (pytorch-grad-cam)."""

from __future__ import annotations

from dataclasses import dataclass

from casm_bench.api import fong_rule, register

from ._pytorch_grad_cam import PytorchGradCamMethod, pytorch_grad_cam


@register(
    "grad-cam-plus-plus",
    title="Grad-CAM++",
    family="gradient",
    paper="Chattopadhay, Sarkar, Howlader & Balasubramanian 2018, Grad-CAM++ (WACV)",
    summary="Positive part of the last feature map's sum over channels, each weighted by a mean "
    "of the class's positive derivatives that favours places of their own.",
    knows_class=True,
    trained=False,
    cost="1 forward, 1 backward",
    rule=fong_rule("value", 0.35),
    upsample="bilinear",
    scale_free=True,
    extra="grad-cam",
    deviations="Computed by pytorch-grad-cam, which takes the logit where the paper takes its "
    "exponential, and stretches maps to [0, 1]. Box by the rule published for Grad-CAM, for lack "
    "of one of its own.",
)
@dataclass
class GradCAMPlusPlus(PytorchGradCamMethod):
    """saliency = ReLU(Σ_c w_c A_c), w_c = Σ_places α ReLU(g), α = g² / (2 g² + g³ Σ_places A_c),
    with g = ∂z_y/∂A_c (equations 7 and 19)."""

    def cam_class(self) -> type:
        return pytorch_grad_cam.GradCAMPlusPlus
