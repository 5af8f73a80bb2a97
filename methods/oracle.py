"""Oracle: the visible part of a true box, a ceiling for every method under a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import BoxMethod, lazy, register
from casm_bench.errors import WorkError

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")


@register(
    "oracle",
    title="True box",
    family="control",
    paper="control of this project",
    summary="Predicts, of the true boxes, the visible part of the one of which most is visible.",
    knows_class=True,
    trained=False,
    boxes="test",
    cost="none",
)
@dataclass
class Oracle(BoxMethod):
    """What remains wrong is what nobody can get right: objects that the crop cuts away."""

    def boxes(
        self, images_BCHW: Tensor, labels_B: Tensor, truth: list[Tensor] | None = None
    ) -> Tensor:
        if truth is None:
            raise WorkError("The method 'oracle' was not given the true boxes that it declares.")
        height, width = images_BCHW.shape[-2:]
        return torch.stack([_most_visible(boxes_N4, width, height) for boxes_N4 in truth])


def _most_visible(boxes_N4: Tensor, width: int, height: int) -> Tensor:
    """The box with the largest visible share of its area, cut to the frame; zeros if none."""
    if len(boxes_N4) == 0:
        return torch.zeros(4, dtype=torch.int64)
    frame = torch.tensor([width, height, width, height])
    visible_N4 = boxes_N4.clamp(min=0).minimum(frame)
    share_N = _area(visible_N4) / _area(boxes_N4).clamp(min=1)
    return visible_N4[share_N.argmax()].to(torch.int64)


def _area(boxes_N4: Tensor) -> Tensor:
    return (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
