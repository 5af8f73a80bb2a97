"""Does a map point at what the classifier uses? Pixels are shown or taken away in its order.

Shapes: B images, C channels, H rows, W columns, K classes, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from ..backbones.classifier import Classifier
from ..boxes import Box

ROWS_PER_STEP = 8  # of pixels that change at once, as RISE evaluates in batches
BLUR_TAPS, BLUR_SIGMA = 11, 5  # pixels; of what insertion starts from
LEAST_SHARE = 0.05  # of the frame's area, that a small box counts as


def auc(score_S: np.ndarray) -> float:
    """Area under equidistant scores by the trapezoid rule, over a range of 1 (RISE, auc)."""
    return float((score_S.sum() - score_S[0] / 2 - score_S[-1] / 2) / (len(score_S) - 1))


def insertion_deletion(
    classifier: Classifier,
    image_CHW: Tensor,
    map_HW: np.ndarray,
    rows_per_step: int = ROWS_PER_STEP,
) -> Iterator[tuple[str, np.ndarray]]:
    """(`insertion` or `deletion`, p(the image's top-1 class) float64 S); `auc` sums them up.

    Pixels change in descending order of the map, the first in raster order of equal ones. Deletion
    turns them to the mean colour; insertion shows them on the blurred image (Petsiuk, Das & Saenko
    2018, section 4.2, and their code). `rows_per_step` · W pixels change at once, see
    `shares_changed`.
    """
    label = int(classifier(image_CHW[None]).argmax())
    order = torch.from_numpy(np.argsort(-map_HW, axis=None, kind="stable")).to(image_CHW.device)
    rank_HW = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order.device))
    rank_HW = rank_HW.reshape(map_HW.shape)
    counts = _counts(map_HW.shape, rows_per_step)
    blurred_CHW = blurred(image_CHW)
    for name, before_CHW, after_CHW in (
        ("insertion", blurred_CHW, image_CHW),
        ("deletion", image_CHW, torch.zeros_like(image_CHW)),
    ):
        states = [torch.where(rank_HW < count, after_CHW, before_CHW) for count in counts]
        yield name, _probabilities(classifier, states, label)


def shares_changed(shape: tuple[int, ...], rows_per_step: int = ROWS_PER_STEP) -> np.ndarray:
    """The share of pixels changed at each step of `insertion_deletion`, float64 S from 0 to 1."""
    pixels = math.prod(shape)
    return np.minimum(_counts(shape, rows_per_step), pixels) / pixels


def _counts(shape: tuple[int, ...], rows_per_step: int) -> range:
    changed = rows_per_step * shape[1]
    return range(0, math.prod(shape) + changed, changed)


def blurred(image_CHW: Tensor) -> Tensor:
    """The image as RISE blurs it: an 11×11 Gaussian of sigma 5, dark beyond the border."""
    impulse = np.zeros((BLUR_TAPS, BLUR_TAPS))
    impulse[BLUR_TAPS // 2, BLUR_TAPS // 2] = 1
    kernel = torch.from_numpy(gaussian_filter(impulse, BLUR_SIGMA)).to(image_CHW)
    return F.conv2d(image_CHW[:, None], kernel[None, None], padding=BLUR_TAPS // 2)[:, 0]


def _probabilities(classifier: Classifier, states: list[Tensor], label: int) -> np.ndarray:
    with torch.no_grad():
        chunks = [torch.stack(states[i : i + 32]) for i in range(0, len(states), 32)]
        logits_SK = torch.cat([classifier(chunk_BCHW) for chunk_BCHW in chunks])
    return logits_SK.softmax(1)[:, label].double().cpu().numpy()


def saliency_metric(
    classifier: Classifier, image_CHW: Tensor, label: int, box: Box | None
) -> float:
    """SM of one image in nats: ln max(area share, LEAST_SHARE) - ln p(label | the box enlarged).

    The box, in pixels of the frame, is cut out of the normalised image and enlarged to its size
    bicubically; without a box the classifier sees an image of zeros (Dabkowski & Gal 2017,
    equation 2; details from a public evaluation of it).
    """
    height, width = image_CHW.shape[1:]
    if box is None:
        area, seen_BCHW = 0, torch.zeros_like(image_CHW)[None]
    else:
        x0, y0, x1, y1 = box
        area = (x1 - x0) * (y1 - y0)
        cut_BCHW = image_CHW[None, :, y0:y1, x0:x1]
        seen_BCHW = F.interpolate(cut_BCHW, (height, width), mode="bicubic", align_corners=False)
    with torch.no_grad():
        log_p = float(classifier(seen_BCHW).log_softmax(1)[0, label])
    return sm_value(area / (height * width), log_p)


def sm_value(area_share: float, log_p: float) -> float:
    """SM from the box's share of the frame and the log-probability of the class inside it."""
    return math.log(max(area_share, LEAST_SHARE)) - log_p
