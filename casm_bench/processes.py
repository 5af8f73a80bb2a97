"""Several processes on one run, started by `torchrun --nproc-per-node N -m casm_bench run …`.

torch.distributed itself rather than DistributedDataParallel or what builds on it: their hooks
need `.backward()`, which would compute weight gradients of the judging classifier that nobody
uses. Here gradients are asked for, averaged over the processes, and applied; every process draws
the same random numbers, so all stay in step and the checkpoint of one serves all.

Started without torchrun, there is one process and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from .errors import UsageError
from .lazy import lazy

torch = lazy("torch")
distributed = lazy("torch.distributed")

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

PATIENCE = timedelta(hours=12)  # the first process scores alone; the others wait for it


def count() -> int:
    """How many processes share the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", 0))


def is_first() -> bool:
    """Whether this process is the one that writes, scores and speaks."""
    return rank() == 0


def device_index() -> int:
    """The GPU of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def join(on_gpu: bool) -> None:
    """Meet the other processes; must come before everything else here."""
    if count() == 1 or distributed.is_initialized():
        return
    if on_gpu:
        torch.cuda.set_device(device_index())
    # Gloo beside NCCL: flags and paths travel through it without touching a GPU.
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes, at the end of the program."""
    if count() > 1 and distributed.is_initialized():
        distributed.destroy_process_group()


def wait() -> None:
    """Until all processes have come this far."""
    from_first(None)


def from_first(value: Value) -> Value:
    """What the first process has here, for decisions that all must agree on."""
    if count() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def average(tensors: Iterable[Tensor | None]) -> None:
    """Replace each tensor, in place, by its mean over the processes, in one exchange."""
    if count() == 1:
        return
    given = [tensor for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    if not given:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in given])
    distributed.all_reduce(flat)
    flat /= count()
    parts = flat.split([tensor.numel() for tensor in given])
    with torch.no_grad():
        for tensor, part in zip(given, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def own(items: Sequence[Value]) -> list[Value]:
    """This process's share when items are dealt out one by one."""
    return list(items[rank() :: count()])


def own_part(size: int) -> range:
    """This process's part of a joint batch of `size` images: positions in a row.

    Raises UsageError when the batch cannot be parted evenly.
    """
    if size % count():
        raise UsageError(
            f"A batch of {size} images cannot be parted evenly among {count()} processes. Choose "
            "another --nproc-per-node, or --set recipe.batch_size=… to a multiple of it."
        )
    part = size // count()
    return range(rank() * part, (rank() + 1) * part)
