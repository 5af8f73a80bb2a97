"""One training loop for everything that is trained: batches, schedule, checkpoints, resuming.

What is trained is a `Trainee`: it knows how to take a step, and how to give and take back all
its state. The loop knows the order of the pictures, which is a pure function of seed and epoch,
so a run that was stopped anywhere continues to bit-identical weights on the CPU. Several
processes (see `processes`) part every batch among them and stay in step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from . import memory, processes
from .api import Facts
from .backbones.arithmetic import Arithmetic
from .backbones.classifier import Classifier
from .cost import clock
from .data.dataset import Dataset
from .data.loader import LEAST_AREA, frame_batches, steps_per_epoch, training_batches
from .errors import UsageError, WorkError
from .files import write_atomically
from .progress import progress

log = logging.getLogger("casm_bench")

CHECKPOINT = "training.pt"  # in a training's workspace

Statistics = dict[str, Tensor]  # name → scalar on the device


class Trainee(Protocol):
    """Something that learns from batches."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set what depends on the epoch, such as learning rates."""

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> Statistics:
        """Learn from one batch. Must not wait for the device: statistics stay tensors.

        Trainees of supervised methods also take the boxes that `BoxedBatches` yields.
        """

    def state_dict(self) -> dict[str, object]:
        """Everything that the next step depends on."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back what `state_dict` gave."""


@dataclass
class TrainBatches:
    """Normalised training batches of a data set, and where training them is to be kept.

    Pictures and classes only: the data set behind it has lost its boxes. `BoxedBatches` has them.
    """

    dataset: Dataset
    classifier: Classifier  # normalises, and says the input size
    batch_size: int  # of all processes together
    seed: int = 0
    augment: str = "none"
    share: float = 1.0  # of the batches that make one epoch (published: 0.2)
    most_steps: int | None = None  # of one epoch, where it is to be cut short
    workspace: Path | None = None  # folder for checkpoints; none are kept without one
    checkpoint_every_s: float = 60.0
    description: str = "training"
    held_out: Dataset | None = None  # pictures nobody trains on, without their boxes
    arithmetic: Arithmetic = Arithmetic()
    tensorboard: Path | None = None  # folder for the epochs' statistics, if they are wanted there
    least_area: float = LEAST_AREA  # of random crops, as a share of the picture
    scale: int | None = None  # short side of pictures, in pixels, of which a square is cut out
    # told of every epoch of a watched training; what it answers is shown, not kept in the history
    onlooker: Callable[[int], dict[str, float]] | None = None

    def __post_init__(self) -> None:
        self.dataset = self._shown(self.dataset)
        self.held_out = self.held_out and self.held_out.without_boxes()

    def _shown(self, dataset: Dataset) -> Dataset:
        return dataset.without_boxes()

    @property
    def device(self) -> torch.device:
        """Where the classifier is, and so the batches."""
        return self.classifier.mean.device

    @property
    def steps(self) -> int:
        """Steps per epoch: the official loop stops when i > share·N, one batch late."""
        whole = steps_per_epoch(self.dataset, self.batch_size)
        return min(whole, int(self.share * whole) + 1, self.most_steps or whole)

    @property
    def joint_size(self) -> int:
        """Images in one batch of all processes: fewer than asked for if the data have fewer."""
        return min(self.batch_size, len(self.dataset))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Batches number `start` and following of an epoch, on the classifier's device.

        Each is what a trainee's `step` takes: images_BCHW and labels_B. Each process gets its own
        part of every batch.
        """
        for images_BCHW, labels_B, _ in self._batches(epoch, start):
            yield images_BCHW, labels_B

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        batches = training_batches(
            self.dataset,
            self.classifier.input_size,
            self.batch_size,
            self.seed,
            epoch,
            self.augment,
            start=start,
            part=processes.own_part(self.joint_size),
            least_area=self.least_area,
            scale=self.scale,
        )
        for _, (*batch, boxes) in zip(range(self.steps - start), batches, strict=False):
            yield *self._on_device(*batch), boxes

    def held_out_batches(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Up to `most` held-out pictures, chosen by the seed, cropped as for evaluation.

        Raises UsageError where the data set holds none out.
        """
        if self.held_out is None or not len(self.held_out):
            raise UsageError(
                f"Data set {self.dataset.name!r} holds out no training pictures, which lambda_r="
                "search needs. Give a number: --set METHOD.lambda_r=…"
            )
        order_N = np.random.default_rng(self.seed).permutation(len(self.held_out))
        chosen = np.sort(order_N[:most])
        size = self.classifier.input_size
        for batch in frame_batches(self.held_out, "crop", size, self.batch_size, chosen):
            yield self._on_device(batch.images_BCHW, batch.labels_B)

    def _on_device(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Uint8 pictures travel, from pinned memory to a GPU, and are normalised there."""
        if self.device.type == "cuda":
            images_BCHW, labels_B = images_BCHW.pin_memory(), labels_B.pin_memory()
        images_BCHW = self.classifier.normalize(images_BCHW.to(self.device, non_blocking=True))
        return (
            images_BCHW.contiguous(memory_format=torch.channels_last),
            labels_B.to(self.device, non_blocking=True),
        )


@dataclass
class BoxedBatches(TrainBatches):
    """Training batches with the true boxes, of the pictures that have any: for supervised methods.

    The harness makes them only for a method whose facts say `boxes="training"`.
    """

    def _shown(self, dataset: Dataset) -> Dataset:
        return dataset.only_boxed()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """As without boxes, and third a list of B tensors n×4: the boxes x0, y0, x1, y1 in pixels
        of the training picture, which they may leave."""
        for images_BCHW, labels_B, boxes in self._batches(epoch, start):
            yield images_BCHW, labels_B, [boxes_N4.to(self.device) for boxes_N4 in boxes]


def batches_for(facts: Facts) -> type[TrainBatches]:
    """The kind of training batches that a method is entitled to by its declared facts."""
    return BoxedBatches if facts.boxes == "training" else TrainBatches


class Totals:
    """Running sums of a step's statistics; reading them is the only wait for the device."""

    def __init__(
        self,
        device: torch.device,
        sums: Statistics | None = None,
        steps: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.sums: Statistics = dict(sums or {})
        self.steps = steps
        self._clock = clock(device)
        self._started = self._clock() - seconds  # of earlier sessions

    def add(self, statistics: Statistics) -> None:
        """Count a step, with its statistics averaged over the processes."""
        values = torch.stack([value.detach() for value in statistics.values()]).double()
        processes.average([values])
        for name, value in zip(statistics, values, strict=True):
            self.sums[name] = value + self.sums[name].to(value) if name in self.sums else value
        self.steps += 1

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began, by the device's clock, interruptions left out."""
        return self._clock() - self._started

    def means(self) -> dict[str, float]:
        """Mean of each statistic over the steps, and `seconds`."""
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        return means | {"seconds": self.seconds}


def run(
    trainee: Trainee, batches: TrainBatches, epochs: int, watched: bool = False
) -> list[dict[str, float]]:
    """Train for a number of epochs and return each epoch's mean statistics.

    With a workspace, the run continues from the last checkpoint there, and a finished one is not
    trained again. `watched` says that the method can make maps after any epoch; then
    `batches.onlooker` is told of each. Raises UsageError when the checkpoint belongs to another
    configuration, and WorkError when it is damaged.
    """
    if len(batches.dataset) == 0:
        raise UsageError(f"Data set {batches.dataset.name!r} has no training pictures.")
    batches.arithmetic.check(batches.device)
    memory.keep_freed()
    checkpoint = _Checkpoint(batches, epochs)
    with (
        torch.random.fork_rng(),
        batches.arithmetic.matrix_products(),
        _summary_writer(batches.tensorboard) as write_summary,
    ):
        torch.manual_seed(batches.seed)
        epoch, step, totals, history = checkpoint.load(trainee)
        total = epochs * batches.steps * batches.joint_size
        done = (epoch * batches.steps + step) * batches.joint_size
        with progress(total, "images", batches.description, initial=done) as bar:
            while epoch < epochs:
                if step == 0:  # a resumed epoch has its rates and counters from the checkpoint
                    trainee.start_epoch(epoch, epochs)
                for batch in batches.epoch(epoch, start=step):
                    totals.add(trainee.step(*batch))
                    step += 1
                    bar.update(len(batch[0]) * processes.count())
                    checkpoint.save_if_due(trainee, epoch, step, totals, history)
                history.append({"epoch": epoch + 1, **totals.means()})
                bar.set_postfix_str(_short(history[-1]), refresh=False)  # the bar knows when
                seen = batches.onlooker(epoch + 1) if watched and batches.onlooker else {}
                write_summary(history[-1] | seen)
                epoch, step, totals = epoch + 1, 0, Totals(batches.device)
            checkpoint.save(trainee, epoch, step, totals, history)
    return history


@contextmanager
def _summary_writer(folder: Path | None) -> Iterator[Callable[[dict[str, float]], None]]:
    """Writes an epoch's statistics for TensorBoard; without a folder nothing is even imported."""
    if folder is None or not processes.is_first():
        yield lambda statistics: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'casm-bench[tensorboard]'."
        ) from None
    with SummaryWriter(str(folder)) as writer:

        def write(statistics: dict[str, float]) -> None:
            for name, value in statistics.items():
                writer.add_scalar(name, value, int(statistics["epoch"]))

        yield write


def _short(statistics: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in list(statistics.items())[1:5])


class _Checkpoint:
    """The state of a run on disk, written whole or not at all.

    All processes have the same state, so the first one's is everybody's, however many there are.
    """

    def __init__(self, batches: TrainBatches, epochs: int) -> None:
        self.path = batches.workspace / CHECKPOINT if batches.workspace else None
        self.every_s = batches.checkpoint_every_s
        self.device = batches.device
        self.identity = {
            "epochs": epochs,
            "steps": batches.steps,
            "batch_size": batches.batch_size,
            "seed": batches.seed,
            "augment": batches.augment,
        }
        self.saved_at = time.monotonic()

    def save_if_due(self, *state: object) -> None:
        if self.path and time.monotonic() - self.saved_at >= self.every_s:
            self.save(*state)

    def save(
        self,
        trainee: Trainee,
        epoch: int,
        step: int,
        totals: Totals,
        history: list[dict[str, float]],
    ) -> None:
        if self.path is None or not processes.is_first():
            return
        state = {
            "identity": self.identity,
            "position": (epoch, step),
            "totals": (totals.sums, totals.steps, totals.seconds),
            "history": history,
            "trainee": trainee.state_dict(),
            "random": _random_state(),
        }
        write_atomically(self.path, lambda path: torch.save(state, path))
        self.saved_at = time.monotonic()

    def load(self, trainee: Trainee) -> tuple[int, int, Totals, list[dict[str, float]]]:
        if not processes.from_first(self.path is not None and self.path.exists()):
            return 0, 0, Totals(self.device), []
        state = read_state(self.path)
        made_with = state.get("identity")
        if made_with != self.identity:
            raise UsageError(
                f"The checkpoint {self.path} was made with {made_with}, but this run asks "
                f"for {self.identity}. Delete it to start again."
            )
        trainee.load_state_dict(state["trainee"])
        _restore_random_state(state["random"])
        epoch, step = state["position"]
        log.info("continuing %s at epoch %d, step %d", self.path, epoch + 1, step)
        return epoch, step, Totals(self.device, *state["totals"]), list(state["history"])


def is_finished(workspace: Path, epochs: int) -> bool:
    """Whether a training of so many epochs, kept in this folder, has come to its end.

    Raises WorkError when its checkpoint is damaged.
    """
    path = workspace / CHECKPOINT
    return path.exists() and read_state(path).get("position") == (epochs, 0)


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, object]:
    """Read what `torch.save` wrote, tensors and plain values only.

    Raises WorkError naming the file when it is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # an unpickler that is fed anything raises anything
        raise WorkError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}). Delete it to start "
            "again."
        ) from error


def _random_state() -> dict[str, object]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_random_state(state: dict[str, object]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def step_decay(optimizer: torch.optim.Optimizer, base: float, epoch: int, epochs: int) -> None:
    """Learning rate `base`, a tenth of it after each third of the epochs (CASM: 20 of 60)."""
    for group in optimizer.param_groups:
        group["lr"] = base * 0.1 ** (3 * epoch // epochs)
