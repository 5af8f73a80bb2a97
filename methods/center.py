"""Center: always the same box in the middle of the frame, a control that looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from casm_bench.api import BoxMethod, lazy, register
from casm_bench.settings import Within

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")

MARGIN = 33 / 224  # leaves 158×158 of 224×224 pixels, half of the area


@register(
    "center",
    title="Centre box",
    family="control",
    paper="Dabkowski & Gal 2017, Real Time Image Saliency for Black Box Classifiers (NIPS)",
    summary="Predicts a centred box of half the frame's area for every image.",
    knows_class=False,
    trained=False,
    cost="none",
)
@dataclass
class Center(BoxMethod):
    """Published as the control "center box"."""

    margin: Annotated[float, Within(0, 0.5)] = MARGIN  # on each side, as a share of the frame

    def boxes(
        self, images_BCHW: Tensor, labels_B: Tensor, truth: list[Tensor] | None = None
    ) -> Tensor:
        height, width = images_BCHW.shape[-2:]
        left, top = round(self.margin * width), round(self.margin * height)
        return torch.tensor([left, top, width - left, height - top]).repeat(len(images_BCHW), 1)
