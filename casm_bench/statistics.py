"""Confidence intervals of localization errors, over images and over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean


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
    """An error in percent, with its 95 % interval over images and its range over seeds."""

    value: float  # mean over seeds
    low: float
    high: float
    n_images: int  # per seed; the fewest, should seeds differ
    seeds: int
    lowest: float  # best seed
    highest: float  # worst seed
    pooled: bool  # seeds drew different pictures, so that the interval counts all of them


def mean_error(
    errors: Sequence[float], n_images: Sequence[int], *, same_images: bool, confidence: float = 0.95
) -> Estimate:
    """Mean error over seeds (`errors` in percent, one per seed) with a Wilson interval.

    Three seeds say next to nothing about a standard deviation, so the interval is the one over
    images: of all seeds' images together where every seed has pictures of its own, and of one
    seed's images where the pictures are the same, since scoring a picture three times does not
    make it three pictures. What training adds is shown by the range over seeds.
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
    )
