"""The heap keeps what was freed, and peaks of memory do not count it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

TRAINED_THEN_MEASURED = """
import resource
import torch
from casm_bench import memory
from casm_bench.cost import Cost

def faults_of(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def step():
    torch.ones(50_000_000)  # 200 MB, freed at once

memory.keep_freed()
for _ in range(20):  # the first find no gap that has room for their alignment, too
    step()
print(sum(faults_of(step) for _ in range(20)))
with Cost(torch.device("cpu")) as cost:
    torch.ones(1_000_000)
print(cost.peak_memory_mb)
with Cost(torch.device("cpu")) as cost:
    step()
print(cost.peak_memory_mb)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_kept_and_not_counted():
    """200 MB are 48,828 pages of 4 kB: a page fault each if the system had to give them anew."""
    command = [sys.executable, "-c", TRAINED_THEN_MEASURED]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    faults, peak_of_little, peak_of_much = map(float, printed.split())
    assert faults < 1000
    assert 190 < peak_of_much - peak_of_little < 210
