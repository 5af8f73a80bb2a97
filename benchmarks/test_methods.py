"""Maps by masks shared among images, beside one mask and one image at a time.

The reference for Occlusion is captum's, the reference for RISE the obvious loop. Both see the
same masks and give the same maps. ResNet-18, 96 pixels.
"""

from __future__ import annotations

import time

import pytest
import torch
from captum.attr import Occlusion
from torch import Tensor

from casm_bench import registry
from casm_bench.backbones.classifier import Classifier, build_classifier

IMAGES = 4
SIZE = 96
SIDE = 8  # squares per side; as many masks as squares
pytestmark = pytest.mark.benchmark(group="maps of 4 images, CPU seconds", timer=time.process_time)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = build_classifier("resnet18", 10, input_size=SIZE).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(IMAGES, 3, SIZE, SIZE, generator=generator)
    return images_BCHW.contiguous(memory_format=torch.channels_last), torch.arange(IMAGES)


@pytest.mark.usefixtures("one_thread")
def test_occlusion(classifier, batch, beside):
    side = SIZE // SIDE  # squares tile the image, so that captum hides the same
    method = registry.get("occlusion")(classifier, positions=SIDE, square=side)

    def captum_occlusion() -> Tensor:
        falls_BCHW = Occlusion(classifier).attribute(
            batch[0], (3, side, side), strides=(3, side, side), target=batch[1]
        )
        return falls_BCHW[:, 0].clamp(min=0)

    maps_BHW = beside(lambda: method.maps(*batch), captum_occlusion, rounds=3)
    torch.testing.assert_close(maps_BHW, captum_occlusion(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("one_thread")
def test_rise(classifier, batch, beside):
    method = registry.get("rise")(classifier, masks=SIDE**2)

    def one_by_one() -> Tensor:
        return torch.stack([slow_rise(method, *pair) for pair in zip(*batch, strict=True)])

    maps_BHW = beside(lambda: method.maps(*batch), one_by_one, rounds=3)
    torch.testing.assert_close(maps_BHW, one_by_one(), rtol=0, atol=1e-5)


def slow_rise(method, image_CHW: Tensor, label: Tensor) -> Tensor:
    """Every mask drawn, applied and shown by itself."""
    sum_HW = torch.zeros(SIZE, SIZE)
    with torch.no_grad():
        for masks_N1HW in method._masks(image_CHW[None]):
            for mask_1HW in masks_N1HW:
                logits_1K = method.classifier((image_CHW * mask_1HW)[None])
                sum_HW += logits_1K.softmax(dim=1)[0, label] * mask_1HW[0]
    return sum_HW / (method.masks * method.p)
