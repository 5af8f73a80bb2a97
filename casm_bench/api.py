"""What a saliency method is: its contract with the harness, and the facts it declares.

A method turns a batch of images into saliency maps (or straight into boxes). Everything else,
from reading pictures to the results table, is the harness and the same for every method.

Tensor names end in their shape: B images, C channels, H rows, W columns, K classes.
Images arrive normalised the way the classifier wants them. This module imports neither torch
nor numpy, so that declaring a method costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from .lazy import lazy
from .protocols import CASM_RULE, BoxRule, fong_rule

if TYPE_CHECKING:
    from torch import Tensor

    from .backbones.classifier import Classifier
    from .training import TrainBatches

__all__ = [
    "CASM_RULE",
    "BoxMethod",
    "BoxRule",
    "Facts",
    "SaliencyMethod",
    "fong_rule",
    "lazy",
]


@dataclass(frozen=True)
class Facts:
    """What a method declares about itself: shown by `list methods`, kept in every record."""

    name: str  # on the command line and in records: lower case, digits, hyphens
    title: str  # the row's title in tables
    family: Literal["trained masker", "gradient", "perturbation", "control", "supervised", "other"]
    paper: str  # who, when, where: enough to find it
    summary: str  # one sentence
    knows_class: bool  # is handed the true class when asked for a map
    trained: bool  # fit() learns something from images
    boxes: Literal["never", "training", "test"] = "never"  # when it is handed true boxes
    deterministic: bool = True  # same inputs and seed, same map
    cost: str = ""  # forward and backward passes per image, in words
    rule: BoxRule = CASM_RULE  # its own way from map to box
    upsample: Literal["nearest", "bilinear"] = "nearest"  # from the map's grid to the frame
    published: str | None = None  # its row in the published Table 1, if it has one
    deviations: str = ""  # where this implementation knowingly differs from the source
    source_file: str = ""  # filled in by the registry


@dataclass
class SaliencyMethod:
    """Base of every method that makes saliency maps; dataclass fields are its hyperparameters.

    `classifier` maps normalised images_BCHW to logits_BK and, through `with_features`, to five
    feature maps as well. It is shared between methods: whoever wants to change it, copies it.
    `seed` decides everything random.
    """

    classifier: Classifier = field(repr=False)
    seed: int = field(default=0, kw_only=True)

    facts: ClassVar[Facts]  # set by @register

    def fit(self, train_batches: TrainBatches) -> None:
        """Learn from training images. Methods without training leave this as it is."""

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Saliency maps of a batch.

        Returns saliency_BHW: finite, >= 0, larger is more salient, on any grid that the harness
        can resize to the frame. An image's map must not depend on the rest of the batch.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, object]:
        """What `fit` learned, as tensors and plain values; nothing for training-free methods."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back what `state_dict` gave."""


@dataclass
class BoxMethod(SaliencyMethod):
    """Base of methods that predict one box per image directly, without a map."""

    def boxes(
        self, images_BCHW: Tensor, labels_B: Tensor, truth: list[Tensor] | None = None
    ) -> Tensor:
        """Predicted boxes of a batch.

        Returns boxes_B4: x0, y0, x1, y1 in pixels of the input frame, half-open. `truth` (a
        tensor n×4 per image, same coordinates) is given only to methods whose facts say
        `boxes="test"`. `images_BCHW` has no pixels (device "meta") for data sets without them.
        """
        raise NotImplementedError
