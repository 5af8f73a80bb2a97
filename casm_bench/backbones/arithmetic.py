"""How networks calculate while they are trained: precision, and whether they are compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from ..errors import UsageError
from ..recipes import Precision

Function = TypeVar("Function", bound=Callable)


@dataclass(frozen=True)
class Arithmetic:
    """fp32 (exact), tf32 (matrix products with ten-bit mantissas; NVIDIA GPUs) or bf16 (autocast).

    Masks, losses, statistics and optimizers are fp32 in all three.
    """

    precision: Precision = "fp32"
    compile: bool = False

    def forward(self, device: torch.device) -> AbstractContextManager:
        """Context for one forward pass.

        A pass each, for autocast keeps bf16 copies of the weights until it is left, and they
        would be stale after an optimizer's step.
        """
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    @contextmanager
    def matrix_products(self) -> Iterator[None]:
        """Context for training: allows tf32, or forbids it."""
        cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.allow_tf32, cublas.allow_tf32
        _allow_tf32(self.precision == "tf32")
        try:
            yield
        finally:
            cudnn.allow_tf32, cublas.allow_tf32 = before

    def compiled(self, function: Function) -> Function:
        """`function`, through torch.compile if that was asked for."""
        return torch.compile(function, dynamic=False) if self.compile else function

    def check(self, device: torch.device) -> None:
        """Raise UsageError for a precision that the device does not have."""
        if self.precision == "tf32" and device.type != "cuda":
            raise UsageError(
                f"--set recipe.precision=tf32 needs an NVIDIA GPU; on {device.type} choose fp32."
            )


def forbid_tf32() -> None:
    """Have all networks calculate in full fp32 until told otherwise, on GPUs as on the CPU.

    cuDNN allows tf32 unless told, and a map made with it is not the CPU's.
    """
    _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
