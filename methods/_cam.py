"""What class activation maps share: the last feature map, and the class's gradient by it.

Shapes: B images, C channels, H rows, W columns, K classes; h×w the feature map's own grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from casm_bench.api import SaliencyMethod, lazy

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy("torch")


@dataclass
class LastFeatureMethod(SaliencyMethod):
    """Base of methods that read the classifier's last feature map (`with_last_features`)."""

    def check(self) -> None:
        """Raises UsageError for a classifier that has no such map."""
        self.classifier.with_last_features(self.classifier.example()[0])

    def features_and_gradient(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The last features_BChw, and the derivative of the class's logit by them."""
        logits_BK, features_BChw = self.classifier.with_last_features(images_BCHW)
        # One image's logit does not depend on another image, so one backward serves them all.
        with torch.enable_grad():
            score = logits_BK.gather(1, labels_B[:, None]).sum()
        (gradient_BChw,) = torch.autograd.grad(score, features_BChw)
        return features_BChw.detach(), gradient_BChw
