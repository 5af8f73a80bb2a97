"""Protocols are what the papers say, cannot be changed, and are found by name."""

from __future__ import annotations

import dataclasses

import pytest

from casm_bench.errors import UsageError
from casm_bench.protocols import ALWAYS_REPORTED, PROTOCOLS, get_protocol


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
