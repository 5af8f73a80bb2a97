"""Optimizer steps, and what else training does alike for one process or several."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from .. import processes

log = logging.getLogger("casm_bench")


def jointly_normalised(module: nn.Module) -> nn.Module:
    """`module`, whose BatchNorm is to normalise the joint batch of all processes.

    torch can do that on GPUs only. Parameters stay the same objects.
    """
    if processes.count() == 1:
        return module
    if next(module.parameters()).device.type != "cuda":
        _say_that_batches_stay_apart()
        return module
    return convert_sync_batchnorm(module)


@cache
def _say_that_batches_stay_apart() -> None:
    log.warning(
        "on the CPU every process normalises its own part of a batch: expect other numbers than "
        "from one process wherever BatchNorm is trained"
    )


def descend(
    loss: Tensor,
    parameters: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    max_norm: float | None = None,
    retain: bool = False,
) -> None:
    """One optimizer step down `loss`, whose gradients are the processes' mean.

    Gradients are taken with respect to `parameters` alone, so that a network which only passes
    the loss on pays for no weight gradients. `max_norm` clips their joint norm.
    """
    parameters = list(parameters)
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain, allow_unused=True)
    step_with(gradients, parameters, optimizer, max_norm)


def step_with(
    gradients: Iterable[Tensor | None],
    parameters: list[Tensor],
    optimizer: torch.optim.Optimizer,
    max_norm: float | None = None,
) -> None:
    """One optimizer step with given gradients, averaged over the processes."""
    gradients = list(gradients)
    processes.average(gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = _laid_out_like(parameter, gradient)
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()


def _laid_out_like(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """The gradient in its parameter's memory layout.

    Fused optimizers go through memory in order and do not look at strides: with a channels-last
    gradient of a contiguous weight they would silently step other elements. `.backward()` takes
    care of this, `torch.autograd.grad` does not.
    """
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
