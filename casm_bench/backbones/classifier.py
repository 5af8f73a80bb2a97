"""Classifier f: a timm network that gives logits and five feature maps in one forward pass.

Shapes: B images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError

TAP_STRIDES = (4, 4, 8, 16, 32)


class Classifier(nn.Module):
    """A timm CNN with its own input size, mean and standard deviation.

    The five taps are those of the CASM paper's ResNet-50 (official archs.py): feature 0 after the
    stem's max-pool, features 1-4 after the stages with strides 4, 8, 16 and 32. Families without
    a max-pool in the stem get the equivalent with stride 4: their stride-2 feature, max-pooled
    the same way; and families that start with stride 4 (ConvNeXt) give their first stage twice.

    Raises UsageError if the network does not offer feature maps at these strides.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        input_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.input_size = input_size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.tap_indices = _tap_indices(model, name)
        channels = {i: int(info["num_chs"]) for i, info in enumerate(_feature_info(model))}
        self.feature_channels = tuple(channels[i] for i in self.tap_indices)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits_BK of normalised images."""
        return self.model(images_BCHW)

    def with_features(self, images_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits_BK, and the five feature maps, of normalised images."""
        final_BCHW, taps = self.model.forward_intermediates(
            images_BCHW, indices=sorted(set(self.tap_indices))
        )
        by_index = dict(zip(sorted(set(self.tap_indices)), taps, strict=True))
        features = [by_index[i] for i in self.tap_indices]
        if features[0].shape[-1] > features[1].shape[-1]:
            features[0] = F.max_pool2d(features[0], 3, stride=2, padding=1)
        return self.model.forward_head(final_BCHW), features

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """From uint8 pixels to what the network was trained on."""
        return (images_BCHW.to(self.mean.dtype) / 255 - self.mean) / self.std

    def denormalize(self, images_BCHW: Tensor) -> Tensor:
        """From normalised images back to [0, 1]."""
        return images_BCHW * self.std + self.mean


def build_classifier(
    name: str, classes: int, input_size: int | None = None, options: dict[str, object] | None = None
) -> Classifier:
    """An untrained classifier by its timm name.

    `options` go to timm's constructor (for instance slimmer `channels`). `input_size` in pixels;
    by default the network's own. Raises UsageError for an unknown name.
    """
    try:
        model = timm.create_model(name, pretrained=False, num_classes=classes, **(options or {}))
    except RuntimeError as error:
        near = ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:5])
        raise UsageError(
            f"timm cannot make a classifier called {name!r} ({error}). "
            f"Similar names: {near or 'none'}; `timm.list_models()` shows all."
        ) from None
    config = model.pretrained_cfg
    size = input_size or int(config["input_size"][-1])
    return Classifier(model, name, size, tuple(config["mean"]), tuple(config["std"]))


def _feature_info(model: nn.Module) -> list[dict[str, object]]:
    info = getattr(model, "feature_info", None)
    return list(getattr(info, "info", info) or [])


def feature_modules(model: nn.Module) -> list[str]:
    """Names of the modules whose outputs are feature maps, from the stem up."""
    return [str(info["module"]) for info in _feature_info(model)]


def _tap_indices(model: nn.Module, name: str) -> tuple[int, ...]:
    """Which of timm's intermediate features are the taps, deepest first per stride."""
    by_stride = {int(info["reduction"]): i for i, info in enumerate(_feature_info(model))}
    wanted = (2 if 2 in by_stride else 4, *TAP_STRIDES[1:])
    if missing := sorted(set(wanted) - set(by_stride)):
        raise UsageError(
            f"Classifier {name!r} has no feature maps at stride {missing}; saliency maps are made "
            "from features at strides 4, 8, 16 and 32. Choose a CNN, for instance resnet50."
        )
    return tuple(by_stride[stride] for stride in wanted)
