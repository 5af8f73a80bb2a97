"""A classifier's trunk with numbers instead of classes at its end (VGG's localization network).

Shapes: B images, C channels, H rows, W columns, O outputs, U hidden units.
"""

from __future__ import annotations

import copy

import torch
from timm.models.vgg import ConvMlp
from torch import Tensor, nn

from .classifier import Classifier

INITIAL_STD = 0.01  # of new layers' weights (Simonyan & Zisserman 2015, section 3.1)
DROPOUT = 0.5  # in both fully connected layers (ibid.)


class Regressor(nn.Module):
    """Trunk, fully connected layers, and `outputs` numbers; the trunk's weights are copied.

    VGG keeps its own two fully connected layers. Other networks average their last feature map,
    which forgets where things are: theirs is flattened into one new layer of `hidden` units.
    """

    def __init__(self, classifier: Classifier, outputs: int, hidden: int) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(classifier.model).requires_grad_(True)
        own = getattr(self.trunk, "pre_logits", None)
        if isinstance(own, ConvMlp):
            self.trunk.pre_logits = nn.Identity()
            own.drop.p = DROPOUT  # timm builds it without
            pool = nn.AdaptiveAvgPool2d(1)  # more than one place only for inputs above 224
            self.connected = nn.Sequential(own, pool, nn.Flatten(), nn.Dropout(DROPOUT))
            hidden = own.fc2.out_channels
        else:
            layer = nn.Linear(self._flat_features(classifier), hidden)
            self.connected = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Dropout(DROPOUT))
        self.final = nn.Linear(hidden, outputs)
        nn.init.normal_(self.final.weight, std=INITIAL_STD)
        nn.init.zeros_(self.final.bias)

    def _flat_features(self, classifier: Classifier) -> int:
        side = classifier.input_size
        self.trunk.eval()
        with torch.no_grad():
            images_1CHW = classifier.mean.new_zeros(1, classifier.mean.shape[1], side, side)
            return self.trunk.forward_features(images_1CHW).numel()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Numbers_BO of normalised images of the classifier's input size."""
        return self.final(self.connected(self.trunk.forward_features(images_BCHW)))
