"""What tests of several trained methods share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from casm_bench.backbones.classifier import build_classifier


@pytest.fixture(scope="module")
def classifier():
    """A little network that nobody trained, with logits far enough apart to tell classes apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = build_classifier("test_resnet", 8, input_size=64).eval()
        nn.init.normal_(classifier.model.get_classifier().weight, std=0.5)
    return classifier
