"""CPU seconds until the command line answers, beside what importing the big packages costs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


COMMANDS = {
    "bare python": ["-c", "pass"],
    "--help": ["-m", "casm_bench", "--help"],
    "list methods": ["-m", "casm_bench", "list", "methods"],
    "import torch": ["-c", "import torch"],
    "import timm": ["-c", "import timm"],
}


@pytest.mark.benchmark(group="start-up, CPU seconds", timer=cpu_of_children)
@pytest.mark.parametrize("name", COMMANDS)
def test_start_up(name, benchmark):
    command = [sys.executable, *COMMANDS[name]]
    benchmark.pedantic(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL),
        rounds=5,
        warmup_rounds=1,
    )
