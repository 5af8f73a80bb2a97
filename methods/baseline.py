"""Baseline: the same masker against one fixed classifier (Zolna, Geras & Cho 2019, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from casm_bench.api import CASM_RULE, register

from ._algorithm1 import Algorithm1, StrategyName


@register(
    "baseline",
    title="Baseline",
    family="trained masker",
    paper="Zolna, Geras & Cho, Classifier-agnostic saliency map extraction, AAAI 2019",
    summary="A masker that hides what one fixed classifier uses.",
    knows_class=False,
    trained=True,
    cost="one forward pass",
    rule=CASM_RULE,
    published="Baseline",
)
@dataclass
class Baseline(Algorithm1):
    """Algorithm 1 with the set of classifiers shrunk to the one it starts from."""

    strategy: StrategyName = "F"
