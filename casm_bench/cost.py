"""What a piece of work costs: seconds, and the peak of memory while it ran."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from . import memory


def clock(device: torch.device) -> Callable[[], float]:
    """What counts the seconds of work on a device.

    On the CPU processor time, of all threads together: other programs lengthen it little, and it
    stands still while the process waits for a core. Elsewhere wall-clock time.
    """
    return time.process_time if device.type == "cpu" else time.perf_counter


class Cost:
    """Context that measures seconds, by the device's `clock`, and peak memory of what is inside.

    On a GPU the peak is of the memory torch allocated there; on the CPU it is that of the whole
    process, in MB (10⁶ bytes). Where the system cannot reset its peak (not Linux), the figure is
    the peak since the process started. `peak=False` measures seconds only, as one context inside
    another must: there is one peak for the whole process.
    """

    def __init__(self, device: torch.device, peak: bool = True) -> None:
        self.device = device
        self.peak = peak
        self.seconds = 0.0
        self.peak_memory_mb = 0.0

    def __enter__(self) -> Cost:
        if self.peak:
            self._reset_peak()
        self._started = clock(self.device)()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = clock(self.device)() - self._started
        if self.peak:
            self.peak_memory_mb = self._read_peak() / 1e6

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        memory.give_back()  # what work before this one has left
        with contextlib.suppress(OSError):  # then the peak counts from the start of the process
            Path("/proc/self/clear_refs").write_text("5")

    def _read_peak(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
