"""What methods share that show a classifier parts of an image and watch the score.

Shapes: B images, N masks of one chunk, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from casm_bench.api import lazy
from casm_bench.images import masked_in

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = lazy("torch")

Score = Literal["logit", "probability"]


def scores_of(logits_BK: Tensor, labels_B: Tensor, score: Score) -> Tensor:
    """The labelled class's logit or probability of every image, shape B."""
    values_BK = logits_BK.softmax(dim=1) if score == "probability" else logits_BK
    return values_BK.gather(1, labels_B[:, None])[:, 0]


def credited_scores(
    classifier: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    chunks: Iterable[tuple[Tensor, Tensor]],
    score: Score,
) -> Tensor:
    """Σ credit · (score of the image where only the mask is seen), shape B×H×W.

    `chunks` yields masks_N1HW and credit_N1HW, the same for all images. What a mask hides has the
    value 0, the data set's mean colour. The classifier is always shown one image under one chunk:
    so the rest of the batch changes nothing, not even the last bit.
    """
    sums_BHW = torch.zeros_like(images_BCHW[:, 0])
    for masks_N1HW, credit_N1HW in chunks:
        for image_CHW, label, sum_HW in zip(images_BCHW, labels_B, sums_BHW, strict=True):
            seen_NCHW = masked_in(image_CHW, masks_N1HW)
            seen_NCHW = seen_NCHW.contiguous(memory_format=torch.channels_last)
            scores_N = scores_of(classifier(seen_NCHW), label.expand(len(seen_NCHW)), score)
            sum_HW += torch.einsum("n,nhw->hw", scores_N, credit_N1HW[:, 0])
    return sums_BHW
