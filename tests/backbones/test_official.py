"""Checkpoints of the official code against torchvision's ResNet-50 and a decoder written here."""

from __future__ import annotations

import argparse
import os

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from casm_bench.backbones.classifier import build_classifier
from casm_bench.backbones.masker import enlarge
from casm_bench.backbones.official import read_official
from casm_bench.errors import UsageError
from casm_bench.methods.casm import CASM

CLASSES = 8


class ReferenceDecoder(nn.Module):
    """The decoder of the paper's appendix, with the official parameter names."""

    def __init__(self):
        super().__init__()
        for number, channels in enumerate((256, 512, 1024, 2048), start=1):
            narrow = nn.Sequential(nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64))
            self.add_module(f"conv1x1_{number}", narrow)
        self.final = nn.Sequential(nn.Conv2d(320, 1, 3, padding=1))

    def forward(self, taps):
        parts = [taps[0]]
        for number, tap in enumerate(taps[1:], start=1):
            part = self.get_submodule(f"conv1x1_{number}")(tap).relu()
            factor = taps[0].shape[-1] // tap.shape[-1]
            parts.append(F.interpolate(part, scale_factor=factor, mode="bilinear"))
        mask = self.final(torch.cat(parts, 1)).sigmoid()
        return F.interpolate(mask, scale_factor=4, mode="nearest")


def reference_taps(resnet, images_BCHW):
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images_BCHW))))
    taps = [x]
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        taps.append(stage(taps[-1]))
    return taps


def shake(module):
    """Random BatchNorm statistics, so that a tensor in the wrong place shows."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    return module.eval()


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        resnet = torchvision.models.resnet50(num_classes=CLASSES)
        return shake(resnet), shake(ReferenceDecoder())


def checkpoint(networks, prefix="", **others):
    resnet, decoder = networks
    states = {"state_dict_classifier": resnet, "state_dict_decoder": decoder}
    renamed = {
        name: {prefix + key: value for key, value in module.state_dict().items()}
        for name, module in states.items()
    }
    return renamed | {"epoch": 60, "optimizer_decoder": {"state": {}}} | others


def write(tmp_path, content, **options):
    path = tmp_path / "model.chk"
    torch.save(content, path, **options)
    return path


OPTIONS = argparse.Namespace(
    data="/home/author/imagenet", casms_path="/home/author/L100", log_path="x", hp=0.5, smf=100
)


def test_maps_equal_a_plain_forward_pass(networks, tmp_path):
    path = write(
        tmp_path,
        checkpoint(networks, prefix="module.", args=OPTIONS),
        _use_new_zipfile_serialization=False,  # torch 0.4 wrote this format
    )
    found = read_official(path)
    method = CASM(build_classifier("resnet50", CLASSES))
    method.load_state_dict({"classifier": found.classifier, "decoder": found.decoder})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        images_BCHW = torch.randn(2, 3, 64, 64)
    maps_B1hw = method.maps(images_BCHW, torch.zeros(2, dtype=torch.long))[:, None]
    with torch.no_grad():
        resnet, decoder = networks
        expected_B1HW = decoder(reference_taps(resnet, images_BCHW))
        logits_BK = method.classifier(images_BCHW)
    assert expected_B1HW.std() > 0.05  # a constant mask would agree with many
    assert torch.allclose(enlarge(maps_B1hw, images_BCHW), expected_B1HW, rtol=0, atol=1e-5)
    assert torch.allclose(logits_BK, resnet(images_BCHW), rtol=0, atol=1e-4)
    assert (found.epoch, found.options) == (60, {"hp": 0.5, "smf": 100})


def test_counters_that_old_torch_did_not_have(networks, tmp_path):
    content = checkpoint(networks)
    for part in ("state_dict_classifier", "state_dict_decoder"):
        content[part] = {k: v for k, v in content[part].items() if "num_batches" not in k}
    found = read_official(write(tmp_path, content))
    assert found.classifier["model.bn1.num_batches_tracked"] == 0
    assert found.options == {}


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_checkpoint_does_not_run(networks, tmp_path, monkeypatch, new_format):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict_classifier": {}, "state_dict_decoder": {}}
    content["args"] = argparse.Namespace(name=Malicious())
    path = write(tmp_path, content, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UsageError, match=r"model.chk cannot be read.*other objects \(\w+.system\)"):
        read_official(path)
    assert not (tmp_path / "exploded").exists()
    torch.load(path, weights_only=False)  # the charge was live
    assert (tmp_path / "exploded").exists()


def drop(part, name):
    return lambda content: content[part].pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("state_dict_decoder"), "must hold .*, but holds state_dict_classifier"),
        (lambda c: c.update(state_dict_decoder=3), "model.chk holds no state dict"),
        (drop("state_dict_classifier", "bn1.bias"), "1 tensors are missing, .* 'bn1.bias'"),
        (drop("state_dict_decoder", "final.0.bias"), "official decoder: .*missing.*'final.bias'"),
        (
            lambda c: c["state_dict_decoder"].update({"conv1x1_x.0": torch.zeros(1)}),
            "unknown, the first is 'conv1x1_x.0'",
        ),
        (
            lambda c: c["state_dict_decoder"].update({"conv1x1_1.0.weight": torch.zeros(1)}),
            "another shape, the first is 'narrow.0.0.weight'",
        ),
    ],
)
def test_other_checkpoints_are_explained(networks, tmp_path, change, message):
    content = checkpoint(networks)
    change(content)
    with pytest.raises(UsageError, match=message):
        read_official(write(tmp_path, content))


def test_a_list_is_no_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="but is a list"):
        read_official(write(tmp_path, [1]))


def test_any_other_file_is_told_what_is_wanted(tmp_path):
    path = tmp_path / "notes.chk"
    path.write_text("no checkpoint")
    with pytest.raises(UsageError, match=r"notes\.chk cannot .* official train\.py") as error:
        read_official(path)
    assert "torch.save" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.chk does not exist"):
        read_official(tmp_path / "none.chk")
