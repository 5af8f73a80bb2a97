"""Sanity checks for saliency maps (Adebayo et al. 2018): what depends on nothing learned?

A map that stays the same when the network's weights, or the labels that it learned from, are
drawn at random shows the picture and not what the network makes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..api import SaliencyMethod
from ..backbones.randomize import layer_groups, randomized, with_fresh
from ..data.dataset import Splits
from ..metrics.similarity import RADIUS, similarity
from ..progress import progress
from .bench import Bench
from .method_run import MethodRun

if TYPE_CHECKING:
    from .more import More, Row

IMAGES = 100  # are compared unless --images says otherwise
LEAST_SIDE = 2 * RADIUS + 1  # pixels of the frame
ANOTHER_SEED = 1_000_003  # is added to the run's, so that weights are not those it began with
REPEATED = 4  # one training picture in so many is shown, as many times: few enough to memorise
MASKER = "masker"  # what a trained method has learned beside a classifier
CASCADING, INDEPENDENT = "cascading", "independent"

Similarities = dict[int, dict[str, float]]  # by image, by measure


def weights_rows(more: More, indices: Sequence[int]) -> Iterator[Row]:
    """Similarity of each image's map to the one after randomization; fills `more.curves`.

    Cascading draws anew one layer group after the other, from the logits down, and keeps them so;
    independent one group at a time. Trained methods begin with what they learned themselves (their
    masker); then come the layers of the classifier that they look through.
    """
    originals = _originals(more, indices)
    subject = Randomized(more)
    found: dict[tuple[str, str], Similarities] = {}
    with progress(len(originals) * (2 * len(subject.stages) - 1), "maps", "random weights") as bar:
        for number, stage in enumerate(subject.stages):
            below = subject.stages[: number + 1]
            found[CASCADING, stage] = _compared(more, subject.method(below), originals, bar)
            found[INDEPENDENT, stage] = (
                _compared(more, subject.method([stage]), originals, bar)
                if number
                else found[CASCADING, stage]
            )
    for order in (CASCADING, INDEPENDENT):
        for measure in ("spearman", "ssim"):
            y_NS = [[found[order, s][i][measure] for s in subject.stages] for i in originals]
            more.curves[f"{measure}, {order}"] = (subject.stages, [np.array(y_S) for y_S in y_NS])
    yield from _rows("randomized_weights", found[CASCADING, subject.stages[-1]])


def labels_rows(more: More, indices: Sequence[int]) -> Iterator[Row]:
    """Similarity of each image's map to that of networks that learned permuted labels."""
    originals = _originals(more, indices)
    bench = PermutedLabels(more.bench)
    other = MethodRun(bench, more.cls)
    other.fit()
    more.remarks["training_accuracy"] = bench.pretraining_history[-1]["accuracy"]
    with progress(len(originals), "maps", "random labels") as bar:
        yield from _rows("randomized_labels", _compared(more, other.method, originals, bar))


def _rows(family: str, found: Similarities) -> Iterator[Row]:
    for index, values in found.items():
        yield index, {f"{family}_{measure}": value for measure, value in values.items()}


def _originals(more: More, indices: Sequence[int]) -> dict[int, np.ndarray]:
    maps = more.cached_maps(more.frame, set(indices))
    return {index: more.in_frame(map_HW) for index, map_HW in maps}


def _compared(
    more: More, method: SaliencyMethod, originals: dict[int, np.ndarray], bar: object
) -> Similarities:
    found = {}
    for index, map_HW in more.maps_by(method, sorted(originals)):
        found[index] = dict(similarity(originals[index], more.in_frame(map_HW)))
        bar.update(1)
    return found


class Randomized:
    """A fitted method of which some layer groups are as if it had never learned anything."""

    def __init__(self, more: More) -> None:
        self.bench, self.cls = more.bench, more.cls
        self.seed = more.bench.seed + ANOTHER_SEED
        self.groups = layer_groups(more.bench.classifier)
        self.fresh = more.bench.untrained_classifier(self.seed)
        self.learned = more.fitted().state_dict()
        self.unlearned = self._make(self.fresh, seed=self.seed).state_dict()
        own = [part for part in self.learned if not self._is_classifier(part)]
        self.stages = [*([MASKER] if own else []), *self.groups]

    def _make(self, classifier: torch.nn.Module, **values: object) -> SaliencyMethod:
        return self.bench.make(self.cls, classifier, **values)

    def _is_classifier(self, part: str) -> bool:
        """Whether a part of the method's state is a classifier of its own, that it trained."""
        state = self.learned[part]
        return isinstance(state, dict) and state.keys() == self.fresh.state_dict().keys()

    def method(self, stages: Collection[str]) -> SaliencyMethod:
        """The method with these stages drawn anew."""
        keys = [key for stage in stages for key in self.groups.get(stage, ())]
        fresh = self.fresh.state_dict()
        method = self._make(randomized(self.bench.classifier, fresh, keys))
        if self.learned:
            method.load_state_dict(
                {part: self._mixed(part, keys, MASKER in stages) for part in self.learned}
            )
        return method

    def _mixed(self, part: str, keys: Collection[str], masker: bool) -> object:
        learned, unlearned = self.learned[part], self.unlearned[part]
        if self._is_classifier(part):
            return with_fresh(learned, unlearned, keys)
        return unlearned if masker else learned


class PermutedLabels(Bench):
    """The same run with training labels that say nothing about the pictures.

    As many steps as usual, but on fewer pictures: labels without a rule take longer to learn.
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.request, bench.seed)
        self.usual = bench
        self.recipe = replace(self.recipe, follow=0)

    @cached_property
    def splits(self) -> Splits:
        """The usual ones, but for the training pictures."""
        train = self.usual.splits.train
        rng = np.random.default_rng(self.seed + ANOTHER_SEED)
        few = train.subset(rng.permutation(len(train))[: max(1, len(train) // REPEATED)])
        few = replace(few, labels_N=rng.permutation(few.labels_N))
        train = few.subset(np.resize(np.arange(len(few)), len(train)))
        return replace(self.usual.splits, train=train)
