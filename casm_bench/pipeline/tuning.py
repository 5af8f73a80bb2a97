"""The pictures that thresholds of policy `tuned` are chosen on: never one that is evaluated."""

from __future__ import annotations

import numpy as np

from ..data.catalog import load_splits
from ..data.dataset import Dataset, Splits
from ..data.splits import shared_pictures
from ..errors import UsageError
from .request import Request

REST = "rest"  # of the evaluated split: what --limit leaves out


def tuning_pictures(request: Request, splits: Splits, evaluated: Dataset, seed: int) -> Dataset:
    """At most `tune_images` held-out pictures with boxes, drawn by the seed.

    Raises UsageError when there are none, and when one of them is also evaluated: also under
    another name, or in another copy (see `shared_pictures`).
    """
    boxed = _candidates(request, splits, evaluated).only_boxed()
    if not len(boxed):
        raise UsageError(
            f"Policy tuned needs pictures with boxes that are not evaluated, but {boxed.name!r} "
            f"({boxed.split}) has none. Name others: --tune-data NAME --tune-root PATH; or "
            "--limit N --tune-data rest."
        )
    drawn = np.random.default_rng(seed).permutation(len(boxed))[: request.tune_images]
    chosen = boxed.subset(np.sort(drawn))
    _refuse_evaluated(chosen, evaluated)
    return chosen


def describe(request: Request, chosen: Dataset) -> str:
    """Data set and split of the pictures, for the record."""
    rest = ", what --limit leaves out" if request.tune_data == REST else ""
    return f"{chosen.name} {chosen.split}{rest}"


def _candidates(request: Request, splits: Splits, evaluated: Dataset) -> Dataset:
    if request.tune_data == REST:
        left = np.setdiff1d(splits.evaluated.positions_N, evaluated.positions_N)
        rows = np.flatnonzero(np.isin(splits.evaluated.positions_N, left))
        return splits.evaluated.subset(rows)
    if request.tune_data is None:
        return splits.held_out or evaluated.subset([])
    other = load_splits(request.tune_data, request.tune_root, said_with="--tune-root")
    held_out = other.held_out
    return held_out if held_out and len(held_out.only_boxed()) else other.evaluated


def _refuse_evaluated(chosen: Dataset, evaluated: Dataset) -> None:
    shared = shared_pictures(evaluated, chosen)
    if shared:
        name, here = shared[0]
        raise UsageError(
            f"{len(shared)} pictures of {chosen.name!r} ({chosen.split}) are also evaluated, the "
            f"first as {name} and here as {here}. A threshold chosen on them would be an upper "
            "bound; ask for policy oracle if that is what you want."
        )
