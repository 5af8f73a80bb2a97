"""Does the classifier still recognise what is left of a picture, or what was cut out of it?

Official eval.py: the binarised mask multiplies the *unnormalised* picture, so what is masked
turns black. Training multiplies the normalised picture, so there it takes the mean colour. The
fill matters to a classifier that never saw black patches; both are reported.

Shapes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.classifier import Classifier
from ..images import inpaint, masked_in, masked_out


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


def masked_pictures(picture_HW3: np.ndarray, binary_HW: np.ndarray) -> dict[str, np.ndarray]:
    """By name, what the classifiers are shown of one uint8 picture in the frame (eval.py).

    Masked in and out on black, and masked out with the hole filled from its rim (Telea, 3 px).
    """
    keep_HW1 = binary_HW[..., None]
    return {
        "masked_in": np.where(keep_HW1, picture_HW3, 0),
        "masked_out": np.where(keep_HW1, 0, picture_HW3),
        "inpainted": inpaint(picture_HW3, binary_HW),
    }


def ranks_of_labels(
    classifier: Classifier, pictures_BHW3: np.ndarray, labels_B: np.ndarray
) -> np.ndarray:
    """How many classes are more probable than the label, int64 B; 0 is a correct top-1.

    Uint8 pictures of any size; they are resized to the classifier's own (bilinear, antialiased)
    and normalised for it. Of equally probable classes the lower index comes first.
    """
    device = classifier.mean.device
    images_BCHW = torch.from_numpy(pictures_BHW3).to(device).movedim(-1, 1)
    if images_BCHW.shape[-1] != classifier.input_size:
        size = (classifier.input_size, classifier.input_size)
        resized = F.interpolate(images_BCHW.float(), size, mode="bilinear", antialias=True)
        images_BCHW = resized.round().clamp(0, 255)
    with torch.no_grad():
        logits_BK = classifier(classifier.normalize(images_BCHW))
    order_BK = logits_BK.sort(dim=1, descending=True, stable=True).indices.cpu().numpy()
    return (order_BK == labels_B[:, None]).argmax(axis=1)
