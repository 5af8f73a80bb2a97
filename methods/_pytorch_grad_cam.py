"""Any class of pytorch-grad-cam as a method: what is the same for all of them.

A subclass says which class (`cam_class`); layers, tokens of vision transformers and batches are
seen to here. The library runs backward through all weights and sets hooks, so it gets a copy of
the network, and the shared classifier stays as it is.

Shapes: B images, C channels, H rows, W columns; N tokens; n images of a part.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from casm_bench.api import SaliencyMethod, lazy, optional
from casm_bench.errors import UsageError
from casm_bench.settings import Count

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")
pytorch_grad_cam = optional("pytorch_grad_cam", extra="grad-cam")
model_targets = optional("pytorch_grad_cam.utils.model_targets", extra="grad-cam")


@dataclass
class PytorchGradCamMethod(SaliencyMethod):
    """saliency = the library's map for the class's logit, in [0, 1] at the images' resolution:
    stretched from its smallest to its largest value before and after it is enlarged."""

    layer: str | None = None  # whose output is read, by name; by default the last feature map's
    chunk: Count = 16  # images per call; memory grows with it, maps stay the same

    def cam_class(self) -> type:
        """A class of the library, such as `pytorch_grad_cam.GradCAM`."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises UsageError for a classifier that has no such layer, or gives no map there."""
        _ = self.cam_class()
        self.maps(*self.classifier.example())

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        model = copy.deepcopy(self.classifier.model).requires_grad_(False)
        name = self.layer or self.classifier.last_layer
        as_grid = partial(self._as_grid, name, images_BCHW)
        cam = self.cam_class()(model, [_layer(model, name)], reshape_transform=as_grid)
        parts = zip(images_BCHW.split(self.chunk), labels_B.split(self.chunk), strict=True)
        with torch.enable_grad():
            maps = [cam(_leaf(part_nCHW), _targets(labels_n)) for part_nCHW, labels_n in parts]
        return torch.cat([torch.from_numpy(map_nHW) for map_nHW in maps]).to(images_BCHW.device)

    def _as_grid(self, name: str, images_BCHW: Tensor, output: Tensor) -> Tensor:
        """What the layer `name` gives, or its gradient, as n×C×h×w, which the library presumes."""
        axes = output.ndim if torch.is_tensor(output) else 0
        if axes == 3 and self.classifier.is_vision_transformer:
            rows, columns = self.classifier.token_grid(images_BCHW)
            if output.shape[1] >= rows * columns:  # patches are the last tokens
                return output[:, -rows * columns :].mT.unflatten(2, (rows, columns))
        if axes != 4:
            raise UsageError(
                f"The layer {name!r} of {self.classifier.name!r} gives no single feature map, nor "
                "one token for every patch, which pytorch-grad-cam could read. Choose another "
                "layer, or another classifier, such as resnet50."
            )
        return output.permute(0, 3, 1, 2) if self.classifier.channels_come_last else output


def _leaf(images_nCHW: Tensor) -> Tensor:
    """With frozen weights, gradients exist only where the images ask for theirs."""
    return images_nCHW.detach().clone().requires_grad_()


def _targets(labels_n: Tensor) -> list[Any]:
    return [model_targets.ClassifierOutputTarget(label) for label in labels_n.tolist()]


def _layer(model: torch.nn.Module, name: str) -> torch.nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UsageError(
            f"The classifier has no layer {name!r}; it has, among others, "
            f"{', '.join(name for name, _ in model.named_children())}."
        ) from None
