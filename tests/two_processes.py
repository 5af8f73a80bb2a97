"""Run by torchrun in test_processes.py: plays Algorithm 1 with the other processes.

Arguments: a folder for the results, in which one process has begun a run. BatchNorm is in eval
mode, as the CPU has no joint one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from casm_bench import processes, training
from casm_bench.backbones.classifier import build_classifier
from casm_bench.data.shapes import load_shapes
from casm_bench.methods._algorithm1 import Game
from casm_bench.methods.casm import CASM

EPOCHS = 2
STEPS = 3  # per epoch
STOP = 4  # before this step a run is cut off


class Stopped(Exception):
    pass


class EvalGame(Game):
    """Algorithm 1 with all BatchNorm in eval mode; may be cut off before a step."""

    def __init__(self, method: CASM, stop: int | None = None) -> None:
        super().__init__(method)
        self.taken, self.stop = 0, stop
        self.classifier.eval()
        self.masker.decoder.eval()

    def step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.taken == self.stop:
            raise Stopped
        self.taken += 1
        return super().step(*batch)


def play(workspace: Path | None = None, stop: int | None = None) -> tuple[EvalGame, list[dict]]:
    """Two epochs of three steps with past classifiers; the game and its statistics."""
    torch.manual_seed(0)
    classifier = build_classifier("test_resnet", 8, input_size=64)
    nn.init.normal_(classifier.model.get_classifier().weight, std=0.5)
    game = EvalGame(CASM(classifier.eval(), save_every=2, past_classifiers=2), stop)
    pictures = load_shapes(train=8 * STEPS, held_out=1, evaluated=1).train
    batches = training.TrainBatches(
        pictures, classifier, 8, workspace=workspace, checkpoint_every_s=0.0
    )
    return game, training.run(game, batches, EPOCHS)


def main(folder: Path) -> None:
    processes.join(on_gpu=False)
    game, history = play()
    if processes.is_first():
        torch.save({"state": game.state_dict(), "history": history}, folder / "whole.pt")
    try:
        play(folder / "cut-off", STOP)
    except Stopped:
        processes.wait()
    game, _ = play(folder / "begun")
    if processes.is_first():
        torch.save({"state": game.state_dict(), "taken": game.taken}, folder / "continued.pt")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
