"""Scores of a whole data set under one protocol, from maps or from boxes.

Maps are taken one at a time; what is kept per image is a handful of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..boxes import NO_BOX, Box, as_read_by, fong_box, predict_box
from ..data.dataset import Dataset
from ..errors import UsageError, WorkError
from ..maps import Upsample, block_factors, check_map, enlarges_by_blocks, to_grid, unit_range
from ..protocols import BoxRule, Protocol
from .localization import (
    Truth,
    box_f1,
    in_box_frame,
    in_original,
    localization_error,
    map_f1,
    score_against,
    true_boxes,
)
from .wsol import ALPHAS, best_threshold, sweep_boxes

_ROUNDING = 1e-3  # how far above one a map's values may lie by floating point

IndexedMaps = Iterable[tuple[int, np.ndarray]]


@dataclass(frozen=True)
class Scores:
    """Per-image scores under one protocol; rows are in the order in which images were scored."""

    index_N: np.ndarray  # int64, image in the data set
    box_N4: np.ndarray  # int64, predicted, half-open pixels of the box frame; zeros for no box
    hit_N: np.ndarray  # bool
    iou_N: np.ndarray  # float64, best over the image's true boxes
    f1_N: np.ndarray  # float64, best over the image's true boxes
    f1_mean_N: np.ndarray  # float64, mean over the image's true boxes
    out_of_frame_N: np.ndarray  # bool, no true box has any area in the frame: cannot be hit
    threshold: float | None = None  # found on these very images (policy `oracle`)

    def summary(self) -> dict[str, float | int]:
        """Percentages over the scored images, and counts of what could not succeed."""
        summary: dict[str, float | int] = {
            "localization_error": localization_error(self.hit_N),
            "f1": 100 * float(self.f1_N.mean()),
            "f1_mean": 100 * float(self.f1_mean_N.mean()),
            "n_images": len(self.index_N),
            "n_without_box": int((~self.box_N4.any(axis=1)).sum()),
            "n_out_of_frame": int(self.out_of_frame_N.sum()),
        }
        if self.threshold is not None:
            summary["threshold"] = self.threshold
        return summary


def score_maps(
    maps: IndexedMaps,
    dataset: Dataset,
    protocol: Protocol,
    rule: BoxRule | None = None,
    size: int = 224,
    upsample: Upsample = "auto",
    scale_free: bool = False,
) -> Scores:
    """Score maps, given as (index of the image in `dataset`, map in the protocol's input frame).

    rule
        The method's own; without one, or where the protocol insists, the protocol's.
    size, upsample
        Side of the frame, and how maps on another grid are brought there. For the `relative` rule
        it is done cubically, as in its source.
    scale_free
        Maps have no scale of their own, as gradients: F1 and the rules that read values as
        shares get them min-max scaled to [0, 1]. The other rules never see scaled maps.

    Raises WorkError naming the image for a map that is none (see `maps.check_map`) or exceeds
    one without being `scale_free`, for an image without a true box, and when there are no maps;
    UsageError for a `tuned` protocol, whose threshold must be found first (`tune`).
    """
    if protocol.policy == "tuned":
        raise UsageError(
            f"Protocol {protocol.name!r} needs maps of held-out pictures to choose its threshold; "
            "`run` makes them. For maps from elsewhere name a threshold: PROTOCOL@fixed:ALPHA."
        )
    truth = true_boxes(dataset, protocol, size)
    maps = ((index, _checked(map_HW, dataset.names[index], scale_free)) for index, map_HW in maps)
    if rule is None or protocol.overrides_rule:
        rule = protocol.rule
    scorer = _MapScorer(protocol, rule, size, upsample, scale_free, truth)
    if protocol.policy == "oracle":
        return _score_in_hindsight(maps, dataset, scorer)
    rows = [(index, *scorer.box_and_f1(index, map_HW)) for index, map_HW in maps]
    index_N, box_N4, f1_N2 = _columns(rows, dataset)
    truth = true_boxes(dataset.subset(index_N), protocol, size)
    return _scores(index_N, box_N4, f1_N2, truth, protocol)


@dataclass(frozen=True)
class Tuned:
    """A threshold chosen on pictures that are not evaluated."""

    alpha: float
    localization_error: float  # percent, on the pictures it was chosen on
    n_images: int

    def applied_to(self, protocol: Protocol) -> Protocol:
        """The `tuned` protocol with its threshold in place, ready to score with."""
        return replace(protocol, policy="fixed", rule=replace(protocol.rule, alpha=self.alpha))


def tune(
    maps: IndexedMaps,
    held_out: Dataset,
    protocol: Protocol,
    size: int = 224,
    upsample: Upsample = "auto",
    scale_free: bool = False,
) -> Tuned:
    """The threshold of the protocol's rule that misses fewest of `held_out`, the lowest such.

    Fong & Vedaldi 2017 choose theirs like this on 5,000 training pictures. Raises as `score_maps`.
    """
    hindsight = replace(protocol, policy="oracle")
    scores = score_maps(maps, held_out, hindsight, None, size, upsample, scale_free)
    error = localization_error(scores.hit_N)
    return Tuned(scores.threshold, error, len(scores.hit_N))


def _checked(map_HW: np.ndarray, name: str, scale_free: bool) -> np.ndarray:
    map_HW = check_map(map_HW, name)
    if not scale_free and map_HW.max() > 1 + _ROUNDING:
        raise WorkError(
            f"The saliency map of {name} reaches {map_HW.max():g}, but F1 and quantile rules read "
            "its values as shares. Scale the maps to [0, 1], or say that their values have no "
            "scale: `score --scale-free`, and of a method @register(…, scale_free=True)."
        )
    return map_HW


@dataclass(frozen=True)
class _MapScorer:
    protocol: Protocol
    rule: BoxRule
    size: int
    upsample: Upsample
    scale_free: bool
    truth: Truth

    def box_and_f1(self, index: int, map_HW: np.ndarray) -> tuple[Box, tuple[float, float]]:
        """Predicted box in the box frame, and F1 (best, mean)."""
        return self._box(index, map_HW, self.rule) or NO_BOX, self._f1(index, map_HW)

    def boxes_and_f1(
        self, index: int, map_HW: np.ndarray
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """A box for each threshold that the rule is tried at, int16 T×4, and F1."""
        if self.rule.kind == "relative" and self.protocol.box_frame != "original":
            frame_HW = unit_range(self._in_frame(map_HW))
            boxes_T4 = sweep_boxes(frame_HW, self.rule.component, self.rule.connectivity)
            return boxes_T4, map_f1(frame_HW, self.truth.of(index))
        rules = (replace(self.rule, alpha=float(alpha)) for alpha in ALPHAS[self.rule.kind])
        boxes = [self._box(index, map_HW, rule) or NO_BOX for rule in rules]
        return np.array(boxes, np.int16), self._f1(index, map_HW)

    def _box(self, index: int, map_HW: np.ndarray, rule: BoxRule) -> Box | None:
        rule_HW = as_read_by(rule, map_HW, self.scale_free)
        if self.protocol.box_frame == "original":
            width, height = self.truth.extent_N2[index].tolist()
            return fong_box(self._in_frame(rule_HW), rule, width, height)
        return predict_box(rule_HW, rule, self.size, self._interpolation)

    def _f1(self, index: int, map_HW: np.ndarray) -> tuple[float, float]:
        share_HW = self._shares(map_HW)
        if self.protocol.box_frame == "original":
            width, height = self.truth.extent_N2[index].tolist()
            share_HW, cell = in_original(self._in_frame(share_HW), width, height), (1, 1)
        else:
            share_HW, cell = self._on_cells(share_HW)
        return map_f1(share_HW, self.truth.of(index), cell)

    def _shares(self, map_HW: np.ndarray) -> np.ndarray:
        return unit_range(map_HW) if self.scale_free else map_HW

    @property
    def _interpolation(self) -> Upsample:
        return "cubic" if self.rule.kind == "relative" else self.upsample

    def _in_frame(self, map_HW: np.ndarray) -> np.ndarray:
        return to_grid(map_HW, self.size, self.size, self._interpolation)

    def _on_cells(self, map_HW: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """The map as it is where the frame only repeats its cells, which saves time."""
        if enlarges_by_blocks(map_HW.shape, self.size, self.size, self._interpolation):
            return map_HW, block_factors(map_HW.shape, self.size, self.size)
        return self._in_frame(map_HW), (1, 1)


def _score_in_hindsight(maps: IndexedMaps, dataset: Dataset, scorer: _MapScorer) -> Scores:
    protocol, kind = scorer.protocol, scorer.rule.kind
    rows = [(index, *scorer.boxes_and_f1(index, map_HW)) for index, map_HW in maps]
    index_N, box_NT4, f1_N2 = _columns(rows, dataset)
    truth = true_boxes(dataset.subset(index_N), protocol, scorer.size)
    best = best_threshold(box_NT4, truth, protocol)
    threshold = float(ALPHAS[kind][best])
    return _scores(index_N, box_NT4[:, best], f1_N2, truth, protocol, threshold)


def score_predicted_boxes(
    boxes_N4: np.ndarray, dataset: Dataset, protocol: Protocol, size: int = 224
) -> Scores:
    """Score one box per image of `dataset`, for methods that predict boxes directly.

    `boxes_N4` is half-open, in pixels of the protocol's input frame, all zeros for no box. F1
    takes the box, filled with ones, for the map. There is no threshold to choose, so an `oracle`
    protocol scores the boxes as they are.
    Raises WorkError when boxes and images differ in number, and for an image without a true box.
    """
    boxes_N4 = np.asarray(boxes_N4)
    if boxes_N4.shape != (len(dataset), 4):
        raise WorkError(
            f"Predicted boxes have shape {boxes_N4.shape}, but {dataset.name} needs "
            f"{(len(dataset), 4)}: one box x0, y0, x1, y1 per image."
        )
    truth = true_boxes(dataset, protocol, size)
    boxes_N4 = in_box_frame(boxes_N4, dataset, protocol, size)
    f1_N2 = np.stack(box_f1(boxes_N4, truth), axis=1)
    return _scores(np.arange(len(dataset)), boxes_N4, f1_N2, truth, protocol)


def _columns(rows: list[tuple], dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-image rows of index, box or boxes, and F1 (best, mean) as arrays."""
    if not rows:
        raise WorkError(f"There are no maps of {dataset.name} ({dataset.split}) to score.")
    index, boxes, f1 = zip(*rows, strict=True)
    return np.array(index, np.int64), np.array(boxes), np.array(f1)


def _scores(
    index_N: np.ndarray,
    box_N4: np.ndarray,
    f1_N2: np.ndarray,
    truth: Truth,
    protocol: Protocol,
    threshold: float | None = None,
) -> Scores:
    return Scores(
        index_N=index_N,
        box_N4=box_N4.astype(np.int64),
        f1_N=f1_N2[:, 0],
        f1_mean_N=f1_N2[:, 1],
        out_of_frame_N=truth.best_per_image(truth.visible.area_M) == 0,
        threshold=threshold,
        **score_against(box_N4, truth, protocol),
    )


def image_columns(
    dataset: Dataset, scores: Sequence[tuple[Protocol, Scores]]
) -> dict[str, Sequence | np.ndarray]:
    """One row per image and protocol, as columns for the per-image table of a record."""
    index_M = np.concatenate([score.index_N for _, score in scores])
    columns: dict[str, Sequence | np.ndarray] = {
        "name": [dataset.names[i] for i in index_M],
        "label": dataset.labels_N[index_M],
        "group": [dataset.groups[i] if dataset.groups else None for i in index_M],
        "protocol": [protocol.name for protocol, score in scores for _ in score.index_N],
    }
    box_M4 = np.concatenate([score.box_N4 for _, score in scores])
    columns |= dict(zip(("x0", "y0", "x1", "y1"), box_M4.T, strict=True))
    for name in ("hit", "iou", "f1", "f1_mean"):
        columns[name] = np.concatenate([getattr(score, f"{name}_N") for _, score in scores])
    return columns
