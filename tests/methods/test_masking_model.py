"""Masking model: the official losses' values, its two phases, and what it may not touch."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from casm_bench import training
from casm_bench.backbones.unet import SelectiveUNet, exists_logits
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError
from casm_bench.images import gaussian_blur, roughness
from casm_bench.methods import masking_model
from casm_bench.methods.masking_model import (
    MaskingModel,
    MaskPhase,
    Phase,
    SelectorPhase,
    area_loss,
    margin_loss,
    perturbed,
)
from casm_bench.training import TrainBatches

# --- values of the official code -------------------------------------------------------------

LOGITS = torch.tensor([[5.0, 1, 0], [0, 2, 1.5], [3, 3.5, 1]])
LABELS = torch.tensor([0, 1, 0])
MASK = torch.tensor([[0.0, 0.5, 1], [0.25, 0.75, 1], [0, 0, 0.5]])[None, None]


@pytest.mark.parametrize(
    ("targeted", "margins", "expected"),
    [
        ([True] * 3, (1.0, 99.0), 0.6666666865348816),
        ([False] * 3, (99.0, 5.0), 6.333333492279053),
        ([True, False, True], (1.0, 5.0), 2.3333332538604736),
    ],
)
def test_golden_margins(targeted, margins, expected):
    loss = margin_loss(LOGITS, LABELS, torch.tensor(targeted), *margins)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_class_that_is_ahead_by_more_than_its_margin_costs_nothing():
    """Leads of 20 and -20, of two classes in one picture."""
    logits_BK = torch.tensor([[20.0, 0]])
    for label, targeted in ((0, True), (1, False)):
        loss = margin_loss(logits_BK, torch.tensor([label]), torch.tensor([targeted]), 1.0, 5.0)
        assert loss == 0


def test_golden_area_and_smoothness():
    assert area_loss(MASK, 0.3).item() == pytest.approx(0.6121898293495178, abs=1e-6)
    assert area_loss(MASK, 1).item() == pytest.approx(0.4444444477558136, abs=1e-6)
    assert roughness(MASK).item() == pytest.approx(1.6031250953674316, abs=1e-6)


def test_roughness_is_a_mean_over_the_batch():
    batch = torch.cat([MASK, torch.zeros_like(MASK)])
    assert roughness(batch).item() == pytest.approx(roughness(MASK).item() / 2)


def test_the_areas_gradient_is_finite_where_a_mask_is_empty():
    mask = torch.zeros(1, 1, 4, 4, requires_grad=True)
    area_loss(mask, 0.3).backward()
    assert mask.grad.isfinite().all()


# --- network -----------------------------------------------------------------------------------


def test_stages_have_the_published_channels():
    network = SelectiveUNet((64, 256, 512, 1024, 2048), classes=10)
    first, *_ = (stage.enlarge[0] for stage in network.stages)
    shuffled = [stage.enlarge[0].out_channels for stage in network.stages]
    entering = [stage.mix.shortcut.in_channels for stage in network.stages]
    leaving = [stage.mix.shortcut.out_channels for stage in network.stages]
    assert first.in_channels == 2048
    assert shuffled == [4 * 256, 4 * 128, 4 * 64]
    assert entering == [256 + 1024, 128 + 512, 64 + 256]
    assert leaving == [256, 128, 64]
    assert network.selector.weight.shape == (10, 2048)
    assert network.selector.weight.std().item() == pytest.approx(2048**-0.5, rel=0.05)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 16), (8, 16), (12, 8), (16, 4), (20, 2)]
    return [torch.randn(3, c, side, side, generator=generator) for c, side in shapes]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SelectiveUNet((8, 8, 12, 16, 20), classes=5, width=8).eval()


def test_existence_is_the_mean_score_of_the_requested_class(network, features):
    labels_B = torch.tensor([0, 4, 2])
    mask_B1hw = network(features, labels_B)
    exists_B2 = exists_logits(network.scores(features[-1], labels_B))
    assert mask_B1hw.shape == (3, 1, 16, 16)
    assert mask_B1hw.min() >= 0 and mask_B1hw.max() <= 1
    for i, label in enumerate(labels_B):
        embedding_C = network.selector.weight[label]
        scores = [embedding_C @ features[4][i, :, y, x] for y in (0, 1) for x in (0, 1)]
        half = sum(scores) / 4 / 2
        assert exists_B2[i].tolist() == pytest.approx([-half.item(), half.item()], rel=1e-5)


def test_a_place_below_conf_is_dimmed(network, features):
    """With an endless conf nothing of the deepest features is left, whatever the class."""
    zeroed = [*features[:4], torch.zeros_like(features[4])]
    nothing = network(features, torch.tensor([0, 1, 2]), conf=1e9)
    expected = network(zeroed, torch.tensor([3, 3, 3]))
    torch.testing.assert_close(nothing, expected)
    other = network(features, torch.tensor([3, 3, 3]))
    assert not torch.allclose(nothing, other)


# --- training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes():
    return load_shapes(train=40, held_out=1, evaluated=8).train


@pytest.fixture(scope="module")
def classifier(classifier):
    return classifier.requires_grad_(False)


SMALL = {
    "width": 8,
    "selector_steps": 4,
    "selector_batch_size": 8,
    "mask_steps": 4,
    "mask_batch_size": 8,
}


def a_method(classifier, **options):
    return MaskingModel(classifier, **(SMALL | options))


def batches_of(shapes, classifier, folder=None):
    return TrainBatches(shapes, classifier, 8, workspace=folder, checkpoint_every_s=0.0)


def a_batch(shapes, classifier):
    return next(iter(batches_of(shapes, classifier).epoch(0)))


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    after = module.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("phase", "learns"), [(SelectorPhase, {"selector"}), (MaskPhase, {"stages", "final"})]
)
def test_a_phase_trains_its_own_part_alone(shapes, classifier, phase, learns):
    method = a_method(classifier)
    before, encoder = snapshot(method.network), snapshot(classifier)
    playing = phase(method, batches_of(shapes, classifier))
    playing.start_epoch(0, 1)
    playing.step(*a_batch(shapes, classifier))
    assert changed(before, method.network) == learns
    assert changed(encoder, classifier) == set()


@pytest.mark.parametrize("phase", [SelectorPhase, MaskPhase])
def test_an_epoch_trains_a_network_that_made_maps(shapes, classifier, phase):
    playing = phase(a_method(classifier), batches_of(shapes, classifier))
    playing.network.eval()
    playing.start_epoch(0, 1)
    assert playing.network.training


def test_fake_requests_are_for_other_known_classes(shapes, classifier):
    known = shapes.subset([i for i, label in enumerate(shapes.labels_N) if label in (1, 4, 6)])
    method = a_method(classifier, mask_fakes=0.3)
    phase = MaskPhase(method, batches_of(known, classifier))
    labels_B = torch.tensor([1, 4, 6]).repeat(2000)
    torch.manual_seed(0)
    requests_B = phase.requests(labels_B)
    fake_B = requests_B != labels_B
    assert 0.27 < fake_B.float().mean() < 0.33
    assert set(requests_B[fake_B].tolist()) == {1, 4, 6}
    phase.method.mask_fakes = 1.0
    requests_B = phase.requests(labels_B)
    for label, others in ((1, {4, 6}), (4, {1, 6}), (6, {1, 4})):
        assert set(requests_B[labels_B == label].tolist()) == others


def test_two_classes_are_enough(shapes, classifier):
    two = shapes.subset([i for i, label in enumerate(shapes.labels_N) if label in (2, 5)])
    phase = MaskPhase(a_method(classifier, mask_fakes=1.0), batches_of(two, classifier))
    assert phase.requests(torch.tensor([2, 5, 2])).tolist() == [5, 2, 5]


def test_adam_has_the_methods_settings(shapes, classifier):
    method = a_method(classifier, learning_rate=0.003, weight_decay=0.02)
    for kind in (SelectorPhase, MaskPhase):
        (group,) = kind(method, batches_of(shapes, classifier)).optimizer.param_groups
        assert (group["lr"], group["weight_decay"]) == (0.003, 0.02)


def test_networks_start_from_the_seed(classifier):
    first, again, other = (a_method(classifier, seed=seed).network for seed in (3, 3, 4))
    assert changed(snapshot(first), again) == set()
    assert changed(snapshot(first), other)


def test_a_restored_phase_has_the_steps_behind_it(shapes, classifier):
    phase = SelectorPhase(a_method(classifier, rate_falls_every=2), batches_of(shapes, classifier))
    for _ in range(3):
        phase.step(*a_batch(shapes, classifier))
    restored = SelectorPhase(
        a_method(classifier, rate_falls_every=2), batches_of(shapes, classifier)
    )
    restored.network.eval()  # as after maps were made
    restored.load_state_dict(phase.state_dict())
    assert restored.network.training
    restored.step(*a_batch(shapes, classifier))
    assert restored.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_maps_are_the_networks_masks_as_tested(shapes, classifier):
    images_BCHW, labels_B = a_batch(shapes, classifier)
    method, other = a_method(classifier, conf=0.5), a_method(classifier, conf=0.5, seed=1)
    method.network.train()
    maps_BHW = method.maps(images_BCHW, labels_B)
    _, features = classifier.with_features(method.shown(method.pixels(images_BCHW)))
    with torch.no_grad():
        expected = method.network.eval()(features, labels_B, 0.5).squeeze(1)
    torch.testing.assert_close(maps_BHW, expected)
    assert not torch.allclose(other.maps(images_BCHW, labels_B), maps_BHW)
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(other.maps(images_BCHW, labels_B), maps_BHW)


def test_one_class_is_too_few(shapes, classifier):
    one = shapes.subset([i for i, label in enumerate(shapes.labels_N) if label == 2])
    with pytest.raises(UsageError, match="at least two classes"):
        a_method(classifier).fit(batches_of(one, classifier))


def test_the_selectors_rate_falls_every_so_many_steps(shapes, classifier):
    phase = SelectorPhase(a_method(classifier, rate_falls_every=2), batches_of(shapes, classifier))
    rates = []
    for _ in range(5):
        phase.step(*a_batch(shapes, classifier))
        rates.append(phase.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


@pytest.mark.parametrize(("steps", "epochs", "each"), [(3, 1, 3), (5, 1, 5), (12, 3, 4)])
def test_phases_take_the_steps_they_are_given(shapes, classifier, monkeypatch, steps, epochs, each):
    runs = []
    monkeypatch.setattr(
        training, "run", lambda phase, batches, n: runs.append((n, batches.steps)) or []
    )
    method = a_method(classifier, selector_steps=steps, mask_steps=2)
    method.fit(batches_of(shapes, classifier))
    assert runs == [(epochs, each), (1, 2)]


def test_published_settings_are_the_default(classifier):
    method = MaskingModel(classifier)
    assert (method.area, method.area_power, method.smoothness) == (8.0, 0.3, 0.005)
    assert (method.preserver, method.preserver_margin, method.destroyer_margin) == (0.3, 1.0, 5.0)
    selecting = (method.selector_steps, method.selector_batch_size, method.selector_fakes)
    assert selecting == (8500, 128, 0.5)
    assert (method.mask_steps, method.mask_batch_size, method.mask_fakes) == (3000, 64, 0.3)
    assert (method.learning_rate, method.weight_decay, method.least_area) == (1e-3, 1e-4, 0.3)
    assert (method.rate_falls_every, method.width, method.blur) == (4000, 64, 11.0)


def test_phases_have_batches_of_their_own(shapes, classifier, monkeypatch, tmp_path):
    runs = []
    monkeypatch.setattr(training, "run", lambda phase, batches, n: runs.append(batches) or [])
    method = a_method(classifier, mask_batch_size=4, least_area=0.6)
    batches = replace(batches_of(shapes, classifier, tmp_path), share=0.5, tensorboard=tmp_path)
    method.fit(batches)
    assert [b.batch_size for b in runs] == [8, 4]
    assert [b.least_area for b in runs] == [0.6, 0.6]
    assert [b.share for b in runs] == [1.0, 1.0]
    names = ["selector", "masks"]
    assert [b.workspace for b in runs] == [tmp_path / name for name in names]
    assert [b.tensorboard for b in runs] == [tmp_path / name for name in names]
    assert [b.description for b in runs] == [f"training, {name}" for name in names]


def loss_by_hand(method, phase, pixels_BCHW, labels_B, requests_B):
    """Straight from the authors' description, image by image."""
    mask_B1hw = method.network(phase.encode(pixels_BCHW), requests_B)
    mask_B1HW = nn.functional.interpolate(mask_B1hw, size=64, mode="bilinear", align_corners=False)
    destroyed = method.classifier(method.shown(perturbed(pixels_BCHW, 1 - mask_B1HW, 22 / 7)))
    preserved = method.classifier(method.shown(perturbed(pixels_BCHW, mask_B1HW, 22 / 7)))
    total = 0.0
    for i, label in enumerate(labels_B.tolist()):
        leads = []
        for logits_K in (destroyed[i], preserved[i]):
            others = torch.cat([logits_K[:label], logits_K[label + 1 :]])
            leads.append((logits_K[label] - others.max()).item())
        if requests_B[i] == label:
            total += max(0.0, leads[0] + 5) + 0.3 * max(0.0, 2 - leads[1])
        else:
            total += max(0.0, 1 - leads[0]) + 0.3 * max(0.0, leads[1] + 1)
    area = ((mask_B1HW + 0.0005) ** 0.3).mean()
    return total / len(labels_B) + 8 * area.item() + 0.005 * roughness(mask_B1HW).item()


def test_the_loss_by_hand(shapes, classifier, monkeypatch):
    method = a_method(classifier, blur=11.0, preserver_margin=2.0)
    phase = MaskPhase(method, batches_of(shapes, classifier))
    images_BCHW, labels_B = a_batch(shapes, classifier)
    requests_B = torch.where(torch.arange(8) < 3, (labels_B + 1) % 8, labels_B)
    monkeypatch.setattr(phase, "requests", lambda labels_B: requests_B)
    pixels_BCHW = method.pixels(images_BCHW)
    method.network.eval()
    torch.manual_seed(1)
    logged = phase.loss(pixels_BCHW, labels_B)
    torch.manual_seed(1)
    expected = loss_by_hand(method, phase, pixels_BCHW, labels_B, requests_B)
    assert logged["loss"].item() == pytest.approx(expected, rel=1e-5)
    mask_B1hw = method.network(phase.encode(pixels_BCHW), requests_B)
    assert logged["fake_mask_mean"].item() == pytest.approx(mask_B1hw[:3].mean().item(), rel=1e-5)
    assert logged["mask_mean"].item() == pytest.approx(mask_B1hw[3:].mean().item(), rel=1e-5)
    requests_B = labels_B  # none of them fake
    assert phase.loss(pixels_BCHW, labels_B)["fake_mask_mean"] == 0


def test_what_is_hidden_is_blurred_or_coloured():
    pixels_BCHW = torch.rand(400, 3, 8, 8) * 2 - 1
    torch.manual_seed(0)
    hidden_BCHW = perturbed(pixels_BCHW, torch.zeros(400, 1, 8, 8), 2.0)
    blurred_BCHW = gaussian_blur(pixels_BCHW, 2.0)
    is_blur_B = (hidden_BCHW - blurred_BCHW).flatten(1).abs().amax(1) < 0.15
    assert 160 < is_blur_B.sum() < 240
    colours = hidden_BCHW[~is_blur_B]
    assert colours.mean((2, 3)).abs().max() < 0.33 + 0.11
    assert colours.std((2, 3)).mean().item() == pytest.approx(0.11, rel=0.1)
    torch.manual_seed(0)
    kept_BCHW = perturbed(pixels_BCHW, torch.ones(400, 1, 8, 8), 2.0)
    assert (kept_BCHW - pixels_BCHW).std().item() == pytest.approx(0.03, rel=0.05)


def test_the_authors_discrepancies_are_options(shapes, classifier):
    images_BCHW, _ = a_batch(shapes, classifier)
    batches = batches_of(shapes, classifier)
    seen = {}
    for name, options in {
        "default": {},
        "undoubled": {"scale": "doubled", "encoder_trains_on": "undoubled"},
        "batch": {"encoder_batchnorm": "batch"},
        "doubled": {"scale": "doubled"},
    }.items():
        method = a_method(classifier, **options)
        pixels_BCHW = method.pixels(images_BCHW)
        before = snapshot(classifier)
        seen[name] = MaskPhase(method, batches).encode(pixels_BCHW)[4]
        assert changed(before, classifier) == set()
        assert not classifier.training
    expected = classifier.with_features(images_BCHW)[1][4]
    torch.testing.assert_close(seen["default"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen["undoubled"], classifier.with_features(pixels_BCHW)[1][4])
    torch.testing.assert_close(seen["doubled"], classifier.with_features(2 * pixels_BCHW)[1][4])
    in_training = copy.deepcopy(classifier).train()
    batch = in_training.with_features(images_BCHW)[1][4]
    torch.testing.assert_close(seen["batch"], batch, rtol=1e-4, atol=1e-4)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [2, 6])
def test_either_phase_resumes_to_the_same_bits(shapes, classifier, tmp_path, monkeypatch, stop):
    whole = a_method(classifier)
    whole.fit(batches_of(shapes, classifier))
    original, calls = Phase.step, []

    def step(self, *batch):
        calls.append(1)
        if len(calls) == stop + 1:
            raise Stopped
        return original(self, *batch)

    monkeypatch.setattr(masking_model.MaskPhase, "step", step)
    monkeypatch.setattr(
        masking_model.SelectorPhase, "step", lambda self, *batch: step(self, *batch)
    )
    with pytest.raises(Stopped):
        a_method(classifier).fit(batches_of(shapes, classifier, tmp_path))
    resumed = a_method(classifier)
    resumed.fit(batches_of(shapes, classifier, tmp_path))
    assert changed(snapshot(whole.network), resumed.network) == set()
    assert len(calls) == 8 + 1
    assert [epoch["epoch"] for epoch in resumed.history] == [1, 2]


def test_the_selector_learns_what_is_there(shapes, classifier, monkeypatch):
    """From features that show the class plainly."""
    phase = SelectorPhase(a_method(classifier, learning_rate=0.02), batches_of(shapes, classifier))
    pixels_BCHW = torch.zeros(64, 3, 64, 64)
    labels_B = torch.arange(64) % 8
    features_BC11 = 5 * nn.functional.one_hot(labels_B, 96).float()[:, :, None, None]
    monkeypatch.setattr(phase, "encode", lambda pixels_BCHW: [features_BC11.expand(-1, -1, 2, 2)])
    torch.manual_seed(0)
    logged = [phase.step(pixels_BCHW, labels_B) for _ in range(60)]
    assert logged[0]["loss"].item() == pytest.approx(0.69, abs=0.1)
    assert logged[-1]["loss"] < 0.2
    assert logged[-1]["exists_accuracy"] > 0.95
    for asked_B, there in ((labels_B, True), ((labels_B + 1) % 8, False)):
        scores_B1hw = phase.network.scores(phase.encode(pixels_BCHW)[-1], asked_B)
        assert ((exists_logits(scores_B1hw).argmax(1) == 1) == there).all()
