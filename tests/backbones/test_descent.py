"""Optimizer steps with given gradients, against plain SGD by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from casm_bench.backbones import descent
from casm_bench.backbones.descent import descend, jointly_normalised, step_with

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_memory_layouts_change_no_step(of_weight, of_gradient):
    """A fused optimizer, given a gradient of another layout, steps the wrong elements."""
    start = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    gradient = start.flip(3).contiguous(memory_format=of_gradient)
    weight = torch.nn.Parameter(start.clone(memory_format=of_weight))
    optimizer = torch.optim.SGD([weight], lr=0.5, fused=True)
    step_with([gradient], [weight], optimizer)
    assert torch.equal(weight.detach(), start - 0.5 * start.flip(3))


def test_a_convolution_steps_down_its_gradient_whatever_the_images_layout():
    torch.manual_seed(0)
    start, images_BCHW = torch.randn(4, 3, 3, 3), torch.randn(2, 3, 8, 8)
    stepped = []
    for memory_format in LAYOUTS:
        weight = torch.nn.Parameter(start.clone())
        images = images_BCHW.contiguous(memory_format=memory_format)
        loss = torch.nn.functional.conv2d(images, weight).square().mean()
        descend(loss, [weight], torch.optim.SGD([weight], lr=0.1, fused=True))
        stepped.append(weight.detach())
    torch.testing.assert_close(*stepped)
    assert not torch.equal(stepped[0], start)


def test_one_process_keeps_its_batchnorm():
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    assert jointly_normalised(module) is module


def test_several_processes_share_it_on_gpus_alone(monkeypatch, caplog):
    monkeypatch.setenv("WORLD_SIZE", "2")
    descent._say_that_batches_stay_apart.cache_clear()  # it is said once per process
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    assert jointly_normalised(module) is module
    assert "its own part of a batch" in caplog.text
    on_gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    monkeypatch.setattr(module, "parameters", lambda: iter([on_gpu]))
    joint = jointly_normalised(module)
    assert isinstance(joint[1], torch.nn.SyncBatchNorm)
    assert joint[1].weight is module[1].weight
