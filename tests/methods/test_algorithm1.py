"""Algorithm 1 against the official code's values, and the properties that keep it honest.

The golden values come from the official training loop, run on analytic one-layer stand-ins.
"""

from __future__ import annotations

import copy
import logging
import random
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from casm_bench.backbones.arithmetic import Arithmetic
from casm_bench.backbones.masker import enlarge
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError
from casm_bench.methods import _algorithm1
from casm_bench.methods._algorithm1 import (
    STRATEGIES,
    Game,
    PastClassifiers,
    Strategy,
    masker_loss,
)
from casm_bench.methods.baseline import Baseline
from casm_bench.methods.casm import CASM
from casm_bench.metrics.masks import mask_statistics, summarise_masks
from casm_bench.training import TrainBatches

# --- the analytic stand-ins -------------------------------------------------------------------

W = [[4.0, 0.0, -1.0], [0.0, 3.0, 0.0], [-2.0, 1.0, 5.0]]
CHANNEL_VALUES = [[1.0, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.1, 0.9], [0.6, 0.9, 0.7]]
LABELS = [0, 1, 2, 0]
THETA = [0.3, -0.5]


class LinearClassifier(nn.Module):
    """logits = W · channel means + b; only W is trained."""

    feature_channels = (3, 3, 3, 3, 3)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(W))
        self.register_buffer("bias", torch.tensor([0.0, 2.0, 0.0]))
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)

    def forward(self, images_BCHW):
        return nn.functional.linear(images_BCHW.mean((2, 3)), self.weight, self.bias)

    def with_features(self, images_BCHW):
        return self(images_BCHW), [images_BCHW] * 5


class ConstantMasker:
    """Image i gets the constant mask sigmoid(theta[i % 2])."""

    def __init__(self):
        self.decoder = nn.Module()
        self.decoder.theta = nn.Parameter(torch.tensor(THETA))

    def __call__(self, images_BCHW, features):
        theta_B = self.decoder.theta[torch.arange(len(images_BCHW)) % 2]
        return torch.sigmoid(theta_B).view(-1, 1, 1, 1)


def play_one_step(method):
    method.masker = ConstantMasker()
    game = Game(method)
    game.start_epoch(0, 1)
    x_BCHW = torch.tensor(CHANNEL_VALUES)[:, :, None, None].expand(-1, -1, 4, 4).contiguous()
    statistics = game.step(x_BCHW, torch.tensor(LABELS))
    return method.masker.decoder.theta.grad, method.classifier.weight.detach(), statistics


@dataclass
class AlwaysPast(CASM):
    """Only past classifiers judge."""

    @property
    def plan(self):
        return Strategy(True, past_probability=1.0)


AFTER_TWO_STEPS = [
    [4.052978992462158, 0.056747306138277054, -0.957472562789917],
    [-0.04815199226140976, 2.956202745437622, -0.045069072395563126],
    [-2.004884958267212, 0.9869339466094971, 5.002425670623779],
]
AFTER_CLEAN_STEP = [
    [4.019723415374756, 0.022434940561652184, -0.9829844236373901],
    [-0.01750243827700615, 2.982950210571289, -0.016407879069447517],
    [-2.0022411346435547, 0.994574785232544, 4.99935245513916],
]
PAST_GRADIENT = [1.2343261241912842, -0.014948755502700806]
GOLDEN = {
    "F": (Baseline, {}, [1.234999656677246, -0.015152473002672195], W),
    "F adversarial": (
        Baseline,
        {"objective": "adversarial"},
        [0.9382688403129578, 0.05412762984633446],
        W,
    ),
    "L, through stepped weights": (
        CASM,
        {"strategy": "L", "update_order": "torch04"},
        [1.2355443239212036, -0.014273593202233315],
        AFTER_TWO_STEPS,
    ),
    "L adversarial, through stepped weights": (
        CASM,
        {"strategy": "L", "update_order": "torch04", "objective": "adversarial"},
        [0.9328320622444153, 0.04339377582073212],
        AFTER_TWO_STEPS,
    ),
    "past classifiers only": (AlwaysPast, {}, PAST_GRADIENT, AFTER_CLEAN_STEP),
    # In clean order the judge still has the weights that a past classifier of this step has.
    "L, clean order": (CASM, {"strategy": "L"}, PAST_GRADIENT, AFTER_TWO_STEPS),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_one_official_step(name):
    cls, options, gradient, weights = GOLDEN[name]
    method = cls(LinearClassifier(), lambda_r=10.0, classifier_rate=0.1, **options)
    theta_gradient, weight, _ = play_one_step(method)
    torch.testing.assert_close(theta_gradient, torch.tensor(gradient), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight, torch.tensor(weights), rtol=1e-6, atol=1e-6)


def test_the_regularizer_survives_boolean_tensors():
    """Adding booleans, as the official code does, gives 0.0127 under today's torch."""
    gradient, *_ = play_one_step(Baseline(LinearClassifier(), lambda_r=10.0))
    assert gradient[0] > 1.2


# --- the loss ---------------------------------------------------------------------------------

MASKED_LOGITS = torch.tensor([[2.0, 0, -1], [0.5, 0.5, 0], [0, 3, 1], [1, 1, 1]])
TARGET = torch.tensor([0, 1, 2, 1])
CLEAN_LOGITS = nn.functional.one_hot(torch.tensor([0, 1, 0, 2]), 3).float()
MASKS = torch.tensor([0.1, 0.4, 0.7, 0.9]).view(4, 1, 1, 1)


def loss_of(masks_B1hw=MASKS, zm_BK=MASKED_LOGITS, clean_BK=CLEAN_LOGITS, **settings):
    given = {"objective": "entropy", "gated": True, "mask_size_weight": 10.0} | settings
    return masker_loss(SimpleNamespace(**given), clean_BK, zm_BK, TARGET, masks_B1hw)


def test_golden_loss_terms():
    terms = loss_of()
    assert terms["size_term"].item() == pytest.approx(-1.5, abs=1e-6)
    assert terms["confusion_term"].item() == pytest.approx(-0.399658739566803, abs=1e-6)
    assert terms["loss"].item() == pytest.approx(-1.8996586799621582, abs=1e-6)
    adversarial = loss_of(objective="adversarial")
    assert adversarial["confusion_term"].item() == pytest.approx(-1.0990811586380005, abs=1e-6)
    assert adversarial["loss"].item() == pytest.approx(-2.599081039428711, abs=1e-6)


def test_size_costs_nothing_unless_an_image_is_nontrivially_confused():
    masks_B1hw = MASKS.clone().requires_grad_()
    never_right = nn.functional.one_hot((TARGET + 1) % 3, 3).float()
    loss_of(masks_B1hw, clean_BK=never_right)["size_term"].backward()
    assert not masks_B1hw.grad.any()


def test_without_the_gate_size_is_the_mean_mask():
    terms = loss_of(gated=False)
    assert terms["size_term"].item() == pytest.approx(10 * MASKS.mean().item(), abs=1e-5)


def test_a_more_confused_judge_lowers_the_masker_loss():
    sure, unsure = loss_of(zm_BK=10 * MASKED_LOGITS), loss_of(zm_BK=0.1 * MASKED_LOGITS)
    assert unsure["confusion_term"] < sure["confusion_term"]


# --- on a real, small network -----------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes():
    return load_shapes(train=32, held_out=1, evaluated=8).train


@pytest.fixture(scope="module")
def batch(shapes, classifier):
    return next(iter(TrainBatches(shapes, classifier, 8).epoch(0)))


def a_game(classifier, cls=CASM, **options):
    game = Game(cls(classifier, **options))
    game.start_epoch(0, 1)
    return game


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_the_fixed_classifier_and_its_batchnorm_stay_untouched(classifier, batch):
    game = a_game(classifier, Baseline)
    before = snapshot(game.classifier)
    for _ in range(3):
        game.step(*batch)
    assert_same(before, game.classifier.state_dict())
    assert game.past is None


def test_a_game_that_goes_on_is_judged_by_the_classifier_it_had(classifier, batch):
    """Though the classifier that it was made with is another."""
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    game, resumed = a_game(other, Baseline), a_game(classifier, Baseline)
    resumed.load_state_dict(game.state_dict())
    assert_same(game.step(*batch), resumed.step(*batch))


def test_the_shared_classifier_is_never_changed(classifier, batch):
    before = snapshot(classifier)
    a_game(classifier, strategy="L").step(*batch)
    assert_same(before, classifier.state_dict())
    assert all(not p.requires_grad or p.grad is None for p in classifier.parameters())


def test_a_trained_classifier_moves_and_sees_masked_images_in_its_batchnorm(classifier, batch):
    game = a_game(classifier, strategy="L")
    game.step(*batch)
    counters = [v for k, v in game.classifier.state_dict().items() if "num_batches" in k]
    assert {int(counter) for counter in counters} == {2}  # clean, then masked


def test_past_classifiers_are_copies_of_the_past(classifier):
    live = copy.deepcopy(classifier)
    past = PastClassifiers(live, capacity=2)
    past.keep(live, random.Random(0))
    kept = {name: value.clone() for name, value in past.kept[0].items()}
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.add_(1.0)
    assert_same(kept, past.kept[0])
    drawn = past.draw(random.Random(0))
    counters = {name for name in kept if name.endswith("num_batches_tracked")}
    assert counters  # nobody's who does not learn
    assert_same({n: v for n, v in kept.items() if n not in counters}, drawn.state_dict())
    assert not drawn.training
    assert not any(parameter.requires_grad for parameter in drawn.parameters())


@pytest.mark.parametrize("strategy", ["F", "L"])
def test_without_past_judges_no_classifier_is_copied(classifier, strategy):
    assert a_game(classifier, strategy=strategy).past is None


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"strategy": "FL"}, [1, 1, 1, 1, 1, 1]),  # the first, after its first step; no other
        ({"strategy": "FL", "save_every": 2}, [1, 1, 1, 1, 1, 1]),  # as where a recipe sets it
        ({"strategy": "L100", "save_every": 2}, [1, 2, 2, 3, 3, 4]),
        ({"strategy": "L100", "save_every": 2, "include_first": True}, [1, 2, 2, 3, 3, 4]),
        ({"strategy": "L100", "save_every": 1, "past_classifiers": 3}, [1, 2, 3, 3, 3, 3]),
    ],
)
def test_when_classifiers_are_kept(classifier, batch, options, kept):
    game = a_game(classifier, **options)
    counts = []
    for _ in kept:
        game.step(*batch)
        counts.append(len(game.past.kept))
    assert counts == kept


def test_the_counter_restarts_every_epoch_and_the_past_stays(classifier, batch):
    game = a_game(classifier, strategy="L100", save_every=3)
    for epoch in range(3):
        game.start_epoch(epoch, 3)
        for _ in range(2):
            game.step(*batch)
    assert len(game.past.kept) == 1  # two steps are never the third


def test_f0_is_among_the_past_only_when_asked_for(classifier, batch):
    initial = snapshot(classifier)
    for include, expected in ((True, True), (False, False)):
        game = a_game(classifier, strategy="FL", include_first=include)
        game.step(*batch)
        first = game.past.kept[0]
        same = all(torch.equal(first[name], value) for name, value in initial.items())
        assert same is expected


def test_the_masker_learns_the_same_whether_or_not_the_classifier_does(classifier, batch):
    """In clean order the masked update of f comes after the masker's gradient is taken."""
    games = [a_game(classifier, strategy="L") for _ in range(2)]
    games[1]._improve_both = lambda terms, *_: games[1]._improve_masker(terms["loss"])
    for game in games:
        game.step(*batch)
    gradients = [[p.grad for p in game.masker.decoder.parameters()] for game in games]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_the_two_update_orders_differ_in_the_masker_only_by_the_stepped_weights(classifier, batch):
    gradients = []
    for order in ("clean", "torch04"):
        game = a_game(classifier, strategy="L", update_order=order, classifier_rate=0.1)
        game.step(*batch)
        gradients.append(game.masker.decoder.final.weight.grad)
    assert not torch.allclose(*gradients)


def test_no_gradient_of_the_masker_loss_stays_on_the_classifier(classifier, batch):
    game = a_game(classifier, Baseline)
    game.step(*batch)
    assert all(parameter.grad is None for parameter in game.classifier.parameters())


def test_masks_are_constant_in_blocks_unless_bilinear(classifier, batch):
    images_BCHW, labels_B = batch
    for mode, blocks in (("nearest", True), ("bilinear", False)):
        method = CASM(classifier, upsample=mode)
        saliency_BHW = method.maps(images_BCHW, labels_B)
        assert saliency_BHW.shape[1:] == ((16, 16) if blocks else (64, 64))
        mask_B1HW = enlarge(saliency_BHW[:, None], images_BCHW)
        cells = mask_B1HW.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
        assert bool((cells == cells[..., :1]).all()) is blocks


def test_a_separate_encoder_does_not_move_with_the_classifier(classifier, batch):
    game = a_game(classifier, strategy="L", encoder="separate", classifier_rate=0.1)
    before = snapshot(game.masker.own_encoder)
    game.step(*batch)
    assert_same(before, game.masker.own_encoder.state_dict())
    assert_same(before, snapshot(classifier))


def gradients_of_a_step(classifier, batch, **options):
    game = a_game(classifier, **options)
    game.step(*batch)
    return torch.cat([p.grad.flatten() for p in game.masker.decoder.parameters()])


def test_what_the_encoder_option_changes_and_leaves_alone(classifier, batch):
    """A frozen copy of a fixed classifier is that classifier; a learning one it does not follow."""
    for strategy, same in (("F", True), ("L", False)):
        shared, separate = (
            gradients_of_a_step(classifier, batch, strategy=strategy, encoder=encoder)
            for encoder in ("shared", "separate")
        )
        assert torch.equal(shared, separate) is same


def test_what_the_upsampling_option_changes_and_leaves_alone(classifier, batch):
    nearest, bilinear = (a_game(classifier, strategy="F", upsample=u) for u in UPSAMPLINGS)
    assert_same(snapshot(nearest.masker.decoder), snapshot(bilinear.masker.decoder))
    statistics = [game.step(*batch) for game in (nearest, bilinear)]
    for name in ("mask_mean", "clean_accuracy"):  # of the mask before it is enlarged
        assert statistics[0][name] == statistics[1][name]
    assert statistics[0]["confusion_term"] != statistics[1]["confusion_term"]


UPSAMPLINGS = ("nearest", "bilinear")


def test_what_the_gate_changes_and_leaves_alone(classifier, batch):
    gated, plain = (a_game(classifier, strategy="F", gated=g) for g in (True, False))
    statistics = [game.step(*batch) for game in (gated, plain)]
    assert statistics[0]["confusion_term"] == statistics[1]["confusion_term"]
    assert statistics[1]["size_term"] == pytest.approx(2.5 * statistics[1]["mask_mean"].item())
    assert statistics[0]["size_term"] <= 0 < statistics[1]["size_term"]


def test_the_adversarial_step_needs_one_backward_pass_and_moves_as_with_two(classifier, batch):
    options = {"strategy": "L", "objective": "adversarial"}
    at_once, apart = (a_game(classifier, **options) for _ in range(2))

    def improve_apart(size_term, classification, masked_BCHW):
        apart._improve_masker(size_term - classification, retain=True)
        apart._improve_classifier(classification)

    apart._improve_both_at_once = improve_apart
    for game in (at_once, apart):
        game.step(*batch)
    for players in ("classifier", "masker"):
        one, two = (vars(game)[players] for game in (at_once, apart))
        one, two = (p.decoder if players == "masker" else p for p in (one, two))
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


def test_published_size_weights():
    published = {name: (s.lambda_entropy, s.lambda_adversarial) for name, s in STRATEGIES.items()}
    assert published == {
        "F": (2.5, 9),
        "L": (14, 18),
        "FL": (7.5, 11),
        "L1000": (10, 17),
        "L100": (10, 17),
    }


@pytest.mark.parametrize("objective", ["entropy", "adversarial"])
def test_the_size_weight_follows_strategy_and_objective(classifier, objective):
    method = CASM(classifier, strategy="L", objective=objective)
    assert method.mask_size_weight == {"entropy": 14, "adversarial": 18}[objective]
    assert CASM(classifier, lambda_r=3.0).mask_size_weight == 3.0


def test_casm_and_baseline_differ_in_the_strategy_alone(classifier):
    casm, baseline = vars(CASM(classifier)), vars(Baseline(classifier))
    differing = {
        name
        for name in casm
        if name not in ("classifier", "masker") and casm[name] != baseline[name]
    }
    assert differing == {"strategy"}


def test_the_maskers_gradient_is_clipped(classifier, batch, monkeypatch):
    monkeypatch.setattr(_algorithm1, "MAX_GRADIENT_NORM", 1e-3)
    game = a_game(classifier, Baseline)
    game.step(*batch)
    norm = torch.cat([p.grad.flatten() for p in game.masker.decoder.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


# --- statistics, precision, past classifiers on the device --------------------------------------


def test_statistics_are_those_of_the_scorer(classifier, batch):
    game = a_game(classifier, Baseline)
    seen = {}
    make_mask = game.make_mask
    game.make_mask = lambda *a: seen.setdefault("mask", make_mask(*a))
    statistics = game.step(*batch)
    mask_BHW = seen["mask"][:, 0].detach().numpy()
    expected = summarise_masks(mask_statistics(mask_BHW, 64, "nearest"))
    for name, value in expected.items():
        assert statistics[f"mask_{name}"].item() == pytest.approx(value, rel=1e-4), name


class NoWaiting(TorchDispatchMode):
    """Refuses to read a tensor's value on the host, which on a GPU waits for it."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        assert function is not torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("options", [{"strategy": "F"}, {"save_every": 1}, {"strategy": "L"}])
def test_a_step_reads_no_value_on_the_host(classifier, batch, options):
    game = a_game(classifier, **options)
    game.step(*batch)
    with NoWaiting():
        for _ in range(2):
            game.step(*batch)
    with pytest.raises(AssertionError), NoWaiting():
        torch.ones(1).item()  # such reading would be noticed


def test_rates_of_a_hand_worked_batch():
    terms = loss_of()
    logged = _algorithm1._statistics(terms, CLEAN_LOGITS, MASKED_LOGITS, TARGET, MASKS, 4)
    # Clean: right, right, wrong, wrong. Masked: 0 right; tie of 0 and 1 goes to 0, wrong; 1, wrong;
    # tie of all goes to 0, wrong.
    assert logged["clean_accuracy"].item() == 0.5
    assert logged["masked_accuracy"].item() == 0.25
    assert logged["confused"].item() == 0.25
    assert logged["mask_mean"].item() == pytest.approx(0.525)
    assert logged["mask_total_variation"].item() == 0


@pytest.mark.parametrize("strategy", ["F", "L100"])
def test_under_bf16_mask_losses_and_optimizers_stay_fp32(classifier, batch, strategy):
    method = CASM(classifier, strategy=strategy)
    game = Game(method, Arithmetic("bf16"))
    seen = []
    look, make_mask = game.look, game.make_mask
    game.look = lambda *a: seen.append(look(*a)) or seen[-1]
    game.make_mask = lambda *a: seen.append(make_mask(*a)) or seen[-1]
    statistics = game.step(*batch)
    (logits_BK, _), mask_B1hw = seen
    assert logits_BK.dtype == torch.bfloat16  # the networks do calculate in bf16
    assert mask_B1hw.dtype == torch.float32
    assert {value.dtype for value in statistics.values()} == {torch.float32}
    assert {p.dtype for p in game.masker.decoder.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in game.masker.decoder.parameters()} == {torch.float32}


def test_compiled_networks_refuse_stepped_weights(classifier):
    method = CASM(classifier, update_order="torch04")
    with pytest.raises(UsageError, match="update_order=clean"):
        Game(method, Arithmetic(compile=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch hides it, unless it is an error
def test_compiled_networks_take_the_same_step(classifier, batch, monkeypatch):
    """Compiled without a code generator, which would take minutes; what is compiled is the same."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile(f, backend="eager"))
    games = [Game(CASM(classifier, strategy="L"), Arithmetic(compile=c)) for c in (False, True)]
    for game in games:
        game.step(*batch)
    for a, b in zip(*(g.masker.decoder.parameters() for g in games), strict=True):
        torch.testing.assert_close(a, b)


def test_past_classifiers_move_to_the_host_when_the_gpu_is_too_small(classifier, monkeypatch):
    """The rule alone: without a GPU nothing can be moved."""
    past = PastClassifiers(classifier, capacity=30)
    assert past.on_device
    live = SimpleNamespace(state_dict=lambda: {"weight": torch.zeros(1000, device="meta")})
    needed = 30 * 4000
    for free, fits in ((2 * needed, False), (2 * needed + 1, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        assert past._fit_on_device(live) is fits


# --- published settings and the lottery of past classifiers ------------------------------------


def test_optimizers_and_length_are_the_published_ones(classifier):
    game = a_game(classifier)
    (masker,) = game.masker_optimizer.param_groups
    (judge,) = game.classifier_optimizer.param_groups
    assert (masker["lr"], masker["betas"], masker["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-4)
    assert not masker["decoupled_weight_decay"]  # coupled L2: Adam, not AdamW
    assert (judge["lr"], judge["momentum"], judge["weight_decay"]) == (1e-3, 0.9, 1e-4)
    # One group each: BatchNorm and biases decay like everything else.
    assert len(judge["params"]) == len(list(game.classifier.parameters()))
    assert (game.method.epochs, game.method.past_classifiers) == (60, 30)


def test_rates_and_decay_are_the_methods(classifier):
    game = a_game(classifier, masker_rate=0.02, classifier_rate=0.03, weight_decay=0.04)
    (masker,) = game.masker_optimizer.param_groups
    (judge,) = game.classifier_optimizer.param_groups
    assert (masker["lr"], masker["weight_decay"]) == (0.02, 0.04)
    assert (judge["lr"], judge["weight_decay"]) == (0.03, 0.04)


def test_maskers_start_from_the_seed(classifier):
    first, again, other = (CASM(classifier, seed=seed).masker.decoder for seed in (3, 3, 4))
    assert_same(snapshot(first), snapshot(again))
    weights, others = (next(decoder.parameters()) for decoder in (first, other))
    assert not torch.equal(weights, others)


def test_a_game_that_goes_on_has_the_past_behind_it(classifier, batch):
    options = {"strategy": "L100", "save_every": 1}
    game, resumed = (a_game(classifier, **options) for _ in range(2))
    for _ in range(3):
        game.step(*batch)
    resumed.load_state_dict(copy.deepcopy(game.state_dict()))
    assert len(resumed.past.kept) == 3
    for kept, again in zip(game.past.kept, resumed.past.kept, strict=True):
        assert_same(kept, again)
    for playing in (game, resumed):
        playing.step(*batch)
    assert_same(snapshot(game.method.masker.decoder), snapshot(resumed.method.masker.decoder))


def test_published_schedules():
    assert {name: (s.past_probability, s.save_every) for name, s in STRATEGIES.items()} == {
        "F": (0, None),
        "L": (0, None),
        "FL": (0.5, None),
        "L1000": (0.5, 1000),
        "L100": (0.5, 100),
    }
    assert [name for name, s in STRATEGIES.items() if not s.trains_classifier] == ["F"]


def test_a_full_past_replaces_every_slot_about_equally_often():
    live, chance = nn.Linear(1, 1, bias=False), random.Random(3)
    past, replaced = PastClassifiers(live, capacity=4), []
    for i in range(204):
        before = [float(kept["weight"]) for kept in past.kept]
        nn.init.constant_(live.weight, i)
        past.keep(live, chance)
        if i >= 4:
            after = [float(kept["weight"]) for kept in past.kept]
            (slot,) = [j for j in range(4) if after[j] != before[j]]
            replaced.append(slot)
    assert min(replaced.count(slot) for slot in range(4)) > 25  # of 200; four deviations below 50


def test_past_classifiers_judge_half_of_the_time_and_each_gets_its_turn():
    game = a_game(LinearClassifier(), past_classifiers=4)
    for i in range(4):
        nn.init.constant_(game.classifier.weight, i)
        game.past.keep(game.classifier, game.chance)
    nn.init.constant_(game.classifier.weight, -1)
    judges = [game._choose_judge()[0].weight[0, 0].item() for _ in range(4000)]
    assert abs(judges.count(-1) - 2000) < 127  # four deviations of 4000 fair coins
    assert min(judges.count(i) for i in range(4)) > 416  # four deviations below 500


@pytest.mark.parametrize(
    ("options", "steps", "warned"),
    [
        ({}, 15, True),  # L100, and a counter that starts anew with every epoch
        ({}, 100, False),
        ({"save_every": 5}, 15, False),
        ({"strategy": "FL"}, 15, False),  # only the first is to be kept
        ({"strategy": "L"}, 15, False),
    ],
)
def test_epochs_too_short_to_keep_a_past_classifier_are_announced(
    classifier, caplog, options, steps, warned
):
    with caplog.at_level(logging.WARNING, "casm_bench"):
        CASM(classifier, **options)._check_past_is_kept(steps)
    assert ("--set casm.save_every=5" in caplog.text) is warned


def test_training_announces_it(shapes, classifier, caplog):
    with caplog.at_level(logging.WARNING, "casm_bench"):
        CASM(classifier, epochs=1).fit(TrainBatches(shapes, classifier, 8))
    assert "an epoch has 4 steps" in caplog.text
