"""A step of Algorithm 1 beside a plain step of the same network: ResNet-50, 224 pixels.

Goals, as multiples of the plain step: 2.45 where the current classifier judges, 1.75 where a past
one does. Counted in passes they cannot fall below 2.36 and 1.69.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from casm_bench import memory
from casm_bench.backbones.classifier import Classifier, build_classifier
from casm_bench.methods._algorithm1 import Algorithm1, Game

PICTURES = 16  # with fewer, torch on one thread leaves its fast 1×1 convolutions aside
SIZE = 224
CLASSES = 1000

Step = Callable[[Tensor, Tensor], object]


class AlwaysPast(random.Random):
    """Chance under which a past classifier judges at every step."""

    def random(self) -> float:
        return 0.0


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(PICTURES, 3, SIZE, SIZE, generator=generator)
    labels_B = torch.randint(CLASSES, (PICTURES,), generator=generator)
    return images_BCHW.contiguous(memory_format=torch.channels_last), labels_B


def resnet50() -> Classifier:
    return build_classifier("resnet50", CLASSES).to(memory_format=torch.channels_last).train()


def plain_step() -> Step:
    model = resnet50()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True
    )

    def step(images_BCHW: Tensor, labels_B: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images_BCHW), labels_B).backward()
        optimizer.step()

    return step


def current_judges() -> Step:
    return Game(Algorithm1(resnet50(), strategy="L")).step


def past_judges() -> Step:
    game = Game(Algorithm1(resnet50(), strategy="L100"))
    game.chance = AlwaysPast()
    return game.step


def classifier_stays() -> Step:
    return Game(Algorithm1(resnet50(), strategy="F")).step


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(group="training step, CPU seconds", timer=time.process_time)
@pytest.mark.parametrize("make_step", [current_judges, past_judges, classifier_stays])
def test_training_step(make_step, beside):
    memory.keep_freed()  # for both, as in `training.run`
    images_BCHW, labels_B = batch()
    step, plain = make_step(), plain_step()

    def ours() -> None:
        step(images_BCHW, labels_B)

    def plain_training_step() -> None:
        plain(images_BCHW, labels_B)

    beside(ours, plain_training_step, rounds=3)
