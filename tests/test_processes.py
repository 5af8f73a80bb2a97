"""Several processes do what one does: the same weights, the same maps, the same checkpoints."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from casm_bench import processes, training
from casm_bench.errors import UsageError
from casm_bench.records import load_records

HERE = Path(__file__).resolve().parent
PLAYS = runpy.run_path(str(HERE / "two_processes.py"))
play, Stopped, STOP = (PLAYS[name] for name in ("play", "Stopped", "STOP"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TINY_RUN = [
    *("-m", "casm_bench", "run", "--methods", "grad", "--no-controls", "--device", "cpu", "--set"),
    *("data.train=32", "data.evaluated=21", "recipe.evaluation_batch_size=4"),
    "pretraining.epochs=1",
]


def run(*command: str) -> None:
    ran = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(Stopped):
        play(folder / "begun", STOP)
    run(*TORCHRUN, str(HERE / "two_processes.py"), str(folder))
    return folder


@pytest.fixture(scope="module")
def one():
    return play()


def assert_close(ours, theirs):
    for part in ("decoder", "classifier"):
        for name, value in ours["method"][part].items():
            other = theirs["method"][part][name]
            torch.testing.assert_close(value, other, rtol=1e-4, atol=2e-6, msg=name)


def test_two_processes_learn_what_one_learns_from_the_joint_batch(one, two):
    game, history = one
    joint = training.read_state(two / "whole.pt")
    assert_close(joint["state"], game.state_dict())
    assert joint["state"]["chance"] == game.state_dict()["chance"]
    for ours, theirs in zip(joint["history"], history, strict=True):
        for name in set(ours) - {"seconds"}:
            if name != "mask_std":  # of a part of the batch, so not the joint one's
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_a_checkpoint_of_two_processes_is_continued_by_one(one, two):
    game, _ = one
    resumed, _ = play(two / "cut-off")
    assert resumed.taken == 2  # of six steps, four were taken by two processes
    assert_close(resumed.state_dict(), game.state_dict())


def test_a_checkpoint_of_one_process_is_continued_by_two(one, two):
    game, _ = one
    continued = training.read_state(two / "continued.pt")
    assert continued["taken"] == 2
    assert_close(continued["state"], game.state_dict())


def test_two_processes_make_the_maps_of_one(tmp_path):
    """The classifier is trained by one process, for BatchNorm; the second run finds it."""
    run(sys.executable, *TINY_RUN, f"--out={tmp_path / 'one'}")
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "cache" / "classifiers").rename(classifiers := tmp_path / "classifiers")
    (tmp_path / "two" / "cache").mkdir()
    classifiers.rename(tmp_path / "two" / "cache" / "classifiers")
    run(*TORCHRUN, *TINY_RUN, f"--out={tmp_path / 'two'}")
    (alone,), (together,) = (load_records(tmp_path / name) for name in ("one", "two"))
    assert together.protocols == alone.protocols
    assert together.metrics == alone.metrics
    per_image = [
        pq.read_table(record.path(tmp_path / name).with_suffix(".parquet"))
        for record, name in ((alone, "one"), (together, "two"))
    ]
    assert per_image[0].equals(per_image[1])


def test_batches_are_parted_evenly_and_completely(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    parts = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        parts += processes.own_part(12)
        assert processes.own(range(10)) == list(range(rank, 10, 4))
    assert parts == list(range(12))
    with pytest.raises(UsageError, match=r"10 images.*4 processes.*batch_size"):
        processes.own_part(10)


def test_one_process_has_nobody_to_wait_for():
    values = [torch.ones(2)]
    processes.average(values)
    processes.wait()
    assert torch.equal(values[0], torch.ones(2))
    assert processes.from_first("mine") == "mine"
    assert processes.is_first() and processes.count() == 1
