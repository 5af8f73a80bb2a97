"""Algorithm 1 of "Classifier-Agnostic Saliency Map Extraction" (Zolna, Geras & Cho 2019).

A masker learns to hide what classifiers use; a classifier learns to do without what was hidden.
CASM and its Baseline are this file with two settings: whether the classifier is trained, and
from which set the classifier that judges the masked image is drawn.

Where the paper and the official code differ, the code's behaviour is the default and the paper's
an option; every field of `Algorithm1` says which. λ_r, the weight of the mask-size term, can be
searched for (`_lambda_search.py`), because the published values do not carry over to other data.

Shapes: B images, C channels, H rows, W columns, K classes; masks are B1hw on the features' grid.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from casm_bench import processes
from casm_bench.api import SaliencyMethod, added, lazy
from casm_bench.errors import UsageError
from casm_bench.settings import Amount, Count

from . import _lambda_search

torch = lazy("torch")
F = lazy("torch.nn.functional")
backbone = lazy("casm_bench.backbones.masker")
descent = lazy("casm_bench.backbones.descent")
frozen = lazy("casm_bench.backbones.frozen")
training = lazy("casm_bench.training")
arithmetics = lazy("casm_bench.backbones.arithmetic")

if TYPE_CHECKING:
    from torch import Tensor

    from casm_bench.backbones.arithmetic import Arithmetic
    from casm_bench.backbones.classifier import Classifier
    from casm_bench.training import TrainBatches

log = logging.getLogger("casm_bench")

StrategyName = Literal["F", "L", "FL", "L100", "L1000"]

MAX_GRADIENT_NORM = 10.0  # of the masker's gradient (official train.py)


@dataclass(frozen=True)
class Strategy:
    """One of the official presets: which classifiers play against the masker."""

    trains_classifier: bool
    past_probability: float = 0.0  # hp: how often a past classifier judges
    save_every: int | None = None  # smf: steps between two kept classifiers; None: only the first
    lambda_entropy: float = 0.0  # published λ_r for either objective
    lambda_adversarial: float = 0.0


STRATEGIES = {  # official train_utils.py, --reproduce
    "F": Strategy(False, lambda_entropy=2.5, lambda_adversarial=9),
    "L": Strategy(True, lambda_entropy=14, lambda_adversarial=18),
    "FL": Strategy(True, 0.5, None, lambda_entropy=7.5, lambda_adversarial=11),
    "L1000": Strategy(True, 0.5, 1000, lambda_entropy=10, lambda_adversarial=17),
    "L100": Strategy(True, 0.5, 100, lambda_entropy=10, lambda_adversarial=17),
}


@dataclass
class Algorithm1(SaliencyMethod):
    """What CASM and Baseline share; the defaults are the official code's published settings.

    strategy
        Who judges (official train_utils.py): F the fixed f⁽⁰⁾; L the learning classifier; FL that
        or its state after the first step; L100, L1000 that or one kept every 100, 1000 steps.
    objective
        Of the masker: raise the judge's entropy (official default; paper, section 3), or its
        cross-entropy, `adversarial` (official --adversarial).
    lambda_r
        Weight of the mask-size term. None: published for strategy and objective (official
        --reproduce). "search": found on held-out training images without boxes, see
        `_lambda_search`.
    search_trials, search_steps
        How many λ_r are tried, and for how many training steps each.
    save_every
        Steps between two kept classifiers (official smf), where the strategy keeps more than the
        first. None: the strategy's.
    past_classifiers
        How many are kept, replaced at random (official f_size: 30).
    include_first
        The first kept is f⁽⁰⁾ (paper, Algorithm 1) and not f after one step (official code).
    update_order
        `clean`: the masker's gradient is taken before f steps on the masked images. `torch04`:
        after, through the stepped weights, as the published code did under torch 0.4.
    encoder
        `shared`: the masker looks through the current classifier (official code). `separate`: a
        frozen copy of f⁽⁰⁾. `trained`: a copy that learns with the decoder, as θ_m in the paper.
    taps
        Which of the five features the masker looks at (official code: all).
    clean_updates
        f steps on clean images, too (official code). False: on masked ones only (paper).
    gated
        Size costs only on images right when clean and wrong when masked (official code). False:
        λ·mean(m), the paper's plain regularizer.
    upsample
        From mask to image: `nearest` (official default) or `bilinear` (official --upsample).
    epochs, classifier_rate, masker_rate, weight_decay
        SGD with momentum 0.9 for f, Adam for the masker, both ×0.1 after each third of the
        epochs; coupled L2, BatchNorm and biases included (official train.py).
    """

    strategy: StrategyName = "L100"
    objective: Literal["entropy", "adversarial"] = "entropy"
    lambda_r: Amount | Literal["search"] | None = None
    save_every: Count | None = None
    past_classifiers: Count = 30
    include_first: bool = False
    update_order: Literal["clean", "torch04"] = "clean"
    encoder: Literal["shared", "separate", "trained"] = "shared"
    gated: bool = True
    upsample: Literal["nearest", "bilinear"] = "nearest"
    epochs: Count = 60
    classifier_rate: Amount = 1e-3
    masker_rate: Amount = 1e-3
    weight_decay: Amount = 1e-4
    taps: tuple[int, ...] = added((0, 1, 2, 3, 4))
    clean_updates: bool = added(True)
    search_trials: Count = added(6)
    search_steps: Count = added(100)

    def __post_init__(self) -> None:
        self.classifier = copy.deepcopy(self.classifier)  # f moves; the shared one must not
        self._check_taps()
        self.masker = Masker(self.classifier, self.encoder, self.seed, self.taps)

    def _check_taps(self) -> None:
        if not self.taps or not set(self.taps) <= {0, 1, 2, 3, 4}:
            raise UsageError(
                f"--set {self.facts.name}.taps={self.taps}: name features from 0 to 4, for "
                "instance (3,4)."
            )

    def check(self) -> None:
        """Raises UsageError for a classifier without the feature maps that the decoder reads."""
        _ = self.classifier.feature_channels

    def fit(self, train_batches: TrainBatches) -> None:
        if self.lambda_r == "search":
            self.findings = _lambda_search.search(self, train_batches)
        self._check_past_is_kept(train_batches.steps)
        game = self.game(train_batches.arithmetic)
        self.history = training.run(game, train_batches, self.epochs, watched=True)
        self.classifier.eval()
        _lambda_search.warn_if_trivial(self, self.history[-1]["mask_mean"])

    def _check_past_is_kept(self, steps: int) -> None:
        """Say so when epochs of so many steps end before a past classifier is due."""
        every = self.kept_every
        if self.plan.past_probability > 0 and every is not None and every > steps:
            log.warning(
                "%s: an epoch has %d steps and a classifier would be kept every %d, so the first "
                "stays the only one. Keep them more often: --set %s.save_every=%d",
                *(self.facts.name, steps, every, self.facts.name, max(1, steps // 3)),
            )

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        self.classifier.eval()
        self.masker.decoder.eval()
        features = []
        with torch.no_grad():
            if self.masker.looks_through_f:
                _, features = self.classifier.with_features(images_BCHW)
            mask_B1hw = self.masker(images_BCHW, features)
        if self.upsample == "bilinear":
            mask_B1hw = backbone.enlarge(mask_B1hw, images_BCHW, "bilinear")
        return mask_B1hw[:, 0].float()

    def game(self, arithmetic: Arithmetic) -> Game:
        """What `training.run` trains; a method with other rules brings another game."""
        return Game(self, arithmetic)

    def masked_out(self, images_BCHW: Tensor, mask_B1hw: Tensor) -> Tensor:
        """x·(1-m): masked pixels take the mean colour, which is 0 in normalised images."""
        return images_BCHW * (1 - backbone.enlarge(mask_B1hw, images_BCHW, self.upsample))

    def state_dict(self) -> dict[str, object]:
        return {
            "classifier": self.classifier.state_dict(),
            "decoder": self.masker.decoder.state_dict(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.classifier.load_state_dict(state["classifier"])
        self.masker.decoder.load_state_dict(state["decoder"])

    @property
    def plan(self) -> Strategy:
        """The preset that `strategy` names."""
        return STRATEGIES[self.strategy]

    @property
    def kept_every(self) -> int | None:
        """Steps of an epoch between two kept classifiers; None: only the first is kept."""
        usual = self.plan.save_every
        return usual and (self.save_every or usual)  # `save_every` must not turn FL into L5

    @property
    def mask_size_weight(self) -> float:
        """λ_r in force: found, given, or published for strategy and objective."""
        if self.lambda_r == "search":
            return self.findings["lambda_r"]
        return self.published_size_weight if self.lambda_r is None else self.lambda_r

    @property
    def published_size_weight(self) -> float:
        """λ_r as published for this strategy and objective."""
        entropy = self.objective == "entropy"
        return self.plan.lambda_entropy if entropy else self.plan.lambda_adversarial


class Masker:
    """θ_m: the decoder, over features of the current classifier or of an encoder of its own."""

    def __init__(
        self, classifier: Classifier, encoder: str, seed: int, taps: tuple[int, ...]
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.decoder = backbone.Decoder(classifier.feature_channels, taps)
        self.learns_to_see = encoder == "trained"
        if self.learns_to_see:
            own = copy.deepcopy(classifier).requires_grad_(True)
            self.decoder = backbone.EncoderDecoder(own, self.decoder)
        self.decoder.to(classifier.mean.device, memory_format=torch.channels_last)
        self.own_encoder = None
        if encoder == "separate":
            self.own_encoder = copy.deepcopy(classifier).eval().requires_grad_(False)

    @property
    def looks_through_f(self) -> bool:
        """Whether it needs the current classifier's features."""
        return not self.learns_to_see and self.own_encoder is None

    def __call__(self, images_BCHW: Tensor, features: list[Tensor]) -> Tensor:
        """Mask_B1hw; no gradient reaches the features of anything that does not belong to θ_m."""
        if self.learns_to_see:
            return self.decoder(images_BCHW)
        if self.own_encoder is not None:
            with torch.no_grad():
                _, features = self.own_encoder.with_features(images_BCHW)
        return self.decoder([feature.detach() for feature in features])


class PastClassifiers:
    """F⁽ᵏ⁾: classifiers of earlier steps, to be drawn from (paper, Algorithm 1 line 4).

    They stay on the classifier's device if all of them will fit there, else they go to pinned
    host memory; nothing waits for either copy.
    """

    def __init__(self, live: Classifier, capacity: int) -> None:
        self.capacity = capacity
        self.kept: list[dict[str, Tensor]] = []
        self.drawn = frozen.frozen_copy(live)  # takes a past one's weights
        self.on_device = self._fit_on_device(live)

    def _fit_on_device(self, live: Classifier) -> bool:
        state = live.state_dict()
        device = next(iter(state.values())).device
        if device.type == "cpu":
            return True
        needed = self.capacity * sum(value.nbytes for value in state.values())
        free, _ = torch.cuda.mem_get_info(device)
        fit = 2 * needed < free  # the other half is for activations
        where = "on the GPU" if fit else "in pinned host memory"
        log.info(
            "up to %d past classifiers, %.1f GB, are kept %s", self.capacity, needed / 1e9, where
        )
        return fit

    def keep(self, live: Classifier, chance: random.Random) -> None:
        """Keep a copy of the current weights; once full, in place of one drawn by `chance`."""
        state = live.state_dict()
        if len(self.kept) < self.capacity:
            self.kept.append({name: self._room_for(value) for name, value in state.items()})
            slot = self.kept[-1]
        else:
            slot = self.kept[chance.randrange(self.capacity)]
        # Copies: a reference would follow the live weights, and the past would be the present.
        for name, value in state.items():
            slot[name].copy_(value, non_blocking=True)

    def _room_for(self, value: Tensor) -> Tensor:
        if self.on_device:
            return torch.empty_like(value, requires_grad=False)
        return torch.empty_like(value, requires_grad=False, device="cpu", pin_memory=True)

    def draw(self, chance: random.Random) -> Classifier:
        """One of the kept, drawn uniformly; valid until the next is drawn."""
        frozen.take_weights(self.drawn, chance.choice(self.kept))
        return self.drawn

    def state_dict(self) -> list[dict[str, Tensor]]:
        if not self.on_device:
            torch.cuda.synchronize()  # copies to host memory may be under way
        return self.kept

    def load_state_dict(self, kept: list[dict[str, Tensor]]) -> None:
        self.kept = []
        for state in kept:
            here = {name: value.to(self.drawn.mean.device) for name, value in state.items()}
            self.kept.append({name: self._room_for(value) for name, value in here.items()})
            for name, value in here.items():
                self.kept[-1][name].copy_(value)


class Game:
    """The loop body of Algorithm 1: a `training.Trainee`."""

    def __init__(self, method: Algorithm1, arithmetic: Arithmetic | None = None) -> None:
        self.method = method
        self.arithmetic = arithmetic or arithmetics.Arithmetic()
        _share_batch_statistics(method)
        self.classifier, self.masker = method.classifier, method.masker
        learns = method.plan.trains_classifier
        self.classifier.train(learns).requires_grad_(learns)
        self.masker.decoder.train()
        self.current = self.classifier if learns else frozen.frozen_copy(self.classifier)
        self.chance = random.Random(method.seed)
        self.past = None
        if method.plan.past_probability > 0:
            self.past = PastClassifiers(self.classifier, method.past_classifiers)
            if method.include_first:
                self.past.keep(self.classifier, self.chance)
        self.step_of_epoch = 0
        self._make_optimizers()
        self._compile()

    def _compile(self) -> None:
        if self.arithmetic.compile and self.method.update_order == "torch04":
            raise UsageError(
                "update_order=torch04 reads weights after they were stepped, which compiled "
                "networks do not allow. Choose update_order=clean, or recipe.compile=False."
            )
        compiled = self.arithmetic.compiled
        self.look = compiled(self.classifier.with_features)
        self.current_judge = compiled(self.current.__call__)
        self.past_judge = compiled(self.past.drawn.__call__) if self.past else None
        self.make_mask = compiled(self.masker.__call__)

    def _make_optimizers(self) -> None:
        method = self.method
        self.masker_optimizer = torch.optim.Adam(
            self.masker.decoder.parameters(),
            lr=method.masker_rate,
            weight_decay=method.weight_decay,
            fused=True,
        )
        self.classifier_optimizer = torch.optim.SGD(
            self.classifier.parameters(),
            lr=method.classifier_rate,
            momentum=0.9,
            weight_decay=method.weight_decay,
            fused=True,
        )

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.step_of_epoch = 0  # the official counter restarts; the past classifiers stay
        training.step_decay(self.masker_optimizer, self.method.masker_rate, epoch, epochs)
        training.step_decay(self.classifier_optimizer, self.method.classifier_rate, epoch, epochs)

    def step(self, x_BCHW: Tensor, y_B: Tensor) -> dict[str, Tensor]:
        z_BK, features = self._look_at_clean(x_BCHW)
        if self.learns_on_clean:
            self._improve_classifier(F.cross_entropy(z_BK, y_B))  # on clean images too (code only)
        self._keep_past()
        with self.arithmetic.forward(x_BCHW.device):
            mask_B1hw = self.make_mask(x_BCHW, features)  # line 3: m(x; θ_m)
        masked_BCHW = self.method.masked_out(x_BCHW, mask_B1hw)
        judge, is_current = self._choose_judge()  # line 4: f' from F
        ask = functools.partial(self._judge, judge, is_current)
        zm_BK = ask(masked_BCHW)
        terms = masker_loss(self.method, z_BK, zm_BK, y_B, mask_B1hw)
        terms, further = self._further(terms, ask, x_BCHW, y_B, mask_B1hw)
        if is_current and self.method.plan.trains_classifier:  # lines 5-8
            self._improve_both(terms, F.cross_entropy(zm_BK, y_B) + further, masked_BCHW)
        else:
            self._improve_masker(terms["loss"])
        self._share_buffers()
        return _statistics(terms, z_BK, zm_BK, y_B, mask_B1hw, x_BCHW.shape[-1])

    def _further(
        self,
        terms: dict[str, Tensor],
        ask: Callable[[Tensor], Tensor],
        x_BCHW: Tensor,
        y_B: Tensor,
        mask_B1hw: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """The masker's terms and a loss of f's, for games with more than masked-out images.

        `ask` gives the judge's logits_BK of images.
        """
        return terms, 0.0

    @property
    def learns_on_clean(self) -> bool:
        """Whether f also steps on clean images (official code; not in the paper)."""
        return self.method.plan.trains_classifier and self.method.clean_updates

    def _look_at_clean(self, x_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.set_grad_enabled(self.learns_on_clean), self.arithmetic.forward(x_BCHW.device):
            z_BK, features = self.look(x_BCHW)
        return z_BK.float(), features

    def _keep_past(self) -> None:
        every = self.method.kept_every
        due = every is not None and self.step_of_epoch % every == every - 1
        if self.past is not None and (due or not self.past.kept):
            self.past.keep(self.classifier, self.chance)
        self.step_of_epoch += 1

    def _choose_judge(self) -> tuple[Classifier, bool]:
        if self.past is None or self.chance.random() > self.method.plan.past_probability:
            return self.classifier, True
        return self.past.draw(self.chance), False

    def _judge(self, judge: Classifier, is_current: bool, masked_BCHW: Tensor) -> Tensor:
        """Logits in fp32, of `judge` through its compiled twin if there is one."""
        judged = self.current_judge if is_current else self.past_judge
        by_reference = self.method.update_order == "torch04" and is_current
        saved_tensors = _weights_by_reference() if by_reference else contextlib.nullcontext()
        with saved_tensors, self.arithmetic.forward(masked_BCHW.device):
            return judged(masked_BCHW).float()

    def _improve_both(
        self, terms: dict[str, Tensor], classification: Tensor, masked_BCHW: Tensor
    ) -> None:
        """Both players' steps on the masked images, in the order asked for."""
        if self.method.update_order == "torch04":
            self._improve_classifier(classification, retain=True)
            self._improve_masker(terms["loss"])
        elif self.method.objective == "adversarial":
            self._improve_both_at_once(terms["size_term"], classification, masked_BCHW)
        else:
            self._improve_masker(terms["loss"], retain=True)
            self._improve_classifier(classification)

    def _improve_both_at_once(
        self, size_term: Tensor, classification: Tensor, masked_BCHW: Tensor
    ) -> None:
        """The adversarial masker climbs what the classifier descends: one backward pass."""
        weights = list(self.classifier.parameters())
        mask_weights = list(self.masker.decoder.parameters())
        *weight_gradients, image_gradient_BCHW = torch.autograd.grad(
            classification, [*weights, masked_BCHW], allow_unused=True
        )
        mask_gradients = torch.autograd.grad(
            [size_term, masked_BCHW],
            mask_weights,
            [None, -image_gradient_BCHW],
            allow_unused=True,  # the last layers of an encoder of its own
        )
        descent.step_with(mask_gradients, mask_weights, self.masker_optimizer, MAX_GRADIENT_NORM)
        descent.step_with(weight_gradients, weights, self.classifier_optimizer)

    def _improve_classifier(self, loss: Tensor, retain: bool = False) -> None:
        parameters = self.classifier.parameters()
        descent.descend(loss, parameters, self.classifier_optimizer, retain=retain)

    def _improve_masker(self, loss: Tensor, retain: bool = False) -> None:
        descent.descend(
            loss,
            self.masker.decoder.parameters(),
            self.masker_optimizer,
            max_norm=MAX_GRADIENT_NORM,
            retain=retain,
        )

    def _share_buffers(self) -> None:
        """Running statistics of BatchNorm, where batches were not normalised jointly."""
        processes.average(self.masker.decoder.buffers())
        if self.method.plan.trains_classifier:
            processes.average(self.classifier.buffers())

    def state_dict(self) -> dict[str, object]:
        return {
            "method": self.method.state_dict(),
            "masker_optimizer": self.masker_optimizer.state_dict(),
            "classifier_optimizer": self.classifier_optimizer.state_dict(),
            "past": self.past.state_dict() if self.past else [],
            "chance": self.chance.getstate(),
            "step_of_epoch": self.step_of_epoch,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.method.load_state_dict(state["method"])
        if self.current is not self.classifier:  # a copy, which does not follow by itself
            frozen.take_weights(self.current, self.classifier.state_dict())
        self.masker_optimizer.load_state_dict(state["masker_optimizer"])
        self.classifier_optimizer.load_state_dict(state["classifier_optimizer"])
        if self.past:
            self.past.load_state_dict(state["past"])
        version, internal, gauss = state["chance"]
        self.chance.setstate((version, tuple(internal), gauss))
        self.step_of_epoch = state["step_of_epoch"]


def masker_loss(
    method: Algorithm1, z_BK: Tensor, zm_BK: Tensor, y_B: Tensor, mask_B1hw: Tensor
) -> dict[str, Tensor]:
    """The masker's loss L = R + l and its two terms (official train.py).

    `z_BK` are the logits of clean, `zm_BK` of masked-out images. R pays for mask area only where
    the image was nontrivially confused: right when clean, wrong when masked. l is the negative
    entropy of the judge on images that were right when clean, or minus its cross-entropy.
    """
    zm_BK = zm_BK.float()
    right_B = (z_BK.argmax(1) == y_B).float()
    confused_B = right_B * (zm_BK.argmax(1) != y_B).float()
    mean_B = mask_B1hw.mean((1, 2, 3))
    if method.gated:
        size = -(confused_B - mean_B).clamp(min=0).mean()
    else:
        size = mean_B.mean()
    if method.objective == "entropy":
        log_p_BK = zm_BK.log_softmax(1)
        confusion = (right_B * (log_p_BK.exp() * log_p_BK).sum(1)).mean()
    else:
        confusion = -F.cross_entropy(zm_BK, y_B)
    size = method.mask_size_weight * size
    return {"loss": size + confusion, "size_term": size, "confusion_term": confusion}


def _statistics(
    terms: dict[str, Tensor],
    z_BK: Tensor,
    zm_BK: Tensor,
    y_B: Tensor,
    mask_B1hw: Tensor,
    size: int,
) -> dict[str, Tensor]:
    """What is logged, without waiting for the device.

    The loss terms; the rates of the official train.py, a = `clean_accuracy`, b = 1 -
    `masked_accuracy` and c = `confused`; and of the masks, at their own resolution, what the
    official scorer reports in a frame of `size` pixels: mean, standard deviation of the images'
    means, entropy in bits, and total variation (see `metrics.masks`).
    """
    with torch.no_grad():
        right_B, wrong_B = z_BK.argmax(1) == y_B, zm_BK.argmax(1) != y_B
        means_B = mask_B1hw.mean((1, 2, 3))
        return {name: value.detach() for name, value in terms.items()} | {
            "mask_mean": means_B.mean(),
            "mask_std": means_B.std() if len(means_B) > 1 else means_B.sum() * 0,
            "mask_entropy": -torch.xlogy(mask_B1hw, mask_B1hw).mean() / math.log(2),
            "mask_total_variation": _total_variation(mask_B1hw, size),
            "clean_accuracy": right_B.float().mean(),
            "masked_accuracy": 1 - wrong_B.float().mean(),
            "confused": (right_B & wrong_B).float().mean(),
        }


def _total_variation(mask_B1hw: Tensor, size: int) -> Tensor:
    """Of the mask enlarged by blocks: only along the blocks' edges do neighbours differ."""
    rows, columns = size / mask_B1hw.shape[-2], size / mask_B1hw.shape[-1]
    squares = rows * mask_B1hw.diff(dim=3).square().sum((1, 2, 3))
    squares = squares + columns * mask_B1hw.diff(dim=2).square().sum((1, 2, 3))
    return squares.mean() / (size * (size - 1))


def _share_batch_statistics(method: Algorithm1) -> None:
    method.masker.decoder = descent.jointly_normalised(method.masker.decoder)
    if method.plan.trains_classifier:
        method.classifier = descent.jointly_normalised(method.classifier)


def _weights_by_reference() -> object:
    """Within this context, autograd looks weights up at backward time instead of keeping them.

    The official code steps f and then backpropagates the masker's loss through the *stepped*
    weights with the old activations. torch 0.4 did so silently; today's torch refuses, unless
    saved tensors pass through hooks: what those hand back is not checked for changes.
    """
    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved)
