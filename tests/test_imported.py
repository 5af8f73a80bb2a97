"""`run --weights-from`: what was fitted elsewhere is scored, and told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from casm_bench.cli import main
from casm_bench.files import sha256_of
from casm_bench.methods._algorithm1 import Game
from casm_bench.records import load_record
from casm_bench.report.measured import describe_change

TINY = (
    *("recipe.classifier=test_resnet", "recipe.classifier_options={}", "recipe.batch_size=8"),
    *("pretraining.epochs=1", "pretraining.batch_size=8"),
    *("data.train=16", "data.held_out=2", "data.evaluated=6"),
)
EPOCHS = "casm.epochs=1"


def run(out, *options, methods=("casm",), settings=(*TINY, EPOCHS)):
    arguments = ["run", "--methods", *methods, "--no-controls", "--out", str(out), *options]
    return main([*arguments, "--set", *settings])


def only_record(out, pattern="casm-*.json"):
    (path,) = out.glob(f"shapes/*/{pattern}")
    return load_record(path)


def boxes(record, out):
    path = record.path(out).with_suffix(".parquet")
    return pq.read_table(path).to_pylist()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    assert run(out) == 0
    return out


@pytest.fixture
def folder(trained):
    (path,) = trained.glob("cache/methods/casm-*/fitted.pt")
    return path.parent


def test_an_earlier_fit_is_scored_without_training(trained, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Game, "step", None)  # would fail if anything trained
    out = tmp_path / "results"
    assert run(out, "--weights-from", str(folder), methods=("casm", "grad")) == 0
    here, there = only_record(trained), only_record(out)
    assert boxes(there, out) == boxes(here, trained)
    assert (there.metrics, there.training) == (here.metrics, here.training)
    sha256 = sha256_of(folder / "fitted.pt")
    origin = {"format": "casm_bench", "file": "fitted.pt", "sha256": sha256}
    assert there.config["imported"] == origin | {"state_sha256": sha256}
    assert there.provenance["imported"] == origin
    assert "fit" not in there.config
    assert (here.config.get("imported"), here.provenance.get("imported")) == (None, None)
    assert there.key != here.key
    assert there.variant == f"{here.variant}-imported-{sha256[:8]}"
    change = describe_change(there, here.config)
    assert change == "imported.file=fitted.pt, imported.format=casm_bench"
    assert "imported" not in only_record(out, "grad-*.json").config


def test_both_kinds_of_record_live_side_by_side(trained, folder):
    before = {path: path.read_bytes() for path in trained.glob("shapes/*/*")}
    assert run(trained, "--weights-from", str(folder)) == 0
    assert {path: path.read_bytes() for path in before} == before
    added = [path for path in trained.glob("shapes/*/*.json") if path not in before]
    assert ["-imported-" in path.name for path in added] == [True]
    for path in trained.glob("shapes/*/*-imported-*"):
        path.unlink()


def write_official(path, classes=8):
    """A checkpoint as the official code writes it, of random weights."""
    from casm_bench.backbones.classifier import build_classifier
    from casm_bench.backbones.masker import Decoder

    classifier = build_classifier("resnet50", classes)
    decoder = Decoder(classifier.feature_channels).state_dict()
    theirs = {}
    for name, value in decoder.items():
        first, rest = name.split(".", 1)
        if first == "narrow":
            number, rest = rest.split(".", 1)
            theirs[f"conv1x1_{int(number) + 1}.{rest}"] = value
        else:
            theirs[f"final.0.{rest}"] = value
    content = {"state_dict_classifier": classifier.model.state_dict(), "state_dict_decoder": theirs}
    torch.save(content | {"epoch": 60, "args": {"hp": 0.5, "reproduce": "L100"}}, path)


def test_an_official_checkpoint_from_file_to_record(tmp_path, capsys):
    file, folder, out = tmp_path / "L100.chk", tmp_path / "folder", tmp_path / "results"
    write_official(file)
    assert main(["import-casme", str(file), "--out", str(folder)]) == 0
    assert "L100.chk, epoch 60, hp=0.5, reproduce=L100" in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["import-casme", str(file), "--out", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    settings = ("data.train=1", "data.held_out=1", "data.evaluated=4", "recipe.input_size=64")
    network = ("--classifier", "resnet50", "--weights", str(file))
    assert run(out, "--weights-from", str(folder), *network, settings=settings) == 0
    record = only_record(out)
    assert record.training is None
    assert record.config["imported"]["file"] == "L100.chk"
    assert record.config["imported"]["sha256"] == sha256_of(file)
    assert record.provenance["imported"]["options"] == {"hp": 0.5, "reproduce": "L100"}
    assert record.config["classifier_settings"]["weights_sha256"] == sha256_of(file)
    assert str(tmp_path) not in record.path(out).read_text()


def damage(folder, tmp_path, name, content):
    copy = tmp_path / "damaged"
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fitted.pt", b"", "fitted.pt cannot be read"),
        ("imported.json", b"{}", "imported.json is damaged"),
        ("imported.json", b"not json", "imported.json is damaged"),
    ],
)
def test_damaged_folders(folder, tmp_path, capsys, name, content, message):
    broken = damage(folder, tmp_path, name, content)
    assert run(tmp_path / "out", "--weights-from", str(broken)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_another_methods_state(folder, tmp_path, capsys):
    broken = damage(folder, tmp_path, "fitted.pt", b"")
    torch.save({"state": {"weights": torch.zeros(2)}, "history": []}, broken / "fitted.pt")
    assert run(tmp_path / "out", "--weights-from", str(broken)) == 2
    assert "does not fit method 'casm'" in capsys.readouterr().err


@pytest.mark.parametrize("methods", [("casm", "baseline"), ("grad",)])
def test_it_must_be_clear_whose_weights_they_are(folder, tmp_path, capsys, methods):
    options = ("--weights-from", str(folder))
    assert run(tmp_path, *options, methods=methods, settings=TINY) == 2
    assert "goes with one trained method" in capsys.readouterr().err


def test_a_folder_without_weights(tmp_path, capsys):
    assert run(tmp_path / "out", "--weights-from", str(tmp_path)) == 2
    assert "there is no fitted.pt in it" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"text", json.dumps({}).encode()])
def test_files_that_are_no_checkpoint(tmp_path, capsys, content):
    file = Path(tmp_path / "model.chk")
    if content is not None:
        file.write_bytes(content)
    assert main(["import-casme", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "model.chk" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
