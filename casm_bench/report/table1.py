"""Table 1: what the paper printed beside what was measured, and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..protocols import column_title
from ..records import Record
from .cells import (
    ELSEWHERE,
    NO_BETTER_MEANS,
    NO_CONTROL,
    PER_SEED,
    Scale,
    best_control,
    best_controls,
    column_titles,
    error_cells,
    marked_cell,
    protocols_of,
    published_cell,
    seeds_in_words,
    size_cell,
    subset_legend,
)
from .measured import CONTROL, Measurement, Setting, group_by, measurements, standing
from .published import Published
from .table import DASH, EMPTY, Cell, Column, Table
from .verdicts import MARGIN

VERDICT = "verdict"


@dataclass(frozen=True)
class Line:
    """A row of Table 1: a printed figure, a measured method, or both."""

    title: str
    published: Published | None
    method: str | None


def make_tables(
    records: Sequence[Record],
    rows: Mapping[str, Published],
    remarks: Mapping[tuple[str, str], str] | None = None,
) -> list[Table]:
    """Table 1, then what does not belong into it: sources, subsets and variants, other rules.

    `rows` are the published rows of Table 1, in the paper's order; `remarks` say by data and recipe
    what a reader must know of the records.
    """
    found = measurements(records, rows)
    shown = standing(m.run for m in found)
    sources = [m for m in found if m.run in shown and m.source and not m.renamed]
    variants = [m for m in found if m.run not in shown and not (m.source or m.renamed)]
    listings = []
    if sources:
        caption = "The runs of Table 1 by source of the images. LE in %, 95 % Wilson interval."
        listings.append(_listing("sources", caption, "source", sources, found))
    if variants:
        caption = (
            "Subsets and variants: some of the images only, or other settings than the recipe's, "
            "and so not comparable with Table 1. LE in %, 95 % Wilson interval."
        )
        listings.append(_listing("variants", caption, "what differs", variants, found))
    if others := [m for m in found if m.renamed and not m.source]:
        listings.append(_policy_table(others))
    return [main_table(found, rows, remarks or {}), *listings]


# --- Table 1 ----------------------------------------------------------------------------------


def main_table(
    found: Sequence[Measurement],
    rows: Mapping[str, Published],
    remarks: Mapping[tuple[str, str], str],
) -> Table:
    """The paper's rows in its order, then other methods; controls below a rule.

    Of all that was found it shows what stands for the methods; the rest may hold the controls of
    their subsets.
    """
    controls_of = best_controls(found)
    shown = standing(m.run for m in found)
    found = [m for m in found if m.run in shown and not (m.source or m.renamed)]
    by_setting = dict(sorted(group_by(found, lambda m: m.setting).items()))
    methods = list({m.method: m for m in found}.values())
    others = [m for m in methods if m.row is None]
    lines = [line for row in rows.values() for line in _paper_lines(row, methods)]
    lines += [Line(m.title, None, m.method) for m in others if m.family != CONTROL]
    controls = [Line(m.title, None, m.method) for m in others if m.family == CONTROL]
    columns = [Column("method"), Column("published")]
    for setting, measured in by_setting.items():
        titles = (*column_titles(measured).values(), PER_SEED, VERDICT)
        columns += [Column(title, str(setting)) for title in titles]
    return Table(
        label="table1",
        caption=_caption(by_setting),
        columns=columns,
        rows=[_main_row(line, by_setting, controls_of) for line in (*lines, *controls)],
        rule_before=len(lines) if controls else None,
        notes={
            str(setting): " ".join(
                filter(None, (_note(same), remarks.get((setting.data, setting.recipe))))
            )
            for setting, same in by_setting.items()
        },
    )


def _paper_lines(row: Published, methods: Sequence[Measurement]) -> list[Line]:
    measured = [Line(m.title, row, m.method) for m in methods if m.row == row]
    return measured or [Line(row.title, row, None)]


def _main_row(
    line: Line,
    by_setting: Mapping[Setting, Sequence[Measurement]],
    controls: Mapping[Scale, float],
) -> list[Cell]:
    cells: list[Cell] = [(line.title,), published_cell(line.published)]
    for measured in by_setting.values():
        own = [m for m in measured if m.method == line.method]
        errors = error_cells(own, protocols_of(measured), controls, stands=True)
        cells += [*errors, size_cell(own), _verdict_cell(own)]
    return cells


def _verdict_cell(found: Sequence[Measurement]) -> Cell:
    """On the paper's figure: the same whichever protocol of the row is asked."""
    verdict = next((m.verdict for m in found if m.verdict), None)
    if verdict is None:
        return EMPTY
    return (verdict.word, *([", ".join(verdict.reasons)] if verdict.reasons else []))


def _caption(by_setting: Mapping[Setting, Sequence[Measurement]]) -> str:
    caption = (
        "Localization error (LE) in %, lower is better. Published figures are the paper's own "
        "print, on ImageNet, and were not measured here; they follow mixed protocols, and those "
        f"marked {ELSEWHERE} are quoted there from other works. What was measured compares with "
        "them only on the same images and under the same protocol. Measured figures carry a "
        "95 % Wilson interval over images and, for several seeds, the seeds' range and a 95 % t "
        "interval over them. Verdict on the published figure, by an equivalence test with a margin "
        f"of {MARGIN:g} point; for what is not comparable it names what differs. {NO_BETTER_MEANS}"
    )
    subsets = subset_legend(m.subset for found in by_setting.values() for m in found)
    return f"{caption} {subsets}".strip()


def _note(found: Sequence[Measurement]) -> str:
    """On how many images a setting was measured, with which seeds and thresholds."""
    counts = {m.error.n_images for m in found if not m.subset} or {m.error.n_images for m in found}
    images = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    seeds = sorted({seed for m in found for seed in m.seeds})
    text = f"{images} images, {seeds_in_words(seeds)}"
    if any(m.error.seeds > 1 for m in found):
        pooled = any(m.error.pooled for m in found)
        text += (
            " (new images for each, all of which the interval counts)"
            if pooled
            else " (the same images for each, which the interval counts once)"
        )
    return f"{text}; threshold policy: {_policies(found)}."


def _policies(found: Sequence[Measurement]) -> str:
    """Which protocols' thresholds came from where; nothing about boxes is hidden."""
    with_threshold = [m for m in found if m.rule] or found
    by_policy = group_by(with_threshold, lambda m: (m.policy, m.tuned_on))
    texts = []
    for (policy, tuned_on), same in by_policy.items():
        untuned = "best on the evaluated images" if policy == "oracle" else "nothing tuned"
        origin = f"tuned on {tuned_on}" if tuned_on else untuned
        scope = f" ({', '.join(protocols_of(same))})" if len(by_policy) > 1 else ""
        texts.append(f"{policy}, {origin}{scope}")
    return "; ".join(texts)


# --- what stands beside Table 1 ---------------------------------------------------------------


def _listing(
    label: str,
    caption: str,
    heading: str,
    found: Sequence[Measurement],
    among: Sequence[Measurement],  # with the controls that belong to them
) -> Table:
    protocols = protocols_of(found)
    titles = ("data", heading, "method", *column_titles(found).values(), PER_SEED)
    grouped = group_by(found, lambda m: (m.setting, m.source or m.change, m.method))
    controls = best_controls(among)
    alone = any(best_control(m, controls) is None for m in found if m.family != CONTROL)
    legend = subset_legend(m.subset for m in found if m.source)
    parts = (caption, NO_BETTER_MEANS, NO_CONTROL if alone else "", legend)
    return Table(
        label=label,
        caption=" ".join(filter(None, parts)),
        columns=[Column(title) for title in titles],
        rows=[
            [
                (str(setting),),
                (which,),
                (same[0].title,),
                *error_cells(same, protocols, controls, stands=bool(same[0].source)),
                size_cell(same),
            ]
            for (setting, which, _), same in sorted(grouped.items(), key=lambda item: item[0][:2])
        ],
    )


def _policy_table(found: Sequence[Measurement]) -> Table:
    """A line per number: there are as many combinations of policy and rule as one likes."""
    titles = ("data", "method", "what differs", "protocol", "box rule", "tuned on", "LE", PER_SEED)
    controls = best_controls(found)
    rows = [
        [
            (str(m.setting),),
            (m.title,),
            (m.change or DASH,),
            (column_title(m.protocol, m.policy),),
            (m.rule or DASH,),
            (m.tuned_on or DASH,),
            marked_cell(m, controls),
            size_cell([m]),
        ]
        for m in sorted(found, key=lambda m: (m.setting, m.change, m.protocol))
    ]
    caption = (
        "Other threshold policies and box rules, the same for every method. Policy oracle chooses "
        "its threshold on the evaluated images: an upper bound, not a result. LE in %, 95 % Wilson "
        f"interval. {NO_BETTER_MEANS}"
    )
    return Table("policies", caption, [Column(title) for title in titles], rows)
