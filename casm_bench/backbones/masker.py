"""The masker's decoder: five feature maps in, one mask out (official CASM archs.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64
ALL_TAPS = (0, 1, 2, 3, 4)


class Decoder(nn.Module):
    """Maps the classifier's five features to a mask_B1HW in [0, 1] at the features' stride 4.

    Feature 0 enters raw; features 1-4 each pass a 1×1 convolution to 64 channels, BatchNorm and
    ReLU, and are enlarged bilinearly to feature 0's size. All are concatenated for one 3×3
    convolution and a sigmoid. Enlarging to the image comes after the sigmoid, see `enlarge`.
    With ResNet-50 it has 249,153 parameters. `taps` leaves features out (Phang et al. 2020).

    Enlarging and convolving are linear and may change places: each feature is first summed over
    its channels, on its own grid, into one map per position of the 3×3 kernel; nine maps and not
    64 are enlarged, and nothing is concatenated. The values are the same but for rounding.
    """

    def __init__(self, feature_channels: tuple[int, ...], taps: tuple[int, ...] = ALL_TAPS) -> None:
        super().__init__()
        self.taps = taps
        first = feature_channels[0] if 0 in taps else 0
        rest = [feature_channels[tap] for tap in taps if tap > 0]
        self.narrow = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
            )
            for channels in rest
        )
        self.final = nn.Conv2d(first + WIDTH * len(rest), 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] ** 2 * module.out_channels
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Mask_B1HW on feature 0's grid."""
        raw = [features[0]] if 0 in self.taps else []
        rest = [features[tap] for tap in self.taps if tap > 0]
        narrowed = [narrow(feature) for narrow, feature in zip(self.narrow, rest, strict=True)]
        mask_logits_B1HW = self._convolved([*raw, *narrowed], features[0].shape[-2:])
        return torch.sigmoid(mask_logits_B1HW)

    def _convolved(self, features: list[Tensor], size: torch.Size) -> Tensor:
        """What `final` gives for the features enlarged to `size` and concatenated."""
        kernels = self.final.weight.split([feature.shape[1] for feature in features], dim=1)
        by_position_B9HW = sum(
            _enlarged(_by_position(feature, kernel_1C33), size)
            for feature, kernel_1C33 in zip(features, kernels, strict=True)
        )
        # `fold` moves each map by its position and adds them up.
        convolved_B1HW = F.fold(by_position_B9HW.flatten(2), size, kernel_size=3, padding=1)
        return convolved_B1HW + self.final.bias.view(1, 1, 1, 1)


def _by_position(feature_BCHW: Tensor, kernel_1C33: Tensor) -> Tensor:
    """Maps_B9HW: the feature's channels weighted as each kernel position weighs them.

    They and all that follows stay fp32 under autocast. Positions are in the order in which `fold`
    puts them down: where a convolution looks to the upper left, the value moves to the lower right.
    """
    weight_9C11 = kernel_1C33[0].flip(1, 2).flatten(1).T[:, :, None, None]
    maps_B9HW = F.conv2d(feature_BCHW, weight_9C11)
    return maps_B9HW.to(torch.promote_types(maps_B9HW.dtype, torch.float32))


def _enlarged(maps_BCHW: Tensor, size: torch.Size) -> Tensor:
    if maps_BCHW.shape[-2:] == size:  # feature 1 already has feature 0's grid
        return maps_BCHW
    return F.interpolate(maps_BCHW, size=size, mode="bilinear", align_corners=False)


class EncoderDecoder(nn.Module):
    """A decoder with an encoder of its own: both learn."""

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Mask_B1HW on feature 0's grid."""
        return self.decoder(self.encoder.with_features(images_BCHW)[1])


def enlarge(mask_B1HW: Tensor, images_BCHW: Tensor, mode: str = "nearest") -> Tensor:
    """The mask at the images' resolution; `nearest` (published) or `bilinear`."""
    size = images_BCHW.shape[-2:]
    if mode == "nearest":
        return F.interpolate(mask_B1HW, size=size, mode="nearest")
    return F.interpolate(mask_B1HW, size=size, mode="bilinear", align_corners=False)
