"""Copies of a classifier that judge and never learn, made to be differentiated by their input."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .classifier import Classifier


class FrozenNorm(nn.Module):
    """A BatchNorm in eval mode; its values are torch's, its gradient by the input costs less.

    On a GPU torch's own backward pass leaves the channels_last layout here, and takes longer than
    the convolutions. Parameters and statistics keep their names.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        for name in ("running_mean", "running_var", "weight", "bias"):
            self.register_buffer(name, getattr(norm, name).detach())
        self.register_buffer("zero", torch.zeros_like(self.bias), persistent=False)
        self.eps = norm.eps
        # What timm's BatchNormAct2d does next, PReLU with weights; a plain BatchNorm has neither.
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, features_BCHW: Tensor) -> Tensor:
        mean, variance, weight = self.running_mean, self.running_var, self.weight
        normed_BCHW = _Normed.apply(
            features_BCHW, mean, variance, weight, self.bias, self.zero, self.eps
        )
        return self.act(self.drop(normed_BCHW))


class _Normed(torch.autograd.Function):
    """The gradient is normed like the features, without being shifted: the map is affine."""

    @staticmethod
    def forward(ctx, features_BCHW, mean, variance, weight, bias, zero, eps):
        ctx.save_for_backward(variance, weight, zero)
        ctx.eps = eps
        return F.batch_norm(features_BCHW, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx, gradient_BCHW):
        variance, weight, zero = ctx.saved_tensors
        normed_BCHW = F.batch_norm(gradient_BCHW, zero, variance, weight, zero, eps=ctx.eps)
        return normed_BCHW, None, None, None, None, None, None


def frozen_copy(classifier: Classifier) -> Classifier:
    """A copy in eval mode that learns nothing and whose weights `take_weights` changes."""
    judge = copy.deepcopy(classifier).eval().requires_grad_(False)
    for parent in list(judge.modules()):
        for name, module in parent.named_children():
            if isinstance(module, _BatchNorm) and _is_complete(module):
                setattr(parent, name, FrozenNorm(module))
    return judge


def _is_complete(norm: _BatchNorm) -> bool:
    """Whether it has all that a BatchNorm can have; others stay torch's."""
    parts = norm.running_mean, norm.running_var, norm.weight, norm.bias
    return all(part is not None for part in parts)


def take_weights(judge: Classifier, state: Mapping[str, Tensor]) -> None:
    """Give a frozen copy the weights and statistics of a classifier's `state_dict`."""
    for name, value in judge.state_dict().items():
        value.copy_(state[name], non_blocking=True)
