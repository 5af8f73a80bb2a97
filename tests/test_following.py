"""Localization error over training: measured by the harness, and training never notices."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from casm_bench import registry, training
from casm_bench.cli import main
from casm_bench.data.loader import frame_batches
from casm_bench.errors import UsageError
from casm_bench.methods._algorithm1 import Game
from casm_bench.metrics.scoring import score_maps
from casm_bench.pipeline import Bench, Request
from casm_bench.pipeline.following import Follower
from casm_bench.pipeline.method_run import MethodRun
from casm_bench.protocols import get_protocol
from casm_bench.records import load_records

RECIPE = {
    **{"classifier": "test_resnet", "classifier_options": {}, "follow": 7},
    **{"batch_size": 8, "evaluation_batch_size": 5},
}
SETTINGS = {
    "recipe": RECIPE,
    "pretraining": {"epochs": 1, "batch_size": 8},
    "data": {"train": 24, "held_out": 10, "evaluated": 12},
}
CASM = {"casm": {"epochs": 3, "save_every": 2, "lambda_r": 2.0}}
BASELINE = {"baseline": {"epochs": 2, "lambda_r": "search", "search_trials": 2, "search_steps": 2}}


def measure(out: Path, methods: dict[str, dict[str, object]] = CASM, **recipe: object):
    settings = SETTINGS | {"recipe": RECIPE | recipe} | methods
    flat = [f"{of}.{name}={value}" for of, v in settings.items() for name, value in v.items()]
    options = ("--methods", *methods, "--out", str(out), "--no-controls")
    return main(["run", *options, "--set", *flat])


def only_record(out: Path):
    (record,) = load_records(out)
    return record


def errors(record):
    return [epoch.get("localization_error") for epoch in record.training]


def learned(out: Path):
    (fitted,) = out.glob("cache/methods/*/fitted.pt")
    return torch.load(fitted, weights_only=True)["state"]


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("followed")
    assert measure(out) == 0
    return out


def test_following_changes_no_bit(followed, tmp_path):
    """With BatchNorm, past classifiers and seeded lots over several epochs."""
    assert measure(tmp_path, follow=0) == 0
    ours, theirs = only_record(followed), only_record(tmp_path)
    state, unseen = learned(followed), learned(tmp_path)
    for part in ("classifier", "decoder"):
        assert all(torch.equal(state[part][name], v) for name, v in unseen[part].items())
    assert errors(theirs) == [None] * 3
    assert theirs.findings is None
    left_out = ("seconds", "localization_error")
    assert [{k: v for k, v in e.items() if k not in left_out} for e in ours.training] == [
        {k: v for k, v in e.items() if k not in left_out} for e in theirs.training
    ]
    assert ours.protocols == theirs.protocols
    assert (ours.key, ours.variant) == (theirs.key, theirs.variant)


def test_the_last_number_is_the_error_of_the_final_maps(followed):
    record = only_record(followed)
    how = {"on": "shapes held-out", "images": 7, "protocol": "casm"}
    assert record.findings == {"followed": how}
    bench = Bench(Request(out=followed, settings=SETTINGS | CASM), 0)
    cls = registry.get("casm")
    method = MethodRun(bench, cls).fitted()
    held_out = bench.splits.held_out
    rows = np.sort(np.random.default_rng(0).permutation(10)[:7])
    maps = {}
    for batch in frame_batches(held_out, "crop", 64, 3, rows):
        images_BCHW = bench.classifier.normalize(batch.images_BCHW)
        maps_BHW = method.maps(images_BCHW, batch.labels_B).numpy()
        maps |= dict(zip(batch.indices_B.tolist(), maps_BHW, strict=True))
    facts = cls.facts
    scores = score_maps(
        maps.items(), held_out, get_protocol("casm"), facts.rule, 64, facts.upsample
    )
    assert errors(record)[-1] == 100 * (1 - scores.hit_N.mean())
    assert all(0 <= error <= 100 for error in errors(record))


def test_a_training_that_was_stopped_goes_on_being_followed(followed, tmp_path, monkeypatch):
    steps, original, told = [], Game.step, []

    def stops_in_the_third_epoch(game, *batch):
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return original(game, *batch)

    monkeypatch.setattr(Game, "step", stops_in_the_third_epoch)
    init = training.TrainBatches.__init__
    monkeypatch.setattr(
        training.TrainBatches, "__init__", lambda *a, **k: init(*a, checkpoint_every_s=0.0, **k)
    )
    assert measure(tmp_path) == 130
    look = Follower.__call__
    monkeypatch.setattr(Follower, "__call__", lambda s, epoch: told.append(epoch) or look(s, epoch))
    assert measure(tmp_path) == 0
    assert told == [3]
    assert errors(only_record(tmp_path)) == errors(only_record(followed))
    assert not list(tmp_path.glob("cache/methods/*/followed.json"))


def test_the_trials_of_a_search_are_not_followed(tmp_path, monkeypatch):
    told = []
    look = Follower.__call__
    monkeypatch.setattr(Follower, "__call__", lambda s, epoch: told.append(epoch) or look(s, epoch))
    assert measure(tmp_path, BASELINE) == 0
    assert told == [1, 2]
    record = only_record(tmp_path)
    assert None not in errors(record)
    assert {"lambda_r", "lambda_search", "followed"} <= record.findings.keys()


def test_a_method_is_told_nothing():
    """What `training.run` hands back knows no boxes, whatever an onlooker makes of an epoch."""
    told = []

    class Idle:
        def start_epoch(self, epoch, epochs): ...

        def step(self, images_BCHW, labels_B):
            return {"loss": torch.zeros(())}

    bench = Bench(Request(settings=SETTINGS), 0)
    classifier = bench._untrained_classifier
    batches = training.TrainBatches(
        bench.splits.train, classifier, 8, onlooker=lambda epoch: told.append(epoch) or {"le": 1.0}
    )
    history = training.run(Idle(), batches, 2, watched=True)
    assert [set(epoch) for epoch in history] == [{"epoch", "loss", "seconds"}] * 2
    assert told == [1, 2]
    training.run(Idle(), batches, 1)
    assert told == [1, 2]  # who does not say that it can be watched is not


def test_pictures_are_held_out_where_those_have_boxes():
    def followed(seed=0, follow=7, boxed=True):
        bench = Bench(Request(settings=SETTINGS | {"recipe": {"follow": follow}}), seed)
        if not boxed:
            bare = bench.splits.held_out.without_boxes()
            bench.splits = dataclasses.replace(bench.splits, held_out=bare)
        return bench.followed_pictures

    assert (followed().split, len(followed())) == ("held-out", 7)
    assert len(followed(follow=200)) == 10
    assert followed(boxed=False).split == "evaluated"
    assert followed().names == followed().names
    rows = followed().positions_N.tolist()
    assert rows == sorted(rows) != followed(seed=1).positions_N.tolist()
    with pytest.raises(UsageError, match="follow"):
        followed(follow=-1)


def test_notes_of_another_way_of_following_are_left_alone(tmp_path, monkeypatch):
    method = SimpleNamespace(
        state_dict=dict, history=[{"epoch": 1}, {"epoch": 2}], findings={"lambda_r": 1.0}
    )
    twin = SimpleNamespace(load_state_dict=lambda state: None)
    bench = Bench(Request(settings=SETTINGS), 0)
    notes = tmp_path / "followed.json"

    def follower(count):
        pictures = bench.evaluated.subset(range(count))
        return Follower(method, lambda: twin, lambda same: 25.0, pictures, notes)

    follower(3)(1)
    assert follower(3).errors == {1: 25.0}
    assert follower(4).errors == {}
    monkeypatch.setenv("RANK", "1")
    follower(3)(2)  # of several processes only the first measures
    assert follower(3).errors == {1: 25.0}
    follower(3).tell(method)
    assert method.history == [{"epoch": 1, "localization_error": 25.0}, {"epoch": 2}]
    assert method.findings["followed"]["images"] == 3
    assert not notes.exists()


def test_a_setting_that_decides_nothing_names_no_variant():
    assert Request(settings={"recipe": {"follow": 3}}).variant == ""
    both = Request(settings={"recipe": {"follow": 3, "batch_size": 8}})
    assert both.variant == Request(settings={"recipe": {"batch_size": 8}}).variant
