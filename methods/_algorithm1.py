"""Algorithm 1 of "Classifier-Agnostic Saliency Map Extraction" (Zolna, Geras & Cho 2019).

A masker learns to hide what classifiers use; a classifier learns to do without what was hidden.
CASM and its Baseline are this file with two settings: whether the classifier is trained, and
from which set the classifier that judges the masked image is drawn.

Where the paper and the official code differ, the code's behaviour is the default and the paper's
an option; every field of `Algorithm1` says which.

Shapes: B images, C channels, H rows, W columns, K classes; masks are B1hw on the features' grid.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from casm_bench.api import SaliencyMethod, lazy

torch = lazy("torch")
F = lazy("torch.nn.functional")
backbone = lazy("casm_bench.backbones.masker")
training = lazy("casm_bench.training")

if TYPE_CHECKING:
    from torch import Tensor

    from casm_bench.backbones.classifier import Classifier
    from casm_bench.training import TrainBatches

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
    """What CASM and Baseline share; the defaults are the official code's published settings."""

    strategy: StrategyName = "L100"
    objective: Literal["entropy", "adversarial"] = "entropy"  # of the masker
    lambda_r: float | None = None  # weight of the mask-size term; None: the strategy's published
    save_every: int | None = None  # steps between kept classifiers; None: the strategy's
    past_classifiers: int = 30  # f_size: how many are kept, replaced at random
    include_first: bool = False  # the first kept is f⁽⁰⁾ (Algorithm 1), not f after one step (code)
    update_order: Literal["clean", "torch04"] = "clean"  # masker first, or through stepped weights
    encoder: Literal["shared", "separate"] = "shared"  # separate: a frozen copy of f⁽⁰⁾
    gated: bool = True  # mask-size term only on nontrivially confused images; False: λ·mean(m)
    upsample: Literal["nearest", "bilinear"] = "nearest"
    epochs: int = 60
    classifier_rate: float = 1e-3
    masker_rate: float = 1e-3
    weight_decay: float = 1e-4  # coupled L2 for both networks, BatchNorm and biases included

    def __post_init__(self) -> None:
        self.classifier = copy.deepcopy(self.classifier)  # f moves; the shared one must not
        self.masker = Masker(self.classifier, self.encoder, self.seed)

    def fit(self, train_batches: TrainBatches) -> None:
        self.history = training.run(Game(self), train_batches, self.epochs)
        self.classifier.eval()

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        self.classifier.eval()
        self.masker.decoder.eval()
        with torch.no_grad():
            _, features = self.classifier.with_features(images_BCHW)
            mask_B1hw = self.masker(images_BCHW, features)
        if self.upsample == "bilinear":
            mask_B1hw = backbone.enlarge(mask_B1hw, images_BCHW, "bilinear")
        return mask_B1hw[:, 0].float()

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
        return STRATEGIES[self.strategy]

    @property
    def mask_size_weight(self) -> float:
        """λ_r in force: the given one, or what was published for strategy and objective."""
        published = getattr(self.plan, f"lambda_{self.objective}")
        return published if self.lambda_r is None else self.lambda_r


class Masker:
    """θ_m: the decoder, over features of the current classifier or of a frozen encoder."""

    def __init__(self, classifier: Classifier, encoder: str, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.decoder = backbone.Decoder(classifier.feature_channels)
        self.decoder.to(classifier.mean.device, memory_format=torch.channels_last)
        self.own_encoder = None
        if encoder == "separate":
            self.own_encoder = copy.deepcopy(classifier).eval().requires_grad_(False)

    def __call__(self, images_BCHW: Tensor, features: list[Tensor]) -> Tensor:
        """Mask_B1hw; no gradient reaches the features."""
        if self.own_encoder is not None:
            with torch.no_grad():
                _, features = self.own_encoder.with_features(images_BCHW)
        return self.decoder([feature.detach() for feature in features])


class PastClassifiers:
    """F⁽ᵏ⁾: classifiers of earlier steps, to be drawn from (paper, Algorithm 1 line 4)."""

    def __init__(self, live: Classifier, capacity: int) -> None:
        self.capacity = capacity
        self.kept: list[dict[str, Tensor]] = []
        self.drawn = copy.deepcopy(live).eval().requires_grad_(False)  # takes a past one's weights

    def keep(self, live: Classifier, chance: random.Random) -> None:
        # Clones: a reference would follow the live weights, and the past would be the present.
        snapshot = {name: value.detach().clone() for name, value in live.state_dict().items()}
        if len(self.kept) < self.capacity:
            self.kept.append(snapshot)
        else:
            self.kept[chance.randrange(self.capacity)] = snapshot

    def draw(self, chance: random.Random) -> Classifier:
        self.drawn.load_state_dict(chance.choice(self.kept))
        return self.drawn


class Game:
    """The loop body of Algorithm 1: a `training.Trainee`."""

    def __init__(self, method: Algorithm1) -> None:
        self.method = method
        self.classifier, self.masker = method.classifier, method.masker
        self.classifier.train(method.plan.trains_classifier)
        self.classifier.requires_grad_(method.plan.trains_classifier)
        self.masker.decoder.train()
        self.chance = random.Random(method.seed)
        self.past = None
        if method.plan.past_probability > 0:
            self.past = PastClassifiers(self.classifier, method.past_classifiers)
            if method.include_first:
                self.past.keep(self.classifier, self.chance)
        self.step_of_epoch = 0
        self._make_optimizers()

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
        if self.method.plan.trains_classifier:
            self._descend(F.cross_entropy(z_BK, y_B))  # f sees clean images too (code only)
        self._keep_past()
        mask_B1hw = self.masker(x_BCHW, features)  # line 3: m(x; θ_m)
        mask_B1HW = backbone.enlarge(mask_B1hw, x_BCHW, self.method.upsample)
        judge, is_current = self._choose_judge()  # line 4: f' from F
        zm_BK = self._judge(judge, is_current, x_BCHW * (1 - mask_B1HW))  # the masked-out image
        terms = masker_loss(self.method, z_BK, zm_BK, y_B, mask_B1hw)
        self._update(terms["loss"], zm_BK, y_B, is_current)  # lines 5-8
        return _statistics(terms, z_BK, zm_BK, y_B, mask_B1hw)

    def _look_at_clean(self, x_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.set_grad_enabled(self.method.plan.trains_classifier):
            return self.classifier.with_features(x_BCHW)

    def _keep_past(self) -> None:
        plan = self.method.plan
        every = self.method.save_every or plan.save_every
        due = every is not None and self.step_of_epoch % every == every - 1
        if self.past is not None and (due or not self.past.kept):
            self.past.keep(self.classifier, self.chance)
        self.step_of_epoch += 1

    def _choose_judge(self) -> tuple[Classifier, bool]:
        if self.past is None or self.chance.random() > self.method.plan.past_probability:
            return self.classifier, True
        return self.past.draw(self.chance), False

    def _judge(self, judge: Classifier, is_current: bool, masked_BCHW: Tensor) -> Tensor:
        if self.method.update_order == "torch04" and is_current:
            with _weights_by_reference():
                return judge(masked_BCHW)
        return judge(masked_BCHW)

    def _update(self, loss: Tensor, zm_BK: Tensor, y_B: Tensor, is_current: bool) -> None:
        classifier_learns = is_current and self.method.plan.trains_classifier
        if self.method.update_order == "clean":
            self._improve_masker(loss, retain=classifier_learns)
        if classifier_learns:
            self._descend(F.cross_entropy(zm_BK, y_B), retain=self.method.update_order == "torch04")
        if self.method.update_order == "torch04":
            self._improve_masker(loss)

    def _descend(self, loss: Tensor, retain: bool = False) -> None:
        """One step of f on a classification loss."""
        parameters = list(self.classifier.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=retain, allow_unused=True)
        _set_gradients(parameters, gradients)
        self.classifier_optimizer.step()

    def _improve_masker(self, loss: Tensor, retain: bool = False) -> None:
        # Asking for the masker's gradients alone computes no weight gradients of the judge.
        parameters = list(self.masker.decoder.parameters())
        _set_gradients(parameters, torch.autograd.grad(loss, parameters, retain_graph=retain))
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        self.masker_optimizer.step()

    def state_dict(self) -> dict[str, object]:
        return {
            "method": self.method.state_dict(),
            "masker_optimizer": self.masker_optimizer.state_dict(),
            "classifier_optimizer": self.classifier_optimizer.state_dict(),
            "past": self.past.kept if self.past else [],
            "chance": self.chance.getstate(),
            "step_of_epoch": self.step_of_epoch,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.method.load_state_dict(state["method"])
        self.masker_optimizer.load_state_dict(state["masker_optimizer"])
        self.classifier_optimizer.load_state_dict(state["classifier_optimizer"])
        if self.past:
            device = self.classifier.mean.device
            self.past.kept = [
                {name: value.to(device) for name, value in kept.items()} for kept in state["past"]
            ]
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
    terms: dict[str, Tensor], z_BK: Tensor, zm_BK: Tensor, y_B: Tensor, mask_B1hw: Tensor
) -> dict[str, Tensor]:
    """What is logged: the loss terms, the rates a and c of the spec, and how large masks are."""
    with torch.no_grad():
        right_B, wrong_B = z_BK.argmax(1) == y_B, zm_BK.argmax(1) != y_B
        means_B = mask_B1hw.mean((1, 2, 3))
        return {name: value.detach() for name, value in terms.items()} | {
            "mask_mean": means_B.mean(),
            "mask_std": means_B.std() if len(means_B) > 1 else means_B.sum() * 0,
            "clean_accuracy": right_B.float().mean(),
            "masked_accuracy": 1 - wrong_B.float().mean(),
            "confused": (right_B & wrong_B).float().mean(),
        }


def _set_gradients(parameters: list[Tensor], gradients: tuple[Tensor, ...]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _weights_by_reference() -> object:
    """Within this context, autograd looks weights up at backward time instead of keeping them.

    The official code steps f and then backpropagates the masker's loss through the *stepped*
    weights with the old activations. torch 0.4 did so silently; today's torch refuses, unless
    saved tensors pass through hooks: what those hand back is not checked for changes.
    """
    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved)
