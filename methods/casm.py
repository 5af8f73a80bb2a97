"""CASM: classifier-agnostic saliency map extraction (Zolna, Geras & Cho 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from casm_bench.api import CASM_RULE, register

from ._algorithm1 import Algorithm1, StrategyName


@register(
    "casm",
    title="CASM",
    family="trained masker",
    paper="Zolna, Geras & Cho, Classifier-agnostic saliency map extraction, AAAI 2019",
    summary="A masker that hides what any classifier could use, trained against many of them.",
    knows_class=False,
    trained=True,
    cost="one forward pass",
    rule=CASM_RULE,
    published="CASM",
    deviations="The masker's gradient is taken before the classifier's masked step "
    "(update_order=torch04 restores the published order).",
)
@dataclass
class CASM(Algorithm1):
    """Masker and classifier learn against each other; past classifiers judge half the time."""

    strategy: StrategyName = "L100"
