"""The search for λ_r: what a trial is worth, where to look next, and that it finds and resumes."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from torch import nn

from casm_bench import training
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError
from casm_bench.methods import _lambda_search
from casm_bench.methods._algorithm1 import Game
from casm_bench.methods._lambda_search import Trial, next_lambda
from casm_bench.methods.baseline import Baseline
from casm_bench.methods.casm import CASM
from casm_bench.training import TrainBatches


def a_trial(lambda_r, mask_mean, masked_accuracy, clean_accuracy=0.8):
    return Trial(lambda_r, mask_mean, clean_accuracy, masked_accuracy, 0.0, 0.0)


def full(lambda_r):
    return a_trial(lambda_r, 0.99, 0.0)


def empty(lambda_r):
    return a_trial(lambda_r, 0.001, 0.8)


def test_what_a_trial_is_worth():
    trial = a_trial(3.0, 0.3, masked_accuracy=0.2)
    assert trial.hidden == pytest.approx(0.75)
    assert trial.gain == pytest.approx(0.45)
    assert a_trial(3.0, 1.0, masked_accuracy=0.0).gain == 0  # a full mask hides everything
    assert a_trial(3.0, 0.0, masked_accuracy=0.8).gain == 0  # an empty one nothing
    assert a_trial(3.0, 0.5, 0.0, clean_accuracy=0.0).gain == -0.5  # nothing there to hide


@pytest.mark.parametrize(
    ("trial", "more"),
    [
        (full(1), True),
        (empty(1), False),
        (a_trial(1, 0.95, 0.8), True),  # covers nearly everything, whatever it hides
        (a_trial(1, 0.3, 0.3), True),  # hides most
        (a_trial(1, 0.3, 0.4), True),  # exactly a half
        (a_trial(1, 0.3, 0.5), False),  # hides little
        (a_trial(1, 0.01, 0.1), False),  # has vanished
    ],
)
def test_which_way_a_trial_points(trial, more):
    assert trial.asks_for_more is more


def test_the_bracket():
    assert next_lambda([], 2.5) == 2.5
    assert next_lambda([full(2.5)], 2.5) == 5.0
    assert next_lambda([empty(10)], 10) == 5.0
    assert next_lambda([full(2.5), full(5)], 2.5) == 10.0
    assert next_lambda([empty(10), empty(5)], 10) == 2.5
    assert next_lambda([full(2), empty(8)], 2) == pytest.approx(4)
    assert next_lambda([full(2), full(4), empty(16), empty(9)], 2) == pytest.approx(6)


def test_contradicting_trials_end_the_search():
    trials = [full(4), empty(1), full(2)]
    assert next_lambda(trials, 4) is None  # between 4 and 1 lies 2, which was tried


@pytest.fixture(scope="module")
def shapes():
    return load_shapes(train=24, held_out=16, evaluated=1)


def batches_of(shapes, classifier, folder=None):
    return TrainBatches(shapes.train, classifier, 8, workspace=folder, held_out=shapes.held_out)


def searching(classifier, cls=Baseline, **options):
    settings = {"lambda_r": "search", "search_trials": 3, "search_steps": 2, "epochs": 1}
    return cls(classifier, **(settings | options))


def test_a_search_tries_takes_the_best_and_trains_with_it(shapes, classifier):
    method = searching(classifier)
    method.fit(batches_of(shapes, classifier))
    trials = method.findings["lambda_search"]
    assert 1 <= len(trials) <= 3
    assert trials[0]["lambda_r"] == 2.5  # published for F
    best = max(trials, key=lambda trial: trial["gain"])
    assert method.findings["lambda_r"] == best["lambda_r"] == method.mask_size_weight

    given = Baseline(classifier, lambda_r=best["lambda_r"], epochs=1)
    given.fit(batches_of(shapes, classifier))
    for a, b in zip(*(m.masker.decoder.parameters() for m in (method, given)), strict=True):
        assert torch.equal(a, b)  # the search leaves no trace but its result


@pytest.mark.parametrize(("share", "steps"), [(1.0, 2), (0.2, 2), (0.2, 7), (0.01, 3)])
def test_a_trial_takes_its_steps_whatever_an_epoch_is(shapes, classifier, share, steps):
    """Three batches are a pass here; a share of 0.2 would make epochs of one."""
    batches = dataclasses.replace(batches_of(shapes, classifier), share=share)
    method = searching(classifier, search_steps=steps)
    taken, rates = [], set()
    game = method.game(batches.arithmetic)
    step = game.step

    def counted(*batch):
        taken.append(batch)
        rates.add(game.masker_optimizer.param_groups[0]["lr"])
        return step(*batch)

    game.step = counted
    method.game = lambda arithmetic: game
    _lambda_search._train(method, batches, 5.0, 0)
    assert len(taken) == steps
    assert rates == {method.masker_rate}
    assert len({images_BCHW.sum().item() for images_BCHW, _ in taken}) == steps  # all differ


def test_a_trial_is_judged_by_the_given_classifier_and_the_current_beside(shapes, classifier):
    batches = batches_of(shapes, classifier)
    method = CASM(classifier)
    same = _lambda_search.measure(method, batches, classifier)
    assert same.judge_clean_accuracy == same.clean_accuracy > 0
    assert same.judge_masked_accuracy == same.masked_accuracy
    with torch.no_grad():  # a classifier that always says class 0
        head = method.classifier.model.get_classifier()
        head.weight.zero_()
        head.bias.copy_(torch.arange(len(head.bias), 0, -1))
    other = _lambda_search.measure(method, batches, classifier)
    assert other.clean_accuracy == same.clean_accuracy
    labels_N = shapes.held_out.labels_N
    assert other.judge_clean_accuracy == other.judge_masked_accuracy == (labels_N == 0).mean()


class RightOn(nn.Module):
    """Knows the labels of so many pictures, of fewer where they are black."""

    def __init__(self, labels_B, clean: int, black: int):
        super().__init__()
        self.labels_B, self.clean, self.black = labels_B, clean, black

    def forward(self, images_BCHW):
        known = self.clean if images_BCHW.any() else self.black
        wrong_B = (torch.arange(len(self.labels_B)) >= known).long()
        return nn.functional.one_hot((self.labels_B + wrong_B) % 8, 8).float()


def test_a_trial_holds_what_was_measured(shapes, classifier, monkeypatch):
    method = CASM(classifier)
    batches = dataclasses.replace(batches_of(shapes, classifier), batch_size=16)
    ((x_BCHW, y_B),) = batches.held_out_batches(256)
    monkeypatch.setattr(method, "masked_out", lambda x_BCHW, mask_B1hw: torch.zeros_like(x_BCHW))
    monkeypatch.setattr(method.classifier, "forward", RightOn(y_B, 6, 2).forward)
    method.masker.decoder.train()
    found = _lambda_search.measure(method, batches, RightOn(y_B, 13, 9))
    assert dataclasses.astuple(found)[2:] == (13 / 16, 9 / 16, 6 / 16, 2 / 16)
    with torch.no_grad():
        method.masker.decoder.eval()
        masks_B1hw = method.masker(x_BCHW, method.classifier.with_features(x_BCHW)[1])
    assert found.mask_mean == pytest.approx(masks_B1hw.mean().item(), rel=1e-5)
    assert found.lambda_r == method.mask_size_weight


def test_a_search_sees_no_boxes(shapes, classifier):
    bare = dataclasses.replace(shapes.held_out, boxes=[None] * len(shapes.held_out))
    method, blind = searching(classifier), searching(classifier)
    method.fit(batches_of(shapes, classifier))
    batches = dataclasses.replace(batches_of(shapes, classifier), held_out=bare)
    blind.fit(batches)
    assert method.findings == blind.findings


def test_an_interrupted_search_goes_on(shapes, classifier, tmp_path, monkeypatch):
    expected = searching(classifier, CASM)
    expected.fit(batches_of(shapes, classifier))
    real, calls = training.run, []

    def stops_in_the_second_trial(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(training, "run", stops_in_the_second_trial)
    with pytest.raises(KeyboardInterrupt):
        searching(classifier, CASM).fit(batches_of(shapes, classifier, tmp_path))
    resumed = searching(classifier, CASM)
    resumed.fit(batches_of(shapes, classifier, tmp_path))
    assert resumed.findings == expected.findings
    assert len(calls) == 2 + 3  # the first trial was not repeated; two more, and the training


def test_a_trial_interrupted_in_its_second_pass_goes_on_there(
    shapes, classifier, tmp_path, monkeypatch
):
    """Three batches are a pass, and a trial takes two steps more."""
    steps = {"search_trials": 1, "search_steps": 5}
    expected, interrupted, resumed = (searching(classifier, CASM, **steps) for _ in range(3))
    expected.fit(batches_of(shapes, classifier))
    batches = dataclasses.replace(
        batches_of(shapes, classifier, tmp_path), checkpoint_every_s=0, most_steps=2
    )
    real, taken = Game.step, []

    def stops_at_the_fifth(game, *batch):
        taken.append(batch)
        if len(taken) == 5:
            raise KeyboardInterrupt
        return real(game, *batch)

    monkeypatch.setattr(Game, "step", stops_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(batches)
    resumed.fit(batches)
    assert resumed.findings == expected.findings
    assert len(taken) == 5 + 1 + 2  # the fifth again, and the training


def test_without_held_out_pictures_there_is_no_search(shapes, classifier):
    batches = TrainBatches(shapes.train, classifier, 8)
    with pytest.raises(UsageError, match=r"holds out no training pictures.*lambda_r"):
        searching(classifier).fit(batches)


@pytest.mark.parametrize(
    ("mean", "said", "state"),
    [
        (0.95, "saturated.*larger", "saturated"),
        (0.01, "empty.*smaller", "empty"),
        *((mean, "", None) for mean in (0.02, 0.4, 0.9)),
    ],
)
def test_trivial_masks_are_announced(classifier, caplog, mean, said, state):
    method = Baseline(classifier)
    with caplog.at_level(logging.WARNING, "casm_bench"):
        _lambda_search.warn_if_trivial(method, mean)
    assert bool(caplog.records) is bool(said)
    assert method.findings.get("mask") == state
    if said:
        assert "lambda_r 2.5" in caplog.text
        assert all(word in caplog.text for word in said.split(".*"))
