"""Excitation backprop, function by function: what is exchanged while the network runs.

In place of gradients P travels back: the probability that a random walk down from the class passes
a neuron. Each rule gives the values of the function it replaces, and its own way back. Imports
torch: to be used through `lazy`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from casm_bench.errors import UsageError

from ._backward import Rule


def rules() -> dict[Callable, Rule]:
    """For `Exchanged`. What is not named keeps its gradient: it moves values, or picks maxima."""
    weighted = (F.conv1d, F.conv2d, F.linear)
    averages = (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, torch.Tensor.mean)
    passed = (F.batch_norm, F.relu, F.relu6, F.hardtanh, torch.relu, torch.Tensor.relu)
    products = (torch.mul, torch.Tensor.mul, torch.Tensor.mul_)
    refused = (
        *(torch.matmul, torch.Tensor.matmul, F.scaled_dot_product_attention),
        *(F.layer_norm, F.group_norm),
        *(F.silu, F.gelu, F.mish, F.hardswish, F.hardsigmoid, torch.sigmoid, torch.Tensor.sigmoid),
    )
    return {
        **dict.fromkeys(weighted, _weighted),
        **dict.fromkeys(averages, _averaged),
        **dict.fromkeys(passed, _passed),
        **dict.fromkeys((torch.add, torch.Tensor.add), _summed),
        torch.Tensor.add_: partial(_summed, in_place=True),
        **dict.fromkeys(products, _multiplied),
        **dict.fromkeys(refused, _refused),
    }


def _weighted(
    function: Callable, x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kw: Any
) -> Tensor:
    """By positive weights only, without the bias."""
    positive = weight.detach().clamp(min=0)
    return _Excited.apply(
        x,
        lambda x: function(x, weight, bias, *args, **kw),
        lambda x: function(x, positive, None, *args, **kw),
    )


def _averaged(function: Callable, x: Tensor, *args: Any, **kw: Any) -> Tensor:
    average = partial(_called, function, args, kw)
    return _Excited.apply(x, average, average)


def _called(function: Callable, args: tuple, kw: dict, x: Tensor) -> Tensor:
    return function(x, *args, **kw)


class _Excited(torch.autograd.Function):
    """values(x), with P divided among the inputs by their share of `excitations`, linear in x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Callable, excitations: Callable) -> Tensor:
        ctx.save_for_backward(x.clamp(min=0))
        ctx.excitations = excitations
        return values(x)

    @staticmethod
    def backward(ctx: Any, chance: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            excitation = ctx.excitations(x)
        share = torch.where(excitation > 0, chance / excitation, 0)
        (received,) = torch.autograd.grad(excitation, x, share)
        return x.detach() * received, None, None


def _passed(function: Callable, x: Tensor, *args: Any, **kw: Any) -> Tensor:
    """One input per output, which receives all of its P."""
    return _Passed.apply(x, partial(_called, function, args, kw))


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Callable) -> Tensor:
        return values(x.clone())  # the function may work in place

    @staticmethod
    def backward(ctx: Any, chance: Tensor) -> tuple[Tensor, None]:
        return chance, None


def _summed(
    function: Callable, a: Tensor, b: Tensor | float, in_place: bool = False, **kw: Any
) -> Tensor:
    """Two branches that meet; anything else that is added is no branch."""
    if isinstance(b, Tensor) and a.shape == b.shape and a.requires_grad and b.requires_grad:
        return _Summed.apply(a, b, in_place)
    return function(a, b, **kw)


class _Summed(torch.autograd.Function):
    """a + b, with P divided in proportion to the positive parts of both."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, in_place: bool) -> Tensor:
        ctx.save_for_backward(a.clamp(min=0), b.clamp(min=0))
        if not in_place:
            return a + b
        ctx.mark_dirty(a)
        return a.add_(b)

    @staticmethod
    def backward(ctx: Any, chance: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        share = torch.where(a + b > 0, chance / (a + b), 0)
        return a * share, b * share, None


def _multiplied(function: Callable, a: Tensor, b: Tensor | float) -> Tensor:
    """By a constant: P is passed on. By another branch, as in squeeze-and-excitation: no rule."""
    if isinstance(b, Tensor) and b.requires_grad:
        return _refused(function)
    return _passed(function, a, b)


def _refused(function: Callable, *args: Any, **kw: Any) -> Tensor:
    raise UsageError(
        "Excitation backprop is defined for convolutions, linear layers, pooling, batch norm, "
        f"ReLUs and sums; this classifier also calls {function.__name__}. Choose another, "
        "such as resnet50."
    )
