"""A method that cannot work with a classifier says so before anything is trained."""

import sys

import pytest

from casm_bench.errors import UsageError
from casm_bench.pipeline import Request, load, run


def request(tmp_path, method, **asked):
    settings = {"data": {"train": 8, "held_out": 2, "evaluated": 4}}
    return Request(
        methods=(method,), out=tmp_path, controls=False, settings=settings, device="cpu", **asked
    )


@pytest.mark.parametrize(
    ("method", "classifier", "message"),
    [
        ("rollout", "test_resnet", "Method 'rollout': .*needs a vision transformer"),
        ("cam", "test_vit", "Method 'cam': .*global average pool"),
        ("casm", "test_vit", "Method 'casm': .*no feature maps at stride"),
        ("masking-model", "test_vit", "Method 'masking-model': .*no feature maps at stride"),
        ("grad-cam", "mixer_s16_224", "Method 'grad-cam': .*no last feature map"),
    ],
)
def test_before_the_classifier_is_trained(method, classifier, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run(request(tmp_path, method, classifier=classifier, weights="scratch"))
    assert not list(tmp_path.glob("cache/classifiers/*"))
    assert not list(tmp_path.rglob("*.json"))


def test_before_a_method_is_loaded(tmp_path):
    with pytest.raises(UsageError, match="needs a vision transformer"):
        load("rollout", classifier="test_resnet", weights="scratch", out=tmp_path)


def test_before_a_missing_package_is_missed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(UsageError, match=r"'input-x-gradient': .*pip install .*\[captum\]"):
        run(request(tmp_path, "input-x-gradient", weights="scratch"))


def test_a_vision_transformer_is_trained_and_measured(tmp_path):
    settings = {"pretraining": {"epochs": 1}, "recipe": {"input_size": 32}}
    asked = request(tmp_path, "rollout", classifier="test_vit", weights="scratch")
    asked.settings.update(settings)
    (record,) = run(asked)
    assert record.protocols["casm"]["n_images"] == 4
