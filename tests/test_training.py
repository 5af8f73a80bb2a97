"""The training loop: epochs, checkpoints, and resuming to bit-identical weights."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from casm_bench import registry, training
from casm_bench.backbones.classifier import Classifier, build_classifier
from casm_bench.backbones.pretrain import ClassifierTraining
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError, WorkError
from casm_bench.methods._algorithm1 import Game
from casm_bench.methods.casm import CASM
from casm_bench.recipes import Pretraining
from casm_bench.training import BoxedBatches, TrainBatches

EPOCHS = 2


@pytest.fixture(scope="module")
def shapes():
    return load_shapes(train=40, held_out=1, evaluated=1).train


def a_classifier():
    torch.manual_seed(0)
    classifier = build_classifier("test_resnet", 8, input_size=64)
    nn.init.normal_(classifier.model.get_classifier().weight, std=0.5)
    return classifier


def batches_of(shapes, folder=None, **changes):
    settings = {"batch_size": 8, "seed": 3, "augment": "flip", "checkpoint_every_s": 0.0}
    return TrainBatches(shapes, a_classifier(), workspace=folder, **(settings | changes))


class Stopped(Exception):
    pass


class StopsBefore:
    """A trainee that is killed when it should take its n-th step of this session."""

    def __init__(self, trainee, step):
        self.trainee, self.left = trainee, step

    def __getattr__(self, name):
        return getattr(self.trainee, name)

    def step(self, *batch):
        if self.left == 0:
            raise Stopped
        self.left -= 1
        return self.trainee.step(*batch)


def a_game():
    return Game(CASM(a_classifier(), save_every=2, past_classifiers=2, seed=5))


def assert_equal(a, b):
    assert type(a) is type(b)
    if torch.is_tensor(a):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def without_seconds(history):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history]


@pytest.mark.parametrize("stops", [[0], [3], [5], [1, 1, 4], random.Random(7).sample(range(9), 2)])
def test_a_stopped_game_goes_on_to_the_same_bits(shapes, tmp_path, stops):
    """Weights, both optimizers, past classifiers, random states and statistics."""
    whole = a_game()
    expected = training.run(whole, batches_of(shapes), EPOCHS)
    for stop in stops:
        with pytest.raises(Stopped):
            training.run(StopsBefore(a_game(), stop), batches_of(shapes, tmp_path), EPOCHS)
    resumed = a_game()
    history = training.run(resumed, batches_of(shapes, tmp_path), EPOCHS)
    assert_equal(resumed.state_dict(), whole.state_dict())
    assert without_seconds(history) == without_seconds(expected)


def test_a_checkpoint_that_is_seldom_written_only_costs_time(shapes, tmp_path):
    whole, resumed = a_game(), a_game()
    training.run(whole, batches_of(shapes), EPOCHS)
    with pytest.raises(Stopped):
        batches = batches_of(shapes, tmp_path, checkpoint_every_s=1e9)
        training.run(StopsBefore(a_game(), 7), batches, EPOCHS)
    training.run(resumed, batches_of(shapes, tmp_path), EPOCHS)
    assert_equal(resumed.state_dict(), whole.state_dict())


def test_a_finished_training_is_not_repeated(shapes, tmp_path):
    first = ClassifierTraining(a_classifier(), Pretraining())
    history = training.run(first, batches_of(shapes, tmp_path), 1)
    again = ClassifierTraining(a_classifier(), Pretraining())
    assert training.run(StopsBefore(again, 0), batches_of(shapes, tmp_path), 1) == history
    assert_equal(again.classifier.state_dict(), first.classifier.state_dict())


def test_only_a_whole_training_is_finished(shapes, tmp_path):
    assert not training.is_finished(tmp_path, EPOCHS)
    with pytest.raises(Stopped):
        training.run(StopsBefore(a_game(), 9), batches_of(shapes, tmp_path), EPOCHS)
    assert (tmp_path / "training.pt").exists()
    assert not training.is_finished(tmp_path, EPOCHS)
    training.run(a_game(), batches_of(shapes, tmp_path), EPOCHS)
    assert training.is_finished(tmp_path, EPOCHS)
    assert not training.is_finished(tmp_path, EPOCHS + 1)


def test_training_leaves_the_global_random_state_alone(shapes):
    torch.manual_seed(11)
    expected = torch.rand(3)
    trainee, batches = ClassifierTraining(a_classifier(), Pretraining()), batches_of(shapes)
    torch.manual_seed(11)
    training.run(trainee, batches, 1)
    assert torch.equal(torch.rand(3), expected)


def test_a_classifier_learns(shapes):
    trainee = ClassifierTraining(a_classifier(), Pretraining(learning_rate=1e-2))
    history = training.run(trainee, batches_of(shapes, augment="none"), 12)
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert [epoch["epoch"] for epoch in history] == list(range(1, 13))


def test_a_checkpoint_of_another_configuration_is_refused(shapes, tmp_path):
    training.run(ClassifierTraining(a_classifier(), Pretraining()), batches_of(shapes, tmp_path), 1)
    with pytest.raises(UsageError, match=r"training\.pt.*Delete it"):
        other = ClassifierTraining(a_classifier(), Pretraining())
        training.run(other, batches_of(shapes, tmp_path, seed=4), 1)


def test_a_foreign_checkpoint_is_refused(shapes, tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "training.pt")
    with pytest.raises(UsageError, match=r"training\.pt.*Delete it"):
        trainee = ClassifierTraining(a_classifier(), Pretraining())
        training.run(trainee, batches_of(shapes, tmp_path), 1)


def test_without_pictures_nothing_is_trained(shapes):
    trainee = ClassifierTraining(a_classifier(), Pretraining())
    with pytest.raises(UsageError, match="no training pictures"):
        training.run(trainee, batches_of(shapes.subset([])), 1)


def test_a_damaged_checkpoint_is_explained(shapes, tmp_path):
    (tmp_path / "training.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(WorkError, match=r"training\.pt.*Delete it"):
        trainee = ClassifierTraining(a_classifier(), Pretraining())
        training.run(trainee, batches_of(shapes, tmp_path), 1)


@pytest.mark.parametrize(
    ("whole", "share", "steps"), [(10_010, 0.2, 2_003), (10, 1.0, 10), (10, 0.2, 3), (4, 0.99, 4)]
)
def test_an_epoch_of_a_share_of_the_batches(shapes, monkeypatch, whole, share, steps):
    """The official loop stops when i > 0.2·10,010 = 2,002, so after 2,003 iterations."""
    monkeypatch.setattr(training, "steps_per_epoch", lambda dataset, batch_size: whole)
    assert batches_of(shapes, share=share).steps == steps


def test_batches_are_normalised_and_in_a_reproducible_order(shapes):
    first, again = (list(batches_of(shapes).epoch(1)) for _ in range(2))
    assert len(first) == 5
    assert_equal(first, again)
    (images_BCHW, labels_B), *_ = first
    assert images_BCHW.shape == (8, 3, 64, 64)
    assert labels_B.dtype == torch.int64
    tail = list(batches_of(shapes).epoch(1, start=3))
    assert_equal(tail, first[3:])


def test_statistics_reach_tensorboard_once_per_epoch(shapes, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    errors = {1: 50.0, 2: 25.0}
    batches = batches_of(
        shapes, tensorboard=tmp_path, onlooker=lambda epoch: {"localization_error": errors[epoch]}
    )
    history = training.run(a_game(), batches, EPOCHS, watched=True)
    written = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    events = written.Scalars("mask_entropy")
    assert [event.step for event in events] == [1, 2]
    logged = [epoch["mask_entropy"] for epoch in history]
    assert [event.value for event in events] == pytest.approx(logged, rel=1e-6)
    followed = {event.step: event.value for event in written.Scalars("localization_error")}
    assert followed == errors


def test_without_tensorboard_nothing_of_it_is_imported():
    code = (
        "import sys; from casm_bench import training\n"
        "with training._summary_writer(None) as write: write({'epoch': 1})\n"
        "assert not any(name.startswith('tensorboard') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tensorboard_that_is_not_installed_is_explained(shapes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'casm-bench\[tensorboard\]'"):
        training.run(a_game(), batches_of(shapes, tensorboard=tmp_path), EPOCHS)


def test_pictures_reach_the_device_as_bytes(shapes, monkeypatch):
    """A quarter of the traffic of floats; they are normalised there."""
    seen = []
    normalize = Classifier.normalize
    monkeypatch.setattr(
        Classifier, "normalize", lambda self, x: seen.append(x.dtype) or normalize(self, x)
    )
    next(iter(batches_of(shapes).epoch(0)))
    assert seen == [torch.uint8]


def test_an_epoch_may_be_cut_short(shapes):
    assert batches_of(shapes, most_steps=2).steps == 2
    assert len(list(batches_of(shapes, most_steps=2).epoch(0))) == 2
    assert batches_of(shapes, most_steps=100).steps == 5


def test_held_out_pictures_are_drawn_by_the_seed(shapes):
    held_out = load_shapes(train=1, held_out=20, evaluated=1).held_out
    batches = batches_of(shapes, held_out=held_out)
    labels = torch.cat([labels_B for _, labels_B in batches.held_out_batches(12)])
    order = np.sort(np.random.default_rng(3).permutation(20)[:12])
    assert labels.tolist() == held_out.labels_N[order].tolist()
    assert sum(len(y) for _, y in batches.held_out_batches(100)) == 20
    with pytest.raises(UsageError, match="holds out no training pictures"):
        next(batches_of(shapes).held_out_batches(1))


def test_learning_rates_fall_tenfold_after_each_third():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for epoch in (0, 19, 20, 39, 40, 59):
        training.step_decay(optimizer, 1e-3, epoch, 60)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


# --- true boxes reach those that declare them, and nobody else ---------------------------------


def test_unsupervised_methods_are_handed_no_boxes(shapes):
    assert all(len(boxes) == 1 for boxes in shapes.boxes)
    batches = batches_of(shapes, held_out=shapes)
    for dataset in (batches.dataset, batches.held_out):
        assert len(dataset) == len(shapes)
        assert not any(len(boxes) for boxes in dataset.boxes)
    assert [len(batch) for batch in batches.epoch(0)] == [2] * 5
    assert not hasattr(batches, "boxes")


def test_supervised_methods_are_handed_pictures_with_their_boxes(shapes):
    bare = dataclasses.replace(shapes, boxes=[*shapes.boxes[:9], *[np.zeros((0, 4))] * 31])
    batches = BoxedBatches(bare, a_classifier(), batch_size=3, augment="flip")
    assert batches.dataset.names == shapes.names[:9]
    for images_BCHW, _, boxes in batches.epoch(0):
        assert [tuple(boxes_N4.shape) for boxes_N4 in boxes] == [(1, 4)] * len(images_BCHW)


@pytest.mark.parametrize("boxes", ["never", "training", "test"])
def test_facts_decide_who_gets_boxes(boxes):
    kind = training.batches_for(dataclasses.replace(CASM.facts, boxes=boxes))
    assert kind is (BoxedBatches if boxes == "training" else TrainBatches)


@pytest.mark.parametrize("name", registry.names())
def test_only_the_supervised_family_learns_from_boxes(name):
    facts = registry.get(name).facts
    assert (facts.boxes == "training") == (facts.family == "supervised")
    if facts.family == "supervised":
        assert "supervised" in facts.title
        assert "upervised" in facts.summary
