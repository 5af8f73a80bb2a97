"""Progress bars with a rate and the time left, shown for whatever takes more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from . import processes

SHOWN_AFTER_S = 2.0

Item = TypeVar("Item")


def progress(total: int, unit: str, description: str, initial: int = 0) -> tqdm:
    """A bar to `update(n)`; a context manager. Silent when standard error is not a terminal,
    except for one line every half minute, so that logs of long runs stay readable; of several
    processes only the first shows one."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        unit=f" {unit}",
        desc=description,
        delay=SHOWN_AFTER_S,
        mininterval=0.2 if terminal else 30,
        maxinterval=1 if terminal else 60,
        dynamic_ncols=terminal,
        leave=False,
        disable=not processes.is_first(),
    )


def counted(items: Iterable[Item], bar: tqdm) -> Iterator[Item]:
    """The items, each of which moves the bar on once it has been worked on."""
    for item in items:
        yield item
        bar.update()
