"""Full: the whole frame as the predicted box, a control that looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import BoxMethod, lazy, register

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")


@register(
    "full",
    title="Whole frame",
    family="control",
    paper="Dabkowski & Gal 2017, Real Time Image Saliency for Black Box Classifiers (NIPS)",
    summary="Predicts the whole frame for every image.",
    knows_class=False,
    trained=False,
    cost="none",
)
@dataclass
class Full(BoxMethod):
    """Published as the control "max box"."""

    def boxes(
        self, images_BCHW: Tensor, labels_B: Tensor, truth: list[Tensor] | None = None
    ) -> Tensor:
        height, width = images_BCHW.shape[-2:]
        return torch.tensor([0, 0, width, height]).repeat(len(images_BCHW), 1)
