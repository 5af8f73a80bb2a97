"""A judge that never learns says what the classifier says in eval mode, and as surely."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from casm_bench.backbones.classifier import build_classifier
from casm_bench.backbones.frozen import FrozenNorm, frozen_copy, take_weights

# A plain BatchNorm, one with an activation of its own, and one that timm builds otherwise.
NETWORKS = ("test_resnet", "tf_efficientnet_lite0", "resnetv2_18")


def a_classifier(name: str, seed: int = 0, **options: object):
    torch.manual_seed(seed)
    classifier = build_classifier(name, 10, 64, options).double().eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return classifier


def logits_and_gradient(classifier, images_BCHW):
    images_BCHW = images_BCHW.clone().requires_grad_()
    logits_BK = classifier(images_BCHW)
    (gradient_BCHW,) = torch.autograd.grad(logits_BK.logsumexp(1).sum(), images_BCHW)
    return logits_BK.detach(), gradient_BCHW


@pytest.fixture(scope="module")
def images_BCHW():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_the_classifiers(name, images_BCHW):
    classifier = a_classifier(name)
    judge = frozen_copy(classifier)
    assert any(isinstance(module, FrozenNorm) for module in judge.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in judge.modules())
    logits_BK, gradient_BCHW = logits_and_gradient(judge, images_BCHW)
    expected_BK, expected_BCHW = logits_and_gradient(classifier, images_BCHW)
    assert torch.equal(logits_BK, expected_BK)
    torch.testing.assert_close(gradient_BCHW, expected_BCHW, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_the_limit_of_differences():
    norm = frozen_copy(a_classifier("test_resnet")).model.bn1
    channels = len(norm.weight)
    generator = torch.Generator().manual_seed(0)
    features_BCHW = torch.randn(2, channels, 2, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(norm, features_BCHW.requires_grad_())


def test_it_takes_anothers_weights_and_statistics(images_BCHW):
    first, second = a_classifier("test_resnet"), a_classifier("test_resnet", seed=1)
    judge = frozen_copy(first)
    before = judge(images_BCHW)
    take_weights(judge, second.state_dict())
    torch.testing.assert_close(judge(images_BCHW), second(images_BCHW), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(judge(images_BCHW), before)


def test_the_classifier_keeps_its_own_and_the_copy_does_not_follow(images_BCHW):
    classifier = a_classifier("test_resnet")
    judge = frozen_copy(classifier)
    said = judge(images_BCHW)
    assert any(isinstance(module, nn.BatchNorm2d) for module in classifier.modules())
    with torch.no_grad():
        for tensor in (*classifier.parameters(), *classifier.buffers()):
            tensor.add_(1)
    assert torch.equal(judge(images_BCHW), said)
    assert not any(parameter.requires_grad for parameter in judge.parameters())


def test_what_it_hands_on_has_the_precision_that_it_was_given():
    norm = FrozenNorm(nn.BatchNorm2d(3).eval())
    assert norm(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_channels_stay_last():
    images_BCHW = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    normed_BCHW = FrozenNorm(nn.BatchNorm2d(3).eval())(images_BCHW)
    assert normed_BCHW.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("missing", ["bias", "weight", "running_mean"])
def test_a_norm_that_lacks_something_stays_torchs(missing, images_BCHW):
    classifier = a_classifier("test_resnet")
    setattr(classifier.model.bn1, missing, None)
    if missing == "running_mean":
        classifier.model.bn1.running_var = None
    judge = frozen_copy(classifier)
    assert isinstance(judge.model.bn1, nn.BatchNorm2d)
    assert torch.equal(judge(images_BCHW), classifier(images_BCHW))


def test_activations_within_a_norm_may_have_weights(images_BCHW):
    first, second = (a_classifier("resnetv2_18", act_layer="prelu") for _ in range(2))
    for name, parameter in second.named_parameters():
        if name.endswith("act.weight"):
            nn.init.constant_(parameter, 0.7)
    judge = frozen_copy(first)
    assert torch.equal(judge(images_BCHW), first(images_BCHW))
    take_weights(judge, second.state_dict())
    assert torch.equal(judge(images_BCHW), second(images_BCHW))
    assert not torch.equal(first(images_BCHW), second(images_BCHW))
