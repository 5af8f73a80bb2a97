"""Protocols are what the papers say, cannot be changed, and are found by name."""

from __future__ import annotations

import dataclasses

import pytest

from casm_bench.errors import UsageError
from casm_bench.protocols import (
    ALWAYS_REPORTED,
    PROTOCOLS,
    BoxRule,
    column_title,
    get_protocol,
    in_order,
    takes,
)


@pytest.mark.parametrize(
    ("name", "frames", "truth_area", "coordinates", "iou_at_least", "rule"),
    [
        ("casm", ("crop", "crop"), "unclipped", "half-open", False, "quantile, largest"),
        ("casm-clipped", ("crop", "crop"), "clipped", "half-open", False, "quantile, largest"),
        ("warp", ("warp", "warp"), "unclipped", "half-open", False, "quantile, largest"),
        ("fong", ("warp", "original"), "unclipped", "inclusive", True, "energy 0.95, all"),
        ("wsol", ("warp", "warp"), "clipped", "inclusive", True, "relative, contour"),
    ],
)
def test_what_each_protocol_declares(name, frames, truth_area, coordinates, iou_at_least, rule):
    protocol = get_protocol(name)
    assert protocol.name == name
    assert (protocol.input_frame, protocol.box_frame) == frames
    assert protocol.truth_area == truth_area
    assert protocol.coordinates == coordinates
    assert protocol.iou_at_least is iou_at_least
    assert protocol.iou_threshold == 0.5
    assert str(protocol.rule) == rule


def test_fongs_rule_predicts_the_whole_picture_where_nothing_survives():
    assert get_protocol("fong").rule == BoxRule("energy", 0.95, "all", empty="full")
    assert {name for name, p in PROTOCOLS.items() if p.rule.empty == "full"} == {"fong"}


def test_rules_are_told_apart_by_corners():
    assert str(BoxRule("value", 0.25, connectivity=8)) == "value 0.25, largest, by corners"


@pytest.mark.parametrize(
    ("kind", "alphas", "others"),
    [("value", (0, 0.5, 1), (-0.01, 1.01, 2)), ("mean", (0, 1, 10.0), (-0.01, float("inf")))],
)
def test_thresholds_are_shares_or_multiples_of_the_mean(kind, alphas, others):
    assert [takes(kind, alpha) for alpha in alphas] == [True] * len(alphas)
    assert [takes(kind, alpha) for alpha in others] == [False] * len(others)


def test_only_wsol_chooses_its_threshold_in_hindsight():
    assert [name for name, p in PROTOCOLS.items() if p.policy == "oracle"] == ["wsol"]
    assert [name for name, p in PROTOCOLS.items() if p.overrides_rule] == ["wsol"]


def test_three_are_always_reported():
    assert ALWAYS_REPORTED == ("casm", "casm-clipped", "warp")


def test_a_protocol_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_protocol("casm").iou_threshold = 0.3


def test_a_misspelt_protocol_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'wsol'.*casm-clipped"):
        get_protocol("wosl")


@pytest.mark.parametrize(
    ("name", "policy", "rule"),
    [
        ("casm@fixed:0.5", "fixed", BoxRule("fixed", 0.5)),
        ("casm@fixed:0", "fixed", BoxRule("fixed", 0.0)),
        ("casm@fixed:1/value", "fixed", BoxRule("value", 1.0)),
        ("warp@fixed:5/mean,all", "fixed", BoxRule("mean", 5.0, "all", empty="full")),
        ("casm@tuned", "tuned", BoxRule("value")),
        ("fong@tuned/energy", "tuned", BoxRule("energy", None, "all", empty="full")),
        ("casm@oracle/value,largest,8", "oracle", BoxRule("value", connectivity=8)),
        ("casm@own/quantile,all", "own", BoxRule("quantile", None, "all", empty="full")),
        ("wsol@tuned", "tuned", BoxRule("relative", None, "contour")),
        ("wsol@fixed:0.2", "fixed", BoxRule("relative", 0.2, "contour")),
    ],
)
def test_policies_and_rules_go_with_any_protocol(name, policy, rule):
    protocol = get_protocol(name)
    assert (protocol.name, protocol.policy, protocol.rule) == (name, policy, rule)
    assert protocol.overrides_rule
    base = get_protocol(name.partition("@")[0])
    same = ("input_frame", "box_frame", "truth_area", "coordinates", "iou_at_least")
    assert all(getattr(protocol, field) == getattr(base, field) for field in same)


def test_own_is_the_protocol_itself():
    assert get_protocol("casm@own") is get_protocol("casm")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("cams@tuned", "Did you mean 'casm'"),
        ("casm@", "the policy is own"),
        ("casm@fixed", "the policy is own"),
        ("casm@tuned:3", "the policy is own"),
        ("casm@fixed:x", "'x' is no threshold"),
        ("casm@fixed:-1", "no threshold"),
        ("casm@fixed:nan", "no threshold"),
        ("casm@fixed:inf/mean", "'inf' is no threshold"),
        ("casm@fixed:1.5", r"thresholds of the rule fixed lie in \[0, 1\]"),
        ("casm@own/mean", "need a threshold"),
        ("casm@tuned/quantile", "quantile goes with own"),
        ("casm@tuned/values", "a rule is KIND"),
        ("casm@tuned/value,some", "a rule is KIND"),
        ("casm@tuned/value,largest,6", "a rule is KIND"),
        ("casm@tuned/value,largest,4,4", "a rule is KIND"),
        ("fong@tuned/value,contour", "not defined in the original"),
    ],
)
def test_misnamed_policies_and_rules_are_explained(name, problem):
    with pytest.raises(UsageError, match=problem):
        get_protocol(name)


def test_protocols_are_listed_as_declared_with_their_policies_after_them():
    names = ["a", "warp", "casm@tuned", "fong@tuned", "wsol", "casm", "casm@oracle", "fong", "warp"]
    known = ["casm", "casm@oracle", "casm@tuned", "warp", "fong", "fong@tuned", "wsol"]
    assert in_order(names) == [*known, "a"]


def test_upper_bounds_are_marked():
    assert column_title("wsol", "oracle") == "wsol (upper bound)"
    assert column_title("casm@tuned", "tuned") == "casm@tuned"
