"""Intervals and tests against published examples, scipy, brute force and their equations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap

from casm_bench import statistics
from casm_bench.statistics import (
    _two_level_bootstrap,
    combined_interval,
    compare_hits,
    equivalence,
    error_interval,
    exact_mcnemar,
    holm,
    mean_error,
    mean_interval,
    minimum_detectable,
    seeds_interval,
    wilson,
)


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


def test_the_bound_at_either_end_is_exact():
    for n in range(1, 500):
        assert wilson(0, n)[0] == 0
        assert wilson(n, n)[1] == 1


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


def test_seeds_that_differ_in_images():
    """The same images are as many as the fewest; new ones count together, of two seeds too."""
    same = mean_error([20.0, 30.0], [100, 40], same_images=True)
    assert (same.low, same.high) == pytest.approx(error_interval(30, 40))
    new = mean_error([20.0, 30.0], [100, 40], same_images=False)
    assert (new.low, new.high) == pytest.approx(error_interval(105, 140))
    assert (same.n_images, new.n_images) == (40, 40)
    assert (same.pooled, new.pooled) == (False, True)


def test_seeds_have_students_interval():
    """s = 10, t(0.975; 2) = 4.302653: 4.302653 · 10 / √3 = 24.8414 on either side of 30."""
    found = mean_error([20.0, 30.0, 40.0], [100, 100, 100], same_images=True)
    assert found.over_seeds == pytest.approx((30 - 24.8414, 30 + 24.8414), abs=1e-4)
    assert seeds_interval([20.0, 30.0, 40.0]) == found.over_seeds
    assert seeds_interval([50.0]) is None
    assert seeds_interval([1.0, 99.0]) == (0.0, 100.0)  # an error is no more than all of it


def test_one_seed_has_the_same_interval_either_way():
    estimates = {mean_error([25.0], [40], same_images=same) for same in (True, False)}
    assert len(estimates) == 1
    assert not estimates.pop().pooled


@pytest.mark.parametrize(("errors", "n_images"), [([], []), ([1.0], []), ([1.0], [0])])
def test_mean_error_needs_images(errors, n_images):
    with pytest.raises(ValueError, match="per seed are needed|not a proportion"):
        mean_error(errors, n_images, same_images=True)


def test_rates_and_other_means_have_intervals_of_their_own():
    assert mean_interval(np.array([1, 0, 0, 1.0])) == (*wilson(2, 4), "wilson")
    values = np.random.default_rng(0).gamma(2.0, size=400)
    low, high, method = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert method == "bca"
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert high - values.mean() > values.mean() - low  # the long tail lies above
    assert mean_interval(values) == (low, high, method)
    assert mean_interval(np.full(5, 0.3)) == (0.3, 0.3, "bca")
    assert mean_interval(np.array([0.3])) == (0.3, 0.3, "bca")
    assert mean_interval(np.zeros(5)) == (*wilson(0, 5), "wilson")
    assert mean_interval(np.array([0, 1, 0.5, 0.5]))[2] == "bca"  # no rate, though 0 and 1 occur


# --- paired -----------------------------------------------------------------------------------


def discordant(only_a: int, only_b: int, both: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hits of A and of B with these counts of disagreements."""
    a = [True] * only_a + [False] * only_b + [True] * both
    b = [False] * only_a + [True] * only_b + [True] * both
    return np.array(a, bool), np.array(b, bool)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(only_a, only_b, both):
    a, b = discordant(only_a, only_b, both + 1)
    expected = 1.0
    if only_a + only_b:
        expected = binomtest(only_a, only_a + only_b).pvalue
    found = compare_hits([(a, b)], same_images=True)
    assert found.p_value == pytest.approx(expected, abs=1e-12)
    assert found.p_value <= 1
    assert (found.only_a, found.only_b) == (only_a, only_b)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_seeds_of_an_image_are_swapped_together(sums):
    """All 2^N ways to swap A and B image by image, counted one by one."""
    observed = abs(sum(sums))
    ways = [
        abs(sum(sign * value for sign, value in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    share = sum(way >= observed for way in ways) / len(ways)
    assert exact_mcnemar(np.array(sums)) == pytest.approx(share, abs=1e-12)


def test_scoring_the_same_images_thrice_is_no_more_evidence():
    once = compare_hits([discordant(9, 2, 20)], same_images=True)
    thrice = compare_hits([discordant(9, 2, 20)] * 3, same_images=True)
    assert thrice.p_value == pytest.approx(once.p_value)
    assert thrice.detectable == pytest.approx(once.detectable)
    assert thrice.n_images == once.n_images == 31
    new = compare_hits([discordant(9, 2, 20)] * 3, same_images=False)
    assert new.n_images == 93
    assert new.p_value == pytest.approx(binomtest(27, 33).pvalue)
    assert once.detectable == pytest.approx(100 * minimum_detectable(np.arange(31) < 11))
    assert new.detectable == pytest.approx(100 * minimum_detectable(np.arange(93) < 33))


def test_one_seed_has_the_interval_of_bonett_and_price():
    # n = 30, 8 and 2 discordant: (3 - 9) / 32, half 1.96 sqrt((12/32 - (6/32)^2) / 32).
    found = compare_hits([discordant(8, 2, 20)], same_images=False)
    half = 100 * 1.959963985 * math.sqrt((12 / 32 - (6 / 32) ** 2) / 32)
    assert found.value == pytest.approx(-20)
    assert (found.low, found.high) == pytest.approx((-18.75 - half, -18.75 + half))


def test_methods_that_never_disagree_still_get_a_width():
    found = compare_hits([discordant(0, 0, 50)], same_images=True)
    assert found.value == 0
    assert found.low < 0 < found.high
    assert found.p_value == 1


def test_no_difference_exceeds_a_hundred_points():
    """One image: (2 - 1) / 3 ± 1.96 √((3/3 - 1/9) / 3) = 0.333 ± 1.067, cut at 1."""
    reach = 100 * (1.959963985 * math.sqrt((1 - 1 / 9) / 3) - 1 / 3)
    b_alone, a_alone = (
        compare_hits([discordant(*one)], same_images=True) for one in ((0, 1), (1, 0))
    )
    assert (b_alone.low, b_alone.high) == (pytest.approx(-reach), 100)
    assert (a_alone.low, a_alone.high) == (-100, pytest.approx(reach))


@pytest.mark.parametrize("same_images", [True, False])
def test_several_seeds_have_the_middle_95_percent_of_the_bootstrap(same_images):
    hits = [discordant(30, 10, 60), discordant(20, 15, 65)]
    found = compare_hits(hits, same_images=same_images)
    drawn = 100 * _two_level_bootstrap([b.astype(int) - a for a, b in hits], same_images)
    for bound, share in ((found.low, 0.025), (found.high, 0.975)):
        assert (drawn < bound - 1e-9).mean() <= share <= (drawn <= bound + 1e-9).mean()


@pytest.mark.parametrize("same_images", [True, False])
def test_the_bootstrap_has_the_variance_of_both_levels(same_images):
    """Seeds differ by far more than images do, so the draws vary as means of drawn seeds do."""
    rng = np.random.default_rng(1)
    shares = (0.1, 0.3, 0.5, 0.7)
    differences = [(rng.random(4000) < share).astype(int) for share in shares]
    drawn_R = _two_level_bootstrap(differences, same_images)
    means = np.array([difference_N.mean() for difference_N in differences])
    assert drawn_R.mean() == pytest.approx(means.mean(), abs=0.01)
    assert drawn_R.std() == pytest.approx(means.std() / 2, rel=0.03)


def test_the_bootstrap_of_equal_seeds_has_the_variance_of_their_images():
    differences = [np.repeat([0, 1], [300, 100])] * 3
    # The same pictures: drawn once for all seeds. New pictures: three independent draws.
    for same_images, expected in ((True, 1), (False, 3)):
        drawn_R = _two_level_bootstrap(differences, same_images)
        spread = math.sqrt(0.25 * 0.75 / 400 / expected)
        assert drawn_R.std() == pytest.approx(spread, rel=0.03)


def test_several_seeds_are_reported_one_by_one():
    found = compare_hits([discordant(4, 0, 6), discordant(0, 1, 9)], same_images=False)
    assert found.per_seed == pytest.approx((-40, 10))
    assert found.value == pytest.approx(-15)
    assert found.low <= -15 <= found.high
    assert found.interval_method == "two-level bootstrap"


PAIRED = (np.array([True]), np.array([False]))
UNPAIRED = (np.array([True]), np.array([True, False]))
EMPTY = (np.array([], bool), np.array([], bool))


@pytest.mark.parametrize("hits", [[], [UNPAIRED], [PAIRED, UNPAIRED], [EMPTY], [PAIRED, EMPTY]])
def test_unpaired_hits_are_refused(hits):
    with pytest.raises(ValueError, match="same images"):
        compare_hits(hits, same_images=True)


@given(st.integers(20, 5000), st.floats(0.02, 1))
def test_the_detectable_difference_solves_connors_equation(n, share):
    difference_N = np.zeros(n)
    difference_N[: max(1, round(share * n))] = 1
    psi = float(difference_N.mean())
    delta = minimum_detectable(difference_N)
    if delta < 1:
        psi = max(psi, delta)  # no difference exceeds the share of pairs that differ
        needed = (1.959963985 * math.sqrt(psi) + 0.841621234 * math.sqrt(psi - delta**2)) / delta
        assert needed**2 == pytest.approx(n, rel=1e-6)


@pytest.mark.parametrize(("n", "discordant"), [(100, 0), (100, 1), (100, 10), (1400, 5)])
def test_what_is_called_detectable_is_found_four_times_in_five(n, discordant):
    difference_N = np.zeros(n)
    difference_N[:discordant] = 1
    delta = minimum_detectable(difference_N)
    psi = max(discordant / n, delta)
    power = 0.0
    for pairs in range(n + 1):  # that differ, of which `more` speak for the better method
        more = np.arange(pairs + 1)
        chance = binom.pmf(more, pairs, (1 + delta / psi) / 2)
        p = 2 * np.minimum(binom.cdf(more, pairs, 0.5), binom.sf(more - 1, pairs, 0.5))
        power += binom.pmf(pairs, n, psi) * chance[p <= 0.05].sum()
    assert power == pytest.approx(0.8, abs=0.02)


def test_with_three_images_no_difference_would_be_found():
    """Connor's equation has no solution below a² - b² = 1.96² - 0.84² = 3.13 images."""
    assert minimum_detectable(np.ones(3)) == 1
    assert minimum_detectable(np.zeros(3)) == 1


def test_what_one_seed_of_three_must_show_counts_a_third():
    difference_N = np.zeros(200)
    difference_N[:2] = 1
    once, thrice = minimum_detectable(difference_N), minimum_detectable(difference_N / 3, 3)
    assert thrice == pytest.approx(once / 3)


def test_holm_as_worked_by_hand():
    # 4 × .005 = .02, 3 × .01 = .03, 2 × .03 = .06, and .04 may not lie below it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# --- equivalence ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "n", "verdict"),
    [
        (40.0, 50_000, "equivalent"),
        (40.0, 500, "undecided"),  # right in the middle, but too few images
        (41.0, 1_000_000, "undecided"),  # on the edge no number of images decides
        (43.0, 50_000, "different"),
        (37.0, 50_000, "different"),
        (43.0, 500, "undecided"),
    ],
)
def test_equivalence_within_a_point(error, n, verdict):
    assert equivalence([error], [n], 40.0, 1.0, same_images=True) == verdict


def test_equivalence_turns_exactly_where_the_90_percent_interval_touches():
    low, high = (100 * bound for bound in wilson(400, 1000, confidence=0.9))
    inside = max(40 - low, high - 40)
    for margin, verdict in ((inside + 1e-9, "equivalent"), (inside - 1e-9, "undecided")):
        assert equivalence([40.0], [1000], 40.0, margin, same_images=True) == verdict
    target = high + 1
    for margin, verdict in ((1 - 1e-9, "different"), (1 + 1e-9, "undecided")):
        assert equivalence([40.0], [1000], target, margin, same_images=True) == verdict


@pytest.mark.parametrize("error", [40.0, 60.0])  # Wilson's longer side points to 50
def test_the_bounds_of_the_margin_belong_to_it(error):
    """Margins are differences of floats within a factor of two, so that no rounding decides."""
    found = mean_error([error], [1000], same_images=True, confidence=0.9)
    # As `equivalence` reaches: by the distances to the bounds, of a single seed.
    low, high = error - (error - found.low), error + (found.high - error)
    verdicts = [
        equivalence([error], [1000], target, margin, same_images=True)
        for target, margin in (
            (error, max(error - low, high - error)),
            (high + 1, (high + 1) - high),
            (low - 1, low - (low - 1)),
        )
    ]
    assert verdicts == ["equivalent", "undecided", "undecided"]


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        # t(0.95; 2) = 2.920: ± 1.686 for s = 1, ± 0.169 for s = 0.1; images add nothing.
        ([39.0, 40.0, 41.0], "undecided"),
        ([39.9, 40.0, 40.1], "equivalent"),
        ([42.9, 43.0, 43.1], "different"),
        ([42.0, 43.0, 44.0], "different"),
        ([41.0, 42.5, 44.0], "undecided"),
    ],
)
def test_equivalence_asks_seeds_as_well_as_images(errors, verdict):
    images = [10**10] * 3
    for same_images in (True, False):
        assert equivalence(errors, images, 40.0, 1.0, same_images=same_images) == verdict


def test_what_images_and_seeds_leave_open_adds_as_independent_errors():
    """3, 4, 5: one seed's 90 % interval of ± 0.3 points and seeds' of ± 0.4 make ± 0.5."""
    images = 1.6448536**2 * 0.25 / 0.003**2  # Wilson's half width at ½ is nearly z √(¼ / n)
    half = 0.4 * 3**0.5 / 2.9199856  # t(0.95; 2)
    errors, counts = [50 - half, 50.0, 50 + half], [round(images)] * 3
    for margin, verdict in ((0.501, "equivalent"), (0.499, "undecided")):
        assert equivalence(errors, counts, 50.0, margin, same_images=True) == verdict


def test_equivalence_needs_a_margin():
    with pytest.raises(ValueError, match="margin"):
        equivalence([40.0], [1000], 40.0, 0.0, same_images=True)


SKEWED = [
    np.random.default_rng(1).gamma(0.5, size=150),
    np.random.default_rng(2).integers(0, 4, size=9) / 4,  # draws whose mean is the sample's
    np.random.default_rng(3).exponential(size=40) ** 3,
]


@pytest.mark.parametrize("values", SKEWED)
def test_bca_agrees_with_scipy(values):
    """Of the same seed scipy makes the same draws, but jackknifes for the acceleration."""
    theirs = bootstrap((values,), np.mean, n_resamples=2000, rng=0, method="BCa")
    expected = theirs.confidence_interval
    assert mean_interval(values)[:2] == pytest.approx((expected.low, expected.high), rel=1e-9)


@pytest.mark.parametrize("at_once", [1, 100_000])  # 2,000 chunks, or of 666, 666, 666 and 2 draws
def test_drawing_in_chunks_changes_nothing(monkeypatch, at_once):
    whole = mean_interval(SKEWED[0])
    monkeypatch.setattr(statistics, "_AT_ONCE", at_once)
    assert mean_interval(SKEWED[0]) == whole


def test_one_seed_keeps_its_interval():
    for same_images in (True, False):
        assert combined_interval([40], [(38, 43)], same_images=same_images) == (38, 43)


def test_seeds_with_images_of_their_own_add_as_independent_errors():
    """Four seeds of distances 2 and 3: half of one seed's."""
    low, high = combined_interval([40] * 4, [(38, 43)] * 4, same_images=False)
    assert (low, high) == pytest.approx((39, 41.5))
    assert combined_interval([40] * 4, [(38, 43)] * 4, same_images=True) == (38, 43)


def test_combined_interval_is_near_the_one_over_all_images():
    rng = np.random.default_rng(0)
    seeds = [rng.gamma(2.0, size=300) for _ in range(3)]
    intervals = [mean_interval(values)[:2] for values in seeds]
    combined = combined_interval([v.mean() for v in seeds], intervals, same_images=False)
    assert combined == pytest.approx(mean_interval(np.concatenate(seeds))[:2], abs=0.02)


@pytest.mark.parametrize(("values", "intervals"), [([], []), ([1.0], [])])
def test_combined_interval_needs_seeds(values, intervals):
    with pytest.raises(ValueError, match="one value and one interval"):
        combined_interval(values, intervals, same_images=True)
