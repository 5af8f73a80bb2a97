"""CASM with masked-in images, ALN's reinterpretation, and the options of Algorithm 1 they use."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from casm_bench import registry
from casm_bench.backbones.arithmetic import Arithmetic
from casm_bench.backbones.masker import Decoder, enlarge
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError
from casm_bench.images import roughness
from casm_bench.methods._algorithm1 import Algorithm1, Game
from casm_bench.methods.aln import ALN
from casm_bench.methods.baseline import Baseline
from casm_bench.methods.casm import CASM
from casm_bench.methods.casm_inout import CasmInOut, InOutGame, inside_loss
from casm_bench.training import TrainBatches


@pytest.fixture(scope="module")
def batch(classifier):
    shapes = load_shapes(train=8, held_out=1, evaluated=1).train
    return next(iter(TrainBatches(shapes, classifier, 8).epoch(0)))


def a_game(classifier, cls, **options):
    game = cls(classifier, **options).game(Arithmetic())
    game.start_epoch(0, 1)
    return game


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


# --- masked in ---------------------------------------------------------------------------------


def test_what_masked_in_images_cost_by_hand():
    """Image 0 is right with mask mean 0.25, image 1 wrong, image 2 right with a full mask."""
    logits_BK = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    masks_B1hw = torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    terms = inside_loss(
        SimpleNamespace(lambda_in=4.0), logits_BK, torch.tensor([0, 1, 1]), masks_B1hw
    )
    log = torch.tensor([1 + torch.e**-2, 2.0, 1 + torch.e**-1]).log()
    assert terms["inside_term"].item() == pytest.approx(log.mean().item(), rel=1e-6)
    assert terms["inside_size_term"].item() == pytest.approx(-4 * 0.75 / 3, rel=1e-6)


def test_the_masker_pays_for_both_views_and_for_roughness(classifier, batch):
    game = a_game(classifier, CasmInOut, strategy="F", smoothness=0.1)
    assert isinstance(game, InOutGame)
    images_BCHW, _ = batch
    with torch.no_grad():
        _, features = game.classifier.with_features(images_BCHW)
        mask_B1HW = enlarge(game.masker(images_BCHW, features), images_BCHW)
    terms = game.step(*batch)
    parts = ("size_term", "confusion_term", "inside_term", "inside_size_term", "roughness")
    assert terms["loss"].item() == pytest.approx(sum(terms[p].item() for p in parts), rel=1e-5)
    assert terms["roughness"].item() == pytest.approx(0.2 * roughness(mask_B1HW).item(), rel=1e-3)


def test_without_its_terms_it_is_casm(classifier, batch, monkeypatch):
    options = {"strategy": "F", "taps": (0, 1, 2, 3, 4), "lambda_r": 5.0}
    games = [a_game(classifier, cls, **options) for cls in (CasmInOut, CASM)]
    monkeypatch.setattr(InOutGame, "_further", Game._further)
    for game in games:
        game.step(*batch)
    ours, casms = (game.masker.decoder.state_dict() for game in games)
    assert all(torch.equal(ours[name], casms[name]) for name in casms)


def test_the_classifier_learns_from_both_views(classifier, batch):
    """Its BatchNorm has seen three batches, and its weights follow the sum of both losses."""
    game = a_game(classifier, CasmInOut, strategy="L")
    losses, improve = [], game._improve_classifier
    game._improve_classifier = lambda loss: losses.append(loss.item()) or improve(loss)
    terms = game.step(*batch)
    counters = [v for k, v in game.classifier.state_dict().items() if "num_batches" in k]
    assert {int(counter) for counter in counters} == {3}
    assert len(losses) == 2
    assert losses[1] > terms["inside_term"].item()


def test_published_settings(classifier):
    method = CasmInOut(classifier)
    assert method.mask_size_weight == 15
    assert (method.lambda_in, method.smoothness, method.taps) == (1.0, 1e-3, (3, 4))
    assert (method.plan.past_probability, method.plan.save_every) == (0.5, 100)
    assert CasmInOut(classifier, lambda_r=10.0).mask_size_weight == 10


# --- taps --------------------------------------------------------------------------------------

CHANNELS = (64, 256, 512, 1024, 2048)


def test_a_decoder_of_two_features_by_hand():
    decoder = Decoder(CHANNELS, taps=(3, 4))
    expected = (1024 + 2048) * 64 + 2 * 2 * 64 + 2 * 64 * 9 + 1
    assert sum(p.numel() for p in decoder.parameters()) == expected
    features = [torch.randn(2, c, s, s) for c, s in zip(CHANNELS, (8, 8, 4, 2, 1), strict=True)]
    mask_B1HW = decoder(features)
    assert mask_B1HW.shape == (2, 1, 8, 8)
    for unused in (0, 1, 2):
        features[unused] = torch.zeros_like(features[unused])
    assert torch.equal(decoder.eval()(features), decoder(features))


def test_all_taps_are_the_decoder_as_it_was():
    assert sum(p.numel() for p in Decoder(CHANNELS).parameters()) == 249_153


@pytest.mark.parametrize("taps", [(), (5,), (0, 7)])
def test_taps_that_do_not_exist_are_refused(classifier, taps):
    with pytest.raises(UsageError, match=r"casm\.taps"):
        CASM(classifier, taps=taps)


# --- an encoder of its own, and no clean updates -----------------------------------------------


def test_an_encoder_of_its_own_learns_and_leaves_the_classifier_alone(classifier, batch):
    game = a_game(classifier, Baseline, encoder="trained")
    encoder, fixed = snapshot(game.masker.decoder.encoder), snapshot(game.classifier)
    game.step(*batch)
    after = game.masker.decoder.encoder.state_dict()
    assert not torch.equal(encoder["model.conv1.0.weight"], after["model.conv1.0.weight"])
    assert all(torch.equal(fixed[name], value) for name, value in snapshot(game.classifier).items())


def test_an_encoder_of_its_own_is_all_that_a_map_costs(classifier, batch, monkeypatch):
    images_BCHW, labels_B = batch
    for encoder, passes in (("shared", 1), ("separate", 0), ("trained", 0)):
        method, seen = CASM(classifier, encoder=encoder), []
        look = method.classifier.with_features
        monkeypatch.setattr(
            method.classifier,
            "with_features",
            lambda x, look=look, seen=seen: seen.append(1) or look(x),
        )
        assert method.maps(images_BCHW, labels_B).shape == (8, 16, 16)
        assert len(seen) == passes


def test_aln_descends_on_masked_images_alone(classifier, batch):
    """SGD by hand on the cross-entropy of masked-out images, from the weights before the step."""
    images_BCHW, labels_B = batch
    game = a_game(classifier, ALN, lambda_r=18.0, classifier_rate=0.1)
    before, masker = copy.deepcopy(game.classifier), copy.deepcopy(game.masker)
    game.step(*batch)
    with torch.no_grad():
        mask_B1HW = enlarge(masker(images_BCHW, []), images_BCHW)
    weights = list(before.parameters())
    loss = nn.functional.cross_entropy(before(images_BCHW * (1 - mask_B1HW)), labels_B)
    gradients = torch.autograd.grad(loss, weights)
    for weight, gradient, found in zip(
        weights, gradients, game.classifier.parameters(), strict=True
    ):
        expected = weight - 0.1 * (gradient + 1e-4 * weight)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_clean_updates_are_casms_default(classifier, batch):
    for options, times in (({}, 2), ({"clean_updates": False}, 1)):
        game = a_game(classifier, CASM, strategy="L", **options)
        steps, improve = [], game._improve_classifier
        game._improve_classifier = lambda *args, **kw: steps.append(1) or improve(*args, **kw)  # noqa: B023
        game.step(*batch)
        assert len(steps) == times


def test_aln_is_labelled_a_reinterpretation_and_nobody_else():
    for name in registry.names():
        facts = registry.get(name).facts
        texts = (facts.title, facts.summary, facts.deviations)
        labelled = [("reinterpretation" in text.lower()) for text in texts]
        assert labelled == [facts.reinterpretation] * 3, name
    assert ALN.facts.reinterpretation


def test_aln_plays_against_no_past_and_climbs_the_cross_entropy(classifier):
    method = ALN(classifier, lambda_r=1.0)
    assert method.plan.past_probability == 0
    assert method.objective == "adversarial"
    assert isinstance(method, Algorithm1)
    assert ALN(classifier).lambda_r == "search"
