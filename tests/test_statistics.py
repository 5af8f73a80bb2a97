"""Intervals against published examples, scipy, and the equation that defines them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from casm_bench.statistics import error_interval, mean_error, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe 1998, Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombe(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def trials():
    return st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(trials(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(hits_n, confidence):
    hits, n = hits_n
    theirs = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert wilson(hits, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(trials())
def test_bounds_are_where_the_score_test_just_rejects(hits_n):
    hits, n = hits_n
    for bound in wilson(hits, n):
        distance = 1.959963984540054 * math.sqrt(max(bound * (1 - bound), 0) / n)
        assert abs(hits / n - bound) == pytest.approx(distance, abs=1e-7)


@given(trials())
def test_wilson_holds_the_proportion_and_mirrors(hits_n):
    hits, n = hits_n
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (-1, 5), (6, 5), (math.nan, 5)])
def test_no_proportion_no_interval(hits, n):
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(hits, n)


@pytest.mark.parametrize(("n", "half_width"), [(50_000, 0.42), (1_000, 3.0)])
def test_width_at_the_published_error_of_casm(n, half_width):
    low, high = error_interval(0.64 * n, n)
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.02)  # quoted to two digits
    assert low < 36 < high


def test_new_images_per_seed_count_together():
    pooled = mean_error([20.0, 30.0, 40.0], [100, 100, 100], same_images=False)
    assert (pooled.value, pooled.lowest, pooled.highest) == (30.0, 20.0, 40.0)
    assert (pooled.low, pooled.high) == pytest.approx(error_interval(210, 300))
    assert (pooled.n_images, pooled.seeds, pooled.pooled) == (100, 3, True)


def test_the_same_images_count_once():
    again = mean_error([20.0, 30.0, 40.0], [100, 100, 100], same_images=True)
    assert (again.low, again.high) == pytest.approx(error_interval(70, 100))
    assert not again.pooled


def test_one_seed_has_the_same_interval_either_way():
    estimates = {mean_error([25.0], [40], same_images=same) for same in (True, False)}
    assert len(estimates) == 1
    assert not estimates.pop().pooled


@pytest.mark.parametrize(("errors", "n_images"), [([], []), ([1.0], []), ([1.0], [0])])
def test_mean_error_needs_images(errors, n_images):
    with pytest.raises(ValueError):
        mean_error(errors, n_images, same_images=True)
