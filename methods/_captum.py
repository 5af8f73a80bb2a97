"""Any captum attribution as a method: what is the same for all of them.

A subclass says which attribution (`attribution`) and with which arguments (`arguments`), and the
rest follows: images go through in parts, captum's values become a map, and whatever is drawn at
random is drawn for each image by itself.

Shapes: B images, C channels, H rows, W columns; n images of a part.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from casm_bench.api import SaliencyMethod, lazy, optional
from casm_bench.images import image_seeds
from casm_bench.settings import Count

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = lazy("torch")
captum = optional("captum.attr", extra="captum")

Reduction = Literal["max-abs", "sum-abs", "abs-sum", "positive-sum"]


@dataclass
class CaptumMethod(SaliencyMethod):
    """saliency = the attribution for the class's logit, over the channels reduced to one number.

    `reduction`: `max-abs` is Grad's max_c |a_c|, `sum-abs` is Σ_c |a_c|, `abs-sum` is |Σ_c a_c|,
    and `positive-sum` is max(0, Σ_c a_c): only what speaks for the class.
    """

    reduction: Reduction = "max-abs"
    chunk: Count = 16  # images per call of captum; memory grows with it, maps stay the same

    draws: ClassVar[bool] = False  # its attribution draws from torch's global generator

    def attribution(self, forward: nn.Module) -> Any:
        """An object of captum.attr, such as `captum.Saliency(forward)`, for normalised images_BCHW
        → logits_BK. Layers, where it needs one, are found in `self.classifier.model`."""
        raise NotImplementedError

    def arguments(self, images_nCHW: Tensor) -> dict[str, Any]:
        """What `attribute` is given beside images and `target`, for this part of a batch."""
        return {}

    def check(self) -> None:
        """Raises UsageError with the pip command where captum is not installed."""
        _ = captum.Attribution

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        attribution = self.attribution(self.classifier)
        if self.draws:
            parts = self._one_by_one(attribution, images_BCHW, labels_B)
        else:
            pairs = zip(images_BCHW.split(self.chunk), labels_B.split(self.chunk), strict=True)
            parts = (self._attribute(attribution, *pair) for pair in pairs)
        return torch.cat([_reduced(part_nCHW, self.reduction) for part_nCHW in parts])

    def _one_by_one(
        self, attribution: Any, images_BCHW: Tensor, labels_B: Tensor
    ) -> Iterator[Tensor]:
        """Each image's random numbers come from its own seed, so that neighbours do not matter."""
        device = images_BCHW.device
        seeds = image_seeds(images_BCHW, self.seed)
        for i, seed in enumerate(seeds):
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                yield self._attribute(attribution, images_BCHW[i : i + 1], labels_B[i : i + 1])

    def _attribute(self, attribution: Any, images_nCHW: Tensor, labels_n: Tensor) -> Tensor:
        images_nCHW = images_nCHW.detach().clone().requires_grad_()
        with torch.enable_grad(), _without_remarks_on_hooks():
            values_nCHW = attribution.attribute(
                images_nCHW, target=labels_n, **self.arguments(images_nCHW)
            )
        return values_nCHW.detach()


def _reduced(values_nCHW: Tensor, reduction: Reduction) -> Tensor:
    """saliency_nHW ≥ 0, float32."""
    values_nCHW = values_nCHW.float()
    match reduction:
        case "max-abs":
            return values_nCHW.abs().amax(dim=1)
        case "sum-abs":
            return values_nCHW.abs().sum(dim=1)
        case "abs-sum":
            return values_nCHW.sum(dim=1).abs()
        case "positive-sum":
            return values_nCHW.sum(dim=1).clamp(min=0)


@contextmanager
def _without_remarks_on_hooks() -> Iterator[None]:
    """captum says each time that it sets hooks on modules; it takes them away again itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting (forward, )?backward hooks")
        yield
