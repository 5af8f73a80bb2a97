"""Classifier and decoder: shapes, counts, and agreement with straightforward references."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from casm_bench.backbones.classifier import Classifier, build_classifier
from casm_bench.backbones.masker import Decoder, enlarge
from casm_bench.errors import UsageError

SIZE = 64


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    return build_classifier("resnet50.tv_in1k", 1000, SIZE).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_resnet50_is_the_papers(resnet50):
    assert sum(p.numel() for p in resnet50.parameters()) == 25_557_032
    assert resnet50.feature_channels == (64, 256, 512, 1024, 2048)
    assert resnet50.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert resnet50.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_taps_of_resnet50_are_where_the_official_code_takes_them(resnet50, images):
    with torch.no_grad():
        logits_BK, features = resnet50.with_features(images)
        net = resnet50.model
        x = net.maxpool(net.act1(net.bn1(net.conv1(images))))
        expected = [x]
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            expected.append(x)
    for feature, reference in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, reference, rtol=0, atol=0)
    torch.testing.assert_close(logits_BK, resnet50(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "convnext_atto", "vgg11_bn", "mobilenetv3_small_050"]
)
def test_other_families_give_five_taps_at_the_same_strides(name, images):
    classifier = build_classifier(name, 10, SIZE).eval()
    with torch.no_grad():
        logits_BK, features = classifier.with_features(images)
        plain_BK = classifier.model(images)
    assert [feature.shape[-1] for feature in features] == [16, 16, 8, 4, 2]
    assert tuple(feature.shape[1] for feature in features) == classifier.feature_channels
    torch.testing.assert_close(logits_BK, plain_BK, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "grid", "prefix"),
    [
        ("test_vit", (4, 4), 1),
        ("test_vit2", (4, 4), 1),  # a register token, no class token
        ("deit_tiny_distilled_patch16_224", (4, 4), 2),
    ],
)
def test_the_last_features_of_a_vision_transformer_are_its_patches(name, grid, prefix, images):
    classifier = build_classifier(name, 10, SIZE).eval()
    seen = []
    norm = classifier.model.blocks[-1].norm1
    norm.register_forward_hook(lambda _, __, normed_BNC: seen.append(normed_BNC))
    with torch.no_grad():
        logits_BK, features_BChw = classifier.with_last_features(images)
        torch.testing.assert_close(logits_BK, classifier(images), rtol=0, atol=0)
    assert features_BChw.shape[2:] == grid
    last_patch_BC = seen[0][:, prefix + grid[0] * grid[1] - 1]
    torch.testing.assert_close(features_BChw[:, :, -1, -1], last_patch_BC, rtol=0, atol=0)
    torch.testing.assert_close(features_BChw[:, :, 0, 1], seen[0][:, prefix + 1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [("test_resnet", 64, 2), ("test_vit", 64, 4), ("swin_tiny_patch4_window7_224", 224, 7)],
)
def test_logits_are_computed_from_the_last_features(name, size, grid):
    """What is before them takes no part: they are a leaf, and a gradient reaches them."""
    classifier = build_classifier(name, 4, size).eval()
    nn.init.normal_(classifier.model.get_classifier().weight)
    images_BCHW = torch.randn(1, 3, size, size)
    with torch.no_grad():
        logits_BK, features_BChw = classifier.with_last_features(images_BCHW)
        torch.testing.assert_close(logits_BK, classifier(images_BCHW), rtol=0, atol=1e-6)
    assert features_BChw.is_leaf
    assert features_BChw.shape == (1, classifier.model.num_features, grid, grid)
    (gradient_BChw,) = torch.autograd.grad(logits_BK[0, 1], features_BChw)
    assert gradient_BChw.abs().max() > 1e-6


def test_networks_without_such_features_are_refused_in_a_sentence():
    for name in ("vit_tiny_patch16_224", "mixer_s16_224"):
        with pytest.raises(UsageError, match=f"{name}.*stride"):
            build_classifier(name, 10).with_features(torch.zeros(1, 3, 224, 224))
    with pytest.raises(UsageError, match="mixer_s16_224.*no last feature map"):
        build_classifier("mixer_s16_224", 10).with_last_features(torch.zeros(1, 3, 224, 224))
    tiny = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    for name in ("vit_base_patch16_xp_224", "vit_relpos_base_patch32_plus_rpn_256"):
        with pytest.raises(UsageError, match=f"{name}.*norm their tokens before attention"):
            build_classifier(name, 10, options=tiny).with_last_features(torch.zeros(1, 3, 256, 256))
    with pytest.raises(UsageError, match=r"resnet51.*Similar names.*resnet5"):
        build_classifier("resnet51", 10)


def test_normalising_there_and_back(resnet50):
    pixels_BCHW = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    back = resnet50.denormalize(resnet50.normalize(pixels_BCHW)) * 255
    torch.testing.assert_close(back, pixels_BCHW.float(), rtol=0, atol=1e-3)
    white = resnet50.normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert white.tolist() == pytest.approx([2.2489083, 2.4285715, 2.6400001])


def test_a_copy_is_independent(images):
    classifier = build_classifier("test_resnet", 5, SIZE).eval()
    twin = copy.deepcopy(classifier)
    before = classifier(images)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        _, features = twin.with_features(images)
    assert torch.equal(classifier(images), before)
    assert not features[4].any()


class Tokens(nn.Module):
    """As a LeViT begins: places of a normed feature map become tokens."""

    def __init__(self, norm):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 8, 3), norm
        self.head_CK = nn.Parameter(torch.randn(8, 5))

    def forward(self, images_BCHW):
        tokens_BNC = self.norm(self.convolution(images_BCHW)).flatten(2).transpose(1, 2)
        heads_BCK = self.head_CK.expand(len(tokens_BNC), -1, -1)
        return torch.bmm(tokens_BNC, heads_BCK).square().mean(dim=1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), BatchNormAct2d(8)])
def test_the_gradient_of_one_picture_is_its_gradient_in_a_batch(norm):
    """torch alone misreads it: errors of the gradient's own size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm.running_var.uniform_(0.5, 2)
        classifier = Classifier(Tokens(norm), "tokens", 9, (0.5,) * 3, (0.5,) * 3).eval()
        images_BCHW = torch.randn(2, 3, 9, 9)

    def gradient(images_BCHW):
        images_BCHW = images_BCHW.clone().requires_grad_()
        return torch.autograd.grad(classifier(images_BCHW)[:, 3].sum(), images_BCHW)[0]

    alone_BCHW = torch.cat([gradient(image_1CHW) for image_1CHW in images_BCHW.split(1)])
    torch.testing.assert_close(alone_BCHW, gradient(images_BCHW))


def test_decoder_counts_and_initialises_as_published():
    torch.manual_seed(0)
    decoder = Decoder((64, 256, 512, 1024, 2048))
    assert sum(p.numel() for p in decoder.parameters()) == 249_153
    assert decoder.final.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert decoder.narrow[3][0].weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert all(block[0].bias is None for block in decoder.narrow)


def reference_mask(decoder, features):
    """The official decoder spelled out: narrow, enlarge by fixed factors, concatenate."""
    parts = [features[0]]
    for factor, block, feature in zip((1, 2, 4, 8), decoder.narrow, features[1:], strict=True):
        conv, norm, _ = block
        x = F.conv2d(feature, conv.weight)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        parts.append(F.interpolate(F.relu(x), scale_factor=factor, mode="bilinear"))
    x = F.conv2d(torch.cat(parts, 1), decoder.final.weight, decoder.final.bias, padding=1)
    return 1 / (1 + torch.exp(-x))


def test_decoder_agrees_with_a_straightforward_reference(resnet50, images):
    decoder = Decoder(resnet50.feature_channels).eval().double()
    with torch.no_grad():
        features = [feature.double() for feature in resnet50.with_features(images)[1]]
        mask_B1hw = decoder(features)
        expected_B1hw = reference_mask(decoder, features)
    torch.testing.assert_close(mask_B1hw, expected_B1hw, rtol=0, atol=1e-12)
    assert mask_B1hw.shape == (2, 1, 16, 16)
    assert 0 <= mask_B1hw.min() <= mask_B1hw.max() <= 1


def test_enlarging_repeats_cells_after_the_sigmoid(images):
    mask_B1hw = torch.rand(2, 1, 16, 16)
    blocks = mask_B1hw.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(enlarge(mask_B1hw, images), blocks)
    assert not torch.equal(enlarge(mask_B1hw, images, "bilinear"), blocks)


def test_no_gradient_reaches_the_batchnorm_statistics_in_eval(resnet50, images):
    before = [buffer.clone() for buffer in resnet50.buffers()]
    resnet50.with_features(images)
    assert all(torch.equal(a, b) for a, b in zip(before, resnet50.buffers(), strict=True))


def test_test_resnet_is_a_real_timm_network():
    assert "test_resnet" in timm.list_models("test_*")
    assert isinstance(build_classifier("test_resnet", 3, SIZE).model.get_classifier(), nn.Linear)
