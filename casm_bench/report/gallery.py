"""All figures that the records suffice for, each with its caption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ..records import Record
from .added import LABELS, added_curves, added_figure
from .cost import cost_figure, priced
from .evidence import evidence, evidence_figure
from .figure1 import figure1, figure1_blocks
from .localization import error_figure, shift_figure, shifts
from .measured import PAPERS_PROTOCOL, Measurement, group_by, is_control, runs
from .sweep import Sweep, sweep_figure
from .training import training_caption, training_figure

CAPTIONS = {
    "figure1": "Original, masked-in, masked-out and inpainted pictures, hidden pixels in grey "
    "0.35. The pictures are the first of those that the records keep: drawn by the seed, never "
    "chosen by hand.",
    "le": "Localization error with 95 % Wilson intervals, a column per protocol. Hollow marks are "
    "published figures, on ImageNet and under mixed protocols; they were not measured here.",
    "shifts": "What frame, clipping and threshold policy do to each method: change of localization "
    "error against protocol casm, on the same images and maps, with 95 % intervals (one seed: "
    "Bonett & Price; several: two-level bootstrap).",
    "cost": "Localization error (protocol casm, 95 % interval) against the seconds that a map "
    "takes on the machine of the record; what training takes stands beside the name. Seconds are "
    "a GPU's by the clock, shared with other runs or not, a CPU's of processor time. Records whose "
    "provenance names no clock hold times by the clock, some of them made beside other work.",
    "evidence": "Share of the evidence that masks hide, part by part, and share of the mask that "
    "lies on evidence; bars are the range over seeds.",
    "insertion-deletion": "Probability of the class while the most salient pixels are inserted "
    "into a blurred picture, or deleted from the picture. Bands: 95 % intervals over images, or "
    "the range over several seeds. Controls are grey.",
    "randomized-weights": "Sanity check: similarity of each method's maps to those it makes once "
    "the classifier's weights are randomized; a map that stays alike does not depend on them. "
    "Bands: 95 % intervals over images, or the range over several seeds. Controls are grey.",
}


@dataclass(frozen=True)
class Drawn:
    """A figure that is ready to be written."""

    figure: Figure
    caption: str


def draw_all(
    records: Sequence[Record],
    found: Sequence[Measurement],
    sweeps: Mapping[str, Sweep],
    results: Path,
) -> dict[str, Drawn]:
    """Figures by file name, in the order of the paper. To be called within `drawn_alike`."""
    drawn = {}
    if blocks := figure1_blocks(records, found, results):
        drawn["figure1"] = Drawn(figure1(blocks), CAPTIONS["figure1"])
    usual = [m for m in found if not (m.variant or m.source)]
    plain = [run for run in runs(records) if not run[1][0].variant]
    by_setting = group_by(plain, lambda run: run[0])
    for family, draw in PER_SETTING.items():
        for setting, of_methods in by_setting.items():
            here = [m for m in usual if m.setting == setting]
            if figure := draw(here, [same for _, same in of_methods], results):
                caption = f"{setting}. {CAPTIONS[family]}"
                drawn[f"{family}-{setting.slug}"] = Drawn(figure, caption)
    if training := training_figure(records, found):
        drawn["training"] = Drawn(training, training_caption(records, found))
    for name, sweep in sweeps.items():
        what = f"{sweep.quantity[0].upper()}{sweep.quantity[1:]}"
        caption = f"{what}: all else equal; small marks are seeds."
        drawn[name] = Drawn(sweep_figure(sweep), caption)
    return drawn


# --- figures of one setting: its measurements, and the records of each of its methods ---------

Runs = Sequence[Sequence[Record]]


def _errors(found: Sequence[Measurement], methods: Runs, results: Path) -> Figure | None:
    named = [m for m in found if not m.renamed]
    return error_figure(named) if named else None


def _shifts(found: Sequence[Measurement], methods: Runs, results: Path) -> Figure | None:
    named = [(same[0].title, same) for same in methods]
    return shift_figure(list(shifts(named, results)))


def _cost(found: Sequence[Measurement], methods: Runs, results: Path) -> Figure | None:
    errors = {m.method: m.error for m in found if m.protocol == PAPERS_PROTOCOL}
    known = [same for same in methods if same[0].method in errors and not is_control(same[0])]
    points = [priced(same, errors[same[0].method]) for same in known]
    points = [point for point in points if point]
    return cost_figure(points) if len(points) > 1 else None


def _evidence(found: Sequence[Measurement], methods: Runs, results: Path) -> Figure | None:
    dots = [dot for same in methods for dot in evidence(same)]
    return evidence_figure(dots) if dots else None


def _added(family: str) -> Callable[..., Figure | None]:
    def draw(found: Sequence[Measurement], methods: Runs, results: Path) -> Figure | None:
        curves = [curve for same in methods for curve in added_curves(family, same)]
        return added_figure(family, curves) if curves else None

    return draw


PER_SETTING = {
    "le": _errors,
    "shifts": _shifts,
    "cost": _cost,
    "evidence": _evidence,
    **{family: _added(family) for family in LABELS},
}
