"""The C library's heap, which on the CPU holds every tensor."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of glibc's mallopt (malloc.h)


def keep_freed() -> None:
    """Tell glibc to keep freed memory for this process instead of giving it back at once.

    The tensors of a training step are freed at its end and wanted again by the next one; each
    page that was given back costs a page fault. With ResNet-50 these were a tenth of a step of
    Algorithm 1. Does nothing with other C libraries.
    """
    if libc := _glibc():
        libc.mallopt(MMAP_MAX, 0)  # large tensors from the heap, too
        libc.mallopt(TRIM_THRESHOLD, -1)  # never


def give_back() -> None:
    """Give freed memory back to the system now, so that what is counted is what is in use."""
    if libc := _glibc():
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
