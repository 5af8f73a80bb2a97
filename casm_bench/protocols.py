"""Protocols: everything that decides whether a saliency map counts as a localization.

The same map scored under two protocols can differ by twenty points, so no number in this
project travels without the name of its protocol. Nothing here computes; `boxes` and `metrics`
do what these declarations say.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from .errors import UsageError

Frame = Literal["crop", "warp", "original"]
Policy = Literal["own", "fixed", "tuned", "oracle"]
POLICIES: dict[Policy, str] = {
    "own": "The method's own rule and threshold, or the protocol's; no boxes of this data used.",
    "fixed": "fixed:ALPHA: one threshold for every method, chosen beforehand.",
    "tuned": "The threshold that serves held-out pictures with boxes best; they are in the record.",
    "oracle": "The threshold that serves the evaluated pictures best: an upper bound, no result.",
}


Kind = Literal["quantile", "mean", "value", "energy", "fixed", "relative"]
Component = Literal["largest", "all", "contour"]


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

    kind: Kind = "quantile"
    alpha: float | None = None
    component: Component = "largest"
    connectivity: Literal[4, 8] = 4
    empty: Literal["fail", "full"] = "fail"

    def __str__(self) -> str:
        alpha = "" if self.alpha is None else f" {self.alpha:g}"
        corners = ", by corners" if self.connectivity == 8 else ""
        return f"{self.kind}{alpha}, {self.component}{corners}"


CASM_RULE = BoxRule("quantile", component="largest")


def takes(kind: Kind, alpha: float) -> bool:
    """Whether a rule can use this threshold: `mean` takes any multiple of the map's mean, all
    others a share from 0 to 1."""
    return 0 <= alpha <= (sys.float_info.max if kind == "mean" else 1)


def fong_rule(kind: Literal["mean", "value", "energy"], alpha: float) -> BoxRule:
    """One of Fong & Vedaldi's rules: extent of all survivors, the whole image if none survives."""
    return BoxRule(kind, alpha=alpha, component="all", empty="full")


def parse_rule(text: str) -> BoxRule:
    """A box rule by its name on the command line: `quantile`, or `KIND:ALPHA` such as mean:5.

    Fong & Vedaldi's rules take the extent of all survivors. Raises UsageError for anything else.
    """
    kind, _, alpha = text.partition(":")
    try:
        if kind == "quantile" and not alpha:
            return CASM_RULE
        if kind in ("mean", "value", "energy") and takes(kind, float(alpha)):
            return fong_rule(kind, float(alpha))
        if kind == "fixed" and takes(kind, float(alpha)):
            return BoxRule("fixed", alpha=float(alpha))
    except ValueError:
        pass
    raise UsageError(
        f"--rule {text}: write quantile, or mean:ALPHA, value:ALPHA, energy:ALPHA or fixed:ALPHA, "
        "for instance mean:5; all but mean take shares from 0 to 1."
    )


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
    policy: Policy = "own"
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
    """Look up a protocol, also one with another policy or rule: NAME@POLICY[/RULE].

    RULE is KIND[,COMPONENT[,CONNECTIVITY]]; without it `fixed` thresholds the map's values, `tuned`
    and `oracle` its values as shares of their range (`value`). The component is the largest, 4-
    connected, unless said otherwise; in the original picture it is all of it, as in its source.
    Raises UsageError naming the nearest known one, or what is wrong with policy or rule.
    """
    name, at, how = name.partition("@")
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        known = ", ".join(PROTOCOLS)
        raise UsageError(f"There is no protocol called {name!r}. {hint}Known are: {known}.")
    return _with_policy(PROTOCOLS[name], how) if at else PROTOCOLS[name]


def _with_policy(base: Protocol, how: str) -> Protocol:
    name = f"{base.name}@{how}"
    policy_and_alpha, _, rule_text = how.partition("/")
    policy, colon, alpha_text = policy_and_alpha.partition(":")
    alpha = _alpha(name, alpha_text) if colon else None
    if policy not in POLICIES or (policy == "fixed") != (alpha is not None):
        raise _misnamed(name, "the policy is own, fixed:ALPHA, tuned or oracle")
    if policy == "own" and not rule_text:
        return base
    rule = replace(_rule(name, base, policy, rule_text), alpha=alpha)
    if (policy == "own") != (rule.kind == "quantile"):
        raise _misnamed(name, "quantile goes with own, and all other rules need a threshold")
    if alpha is not None and not takes(rule.kind, alpha):
        raise _misnamed(name, f"thresholds of the rule {rule.kind} lie in [0, 1]")
    if base.box_frame == "original" and rule.component == "contour":
        raise _misnamed(name, "contours are not defined in the original picture")
    summary = f"{base.summary} Threshold policy {policy}, box rule {rule}, for every method."
    return replace(base, name=name, summary=summary, rule=rule, policy=policy, overrides_rule=True)


def _rule(name: str, base: Protocol, policy: str, text: str) -> BoxRule:
    if not text and base.overrides_rule:
        return base.rule
    component = "all" if base.box_frame == "original" else "largest"
    usual = ["fixed" if policy == "fixed" else "value", component, "4"]
    given = text.split(",") if text else []
    kind, component, connectivity, *more = given + usual[len(given) :]
    known = kind in get_args(Kind) and component in get_args(Component)
    if more or not known or connectivity not in ("4", "8"):
        kinds, components = ", ".join(get_args(Kind)), ", ".join(get_args(Component))
        raise _misnamed(name, f"a rule is KIND[,COMPONENT[,4|8]] of {kinds}; {components}")
    empty = "full" if component == "all" else "fail"
    return BoxRule(kind, None, component, int(connectivity), empty)


def _alpha(name: str, text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not 0 <= alpha < math.inf:
        raise _misnamed(name, f"{text!r} is no threshold")
    return alpha


def _misnamed(name: str, problem: str) -> UsageError:
    return UsageError(
        f"Protocol {name!r}: {problem}. Write PROTOCOL@POLICY[/RULE], as casm@fixed:0.5, "
        "fong@tuned/energy,all or casm@oracle/value."
    )


def in_order(names: Iterable[str]) -> list[str]:
    """Names of protocols as they are declared, each followed by those with another policy."""
    order = list(PROTOCOLS)

    def place(name: str) -> tuple[int, str]:
        base = name.partition("@")[0]
        return order.index(base) if base in order else len(order), name

    return sorted(set(names), key=place)


def column_title(name: str, policy: str) -> str:
    """The protocol's name in tables; thresholds from the evaluated pictures are marked."""
    return f"{name} (upper bound)" if policy == "oracle" else name
