"""Intervals, paired tests and equivalence tests of localization errors.

Shapes: N images, S seeds, R bootstrap draws, P patterns of differences over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal

import numpy as np

DRAWS = 10_000  # of the bootstrap; its seed is fixed, so that a table is the same every time


def wilson(hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001, section 3.1.1).

    `hits` of `n` trials succeeded; a mean over seeds may make `hits` fractional. Returns the
    bounds as proportions in [0, 1]. Raises ValueError unless 0 <= hits <= n and n > 0.
    """
    if not (n > 0 and 0 <= hits <= n):
        raise ValueError(f"{hits} hits of {n} trials is not a proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends one bound is exact; rounding must not push it past the proportion itself.
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == n else centre + half
    return low, high


def error_interval(hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson interval, in percent, of the error 100 * (1 - hits / n)."""
    low, high = wilson(n - hits, n, confidence)
    return 100 * low, 100 * high


@dataclass(frozen=True)
class Estimate:
    """An error in percent, with its 95 % intervals over images and over seeds."""

    value: float  # mean over seeds
    low: float
    high: float
    n_images: int  # per seed; the fewest, should seeds differ
    seeds: int
    lowest: float  # best seed
    highest: float  # worst seed
    pooled: bool  # seeds drew different pictures, so that the interval counts all of them
    over_seeds: tuple[float, float] | None = None  # see `seeds_interval`; None for one seed


def mean_error(
    errors: Sequence[float], n_images: Sequence[int], *, same_images: bool, confidence: float = 0.95
) -> Estimate:
    """Mean error over seeds (`errors` in percent, one per seed) with a Wilson interval.

    The interval is one over images, given the trained networks: of all seeds' images together
    where every seed has pictures of its own, and of one seed's images where the pictures are the
    same, since scoring a picture three times does not make it three pictures. What training adds
    is shown by the range over seeds, and by an interval of its own.
    Raises ValueError when there is no seed or a seed without images.
    """
    if not errors or len(errors) != len(n_images):
        raise ValueError("one error and one number of images per seed are needed")
    value = fmean(errors)
    trials = min(n_images) if same_images else sum(n_images)
    low, high = wilson(value / 100 * trials, trials, confidence)
    return Estimate(
        value=value,
        low=100 * low,
        high=100 * high,
        n_images=min(n_images),
        seeds=len(errors),
        lowest=min(errors),
        highest=max(errors),
        pooled=len(errors) > 1 and not same_images,
        over_seeds=seeds_interval(errors, confidence),
    )


def seeds_interval(errors: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean over seeds, in percent; None for a single seed.

    It speaks of seeds that were not run. Few seeds make it wide: that is what they say.
    """
    from scipy.stats import t

    if len(errors) < 2:
        return None
    reach = t.ppf((1 + confidence) / 2, len(errors) - 1)
    half = float(reach) * stdev(errors) / math.sqrt(len(errors))
    return max(0.0, fmean(errors) - half), min(100.0, fmean(errors) + half)


def equivalence(
    errors: Sequence[float],
    n_images: Sequence[int],
    target: float,
    margin: float,
    *,
    same_images: bool,
    level: float = 0.05,
) -> Literal["equivalent", "different", "undecided"]:
    """Does the mean error over seeds lie within `margin` points of `target`, both in percent?

    Two one-sided tests (Schuirmann 1987), each at `level`: equivalent where the whole interval of
    confidence 1 - 2 level lies within target ± margin, bounds included; different where none of
    it does; undecided otherwise. The interval reaches as far as those over images (Wilson, see
    `mean_error`) and over seeds do together, as independent errors add. `target` counts as exact.
    Raises ValueError as `mean_error`, and for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"a margin of {margin} points cannot be met")
    interval = mean_error(errors, n_images, same_images=same_images, confidence=1 - 2 * level)
    low, high = _over_images_and_seeds(interval)
    lowest, highest = target - margin, target + margin
    if lowest <= low and high <= highest:
        return "equivalent"
    outside = high < lowest or low > highest
    return "different" if outside else "undecided"


def _over_images_and_seeds(found: Estimate) -> tuple[float, float]:
    seeds_low, seeds_high = found.over_seeds or (found.value, found.value)
    below = math.hypot(found.value - found.low, found.value - seeds_low)
    above = math.hypot(found.high - found.value, seeds_high - found.value)
    return found.value - below, found.value + above


MEAN_DRAWS = 2_000
_AT_ONCE = 1_000_000  # values drawn, which bounds the memory


def mean_interval(values_N: np.ndarray) -> tuple[float, float, str]:
    """95 % interval of a mean, and its method: `wilson` for rates, else `bca` (Efron 1987).

    Values of 0 and 1 alone are a rate. The BCa bootstrap draws MEAN_DRAWS times from a fixed seed;
    where all values are equal, its bounds are that value.
    """
    values_N = np.asarray(values_N, float)
    if np.isin(values_N, (0, 1)).all():
        return *wilson(values_N.sum(), len(values_N)), "wilson"
    if np.ptp(values_N) == 0:
        return float(values_N[0]), float(values_N[0]), "bca"
    return *_bca(values_N), "bca"


def _bca(values_N: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap of a mean (Efron 1987, section 2).

    A mean's jackknife values are linear in the values, so the acceleration has a closed form.
    """
    normal, mean, n = NormalDist(), values_N.mean(), len(values_N)
    rng = np.random.default_rng(0)
    chunk = max(1, _AT_ONCE // n)
    sizes = [min(chunk, MEAN_DRAWS - done) for done in range(0, MEAN_DRAWS, chunk)]
    drawn_R = np.concatenate([values_N[rng.integers(n, size=(k, n))].mean(axis=1) for k in sizes])
    below = ((drawn_R < mean).mean() + (drawn_R <= mean).mean()) / 2
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / MEAN_DRAWS, 1 - 0.5 / MEAN_DRAWS)))
    off_N = values_N - mean
    acceleration = float((off_N**3).sum() / (6 * (off_N**2).sum() ** 1.5))
    z = normal.inv_cdf((1 + confidence) / 2)
    shifted = (bias + sign * z for sign in (-1, 1))
    shares = [normal.cdf(bias + at / (1 - acceleration * at)) for at in shifted]
    low, high = np.quantile(drawn_R, shares).tolist()
    return low, high


def combined_interval(
    values: Sequence[float], intervals: Sequence[Sequence[float]], *, same_images: bool
) -> tuple[float, float]:
    """Interval over images of the mean of one value per seed, from the seeds' own intervals.

    Where every seed has images of its own, the distances to the bounds add as independent errors
    do (variance recovery, Zou & Donner 2008); where the images are the same, nothing is gained by
    seeds, and the distances are averaged. Raises ValueError where lengths differ or are zero.
    """
    if not values or len(values) != len(intervals):
        raise ValueError("one value and one interval per seed are needed")
    mean = fmean(values)
    pairs = list(zip(values, intervals, strict=True))
    below, above = [v - low for v, (low, _) in pairs], [high - v for v, (_, high) in pairs]
    if same_images:
        return mean - fmean(below), mean + fmean(above)
    return mean - math.hypot(*below) / len(values), mean + math.hypot(*above) / len(values)


# --- two methods on the same images -----------------------------------------------------------


@dataclass(frozen=True)
class PairedDifference:
    """Error of A minus error of B on the same images, in points: negative where A is better."""

    value: float  # mean over seeds
    low: float
    high: float
    interval_method: str
    per_seed: tuple[float, ...]
    only_a: int  # hits of A where B missed, summed over seeds
    only_b: int
    n_images: int  # distinct images, over all seeds
    p_value: float  # exact McNemar test, given the trained networks
    detectable: float  # smallest difference found with 80 % power at this n, in points


def compare_hits(
    hits: Sequence[tuple[np.ndarray, np.ndarray]], *, same_images: bool
) -> PairedDifference:
    """Compare two methods by whether they hit; one pair (hit_A_N, hit_B_N) per seed, bool.

    One seed: the interval of Bonett & Price 2012, over images. Several seeds: a two-level
    bootstrap that draws seeds and then images, percentiles 2.5 and 97.5; `same_images` says that
    all seeds were scored on the same N images, which are then drawn for all seeds at once.
    Drawing seeds makes the interval speak about training again, though three seeds say little.
    Raises ValueError when there is no seed or no image, or where lengths differ.
    """
    if not hits or not all(len(a) == len(b) > 0 for a, b in hits):
        raise ValueError("hits of both methods on the same images are needed, for one seed or more")
    differences = [np.asarray(b, int) - np.asarray(a, int) for a, b in hits]  # misses of A - of B
    together = same_images or len(hits) == 1
    per_image_N = np.sum(differences, axis=0) if together else np.concatenate(differences)
    seeds_per_image = len(hits) if together else 1
    value = fmean(float(difference_N.mean()) for difference_N in differences)
    if len(hits) == 1:
        low, high = _adjusted_wald(differences[0])
        method = "Bonett & Price"
    else:
        drawn_R = _two_level_bootstrap(differences, same_images)
        low, high = np.percentile(drawn_R, (2.5, 97.5)).tolist()
        method = "two-level bootstrap"
    return PairedDifference(
        value=100 * value,
        low=100 * low,
        high=100 * high,
        interval_method=method,
        per_seed=tuple(100 * float(difference_N.mean()) for difference_N in differences),
        only_a=sum(int((difference_N < 0).sum()) for difference_N in differences),
        only_b=sum(int((difference_N > 0).sum()) for difference_N in differences),
        n_images=len(per_image_N),
        p_value=exact_mcnemar(per_image_N),
        detectable=100 * minimum_detectable(per_image_N / seeds_per_image, seeds_per_image),
    )


def _adjusted_wald(difference_N: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a difference of paired proportions (Bonett & Price 2012, equation 3).

    One pair of either kind is added, so that it has a width where the methods never disagree.
    """
    n = len(difference_N) + 2
    more, fewer = (difference_N > 0).sum() + 1, (difference_N < 0).sum() + 1
    centre = (more - fewer) / n
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * math.sqrt(((more + fewer) / n - centre**2) / n)
    return max(-1.0, float(centre - half)), min(1.0, float(centre + half))


def _two_level_bootstrap(differences: Sequence[np.ndarray], same_images: bool) -> np.ndarray:
    """Mean difference in each of DRAWS draws of seeds, then images (Davison & Hinkley 1997, 3.8).

    Differences take few values, so images are drawn as counts of those values.
    """
    rng = np.random.default_rng(0)
    seeds = len(differences)
    chosen_RS = rng.integers(seeds, size=(DRAWS, seeds))
    if same_images:
        patterns_PS, counts_P = np.unique(np.stack(differences, axis=1), axis=0, return_counts=True)
        n = counts_P.sum()
        mean_RS = rng.multinomial(n, counts_P / n, size=DRAWS) @ patterns_PS / n
        return np.take_along_axis(mean_RS, chosen_RS, axis=1).mean(axis=1)
    counts_S3 = np.array([[(d == value).sum() for value in (-1, 0, 1)] for d in differences])
    n_S = counts_S3.sum(axis=1)
    drawn_RS3 = rng.multinomial(n_S[chosen_RS], (counts_S3 / n_S[:, None])[chosen_RS])
    return ((drawn_RS3[..., 2] - drawn_RS3[..., 0]) / n_S[chosen_RS]).mean(axis=1)


def exact_mcnemar(difference_N: np.ndarray) -> float:
    """Two-sided p-value of "neither method is better", exact.

    `difference_N` is -1, 0 or 1 per image: McNemar's test on discordant pairs (1947, in its exact
    binomial form). Where several seeds saw the same images it is their sum per image, and A and B
    are swapped in all seeds of an image at once, as its seeds are not independent.
    """
    from scipy.stats import binom

    difference_N = np.asarray(difference_N)
    sizes, counts = np.unique(np.abs(difference_N[difference_N != 0]), return_counts=True)
    chance = np.ones(1)  # of each sum of differences, -all to all, with random signs
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chance = np.convolve(chance, steps)
    distance = np.abs(np.arange(len(chance)) - len(chance) // 2)
    return min(1.0, float(chance[distance >= abs(difference_N.sum())].sum()))


def minimum_detectable(
    difference_N: np.ndarray, steps: int = 1, level: float = 0.05, power: float = 0.8
) -> float:
    """The smallest true difference that McNemar's test at `level` finds with `power`.

    Solves Connor 1987, equation 3.1, for the difference, taking the share of discordant pairs
    from `difference_N`, multiples of 1 / `steps`. No difference can exceed that share, so where
    there are few such pairs there would have to be more: then all of them are taken to speak for
    one side. It is 1 where no difference would do.
    """
    n = len(difference_N)
    normal = NormalDist()
    a, b = normal.inv_cdf(1 - level / 2), normal.inv_cdf(power)
    root = a * a * n - (n + b * b) * (a * a - b * b)
    if root < 0:
        return 1.0
    per_root_share = (a * math.sqrt(n) + math.sqrt(root)) / (n + b * b)
    share = float(np.mean(np.square(difference_N, dtype=float)))
    return min(1.0, per_root_share * max(math.sqrt(share), per_root_share / steps))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for all being looked at (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted.tolist()
