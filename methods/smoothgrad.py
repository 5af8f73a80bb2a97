"""SmoothGrad: the mean of the gradients at noisy copies of the image (captum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from casm_bench.api import fong_rule, register
from casm_bench.settings import Amount, Count

from ._captum import CaptumMethod, captum

if TYPE_CHECKING:
    from torch import Tensor, nn


@register(
    "smoothgrad",
    title="SmoothGrad",
    family="gradient",
    paper="Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, SmoothGrad: removing noise by adding "
    "noise (arXiv:1706.03825)",
    summary="Grad of the derivatives' mean over noisy copies of the image.",
    knows_class=True,
    trained=False,
    cost="50 forward, 50 backward (input only)",
    rule=fong_rule("mean", 5.0),
    scale_free=True,
    extra="captum",
    deviations="The paper localizes nothing; box by the rule published for Grad. Computed by "
    "captum's NoiseTunnel.",
)
@dataclass
class SmoothGrad(CaptumMethod):
    """saliency = max_c |1/n · Σ_i ∂z_y/∂x_c at x + ε_i|, ε_i ~ N(0, σ²), with z_y the logit.

    σ is `noise` times the image's range, largest minus smallest normalised value; the paper
    recommends 10 to 20 percent and 50 samples. `chunk` is the number of samples at once; what is
    drawn for each may depend on it.
    """

    samples: Count = 50
    noise: Amount = 0.15

    draws: ClassVar[bool] = True

    def attribution(self, forward: nn.Module) -> Any:
        return captum.NoiseTunnel(captum.Saliency(forward))

    def arguments(self, images_nCHW: Tensor) -> dict[str, Any]:
        # One image, for random numbers are drawn for each by itself.
        value_range = (images_nCHW.max() - images_nCHW.min()).item()
        return {
            "nt_type": "smoothgrad",
            "nt_samples": self.samples,
            "nt_samples_batch_size": min(self.samples, self.chunk),
            "stdevs": self.noise * value_range,
            "abs": False,  # signs may cancel in the mean
        }
