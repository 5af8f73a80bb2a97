"""Table 1: what the paper printed beside what was measured; tables as LaTeX and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..protocols import column_title, in_order
from ..records import Record
from ..statistics import Estimate
from .measured import CONTROL, Measurement, Setting, group_by, measurements, runs, standing
from .published import Published, find_row
from .verdicts import CAPTION, MARGIN, Verdict, verdict_line

DASH = "–"
PER_SEED = "images × seeds"
VERDICT = "verdict"
ELSEWHERE = "†"  # marks published figures that the paper took over from other works
NO_BETTER = "‡"  # marks errors that are not clearly below the best control's
NO_BETTER_MEANS = (
    f"{NO_BETTER}: the interval reaches the error of the best control that sees no true box."
)
NO_CONTROL = "Rows without such a control on the same images carry no mark."
OF_SUBSET = "§"  # marks what stands for a method that was not measured on all images

Cell = tuple[str, ...]  # lines of a cell: first the number, then what explains it
EMPTY: Cell = (DASH,)


@dataclass(frozen=True)
class Column:
    """One column, below the heading of its group if it has one."""

    title: str
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Text, ready for any format."""

    label: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    rule_before: int | None = None  # the row above which a rule is drawn
    notes: Mapping[str, str] = field(default_factory=dict)  # on each group of columns


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
        errors = _error_cells(own, _protocols(measured), controls, stands=True)
        cells += [*errors, _size_cell(own), _verdict_cell(own)]
    return cells


Scale = tuple[Setting, str, str, frozenset[str]]


def _scale(found: Measurement) -> Scale:
    """What a measurement shares with the controls that it is held against: the very pictures."""
    return found.setting, found.source, found.protocol, found.images


def best_controls(found: Sequence[Measurement]) -> dict[Scale, float]:
    """The lowest error of a control that is not shown the true boxes, on each scale.

    Of the controls as they stand, where there are others with changed settings beside them.
    """
    controls = [m for m in found if m.family == CONTROL and not m.sees_boxes]
    by_scale = group_by(controls, _scale)
    usual = {scale: [m for m in same if _usual(m)] or same for scale, same in by_scale.items()}
    return {scale: min(m.error.value for m in same) for scale, same in usual.items()}


def _usual(found: Measurement) -> bool:
    return not found.variant or found.subset is not None


def best_control(found: Measurement, controls: Mapping[Scale, float]) -> float | None:
    """The error of the best control on a measurement's pictures; None where there is none.

    Where seeds differ, that which shares most of them will do.
    """
    *of, images = _scale(found)
    beside = [
        (-len(pictures & images), len(pictures), error)
        for (*scale, pictures), error in controls.items()
        if scale == of and pictures & images
    ]
    return min(beside)[-1] if beside else None


def _verdict_cell(found: Sequence[Measurement]) -> Cell:
    """On the paper's figure: the same whichever protocol of the row is asked."""
    verdict = next((m.verdict for m in found if m.verdict), None)
    if verdict is None:
        return EMPTY
    return (verdict.word, *([", ".join(verdict.reasons)] if verdict.reasons else []))


def published_cell(published: Published | None) -> Cell:
    """The printed figure, marked if the paper quotes it from elsewhere."""
    if published is None:
        return EMPTY
    return (f"{published.value:.1f}{'' if published.protocol == 'casm' else ELSEWHERE}",)


def column_titles(found: Sequence[Measurement]) -> dict[str, str]:
    """Titles by protocol, in the order of their declaration; upper bounds are marked."""
    oracles = {m.protocol for m in found if m.policy == "oracle"}
    return {
        name: column_title(name, "oracle" if name in oracles else "") for name in _protocols(found)
    }


def _protocols(found: Iterable[Measurement]) -> list[str]:
    return in_order(m.protocol for m in found)


def _error_cells(
    found: Sequence[Measurement],
    protocols: Sequence[str],
    controls: Mapping[Scale, float],
    *,
    stands: bool = False,
) -> list[Cell]:
    """Errors by protocol with their marks, as `marked_cell` sets them."""
    cells = {m.protocol: marked_cell(m, controls, stands=stands) for m in found}
    return [cells.get(name, EMPTY) for name in protocols]


def marked_cell(
    found: Measurement, controls: Mapping[Scale, float], *, stands: bool = False
) -> Cell:
    """An error with the marks that belong to it.

    `controls`: the best ones. `stands`: whether it stands among runs on all images.
    """
    value, *rest = error_cell(found.error)
    subset = OF_SUBSET if stands and found.subset else ""
    return (value + no_better(found, controls) + subset, *rest)


def no_better(found: Measurement, controls: Mapping[Scale, float]) -> str:
    """The mark of a method that does not clearly beat the best control, or nothing."""
    best = best_control(found, controls)
    if best is None or found.family == CONTROL:
        return ""
    return NO_BETTER if found.error.high >= best else ""


def subset_legend(sizes: Iterable[int | None]) -> str:
    """What the mark of a subset means, if any of the sizes shown is one's."""
    known = sorted({size for size in sizes if size})
    if not known:
        return ""
    return f"{OF_SUBSET}: on a seeded subset of {_or(known)} of the images only."


def _or(sizes: Sequence[int]) -> str:
    *others, last = (f"{size:,}" for size in sizes)
    return f"{', '.join(others)} or {last}" if others else last


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


def _size_cell(found: Sequence[Measurement]) -> Cell:
    if not found:
        return EMPTY
    return (f"{found[0].error.n_images:,} × {found[0].error.seeds}",)


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


def seeds_in_words(seeds: Sequence[int]) -> str:
    """`seed 0` or `seeds 0, 1`."""
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def _policies(found: Sequence[Measurement]) -> str:
    """Which protocols' thresholds came from where; nothing about boxes is hidden."""
    with_threshold = [m for m in found if m.rule] or found
    by_policy = group_by(with_threshold, lambda m: (m.policy, m.tuned_on))
    texts = []
    for (policy, tuned_on), same in by_policy.items():
        untuned = "best on the evaluated images" if policy == "oracle" else "nothing tuned"
        origin = f"tuned on {tuned_on}" if tuned_on else untuned
        scope = f" ({', '.join(_protocols(same))})" if len(by_policy) > 1 else ""
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
    protocols = _protocols(found)
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
                *_error_cells(same, protocols, controls, stands=bool(same[0].source)),
                _size_cell(same),
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
            _size_cell([m]),
        ]
        for m in sorted(found, key=lambda m: (m.setting, m.change, m.protocol))
    ]
    caption = (
        "Other threshold policies and box rules, the same for every method. Policy oracle chooses "
        "its threshold on the evaluated images: an upper bound, not a result. LE in %, 95 % Wilson "
        f"interval. {NO_BETTER_MEANS}"
    )
    return Table("policies", caption, [Column(title) for title in titles], rows)


def verdict_table(found: Sequence[tuple[Record, Verdict]]) -> Table:
    """Every measured row beside every published figure of the same method."""
    lines = [verdict_line(record, verdict) for record, verdict in found]
    return _plain_table("verdicts", CAPTION, lines)


def comparison_table(lines: Sequence[Mapping[str, str]], caption: str) -> Table:
    """Lines of `compare.comparison_lines` as a table."""
    return _plain_table("comparisons", caption, lines)


def _plain_table(label: str, caption: str, lines: Sequence[Mapping[str, str]]) -> Table:
    """A table of lines that share their columns."""
    rows: list[list[Cell]] = [[(text or DASH,) for text in line.values()] for line in lines]
    return Table(label, caption, [Column(title) for title in lines[0]], rows)


# --- formats ----------------------------------------------------------------------------------


def to_markdown(tables: Sequence[Table]) -> str:
    """All tables as GitHub's Markdown, captions above."""
    return "\n".join(_markdown_table(table) for table in tables)


def _markdown_table(table: Table) -> str:
    parts = by_group(table)
    texts = [f"{parts[0][1].caption}\n"]
    for group, part in parts:
        heading = " ".join(filter(None, (f"**{group}**" if group else "", note_on(part, group))))
        texts += [f"{heading}\n", grid(part)] if heading else [grid(part)]
    return "\n".join(texts)


def by_group(table: Table) -> list[tuple[str, Table]]:
    """The table in parts, one per group of columns; whole, without a name, if there is but one.

    Side by side, settings are wider than any page.
    """
    groups = list(dict.fromkeys(column.group for column in table.columns if column.group))
    if len(groups) > 1:
        return [(group, _only(table, group)) for group in groups]
    notes = (f"{group}: {note}" for group, note in table.notes.items())
    return [("", replace(table, caption=" ".join((table.caption, *notes)), notes={}))]


def note_on(table: Table, group: str) -> str:
    """What is to be known of one group of columns, empty if nothing is."""
    return table.notes.get(group, "")


def _only(table: Table, group: str) -> Table:
    """The columns of one group beside those of none, without rows that would be dashes alone."""
    kept = [i for i, column in enumerate(table.columns) if column.group in ("", group)]
    rows = [[row[i] for i in kept] for row in table.rows]
    filled = [any(cell != EMPTY for cell in row[1:]) for row in rows]
    rule = table.rule_before
    return replace(
        table,
        columns=[Column(table.columns[i].title) for i in kept],
        rows=[row for row, any_number in zip(rows, filled, strict=True) if any_number],
        rule_before=None if rule is None else sum(filled[:rule]),
    )


def grid(table: Table) -> str:
    """The table in GitHub's Markdown, without its caption."""
    titles = [f"{c.group}<br>{c.title}" if c.group else c.title for c in table.columns]
    lines = [_markdown_row((title,) for title in titles), "|---" * len(titles) + "|"]
    for number, row in enumerate(table.rows):
        if number == table.rule_before:
            lines.append(_markdown_row([("*controls*",), *[("",)] * (len(titles) - 1)]))
        lines.append(_markdown_row(row))
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[Cell]) -> str:
    return f"| {' | '.join('<br>'.join(cell).replace('|', chr(92) + '|') for cell in cells)} |"


# --- after a run ------------------------------------------------------------------------------


def final_table(records: Sequence[Record], rows: Mapping[str, Published]) -> list[dict[str, str]]:
    """What a run prints at its end: a line per method, all with the same columns in order."""
    found = measurements(records, rows)
    titles = column_titles(found)
    return [_final_line(setting, same, found, titles, rows) for setting, same in runs(records)]


def _final_line(
    setting: Setting,
    records: Sequence[Record],
    found: Sequence[Measurement],
    titles: Mapping[str, str],  # by protocol
    rows: Mapping[str, Published],
) -> dict[str, str]:
    first = records[0]
    own = [
        m
        for m in found
        if (m.setting, m.method, m.variant, m.source) == (setting, first.method, first.variant, "")
    ]
    cells = _error_cells(own, list(titles), best_controls(found))
    errors = (" ".join(cell[:2]) for cell in cells)
    published = find_row(first.facts.get("published"), rows)
    return {
        "method": first.title,
        **{f"LE {name}": error for name, error in zip(titles.values(), errors, strict=True)},
        "published": published_cell(published)[0],
        "images × seeds": _size_cell(own)[0],
        "seconds": _sum_of_costs(records),
        "peak MB": _peak(records),
    }


def _sum_of_costs(records: Sequence[Record]) -> str:
    parts = ("fit_seconds", "map_seconds")
    return f"{sum(record.cost.get(part) or 0 for record in records for part in parts):.1f}"


def _peak(records: Sequence[Record]) -> str:
    peaks = [record.cost.get("peak_memory_mb") for record in records]
    known = [peak for peak in peaks if peak is not None]
    return f"{max(known):,.0f}" if known else DASH
