"""Does the classifier still recognise what is left of a picture, or what was cut out of it?

Official eval.py: the binarised mask multiplies the *unnormalised* picture, so what is masked
turns black. Training multiplies the normalised picture, so there it takes the mean colour. The
fill matters to a classifier that never saw black patches; both are reported.

Shapes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..backbones.classifier import Classifier
from ..images import masked_in, masked_out


def masked_correct(
    classifier: Classifier, images_BCHW: Tensor, labels_B: Tensor, binary_B1HW: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """(name, bool_B) for clean, masked-in and masked-out pictures: is the top class the label?

    `images_BCHW` is normalised; `binary_B1HW` is 1 where the saliency map says "salient".
    """
    black = (0 - classifier.mean) / classifier.std
    mask_B1HW = binary_B1HW.to(images_BCHW.dtype)
    pictures = {
        "clean_accuracy": images_BCHW,
        "masked_in_accuracy": masked_in(images_BCHW, mask_B1HW, black),
        "masked_out_accuracy": masked_out(images_BCHW, mask_B1HW, black),
        "masked_out_accuracy_mean_fill": masked_out(images_BCHW, mask_B1HW),
    }
    with torch.no_grad():
        for name, picture_BCHW in pictures.items():
            yield name, classifier(picture_BCHW).argmax(1) == labels_B
