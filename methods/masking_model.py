"""Masking model: a U-Net that masks a requested class in one pass (Dabkowski & Gal 2017).

A selector first learns to tell whether the requested class is in the picture, then a decoder
learns masks. What a mask covers must suffice for a fixed classifier (preserver), what it leaves
must not (destroyer), and for a class that is not there the mask must vanish.

Shapes: B images, C channels, H rows, W columns, K classes; masks are B1hw on the grid of stride 4.
`pixels_BCHW` lie in [-1, 1], the domain in which the authors' code adds noise and colours.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from casm_bench import processes
from casm_bench.api import BoxRule, SaliencyMethod, asked, lazy, register
from casm_bench.errors import UsageError
from casm_bench.images import gaussian_blur, masked_in, roughness
from casm_bench.settings import Amount, Count, Fraction, Positive, Share

if TYPE_CHECKING:
    from torch import Tensor

    from casm_bench.training import TrainBatches

np = lazy("numpy")
torch = lazy("torch")
F = lazy("torch.nn.functional")
descent = lazy("casm_bench.backbones.descent")
masker = lazy("casm_bench.backbones.masker")
unet = lazy("casm_bench.backbones.unet")
training = lazy("casm_bench.training")

AREA_OFFSET = 0.0005  # keeps the area's gradient finite where a mask is zero
PICTURE_NOISE, COLOUR_NOISE, COLOUR_RANGE = 0.03, 0.11, 0.33  # on pixels in [-1, 1]
FAKE_MARGIN = 1.0  # of either loss where a class is requested that is not there


@register(
    "masking-model",
    title="Masking model",
    family="trained masker",
    paper="Dabkowski & Gal 2017, Real Time Image Saliency for Black Box Classifiers (NIPS)",
    summary="A U-Net trained to mask a requested class: what it masks suffices for a fixed "
    "classifier, what it leaves does not.",
    knows_class=True,
    trained=True,
    cost="one forward pass",
    rule=BoxRule("fixed", alpha=0.5, component="largest"),
    upsample="bilinear",
    published="Masking model",
    deviations="Neither threshold nor localization script are published: the box is that of the "
    "largest component above 0.5. Networks see pixels as their classifier normalises them "
    "(scale=doubled: twice [-1, 1], as the code). The encoder sees the same in training as in the "
    "test, with fixed BatchNorm (options replay the code, which differs). The blur repeats the "
    "border instead of fading to grey, and reaches 4 sigma, not 2.5. Fake classes are drawn from "
    "those of the training data.",
)
@dataclass
class MaskingModel(SaliencyMethod):
    """Loss of the masks: destroyer + area · A + smoothness · S + preserver · P (official code).

    Published are 8,500 steps for the selector and 3,000 for the masks; here a phase takes as many
    epochs of equal length as it needs.
    """

    conf: float = asked(6.0)  # score that a place must exceed to be shown; lower is more complete
    area: Amount = 8.0  # weight of mean(m^area_power)
    area_power: Positive = 0.3
    smoothness: Amount = 0.005
    preserver: Amount = 0.3
    destroyer_margin: float = 5.0  # by how much the class must lose where it is masked out
    preserver_margin: float = 1.0  # by how much it must win where it alone is left
    selector_steps: Count = 8500
    selector_batch_size: Count = 128
    selector_fakes: Fraction = 0.5  # share of requests for a class that is not there
    rate_falls_every: Count = 4000  # steps after which the selector's rate is a tenth
    mask_steps: Count = 3000
    mask_batch_size: Count = 64
    mask_fakes: Fraction = 0.3
    learning_rate: Amount = 1e-3  # of Adam, both phases
    weight_decay: Amount = 1e-4
    least_area: Share = 0.3  # of random crops, where the run's augmentation crops at all
    width: Count = 64  # channels of the decoder's last stage
    blur: Amount = 11.0  # sigma of what may replace masked pixels, in pixels of a 224×224 input
    scale: Literal["own", "doubled"] = "own"  # of the networks' input: normalised, or 2·[-1, 1]
    encoder_trains_on: Literal["as tested", "undoubled"] = "as tested"  # undoubled (code): [-1, 1]
    encoder_batchnorm: Literal["fixed", "batch"] = "fixed"  # in training; batch (code)

    def __post_init__(self) -> None:
        classes = self.classifier.model.num_classes
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = unet.SelectiveUNet(self.classifier.feature_channels, classes, self.width)
        self.network.to(self.classifier.mean.device, memory_format=torch.channels_last)

    def check(self) -> None:
        """Raises UsageError for a classifier without the feature maps that the U-Net reads."""
        _ = self.classifier.feature_channels

    def fit(self, train_batches: TrainBatches) -> None:
        train_batches = replace(train_batches, least_area=self.least_area)
        selecting, masking = SelectorPhase(self, train_batches), MaskPhase(self, train_batches)
        first = _run(selecting, train_batches, self.selector_steps, self.selector_batch_size)
        second = _run(masking, train_batches, self.mask_steps, self.mask_batch_size)
        self.history = first + [epoch | {"epoch": epoch["epoch"] + len(first)} for epoch in second]

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        self.network.eval()
        with torch.no_grad():
            _, features = self.classifier.with_features(self.shown(self.pixels(images_BCHW)))
            mask_B1hw = self.network(features, labels_B, self.conf)
        return mask_B1hw[:, 0]

    def pixels(self, images_BCHW: Tensor) -> Tensor:
        """From normalised images to pixels in [-1, 1]."""
        return 2 * self.classifier.denormalize(images_BCHW) - 1

    def shown(self, pixels_BCHW: Tensor) -> Tensor:
        """What classifier and encoder see of pixels in [-1, 1]."""
        if self.scale == "doubled":
            return 2 * pixels_BCHW
        return ((pixels_BCHW + 1) / 2 - self.classifier.mean) / self.classifier.std

    def state_dict(self) -> dict[str, object]:
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.network.load_state_dict(state["network"])


def _run(
    phase: Phase, batches: TrainBatches, steps: int, batch_size: int
) -> list[dict[str, float]]:
    """Train one phase for a number of steps, in epochs of equal length (to the nearest step)."""
    workspace = batches.workspace and batches.workspace / phase.name
    batches = replace(
        batches,
        batch_size=batch_size,
        share=1.0,
        workspace=workspace,
        tensorboard=batches.tensorboard and batches.tensorboard / phase.name,
        description=f"{batches.description}, {phase.name}",
    )
    epochs = math.ceil(steps / batches.steps)
    return training.run(phase, replace(batches, most_steps=round(steps / epochs)), epochs)


class Phase:
    """What both phases share: fake requests, the encoder, Adam and its rate. A Trainee."""

    name: str
    fakes: float

    def __init__(self, method: MaskingModel, batches: TrainBatches) -> None:
        self.method, self.network = method, method.network
        self.arithmetic = batches.arithmetic
        self.encoder = method.classifier
        if method.encoder_batchnorm == "batch":  # a copy: its running statistics are never used
            self.encoder = copy.deepcopy(method.classifier).train()
        self.known_P = torch.from_numpy(np.unique(batches.dataset.labels_N)).to(batches.device)
        if len(self.known_P) < 2:
            raise UsageError(
                "masking-model needs training pictures of at least two classes, for it learns from "
                f"requests for absent ones; {batches.dataset.name!r} has one class."
            )
        self.optimizer = torch.optim.Adam(
            self.trained(), lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
        )
        self.steps = 0
        compiled = self.arithmetic.compiled
        self.look = compiled(self.encoder.with_features)
        self.make_mask = compiled(self.network.__call__)
        self.ask = compiled(method.classifier.__call__)

    def trained(self) -> list[Tensor]:
        """The parameters that this phase trains."""
        raise NotImplementedError

    def loss(self, pixels_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """The loss under "loss", and what else is logged."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.network.train()

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            pixels_BCHW = self.method.pixels(images_BCHW)
        statistics = self.loss(pixels_BCHW, labels_B)
        descent.descend(statistics["loss"], self.trained(), self.optimizer)
        processes.average(self.network.buffers())
        self.steps += 1
        return {name: value.detach() for name, value in statistics.items()}

    def requests(self, labels_B: Tensor) -> Tensor:
        """The classes to be asked for: a share of them other than the true ones."""
        fake_B = torch.rand(labels_B.shape, device=labels_B.device) < self.fakes
        further_B = torch.randint(1, len(self.known_P), labels_B.shape, device=labels_B.device)
        place_B = torch.searchsorted(self.known_P, labels_B)
        others_B = self.known_P[(place_B + further_B) % len(self.known_P)]
        return torch.where(fake_B, others_B, labels_B)

    def encode(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """The encoder's five features of pixels in [-1, 1], without gradients."""
        undoubled = self.method.encoder_trains_on == "undoubled"
        shown_BCHW = pixels_BCHW if undoubled else self.method.shown(pixels_BCHW)
        with torch.no_grad(), self.arithmetic.forward(shown_BCHW.device):
            return self.look(shown_BCHW)[1]

    def state_dict(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        self.network.train()


class SelectorPhase(Phase):
    """Phase 1: the selector learns whether the requested class is there."""

    name = "selector"

    @property
    def fakes(self) -> float:
        return self.method.selector_fakes

    def trained(self) -> list[Tensor]:
        return list(self.network.selector.parameters())

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            fallen = self.steps // self.method.rate_falls_every
            group["lr"] = self.method.learning_rate * 0.1**fallen
        return super().step(images_BCHW, labels_B)

    def loss(self, pixels_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        requests_B = self.requests(labels_B)
        real_B = (requests_B == labels_B).long()
        scores_B1hw = self.network.scores(self.encode(pixels_BCHW)[-1], requests_B)
        exists_B2 = unet.exists_logits(scores_B1hw)
        accuracy = (exists_B2.argmax(1) == real_B).float().mean()
        return {"loss": F.cross_entropy(exists_B2, real_B), "exists_accuracy": accuracy}


class MaskPhase(Phase):
    """Phase 2: the decoder learns masks, the selector stays."""

    name = "masks"

    def __init__(self, method: MaskingModel, batches: TrainBatches) -> None:
        method.network.stages = descent.jointly_normalised(method.network.stages)
        super().__init__(method, batches)

    @property
    def fakes(self) -> float:
        return self.method.mask_fakes

    def trained(self) -> list[Tensor]:
        return [*self.network.stages.parameters(), *self.network.final.parameters()]

    def loss(self, pixels_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        method, requests_B = self.method, self.requests(labels_B)
        real_B = requests_B == labels_B
        features = self.encode(pixels_BCHW)
        with self.arithmetic.forward(pixels_BCHW.device):
            mask_B1hw = self.make_mask(features, requests_B)
        mask_B1HW = masker.enlarge(mask_B1hw, pixels_BCHW, "bilinear")
        destroyed_BK = self.judge(pixels_BCHW, 1 - mask_B1HW)
        preserved_BK = self.judge(pixels_BCHW, mask_B1HW)
        # Always about the true class: for a fake request it must survive what little is masked.
        margins = method.preserver_margin, FAKE_MARGIN
        preserver = margin_loss(preserved_BK, labels_B, real_B, *margins)
        margins = FAKE_MARGIN, method.destroyer_margin
        destroyer = margin_loss(destroyed_BK, labels_B, ~real_B, *margins)
        area, rough = area_loss(mask_B1HW, method.area_power), roughness(mask_B1HW)
        loss = destroyer + method.area * area + method.smoothness * rough
        return {
            "loss": loss + method.preserver * preserver,
            "destroyer": destroyer,
            "preserver": preserver,
            "area": area,
            "roughness": rough,
            "mask_mean": _mean_where(mask_B1hw, real_B),
            "fake_mask_mean": _mean_where(mask_B1hw, ~real_B),
        }

    def judge(self, pixels_BCHW: Tensor, keep_B1HW: Tensor) -> Tensor:
        """Logits_BK of the black box, where only what is to be kept can be seen."""
        sigma = self.method.blur * pixels_BCHW.shape[-1] / 224
        seen_BCHW = self.method.shown(perturbed(pixels_BCHW, keep_B1HW, sigma))
        with self.arithmetic.forward(seen_BCHW.device):
            return self.ask(seen_BCHW).float()


def perturbed(pixels_BCHW: Tensor, keep_B1HW: Tensor, sigma: float) -> Tensor:
    """The noisy picture where it is kept; elsewhere its blur or, every other time, some colour."""
    shape, device = pixels_BCHW.shape, pixels_BCHW.device
    noisy_BCHW = pixels_BCHW + PICTURE_NOISE * torch.randn(shape, device=device)
    colour_BC11 = COLOUR_RANGE * (2 * torch.rand(*shape[:2], 1, 1, device=device) - 1)
    plain_BCHW = colour_BC11 + COLOUR_NOISE * torch.randn(shape, device=device)
    blurs_B111 = torch.rand(len(pixels_BCHW), 1, 1, 1, device=device) < 0.5
    hidden_BCHW = torch.where(blurs_B111, gaussian_blur(noisy_BCHW, sigma), plain_BCHW)
    return masked_in(noisy_BCHW, keep_B1HW, fill=hidden_BCHW)


def margin_loss(
    logits_BK: Tensor,
    labels_B: Tensor,
    targeted_B: Tensor,
    targeted_margin: float,
    other_margin: float,
) -> Tensor:
    """By how much a class misses its margin over the best other class, or exceeds it; mean.

    Where `targeted_B`, the class is to lead by `targeted_margin` logits; elsewhere it is to trail
    by `other_margin`. (Carlini & Wagner's loss, as the official code has it.)
    """
    true_BK = F.one_hot(labels_B, logits_BK.shape[1]).bool()
    lead_B = logits_BK[true_BK] - logits_BK.masked_fill(true_BK, -math.inf).amax(1)
    targeted_loss_B = (targeted_margin - lead_B).clamp(min=0)
    other_loss_B = (other_margin + lead_B).clamp(min=0)
    return torch.where(targeted_B, targeted_loss_B, other_loss_B).mean()


def area_loss(mask_B1HW: Tensor, power: float) -> Tensor:
    """Mean of the mask's values to a power; below 1 it favours masks that are 0 or 1."""
    return mask_B1HW.mean() if power == 1 else ((mask_B1HW + AREA_OFFSET) ** power).mean()


def _mean_where(mask_B1hw: Tensor, which_B: Tensor) -> Tensor:
    """Mean mask over some images of a batch; over none of them, 0."""
    which_B = which_B.to(mask_B1hw)
    return (mask_B1hw.mean((1, 2, 3)) * which_B).sum() / which_B.sum().clamp(min=1)
