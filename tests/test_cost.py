"""What work costs, whatever else the machine does meanwhile."""

from __future__ import annotations

import time

import torch

from casm_bench.cost import Cost, clock


def test_a_process_that_waits_does_not_age_on_the_cpu():
    with Cost(torch.device("cpu"), peak=False) as waiting:
        time.sleep(0.2)
    assert waiting.seconds < 0.1
    with Cost(torch.device("cpu"), peak=False) as working:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    assert 0.05 <= working.seconds < 1


def test_on_a_gpu_seconds_are_the_walls():
    assert clock(torch.device("cuda")) is time.perf_counter
