"""GoogLeNet, which timm lacks: torchvision's, with timm's names for its parts.

Fong & Vedaldi 2017 measured Mask and Grad with it (as Caffe's BVLC GoogLeNet). torchvision's
weights were trained on pixels of mean 0.5 and standard deviation 0.5; its `transform_input` turns
ImageNet's normalisation into that one and is left out here, where a network states its own.

Shapes: B images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from timm.models import register_model
from torch import Tensor, nn
from torchvision.models import GoogLeNet_Weights
from torchvision.models.googlenet import GoogLeNet as TorchvisionGoogLeNet

__all__ = ["googlenet"]

TRAINED_ON = {"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PARTS = (  # up to and with each of the five features: stride, channels, layers
    (2, 64, ("conv1",)),
    (4, 192, ("maxpool1", "conv2", "conv3")),
    (8, 480, ("maxpool2", "inception3a", "inception3b")),
    (16, 832, ("maxpool3", *(f"inception4{letter}" for letter in "abcde"))),
    (32, 1024, ("maxpool4", "inception5a", "inception5b")),
)


class GoogLeNet(TorchvisionGoogLeNet):
    """Without the two classifiers on the side, which only serve training."""

    training_only = ("aux1.", "aux2.")  # tensors of weight files that are not needed
    num_features = 1024

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, aux_logits=False, transform_input=False, init_weights=False)
        self.num_classes = num_classes
        self.pretrained_cfg = dict(TRAINED_ON)
        self.feature_info = [
            {"module": layers[-1], "num_chs": channels, "reduction": stride}
            for stride, channels, layers in PARTS
        ]

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        *_, last_BCHW = self._features(images_BCHW)
        return last_BCHW

    def forward_head(self, features_BCHW: Tensor) -> Tensor:
        return self.fc(self.dropout(self.avgpool(features_BCHW).flatten(1)))

    def forward_intermediates(
        self, images_BCHW: Tensor, indices: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """The last features, and those of PARTS at `indices`."""
        features = list(self._features(images_BCHW))
        return features[-1], [features[i] for i in indices]

    def _features(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        for _, _, layers in PARTS:
            for layer in layers:
                x_BCHW = getattr(self, layer)(x_BCHW)
            yield x_BCHW


@register_model
def googlenet(pretrained: bool = False, num_classes: int = 1000, **kwargs: object) -> GoogLeNet:
    """As timm makes its own. `pretrained`: torchvision's IMAGENET1K_V1, downloaded."""
    model = GoogLeNet(num_classes)
    if pretrained:
        state = GoogLeNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        model.load_state_dict(without_training_parts(model, state))
    return model


def without_training_parts(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the tensors that the network names as `training_only`."""
    unneeded = getattr(model, "training_only", ())
    return {name: value for name, value in state.items() if not name.startswith(unneeded)}
