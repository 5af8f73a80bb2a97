"""Finds λ_r, the weight of the mask-size term, on held-out training images and without boxes.

The published values belong to one network and ImageNet. Elsewhere the balance is knife-edged: a
little too small and the mask covers everything, a little too large and it vanishes, and neither
says anything. What a mask is for can be seen without boxes: it should hide the class, and cover
little. With s the share of f⁽⁰⁾'s right answers that masking out takes away, a mask is worth

    gain = s - mean mask

which is 0 for a full and for an empty mask, and near 1 for a perfect one. Short trainings at
different λ_r bracket the best: λ_r rises where the mask covers (almost) everything or hides most,
and falls where it has vanished or hides little. f⁽⁰⁾, the classifier that the run was given, is
the same yardstick for every strategy; a classifier that learns against the masker is none, since
it forgets and relearns. Its accuracy on the masked images is only recorded.

A design of this project; the paper gives its values without saying how they were found.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from casm_bench import processes
from casm_bench.api import lazy
from casm_bench.files import write_atomically

torch = lazy("torch")
training = lazy("casm_bench.training")

if TYPE_CHECKING:
    from pathlib import Path

    from casm_bench.backbones.classifier import Classifier
    from casm_bench.training import TrainBatches

    from ._algorithm1 import Algorithm1

log = logging.getLogger("casm_bench")

HELD_OUT_IMAGES = 256
SATURATED, EMPTY = 0.9, 0.02  # mean mask: beyond them a map says nothing
STRIDE = 2.0  # factor between λ_r while only one side of the bracket is known


@dataclass(frozen=True)
class Trial:
    """What a short training with one λ_r came to, on held-out images."""

    lambda_r: float
    mask_mean: float
    clean_accuracy: float  # of f⁽⁰⁾
    masked_accuracy: float  # of f⁽⁰⁾, masked out
    judge_clean_accuracy: float  # of the classifier that the masker played against
    judge_masked_accuracy: float

    @property
    def hidden(self) -> float:
        """Share of the right answers that masking out takes away."""
        return 1 - self.masked_accuracy / self.clean_accuracy if self.clean_accuracy else 0.0

    @property
    def gain(self) -> float:
        """What the mask is worth: what it hides, less what it covers."""
        return self.hidden - self.mask_mean

    @property
    def asks_for_more(self) -> bool:
        """Whether λ_r should rise: the mask covers nearly everything, or hides most already."""
        return self.mask_mean > SATURATED or (self.mask_mean >= EMPTY and self.hidden >= 0.5)


def next_lambda(trials: list[Trial], start: float) -> float | None:
    """The λ_r to try next; None where trials contradict each other and nothing new is left."""
    if not trials:
        return start
    too_small = [trial.lambda_r for trial in trials if trial.asks_for_more]
    too_large = [trial.lambda_r for trial in trials if not trial.asks_for_more]
    if not too_large:
        return max(too_small) * STRIDE
    if not too_small:
        return min(too_large) / STRIDE
    middle = math.sqrt(max(too_small) * min(too_large))
    known = any(math.isclose(middle, trial.lambda_r, rel_tol=0.01) for trial in trials)
    return None if known else middle


def search(method: Algorithm1, batches: TrainBatches) -> dict[str, object]:
    """Findings of a search from the published λ_r on: `lambda_r`, and the trials behind it.

    Trials that an interrupted search finished are not repeated. The method is left as it was.
    Raises UsageError where no training images are held out.
    """
    notes = batches.workspace / "lambda-search.json" if batches.workspace else None
    trials = _read(notes)
    initial, given = copy.deepcopy(method.state_dict()), copy.deepcopy(method.classifier)
    while len(trials) < method.search_trials:
        value = next_lambda(trials, method.published_size_weight)
        if value is None:
            break
        _train(method, batches, value, len(trials))
        trials.append(measure(method, batches, given))
        _say(trials[-1])
        method.load_state_dict(initial)
        _note(trials, notes)
    best = max(trials, key=lambda trial: trial.gain)
    log.info("lambda_r %.3g has the best gain, %.2f", best.lambda_r, best.gain)
    described = [asdict(trial) | {"gain": trial.gain} for trial in trials]
    return {"lambda_r": best.lambda_r, "lambda_search": described}


def _train(method: Algorithm1, batches: TrainBatches, value: float, number: int) -> None:
    """A short training with λ_r `value`, from where the method stands.

    It takes as many passes over the data as its steps need, whatever share of one the recipe
    calls an epoch, and all at the first epoch's learning rates.
    """
    method.findings = {"lambda_r": value}
    folder = batches.workspace / "trial" if batches.workspace else None
    game = method.game(batches.arithmetic)
    for number_of_pass, steps in enumerate(_passes(method.search_steps, batches)):
        short = replace(
            batches,
            workspace=folder and folder / str(number_of_pass),
            share=1.0,
            most_steps=steps,
            seed=batches.seed + number_of_pass,
            tensorboard=None,
            description=f"lambda_r {value:.3g}, trial {number + 1} of {method.search_trials}",
        )
        training.run(game, short, 1)
    processes.wait()
    if folder and processes.is_first():
        shutil.rmtree(folder, ignore_errors=True)


def _passes(steps: int, batches: TrainBatches) -> list[int]:
    """How many steps each pass over the data takes, `steps` in all."""
    whole = replace(batches, share=1.0, most_steps=None).steps
    full, rest = divmod(steps, whole)
    return [whole] * full + ([rest] if rest else [])


def measure(method: Algorithm1, batches: TrainBatches, given: Classifier) -> Trial:
    """Mask size, and what `given` and the method's classifier recognise, on held-out images."""
    networks = (given.eval(), method.classifier.eval())
    method.masker.decoder.eval()
    rows = []
    with torch.no_grad():
        for x_BCHW, y_B in batches.held_out_batches(HELD_OUT_IMAGES):
            _, features = method.classifier.with_features(x_BCHW)
            mask_B1hw = method.masker(x_BCHW, features)
            masked_BCHW = method.masked_out(x_BCHW, mask_B1hw)
            seen = [network(x) for network in networks for x in (x_BCHW, masked_BCHW)]
            right = [(logits_BK.argmax(1) == y_B).float() for logits_BK in seen]
            rows.append(torch.stack([mask_B1hw.mean((1, 2, 3)), *right]).double().cpu())
    return Trial(method.mask_size_weight, *torch.cat(rows, dim=1).mean(1).tolist())


def _say(trial: Trial) -> None:
    log.info(
        "lambda_r %.3g: mean mask %.2f, hides %.0f %%, gain %.2f",
        *(trial.lambda_r, trial.mask_mean, 100 * trial.hidden, trial.gain),
    )


def warn_if_trivial(method: Algorithm1, mask_mean: float) -> None:
    """Say so when the masks that came out cover everything or nothing."""
    if EMPTY <= mask_mean <= SATURATED:
        return
    state, remedy = ("saturated", "larger") if mask_mean > SATURATED else ("empty", "smaller")
    method.findings = method.findings | {"mask": state}
    log.warning(
        "%s: the mask is %s (mean %.3f) with lambda_r %.3g. Its maps say nothing; try a %s one, or "
        "--set %s.lambda_r=search.",
        *(method.facts.name, state, mask_mean, method.mask_size_weight, remedy, method.facts.name),
    )


def _read(notes: Path | None) -> list[Trial]:
    if not processes.from_first(notes is not None and notes.exists()):
        return []
    return [Trial(**trial) for trial in json.loads(notes.read_text())]


def _note(trials: list[Trial], notes: Path | None) -> None:
    if notes and processes.is_first():
        write_atomically(notes, json.dumps([asdict(trial) for trial in trials], indent=1))
