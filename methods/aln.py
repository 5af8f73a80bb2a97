"""ALN, reinterpreted: a localizer against one classifier that sees masked images only.

Of Fan, Zhao & Ermon 2017 ("Adversarial Localization Network") no text, code or hyperparameters
could be found, only what others say of it: a localizer network proposes a mask, a classifier
judges the masked image, both are trained adversarially, and no class is needed at test time.
This is that idea in the terms of Algorithm 1, and nothing it scores is a reproduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from casm_bench.api import CASM_RULE, register
from casm_bench.settings import Amount

from ._algorithm1 import Algorithm1, StrategyName


@register(
    "aln",
    title="ALN (reinterpretation)",
    family="trained masker",
    paper="after what is said of Fan, Zhao & Ermon 2017, Adversarial Localization Network (NIPS "
    "workshop)",
    summary="A reinterpretation: a localizer network and a classifier trained against each other "
    "on masked images.",
    knows_class=False,
    trained=True,
    cost="one forward pass",
    rule=CASM_RULE,
    published="ALN",
    reinterpretation=True,
    deviations="A reinterpretation, not a reproduction: the paper could not be found. Network, "
    "area term, optimizers and schedule are CASM's; λ_r is searched on held-out training images "
    "unless a recipe names one.",
)
@dataclass
class ALN(Algorithm1):
    """The localizer has an encoder of its own, trained end to end, and raises the classifier's
    cross-entropy; the classifier lowers it and never learns from clean images."""

    strategy: StrategyName = "L"
    objective: Literal["entropy", "adversarial"] = "adversarial"
    lambda_r: Amount | Literal["search"] | None = "search"
    encoder: Literal["shared", "separate", "trained"] = "trained"
    clean_updates: bool = False
