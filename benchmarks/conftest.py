"""Ratios rather than times: each round directly follows a round of what it is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cv2
import pytest
import torch

RATIOS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[RATIOS]:
        terminalreporter.section("ratios of CPU time")
        for line in config.stash[RATIOS]:
            terminalreporter.write_line(line)


@pytest.fixture
def beside(benchmark, request) -> Callable:
    """`beside(ours, reference)` measures `ours` and returns its result.

    The median over rounds of the ratio of the two is printed at the end. The test's timer must be
    `time.process_time`, so that other work on the machine disturbs little.
    """

    def measure(ours: Callable, reference: Callable, rounds: int = 5) -> object:
        reference_s = []

        def run_reference() -> None:
            start = time.process_time()
            reference()
            reference_s.append(time.process_time() - start)

        result = benchmark.pedantic(ours, setup=run_reference, rounds=rounds, warmup_rounds=1)
        if benchmark.enabled:
            pairs = zip(benchmark.stats.stats.data, reference_s[-rounds:], strict=True)
            ratio = statistics.median(own / other for own, other in pairs)
            benchmark.extra_info["ratio"] = ratio
            name = f"{request.node.name}: {ratio:.3g} x {reference.__name__}"
            request.config.stash[RATIOS].append(f"{name} ({1 / ratio:.3g} x as fast)")
        return result

    return measure


@pytest.fixture
def one_thread():
    """Threads that wait for each other on a busy machine count as CPU time."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])
