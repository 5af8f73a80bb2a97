"""What four evaluators must find in the built-in maps, and what this package finds.

Boxes are in each evaluator's own notation; `NOTATIONS` says how to read them. Expected values
come from running the original code (casme, Fong & Vedaldi) or were worked out by hand from its
text (wsolevaluation, TorchRay); none was ever computed by this package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..boxes import binarise, fong_box, predict_box
from ..data.dataset import Dataset
from ..data.frames import truth_in_frame
from ..maps import unit_range
from ..metrics.localization import continuous_f1, score_boxes
from ..metrics.overlap import iou, succeeds
from ..metrics.pointing import class_mean, pointing
from ..metrics.wsol import IOUS, THRESHOLDS, best_overlaps, hits_at_best, sweep_boxes
from ..protocols import CASM, CASM_RULE, PROTOCOLS, fong_rule
from .maps import MAPS, SIDE

NOTATIONS = {
    "casme": "y0 x0 y1 x1, first and last row and column of the box; true boxes x0 y0 x1 y1, the "
    "right and bottom edge excluded; all 0-based",
    "Fong & Vedaldi": "x0 y0 x1 y1, 1-based, first and last row and column",
    "wsolevaluation": "x0 y0 x1 y1, 0-based, areas with one pixel more per side; maps min-max "
    "scaled to [0, 1] first",
    "TorchRay": "x0 y0 x1 y1, 0-based, the right and bottom edge excluded; what they hold is the "
    "object's mask",
}
_CLOSE = 1e-6  # of numbers; boxes and counts must be equal

Value = float | tuple[float, ...] | None


@dataclass(frozen=True)
class Check:
    """One question to an evaluator."""

    convention: str
    map: str  # one of MAPS, several joined by +, or empty where only boxes are asked about
    asked: str
    given: dict[str, object]
    expected: Value
    obtained: Value

    @property
    def agrees(self) -> bool:
        expected, obtained = self.expected, self.obtained
        if isinstance(expected, float) and isinstance(obtained, float):
            return math.isclose(expected, obtained, rel_tol=0, abs_tol=_CLOSE)
        return expected == obtained


def checks() -> list[Check]:
    """All questions, answered."""
    return [check for convention in _CONVENTIONS for check in convention()]


# --- casme ------------------------------------------------------------------------------------

# Map, pixels above the threshold, box of the largest component (official scorer, executed).
_CASME_BOXES = (
    ("gaussian", 5649, (58, 78, 142, 162)),
    ("ramp", 24864, (0, 113, 223, 223)),
    ("two-rectangles", 2400, (20, 30, 59, 89)),
    ("constant", 0, None),
    ("zeros", 0, None),
    ("ones", 50176, (0, 0, 223, 223)),
    ("small-square", 10000, (50, 60, 149, 159)),
    ("large-rectangle", 40800, (10, 20, 213, 219)),
    ("corners-touch", 3200, (40, 40, 79, 79)),
    ("equal-areas", 1600, (20, 10, 59, 29)),
)
# Width, height, box as annotated, frame, box in the frame (resize_pos, executed).
_CASME_FRAMES = (
    (500, 375, (0, 0, 499, 374), "crop", (-37, 0, 260, 223)),
    (500, 375, (0, 0, 499, 374), "warp", (0, 0, 223, 223)),
    (500, 375, (125, 93, 375, 281), "crop", (37, 55, 186, 167)),
    (500, 375, (1, 1, 500, 375), "warp", (0, 0, 224, 224)),
    (375, 500, (1, 1, 375, 500), "crop", (0, -36, 224, 261)),
    (375, 500, (0, 0, 46, 62), "crop", (0, -37, 27, 0)),
    (333, 500, (83, 125, 249, 375), "crop", (55, 27, 167, 196)),
    (501, 333, (451, 300, 500, 332), "crop", (246, 201, 279, 223)),
)
# True box, predicted box, IoU, success, F1 of the predicted box filled with ones (executed).
_CASME_SCORES = (
    ((50, 60, 150, 160), (60, 50, 159, 149), 1.0, 1, 0.99999949995025),
    ((0, 0, 100, 100), (0, 50, 99, 149), 1 / 3, 0, 0.49999949997550003),
    ((0, 0, 100, 101), (0, 0, 99, 199), 0.4975124378109453, 0, 0.6644513813095564),
    ((0, 0, 100, 100), (0, 0, 99, 198), 0.5025125628140703, 1, 0.6688958758629825),
    ((-100, 0, 100, 200), (0, 0, 199, 99), 0.5, 0, 0.6666662222114075),
    ((20, 30, 200, 220), (33, 33, 190, 190), 0.7299415204678362, 1, 0.8438910678466903),
    ((-150, 0, 200, 224), (0, 0, 223, 199), 0.5714285714285714, 1, 0.7272722644572013),
    ((100, 20, 260, 220), (20, 100, 219, 223), 0.775, 1, 0.8732389446387417),
    ((224, 10, 260, 100), (0, 0, 223, 223), 0.0, 0, 0.0),
    ((20, 30, 200, 220), None, 0.0, 0, 0.0),
)
_CASME_F1 = ("gaussian", (60, 40, 180, 160), 0.5138725166749979)


def _casme() -> Iterator[Check]:
    for name, pixels, box in _CASME_BOXES:
        found = predict_box(MAPS[name], CASM_RULE, SIDE)
        survivors = float(np.count_nonzero(binarise(MAPS[name], CASM_RULE)))
        yield Check("casme", name, "pixels above threshold", {}, float(pixels), survivors)
        yield Check("casme", name, "box", {}, box, _rows_first(found))
    for width, height, box, frame, in_frame in _CASME_FRAMES:
        given = {"picture": (width, height), "box": box, "frame": frame}
        found = truth_in_frame([box], width, height, frame, SIDE)[0]
        yield Check("casme", "", "true box in the frame", given, in_frame, tuple(found.tolist()))
    for truth, predicted, overlap, success, f1 in _CASME_SCORES:
        yield from _casme_scores(truth, predicted, (overlap, float(success), f1))
    name, truth, f1 = _CASME_F1
    found = continuous_f1(MAPS[name].astype(np.float64), np.array([truth]), CASM)[0]
    yield Check("casme", name, "F1 of the map", {"true box": truth}, f1, found)


def _casme_scores(truth: tuple, predicted: tuple | None, expected: tuple) -> Iterator[Check]:
    y0, x0, y1, x1 = predicted or (0, 0, -1, -1)
    pred_N4 = np.array([[x0, y0, x1 + 1, y1 + 1]])
    filled_HW = np.zeros((SIDE, SIDE))
    filled_HW[y0 : y1 + 1, x0 : x1 + 1] = 1
    scores = score_boxes(pred_N4, boxes_only({"": [truth]}), CASM, SIDE)
    f1 = continuous_f1(filled_HW, np.array([truth]), CASM)[0]
    obtained = (float(scores["iou_N"][0]), float(scores["hit_N"][0]), f1)
    given = {"true box": truth, "predicted": predicted}
    for asked, one, other in zip(("IoU", "success", "F1"), expected, obtained, strict=True):
        yield Check("casme", "", asked, given, one, other)


def _rows_first(box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
    return box and (box[1], box[0], box[3] - 1, box[2] - 1)


# --- Fong & Vedaldi -----------------------------------------------------------------------------

# Map, rule, alpha, size of the original, box. The first 22 were executed, the others follow from
# the rules: gaussian by mean 5 keeps distances up to 32.15; ramp by mean 1.5 columns from 167.25.
_FONG_BOXES = (
    *(("six-by-six", "mean", alpha, (6, 6), (2, 2, 6, 5)) for alpha in (0, 0.5, 1.0)),
    *(("six-by-six", "mean", alpha, (6, 6), (3, 3, 6, 5)) for alpha in (2.5, 5.0)),
    ("six-by-six", "mean", 9.0, (6, 6), (1, 1, 6, 6)),
    *(("six-by-six", "value", alpha, (6, 6), (2, 2, 6, 5)) for alpha in (0, 0.1)),
    *(("six-by-six", "value", alpha, (6, 6), (3, 3, 6, 5)) for alpha in (0.25, 0.5)),
    ("six-by-six", "value", 0.9, (6, 6), (3, 3, 3, 3)),
    *(("six-by-six", "energy", alpha, (6, 6), (1, 1, 6, 6)) for alpha in (0, 0.1)),
    *(("six-by-six", "energy", alpha, (6, 6), (3, 3, 6, 5)) for alpha in (0.5, 0.6)),
    *(("six-by-six", "energy", alpha, (6, 6), (2, 2, 6, 5)) for alpha in (0.9, 0.95)),
    ("six-by-six", "mean", 0.5, (42, 30), (5, 4, 42, 27)),
    ("six-by-six", "mean", 5.0, (42, 30), (12, 9, 42, 27)),
    ("six-by-six", "energy", 0.1, (42, 30), (1, 1, 42, 30)),
    ("six-by-six", "energy", 0.95, (42, 30), (5, 4, 42, 27)),
    ("six-by-six", "value", 0.25, (42, 30), (12, 9, 42, 27)),
    ("gaussian", "mean", 5.0, (SIDE, SIDE), (89, 69, 153, 133)),
    ("ramp", "mean", 1.5, (SIDE, SIDE), (169, 1, 224, 224)),
    ("two-rectangles", "mean", 2.0, (SIDE, SIDE), (31, 21, 210, 200)),
    ("two-rectangles", "mean", 5.0, (SIDE, SIDE), (31, 21, 90, 60)),
    ("two-rectangles", "value", 0.5, (SIDE, SIDE), (31, 21, 210, 200)),
    ("two-rectangles", "value", 0.7, (SIDE, SIDE), (31, 21, 90, 60)),
    ("constant", "mean", 5.0, (SIDE, SIDE), (1, 1, 224, 224)),
    ("zeros", "energy", 0.95, (SIDE, SIDE), (1, 1, 224, 224)),
)
# Predicted and true box, IoU (executed, which gives -1 for boxes apart; that counts as 0), success.
_FONG_SCORES = (
    ((1, 1, 10, 10), (1, 1, 10, 10), 1.0, 1),
    ((1, 1, 10, 10), (6, 1, 15, 10), 1 / 3, 0),
    ((1, 1, 10, 10), (11, 1, 20, 10), 0.0, 0),
    ((1, 1, 20, 10), (1, 1, 10, 10), 0.5, 1),
)


def _fong() -> Iterator[Check]:
    for name, kind, alpha, (width, height), expected in _FONG_BOXES:
        given = {"rule": kind, "alpha": alpha, "picture": (width, height)}
        x0, y0, x1, y1 = fong_box(MAPS[name], fong_rule(kind, alpha), width, height)
        yield Check("Fong & Vedaldi", name, "box", given, expected, (x0 + 1, y0 + 1, x1, y1))
    protocol = PROTOCOLS["fong"]
    for predicted, truth, overlap, success in _FONG_SCORES:
        given = {"predicted": predicted, "true box": truth}
        pred_N4 = np.array([predicted]) - (1, 1, 0, 0)
        found_N = iou(pred_N4, np.array([truth]) - 1, np.zeros(1, int), (SIDE, SIDE), protocol)
        hit = float(succeeds(found_N, protocol)[0])
        yield Check("Fong & Vedaldi", "", "IoU", given, overlap, float(found_N[0]))
        yield Check("Fong & Vedaldi", "", "success", given, float(success), hit)


# --- wsolevaluation -----------------------------------------------------------------------------

# Map, threshold, box around the largest contour. By hand: a pixel survives if its level, 255 times
# the scaled map rounded down, exceeds 255 times the threshold rounded down. At 0.5 the gaussian's
# are those up to 35.2 pixels from its centre, at 0.2 up to 53.5.
_WSOL_BOXES = (
    ("gaussian", 0.5, (85, 65, 156, 136)),
    ("gaussian", 0.2, (67, 47, 174, 154)),
    ("ramp", 0.5, (112, 0, 223, 223)),
    ("two-rectangles", 0.66, (100, 120, 210, 200)),
    ("two-rectangles", 0.67, (30, 20, 90, 60)),
    ("zeros", 0.5, (0, 0, 0, 0)),
    ("small-square", 0.0, (60, 50, 160, 150)),
    ("large-rectangle", 0.99, (20, 10, 220, 214)),
    ("corners-touch", 0.5, (40, 40, 120, 120)),
)
# A split of four pictures, a true box each. MaxBoxAcc: the second map's largest contour is the
# right one from threshold 0.67 on, the gaussian's box fits from 0.25 to 0.70, the square's
# always, the ramp's never (IoU 0.4955 at best). V2 looks at all contours: every box reaches 0.3 at
# threshold 0.19, three reach 0.5 and 0.7.
WSOL_TRUTH = {
    "gaussian": [(85, 65, 155, 135)],
    "two-rectangles": [(30, 20, 89, 59)],
    "small-square": [(60, 50, 159, 149)],
    "ramp": [(0, 0, 111, 223)],
}
_WSOL_MAX_BOX_ACC = (75.0, 0.67)  # percent, and the lowest of the best thresholds
_WSOL_V2 = (100 + 75 + 75) / 3


def wsol_map(name: str) -> np.ndarray:
    """The map as wsolevaluation wants it: float32 in [0, 1], both ends reached."""
    return unit_range(MAPS[name])


def _wsolevaluation() -> Iterator[Check]:
    for name, threshold, box in _WSOL_BOXES:
        at = int(np.argmin(np.abs(THRESHOLDS - threshold)))
        found = _inclusive(sweep_boxes(wsol_map(name))[at].tolist())
        given = {"threshold": threshold}
        yield Check("wsolevaluation", name, "box", given, box, found)
    protocol = PROTOCOLS["wsol"]
    split = boxes_only(WSOL_TRUTH)
    box_TN4 = np.stack([sweep_boxes(wsol_map(name)) for name in WSOL_TRUTH], axis=1)
    hit_TN = np.array([score_boxes(box_N4, split, protocol, SIDE)["hit_N"] for box_N4 in box_TN4])
    share_T = 100 * hit_TN.mean(axis=1)
    best = int(share_T.argmax())
    given = {"thresholds": "0(0.01)0.99", **WSOL_TRUTH}
    overlaps = [best_overlaps(wsol_map(n), np.array(t), protocol) for n, t in WSOL_TRUTH.items()]
    v2 = float(np.mean([hits_at_best(np.array(overlaps), least).mean() for least in IOUS]))
    accuracy, threshold = _WSOL_MAX_BOX_ACC
    for asked, expected, obtained in (
        ("MaxBoxAcc, %", accuracy, float(share_T[best])),
        ("its threshold", threshold, float(THRESHOLDS[best])),
        ("MaxBoxAccV2, %", _WSOL_V2, 100 * v2),
    ):
        yield Check("wsolevaluation", "+".join(WSOL_TRUTH), asked, given, expected, obtained)


def _inclusive(box: list[int]) -> tuple[int, ...]:
    x0, y0, x1, y1 = box
    return (x0, y0, x1 - 1, y1 - 1) if any(box) else (0, 0, 0, 0)


# --- TorchRay -----------------------------------------------------------------------------------

# The gaussian's peak is column 120, row 100. True box, whether it is hit with a tolerance of 15
# pixels: its nearest pixel must be strictly closer, as 9² + 12² = 15² is not.
_TORCHRAY_HITS = (
    ((60, 40, 180, 160), 1),
    ((134, 100, 200, 101), 1),
    ((135, 100, 200, 101), 0),
    ((129, 112, 200, 200), 0),
    ((129, 111, 200, 200), 1),
    ((40, 60, 107, 101), 1),
    ((40, 60, 106, 101), 0),
)
# Hits by class: accuracy is the mean of the classes' accuracies, not of all hits.
_TORCHRAY_CLASSES = ((0, 1), (0, 1), (0, 1), (1, 0)), 50.0


def _torchray() -> Iterator[Check]:
    for truth, hit in _TORCHRAY_HITS:
        found = dict(pointing(MAPS["gaussian"], np.array([truth])))["pointing_game_15px"]
        yield Check("TorchRay", "gaussian", "hit", {"true box": truth}, float(hit), found)
    rows, expected = _TORCHRAY_CLASSES
    label_N, hit_N = np.array(rows).T
    obtained = 100 * class_mean(hit_N, label_N)
    given = {"class and hit": rows}
    yield Check("TorchRay", "", "accuracy over classes, %", given, expected, obtained)


_CONVENTIONS: tuple[Callable[[], Iterator[Check]], ...] = (
    _casme,
    _fong,
    _wsolevaluation,
    _torchray,
)


def boxes_only(truth: dict[str, list[tuple[int, int, int, int]]]) -> Dataset:
    """True boxes by map, as a data set of pictures that are as large as the frame."""
    return Dataset(
        name="conformance",
        split="evaluated",
        classes=["0"],
        names=list(truth),
        labels_N=np.zeros(len(truth), np.int64),
        sizes_N2=np.full((len(truth), 2), SIDE),
        boxes=[np.array(boxes, np.float64) for boxes in truth.values()],
        has_pixels=False,
    )
