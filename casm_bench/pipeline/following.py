"""Localization error over training: the harness looks on, and tells the method nothing.

After every epoch a twin of the method takes over what was learned so far and makes maps of a few
pictures, which are scored as at the end. The twin keeps the method out of it: no network of its
own changes between training and evaluation mode. Random states are put back. So weights are the
same to the bit whether anybody follows or not, and nothing that was learned, or chosen, has seen
a box. The curve is for looking.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from .. import processes
from ..api import SaliencyMethod
from ..backbones.arithmetic import Arithmetic
from ..data.dataset import Dataset
from ..files import write_atomically
from ..protocols import CASM


class Follower:
    """Measures after every epoch that it is told of; the numbers survive an interruption.

    `twin` makes the method anew, as it was before training; `error` is a method's localization
    error on `pictures`, in percent; `notes` is the file that keeps the numbers during training.
    """

    def __init__(
        self,
        method: SaliencyMethod,
        twin: Callable[[], SaliencyMethod],
        error: Callable[[SaliencyMethod], float],
        pictures: Dataset,
        notes: Path,
    ) -> None:
        self.method, self.twin, self.error, self.notes = method, twin, error, notes
        self.how = {
            "on": f"{pictures.name} {pictures.split}",
            "images": len(pictures),
            "protocol": CASM.name,
        }
        self.errors = self._read()

    def __call__(self, epoch: int) -> dict[str, float]:
        """Measure after this epoch, counted from 1; of several processes the first does."""
        if not processes.is_first():
            return {}
        with torch.random.fork_rng(), Arithmetic().matrix_products():
            twin = self.twin()
            twin.load_state_dict(self.method.state_dict())
            self.errors[epoch] = self.error(twin)
        write_atomically(self.notes, json.dumps({"how": self.how, "errors": self.errors}))
        return self._of(epoch)

    def tell(self, method: SaliencyMethod) -> None:
        """Add the numbers to the statistics of a method whose training is over."""
        if not self.errors:
            return
        method.history = [epoch | self._of(epoch.get("epoch")) for epoch in method.history]
        method.findings = method.findings | {"followed": self.how}
        self.notes.unlink(missing_ok=True)

    def _of(self, epoch: int | None) -> dict[str, float]:
        error = self.errors.get(epoch)
        return {} if error is None else {"localization_error": error}

    def _read(self) -> dict[int, float]:
        """What an interrupted training left, if it was followed in the same way."""
        if not self.notes.exists():
            return {}
        kept = json.loads(self.notes.read_text())
        if kept["how"] != self.how:
            return {}
        return {int(epoch): error for epoch, error in kept["errors"].items()}
