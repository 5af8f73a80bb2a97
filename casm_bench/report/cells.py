"""Cells that several tables share: errors with their marks, and what the marks mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..protocols import column_title, in_order
from ..statistics import Estimate
from .measured import CONTROL, Measurement, Setting, group_by
from .published import Published
from .table import EMPTY, Cell

PER_SEED = "images × seeds"
ELSEWHERE = "†"  # marks published figures that the paper took over from other works
NO_BETTER = "‡"  # marks errors that are not clearly below the best control's
NO_BETTER_MEANS = (
    f"{NO_BETTER}: the interval reaches the error of the best control that sees no true box."
)
NO_CONTROL = "Rows without such a control on the same images carry no mark."
OF_SUBSET = "§"  # marks what stands for a method that was not measured on all images

Scale = tuple[Setting, str, str, frozenset[str]]


def _scale(found: Measurement) -> Scale:
    """What a measurement shares with the controls that it is held against: the very pictures."""
    return found.setting, found.source, found.protocol, found.images


def best_controls(found: Sequence[Measurement]) -> dict[Scale, float]:
    """The lowest error of a control that is not shown the true boxes, on each scale.

    Controls with changed settings count only where there are no others.
    """
    controls = [m for m in found if m.family == CONTROL and not m.sees_boxes]
    by_scale = group_by(controls, _scale)
    usual = {scale: [m for m in same if _usual(m)] or same for scale, same in by_scale.items()}
    return {scale: min(m.error.value for m in same) for scale, same in usual.items()}


def _usual(found: Measurement) -> bool:
    return not found.variant or found.subset is not None


def best_control(found: Measurement, controls: Mapping[Scale, float]) -> float | None:
    """The error of the best control on a measurement's pictures; None where there is none.

    Where they were scored with other seeds, the controls that share most pictures are taken.
    """
    *of, images = _scale(found)
    beside = [
        (-len(pictures & images), len(pictures), error)
        for (*scale, pictures), error in controls.items()
        if scale == of and pictures & images
    ]
    return min(beside)[-1] if beside else None


def no_better(found: Measurement, controls: Mapping[Scale, float]) -> str:
    """The mark of a method that does not clearly beat the best control, or nothing."""
    best = best_control(found, controls)
    if best is None or found.family == CONTROL:
        return ""
    return NO_BETTER if found.error.high >= best else ""


def marked_cell(
    found: Measurement, controls: Mapping[Scale, float], *, stands: bool = False
) -> Cell:
    """An error with the marks that belong to it.

    `controls`: the lowest error on each scale. `stands`: whether its table is of runs on all
    images, so that a subset must be marked.
    """
    value, *rest = error_cell(found.error)
    subset = OF_SUBSET if stands and found.subset else ""
    return (value + no_better(found, controls) + subset, *rest)


def error_cells(
    found: Sequence[Measurement],
    protocols: Sequence[str],
    controls: Mapping[Scale, float],
    *,
    stands: bool = False,
) -> list[Cell]:
    """Errors by protocol with their marks, as `marked_cell` sets them."""
    cells = {m.protocol: marked_cell(m, controls, stands=stands) for m in found}
    return [cells.get(name, EMPTY) for name in protocols]


def error_cell(error: Estimate) -> Cell:
    """The error, its interval over images and, for several seeds, their range and interval."""
    lines = (f"{error.value:.1f}", f"[{error.low:.1f}, {error.high:.1f}]")
    if error.seeds == 1:
        return lines
    low, high = error.over_seeds
    return (
        *lines,
        f"seeds {error.lowest:.1f} to {error.highest:.1f}",
        f"over seeds [{low:.1f}, {high:.1f}]",
    )


def published_cell(published: Published | None) -> Cell:
    """The printed figure, marked if the paper quotes it from elsewhere."""
    if published is None:
        return EMPTY
    return (f"{published.value:.1f}{'' if published.protocol == 'casm' else ELSEWHERE}",)


def size_cell(found: Sequence[Measurement]) -> Cell:
    """Images and seeds of a method's measurements, which all share them; a dash without any."""
    if not found:
        return EMPTY
    return (f"{found[0].error.n_images:,} × {found[0].error.seeds}",)


def column_titles(found: Sequence[Measurement]) -> dict[str, str]:
    """Titles by protocol, in the order of their declaration; upper bounds are marked."""
    oracles = {m.protocol for m in found if m.policy == "oracle"}
    return {
        name: column_title(name, "oracle" if name in oracles else "")
        for name in protocols_of(found)
    }


def protocols_of(found: Iterable[Measurement]) -> list[str]:
    """Protocols by name, in the order of their declaration."""
    return in_order(m.protocol for m in found)


def seeds_in_words(seeds: Sequence[int]) -> str:
    """`seed 0` or `seeds 0, 1`."""
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def subset_legend(sizes: Iterable[int | None]) -> str:
    """What the mark of a subset means, if any of the sizes shown is one's."""
    known = sorted({size for size in sizes if size})
    if not known:
        return ""
    return f"{OF_SUBSET}: on a seeded subset of {_or(known)} of the images only."


def _or(sizes: Sequence[int]) -> str:
    *others, last = (f"{size:,}" for size in sizes)
    return f"{', '.join(others)} or {last}" if others else last
