"""Box regression, supervised: VGG's network for ILSVRC 2014 localization.

Simonyan & Zisserman 2015, appendix A. The last layer of a classifier is replaced by one that
predicts a box's centre, width and height, either for every class (per-class regression, PCR) or
once for all (single-class regression, SCR). Unlike every other method it learns from true boxes.

Shapes: B images, C channels, H rows, W columns, K classes, N boxes of an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from casm_bench import processes
from casm_bench.api import BoxMethod, lazy, register
from casm_bench.errors import UsageError, WorkError
from casm_bench.settings import Amount, Count, Fraction

if TYPE_CHECKING:
    from torch import Tensor

    from casm_bench.backbones.arithmetic import Arithmetic
    from casm_bench.training import TrainBatches

torch = lazy("torch")
descent = lazy("casm_bench.backbones.descent")
regressor = lazy("casm_bench.backbones.regressor")
training = lazy("casm_bench.training")
weights = lazy("casm_bench.backbones.weights")

PLATEAU = 0.99  # a mean loss above this share of the best so far is no progress
MOST_FALLS = 3  # of the learning rate, as in VGG's training for classification


@register(
    "vgg-loc",
    title="Box regression (supervised)",
    family="supervised",
    paper="Simonyan & Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image "
    "Recognition (ICLR), appendix A",
    summary="Supervised: a classification network fine-tuned to predict the box of the given "
    "class; learns from true boxes.",
    knows_class=True,
    trained=True,
    boxes="training",
    cost="one forward pass",
    published="VGG (supervised)",
    deviations="Supervised, unlike all other rows. Unless a scale is given, pictures are seen at "
    "the protocol's (short side 224; published: scale=384). Coordinates are shares of what the "
    "network sees. The target is the visible part of the object of which most pixels are visible "
    "(all of that object where a scale is given); pictures without any are left out. None of "
    "this, nor batch size and epochs, is published. Backbones without fully connected layers "
    "of their own get one.",
)
@dataclass
class VggLoc(BoxMethod):
    """Euclidean loss ½·|p - t|² between predicted and true (centre x, centre y, width, height).

    With `scale` (published S: 256 and 384, for a network of 224 pixels) pictures have a short side
    of so many pixels, and the network sees a square of them as large as its input: the centre when
    asked, and whatever the augmentation cuts out while learning. Boxes may leave what it sees.
    """

    regression: Literal["per-class", "single"] = "per-class"  # PCR (published 34.3) or SCR (36.4)
    backbone: str | None = None  # a timm name, published: vgg16.tv_in1k; None: the run's classifier
    weights: str = "pretrained"  # of the backbone, if one is named: as --weights
    scale: Count | None = None  # short side of pictures in pixels; None: the network's input size
    fine_tune: Literal["connected", "all"] = "connected"  # layers: fully connected ones, or all
    hidden: Count = 512  # units of the layer for backbones that average their features
    epochs: Count = 30
    batch_size: Count = 256
    learning_rate: Amount = 1e-3  # of SGD; a tenth after an epoch without progress
    momentum: Fraction = 0.9
    weight_decay: Amount = 5e-4

    def __post_init__(self) -> None:
        self.classes = self.classifier.model.num_classes
        self._check_scale()
        self.trunk_classifier = self.classifier
        if self.backbone is not None:
            self.trunk_classifier = weights.load_classifier(
                self.backbone, self.weights, input_size=self.classifier.input_size
            ).to(self.classifier.mean.device)
        outputs = 4 * self.classes if self.regression == "per-class" else 4
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = regressor.Regressor(self.trunk_classifier, outputs, self.hidden)
        self.network.to(self.classifier.mean.device, memory_format=torch.channels_last).eval()

    def _check_scale(self) -> None:
        size = self.classifier.input_size
        if self.scale is not None and self.scale < size:
            raise UsageError(
                f"--set vgg-loc.scale={self.scale}: pictures must not be smaller than the "
                f"network's input, {size} pixels."
            )

    @property
    def frame_side(self) -> int | None:
        return self.scale

    def fit(self, train_batches: TrainBatches) -> None:
        if not isinstance(train_batches, training.BoxedBatches):
            raise WorkError("The method 'vgg-loc' was not given the true boxes that it declares.")
        if self.trunk_classifier is not self.classifier:
            self.findings = {"backbone_sha256": weights.weights_digest(self.trunk_classifier)}
        batches = replace(train_batches, batch_size=self.batch_size, scale=self.scale)
        self.history = training.run(Regression(self, batches.arithmetic), batches, self.epochs)
        self.network.eval()

    def boxes(
        self, images_BCHW: Tensor, labels_B: Tensor, truth: list[Tensor] | None = None
    ) -> Tensor:
        side, size = images_BCHW.shape[-1], self.classifier.input_size
        cut = (side - size) // 2
        centre_BCHW = images_BCHW[..., cut : cut + size, cut : cut + size]
        self.network.eval()
        with torch.no_grad():
            boxes_B4 = corners(self.predict(centre_BCHW, labels_B))
        return (boxes_B4 * size + cut + 0.5).floor().clamp(0, side).long()

    def predict(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Centre x, centre y, width and height as shares of the frame, B×4."""
        own, theirs = self.classifier, self.trunk_classifier
        if theirs is not own:
            images_BCHW = (own.denormalize(images_BCHW) - theirs.mean) / theirs.std
        numbers_BO = self.network(images_BCHW).float()
        if self.regression == "single":
            return numbers_BO
        return numbers_BO.view(-1, self.classes, 4)[torch.arange(len(labels_B)), labels_B]

    def state_dict(self) -> dict[str, object]:
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.network.load_state_dict(state["network"])


class Regression:
    """Fine-tuning on true boxes: a `training.Trainee` of boxed batches."""

    def __init__(self, method: VggLoc, arithmetic: Arithmetic) -> None:
        self.method, self.network = method, method.network
        self.arithmetic = arithmetic
        if method.fine_tune == "all":
            self.network.trunk = descent.jointly_normalised(self.network.trunk)
        new = [*self.network.connected.parameters(), *self.network.final.parameters()]
        self.network.requires_grad_(method.fine_tune == "all")
        self.parameters = list(self.network.parameters()) if method.fine_tune == "all" else new
        for parameter in new:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=method.learning_rate,
            momentum=method.momentum,
            weight_decay=method.weight_decay,
            fused=True,
        )
        self.best, self.falls = float("inf"), 0
        self.loss_sum, self.steps = torch.zeros((), device=method.classifier.mean.device), 0
        self._set_modes()

    def _set_modes(self) -> None:
        self.network.train()
        if self.method.fine_tune == "connected":
            self.network.trunk.eval()  # BatchNorm as it was

    def start_epoch(self, epoch: int, epochs: int) -> None:
        if self.steps:
            mean = float(self.loss_sum) / self.steps
            stuck = mean > PLATEAU * self.best
            self.falls = min(MOST_FALLS, self.falls + stuck)
            self.best = min(self.best, mean)
        self.loss_sum, self.steps = torch.zeros_like(self.loss_sum), 0
        for group in self.optimizer.param_groups:
            group["lr"] = self.method.learning_rate * 0.1**self.falls

    def step(self, images_BCHW: Tensor, labels_B: Tensor, boxes: list[Tensor]) -> dict[str, Tensor]:
        whole = self.method.scale is not None
        target_B4, seen_B = targets(boxes, images_BCHW.shape[-1], whole)
        with self.arithmetic.forward(images_BCHW.device):
            predicted_B4 = self.method.predict(images_BCHW, labels_B)
        loss_B = (predicted_B4 - target_B4).square().sum(1) / 2
        loss = (loss_B * seen_B).sum() / seen_B.sum().clamp(min=1)
        descent.descend(loss, self.parameters, self.optimizer)
        processes.average([*self.network.buffers(), shared := loss.detach().clone()])
        self.loss_sum += shared  # over all processes, which must agree on the rate
        self.steps += 1
        return {"loss": loss.detach(), "seen": seen_B.mean()}

    def state_dict(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": (self.best, self.falls, float(self.loss_sum), self.steps),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.falls, loss_sum, self.steps = state["progress"]
        self.loss_sum.fill_(loss_sum)
        self._set_modes()


def targets(boxes: list[Tensor], size: int, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Of each image's boxes the one with the largest visible area, as target_B4 in shares of what
    is seen (centre x, centre y, width, height), and seen_B, 1 where anything of it is visible.

    The target is its visible part, or all of it."""
    visible = [boxes_N4.clamp(0, size) / size for boxes_N4 in boxes]
    chosen = [_areas(boxes_N4).argmax() for boxes_N4 in visible]
    largest_B4 = torch.stack([v_N4[i] for v_N4, i in zip(visible, chosen, strict=True)])
    seen_B = (_areas(largest_B4) > 0).to(largest_B4)
    if whole:
        largest_B4 = torch.stack([b_N4[i] / size for b_N4, i in zip(boxes, chosen, strict=True)])
    corner_B2, sides_B2 = largest_B4[:, :2], largest_B4[:, 2:] - largest_B4[:, :2]
    return torch.cat((corner_B2 + sides_B2 / 2, sides_B2), dim=1), seen_B


def _areas(boxes_N4: Tensor) -> Tensor:
    return (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(dim=1)


def corners(centred_B4: Tensor) -> Tensor:
    """From centre x, centre y, width, height to x0, y0, x1, y1; negative sides count as zero."""
    centre_B2, half_B2 = centred_B4[:, :2], centred_B4[:, 2:].clamp(min=0) / 2
    return torch.cat((centre_B2 - half_B2, centre_B2 + half_B2), dim=1)
