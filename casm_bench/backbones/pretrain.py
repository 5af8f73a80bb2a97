"""Training a classifier from scratch, where no weights are to be had."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import processes
from ..recipes import Pretraining
from .arithmetic import Arithmetic
from .classifier import Classifier
from .descent import descend, jointly_normalised


class ClassifierTraining:
    """A `training.Trainee` that fits a classifier to its labels by cross-entropy."""

    def __init__(
        self, classifier: Classifier, settings: Pretraining, arithmetic: Arithmetic | None = None
    ) -> None:
        arithmetic = arithmetic or Arithmetic()
        classifier.model = jointly_normalised(classifier.model)
        self.classifier = classifier.train()
        self.arithmetic = arithmetic
        self.predict = arithmetic.compiled(classifier.__call__)
        self.settings = settings
        self.optimizer = torch.optim.AdamW(
            classifier.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def start_epoch(self, epoch: int, epochs: int) -> None:
        rate = self.settings.learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        with self.arithmetic.forward(images_BCHW.device):
            logits_BK = self.predict(images_BCHW).float()
        loss = F.cross_entropy(logits_BK, labels_B)
        descend(loss, self.classifier.parameters(), self.optimizer)
        processes.average(self.classifier.buffers())
        accuracy = (logits_BK.argmax(1) == labels_B).float().mean()
        return {"loss": loss.detach(), "accuracy": accuracy}

    def state_dict(self) -> dict[str, object]:
        return {
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
