"""Attention rollout on attention worked by hand, and inside timm's networks."""

import pytest
import torch
from torch import nn

from casm_bench import registry
from casm_bench.backbones.classifier import build_classifier
from casm_bench.errors import UsageError
from casm_bench.methods.rollout import written_out

SIZE = 64


@pytest.fixture(params=["test_vit", "test_vit2", "deit_tiny_distilled_patch16_224"])
def classifier(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_classifier(request.param, 5, SIZE).eval()


def method(classifier=None, **fields):
    return registry.get("rollout")(classifier, **fields)


def test_two_layers_by_hand():
    """Three tokens. (A + I) / 2 of the layers, the second times the first."""
    first = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    second = [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    attentions = [torch.tensor([[layer]]) for layer in (first, second)]
    expected = [[0.375, 0.5, 0.125], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]
    torch.testing.assert_close(method()._rolled_out(attentions)[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        ("mean", [[0.75, 0.25], [0.5, 0.5]]),
        ("max", [[2 / 3, 1 / 3], [1 / 3, 2 / 3]]),
        ("min", [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_heads_by_hand(heads, expected):
    """Two heads that look at one token each; what they are joined to gets rows of one again."""
    attention_BANN = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    if heads != "mean":
        attention_BANN = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    rolled_BNN = method(heads=heads)._rolled_out([attention_BANN])
    torch.testing.assert_close(rolled_BNN[0], torch.tensor(expected))


def test_attentions_are_those_of_the_network(classifier):
    images_BCHW = torch.randn(2, 3, SIZE, SIZE)
    before = [block.attn.fused_attn for block in classifier.model.blocks]
    with torch.no_grad(), written_out(classifier.model) as attentions:
        logits_BK = classifier(images_BCHW)
    torch.testing.assert_close(logits_BK, classifier(images_BCHW), rtol=1e-4, atol=1e-5)
    assert len(attentions) == len(classifier.model.blocks)
    for attention_BANN in attentions:
        torch.testing.assert_close(attention_BANN.sum(-1), torch.ones(attention_BANN.shape[:-1]))
    assert [block.attn.fused_attn for block in classifier.model.blocks] == before
    assert not any(block.attn.attn_drop._forward_hooks for block in classifier.model.blocks)


def test_maps_lie_on_the_grid_of_patches(classifier):
    map_Bhw = method(classifier).maps(torch.randn(2, 3, SIZE, SIZE), torch.zeros(2).long())
    assert map_Bhw.shape == (2, 4, 4)
    assert (map_Bhw.sum(dim=(1, 2)) < 1 + 1e-5).all()  # the rest is the other tokens'


def test_a_network_that_looks_at_itself_alone_sees_nothing_else():
    """Attention weights that all are equal: every patch gets the same share."""
    classifier = build_classifier("test_vit", 5, SIZE).eval()
    for block in classifier.model.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    map_1hw = method(classifier).maps(torch.randn(1, 3, SIZE, SIZE), torch.tensor([0]))
    torch.testing.assert_close(map_1hw, map_1hw.mean().expand(1, 4, 4))


TINY = {"depth": 1, "embed_dim": 32, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "tokens_before"),
    [
        ("vit_medium_patch16_reg4_gap_256", 4),  # registers, no class token
        ("eva02_tiny_patch14_224", 1),  # a class token that its head leaves out
        ("vit_base_patch16_siglip_gap_224", 0),
    ],
)
def test_what_the_head_does_not_read_is_not_asked(name, tokens_before):
    """The head averages patches: only their rows of the rollout count."""
    classifier = build_classifier(name, 5, 56 if "14" in name else SIZE, TINY).eval()
    assert classifier.model.num_prefix_tokens == tokens_before
    images_BCHW, labels_B = classifier.example()
    with torch.no_grad(), written_out(classifier.model) as attentions:
        classifier(images_BCHW)
    rollout_1NN = method()._rolled_out(attentions)
    expected_1N = rollout_1NN[:, tokens_before:].mean(dim=1)[:, tokens_before:]
    map_1hw = method(classifier).maps(images_BCHW, labels_B)
    torch.testing.assert_close(map_1hw.flatten(1), expected_1N)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("swin_tiny_patch4_window7_224", {}),
        ("mixer_s16_224", {}),
        ("cait_xxs24_224", TINY),  # talking heads, never fused
        ("convit_tiny", TINY),
        ("xcit_nano_12_p16_224", TINY),  # attention among channels
        ("vit_base_patch16_xp_224", TINY),  # attention and MLP in one
        ("vit_dlittle_patch16_reg1_gap_256", TINY),  # the difference of two attentions
    ],
)
def test_other_networks_are_refused(name, options):
    with pytest.raises(UsageError, match=f"needs a vision transformer.*{name}"):
        method(build_classifier(name, 5, options=options)).check()
