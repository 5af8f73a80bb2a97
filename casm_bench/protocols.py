"""Protocols: everything that decides whether a saliency map counts as a localization.

The same map scored under two protocols can differ by twenty points, so no number in this
project travels without the name of its protocol. Nothing here computes; `boxes` and `metrics`
do what these declarations say.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from .errors import UsageError

Frame = Literal["crop", "warp", "original"]


@dataclass(frozen=True)
class BoxRule:
    """How a saliency map becomes a box.

    kind
        `quantile`: pixels above the quantile that leaves out a share 1 - mean(map), strictly
        (official CASM scorer). `mean`, `value`, `energy`: the three rules of Fong & Vedaldi
        2017, which use `alpha`. `fixed`: map > alpha. `relative`: uint8 map > floor(alpha * max)
        (wsolevaluation).
    component
        `largest` connected component, or the extent of `all` survivors, or `contour`:
        wsolevaluation's bounding rectangle of the largest contour.
    empty
        What an empty mask predicts: `fail` (no box, IoU 0) or `full` (the whole frame).
    """

    kind: Literal["quantile", "mean", "value", "energy", "fixed", "relative"] = "quantile"
    alpha: float | None = None
    component: Literal["largest", "all", "contour"] = "largest"
    connectivity: Literal[4, 8] = 4
    empty: Literal["fail", "full"] = "fail"

    def __str__(self) -> str:
        alpha = "" if self.alpha is None else f" {self.alpha:g}"
        return f"{self.kind}{alpha}, {self.component}"


CASM_RULE = BoxRule("quantile", component="largest")


def fong_rule(kind: Literal["mean", "value", "energy"], alpha: float) -> BoxRule:
    """One of Fong & Vedaldi's rules: extent of all survivors, the whole image if none survives."""
    return BoxRule(kind, alpha=alpha, component="all", empty="full")


@dataclass(frozen=True)
class Protocol:
    """One way to score localization. Frozen: a change of meaning needs a new `version`."""

    name: str
    summary: str
    source: str
    input_frame: Literal["crop", "warp"]  # what the network sees
    box_frame: Frame  # where boxes are compared
    truth_area: Literal["unclipped", "clipped"]  # area of the true box in the union
    coordinates: Literal["half-open", "inclusive"]  # inclusive: areas with +1 per side
    iou_at_least: bool  # True: IoU >= threshold succeeds; False: IoU > threshold
    iou_threshold: float = 0.5
    rule: BoxRule = CASM_RULE  # for maps that bring no rule of their own
    policy: Literal["own", "oracle"] = "own"  # oracle: best threshold over the evaluated split
    overrides_rule: bool = False  # True: the protocol's rule replaces a method's own
    version: int = 1


CASM = Protocol(
    name="casm",
    summary="Short side resized, centre crop; IoU > 0.5 with the unclipped true area in the union.",
    source="Zolna, Geras & Cho 2019, official scorer",
    input_frame="crop",
    box_frame="crop",
    truth_area="unclipped",
    coordinates="half-open",
    iou_at_least=False,
)
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        CASM,
        replace(
            CASM,
            name="casm-clipped",
            summary="As casm, but true boxes are cut to the crop before areas are taken.",
            source="the reading of the crop under which Dabkowski & Gal's centre box agrees",
            truth_area="clipped",
        ),
        replace(
            CASM,
            name="warp",
            summary="Whole picture squashed to a square; otherwise as casm.",
            source="official CASM scorer with --break-ratio",
            input_frame="warp",
            box_frame="warp",
        ),
        Protocol(
            name="fong",
            summary="Squashed input, boxes in the original picture, 1-based inclusive, IoU >= 0.5.",
            source="Fong & Vedaldi 2017",
            input_frame="warp",
            box_frame="original",
            truth_area="unclipped",
            coordinates="inclusive",
            iou_at_least=True,
            rule=fong_rule("energy", 0.95),
        ),
        Protocol(
            name="wsol",
            summary="Squashed input, largest contour, IoU >= 0.5, best threshold on the evaluated "
            "split (an upper bound): 100 - MaxBoxAcc.",
            source="Choe et al. 2020, wsolevaluation",
            input_frame="warp",
            box_frame="warp",
            truth_area="clipped",
            coordinates="inclusive",
            iou_at_least=True,
            rule=BoxRule("relative", component="contour"),
            policy="oracle",
            overrides_rule=True,
        ),
    )
}
ALWAYS_REPORTED = ("casm", "casm-clipped", "warp")


def get_protocol(name: str) -> Protocol:
    """Look up a protocol. Raises UsageError naming the nearest known one."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    known = ", ".join(PROTOCOLS)
    raise UsageError(f"There is no protocol called {name!r}. {hint}Known are: {known}.")


def in_order(names: Iterable[str]) -> list[str]:
    """Names of protocols as they are declared; those that are not come last, by name."""
    order = list(PROTOCOLS)
    return sorted(set(names), key=lambda n: (order.index(n) if n in order else len(order), n))
