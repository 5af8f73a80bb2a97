"""The masking model's networks: a selector by class and a U-Net decoder (Dabkowski & Gal 2017).

Shapes: B images, C channels, H rows, W columns, h and w of a feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelectiveUNet(nn.Module):
    """From a classifier's five features and a requested class to a mask of where that class is.

    The selector scores every place of the deepest features by how well they match the requested
    class's embedding, and dims places with low scores. Three U-Net stages bring the rest to the
    grid of stride 4, with the features of strides 16, 8 and 4 as skips (official code).
    """

    def __init__(self, feature_channels: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        *skips, deepest = feature_channels[1:]
        self.selector = nn.Embedding(classes, deepest)
        nn.init.normal_(self.selector.weight, std=deepest**-0.5)
        entering = (deepest, 4 * width, 2 * width)
        leaving = (4 * width, 2 * width, width)
        self.stages = nn.ModuleList(
            UNetStage(*channels)
            for channels in zip(entering, reversed(skips), leaving, strict=True)
        )
        self.final = nn.Conv2d(width, 2, 1)

    def forward(self, features: list[Tensor], labels_B: Tensor, conf: float = 0.0) -> Tensor:
        """Mask_B1hw in [0, 1]. `conf` is what a place's score must exceed not to be dimmed."""
        *skips, deepest_BChw = features[1:]
        scores_B1hw = self.scores(deepest_BChw, labels_B)
        flow_BChw = deepest_BChw * torch.sigmoid(scores_B1hw - conf)
        for stage, skip_BChw in zip(self.stages, reversed(skips), strict=True):
            flow_BChw = stage(flow_BChw, skip_BChw)
        on_B1hw, off_B1hw = self.final(flow_BChw).float().abs().chunk(2, dim=1)
        return on_B1hw / (on_B1hw + off_B1hw).clamp(min=1e-12)

    def scores(self, deepest_BChw: Tensor, labels_B: Tensor) -> Tensor:
        """How much every place of the deepest features speaks for the requested class, B1hw."""
        return torch.einsum("bchw,bc->bhw", deepest_BChw, self.selector(labels_B))[:, None]


def exists_logits(scores_B1hw: Tensor) -> Tensor:
    """(-ā/2, ā/2) with ā the mean score: two classes, of which the second says "it is there"."""
    half_B = scores_B1hw.float().mean((1, 2, 3)) / 2
    return torch.stack((-half_B, half_B), dim=1)


class UNetStage(nn.Module):
    """Doubles the resolution by pixel shuffle, joins the skip, and mixes both in a bottleneck."""

    def __init__(self, entering: int, skip: int, leaving: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.Conv2d(entering, 4 * leaving, 3, padding=1, bias=False),
            nn.BatchNorm2d(4 * leaving),
            nn.ReLU(),
            nn.PixelShuffle(2),
        )
        self.mix = Bottleneck(leaving + skip, leaving)

    def forward(self, flow_BChw: Tensor, skip_BChw: Tensor) -> Tensor:
        flow_BChw = self.enlarge(flow_BChw)
        size = skip_BChw.shape[-2:]
        if flow_BChw.shape[-2:] != size:  # inputs that strides do not divide
            flow_BChw = F.interpolate(flow_BChw, size=size, mode="nearest")
        return self.mix(torch.cat((flow_BChw, skip_BChw), dim=1))


class Bottleneck(nn.Module):
    """A residual block: 1×1, 3×3 and 1×1 convolution, beside a projected shortcut."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        inner = max(1, leaving // 4)
        self.residual = nn.Sequential(
            nn.Conv2d(entering, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, leaving, 1, bias=False),
            nn.BatchNorm2d(leaving),
        )
        self.shortcut = nn.Conv2d(entering, leaving, 1)

    def forward(self, flow_BChw: Tensor) -> Tensor:
        return F.relu(self.residual(flow_BChw) + self.shortcut(flow_BChw))
