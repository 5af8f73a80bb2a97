"""Copies of a classifier that judge and never learn, made to be differentiated by their input."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .classifier import Classifier


class FrozenNorm(nn.Module):
    """A BatchNorm in eval mode: one multiplication and one addition per value.

    torch's own, differentiated by its input, leaves the channels_last layout on GPUs and takes
    longer than the convolutions. Parameters and statistics keep their names.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        for name, value in norm.state_dict().items():
            if name != "num_batches_tracked":
                self.register_buffer(name, value)
        for name in ("scale_C11", "shift_C11"):  # of parameters and statistics, see `refresh`
            self.register_buffer(name, torch.empty_like(self.weight)[:, None, None], False)
        self.eps = norm.eps
        # What timm's BatchNormAct2d does next; both are Identity where there is nothing to do.
        self.drop, self.act = getattr(norm, "drop", None), getattr(norm, "act", None)
        self.refresh()

    def refresh(self) -> None:
        """Take parameters and statistics as they are now."""
        scale_C = self.weight * torch.rsqrt(self.running_var + self.eps)
        self.scale_C11.copy_(scale_C[:, None, None])
        self.shift_C11.copy_((self.bias - self.running_mean * scale_C)[:, None, None])

    def forward(self, features_BCHW: Tensor) -> Tensor:
        # In the features' precision, or else they would leave in that of the parameters.
        scale_C11, shift_C11 = (x.to(features_BCHW) for x in (self.scale_C11, self.shift_C11))
        normed_BCHW = torch.addcmul(shift_C11, features_BCHW, scale_C11)
        for further in (self.drop, self.act):
            normed_BCHW = further(normed_BCHW) if further is not None else normed_BCHW
        return normed_BCHW


def frozen_copy(classifier: Classifier) -> Classifier:
    """A copy in eval mode that learns nothing and whose weights `take_weights` changes."""
    judge = copy.deepcopy(classifier).eval().requires_grad_(False)
    for parent in list(judge.modules()):
        for name, module in parent.named_children():
            if isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
                setattr(parent, name, FrozenNorm(module))
    return judge


def take_weights(judge: Classifier, state: Mapping[str, Tensor]) -> None:
    """Give a frozen copy the weights and statistics of a classifier's `state_dict`."""
    for name, value in judge.state_dict().items():
        value.copy_(state[name], non_blocking=True)
    for module in judge.modules():
        if isinstance(module, FrozenNorm):
            module.refresh()
