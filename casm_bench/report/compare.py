"""Two methods on the same images: paired differences of their errors, from per-image records."""

from __future__ import annotations

import difflib
import glob
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UsageError, WorkError
from ..files import write_atomically
from ..protocols import column_title, in_order
from ..records import Record, load_per_image, load_record, load_records
from ..statistics import PairedDifference, compare_hits, holm
from .as_csv import as_csv
from .measured import PAPERS_PROTOCOL, group_by, is_control
from .published import Published, find_row

Found = tuple[Path, Record]
Pair = tuple[Found, Found]


@dataclass(frozen=True)
class Comparison:
    """A against B under one protocol, on all images of a data set or on those of one source."""

    data: str
    recipe: str
    a: str
    b: str
    protocol: str
    policy: str  # where A's threshold comes from
    source: str  # of the images; empty for all together
    error_a: float  # percent, mean over seeds
    error_b: float
    difference: PairedDifference
    seeds: tuple[int, ...]
    p_holm: float = 1.0  # corrected over the table that the comparison belongs to


def compare(
    a: str,
    b: str,
    results: Path,
    *,
    data: str | None = None,
    recipe: str | None = None,
    protocols: Sequence[str] = (),
) -> list[Comparison]:
    """Compare A with B in every setting, under every protocol and for every source they share.

    `a` and `b` are each a method's name (its records without changed settings), NAME:VARIANT as
    in the records' file names, or the path of a record; a path with * takes all seeds it matches.
    p-values are corrected over the whole list (Holm).
    Raises UsageError when nothing is found or nothing can be paired, WorkError for bad records.
    """
    sides = [_find(text, results, data, recipe) for text in (a, b)]
    by_path = any(_is_path(text) for text in (a, b))
    cells = [group_by(side, lambda found: _cell(found[1], by_path)) for side in sides]
    shared = [cell for cell in cells[0] if cell in cells[1]]
    if not shared:
        raise UsageError(
            f"{a} was measured on {_list(cells[0])}, {b} on {_list(cells[1])}: there is nothing to "
            "pair. Run both on the same data."
        )
    found = [
        comparison
        for cell in shared
        for comparison in _compare_sides((a, cells[0][cell]), (b, cells[1][cell]), protocols)
    ]
    _refuse_unshared((a, b), protocols, found)
    return corrected(found)


def _refuse_unshared(
    names: tuple[str, str], protocols: Sequence[str], found: Sequence[Comparison]
) -> None:
    """Raise UsageError unless every protocol that was asked for was compared, or any at all."""
    compared = {comparison.protocol for comparison in found}
    missing = [name for name in protocols if name not in compared]
    if missing or not found:
        asked = f"protocol {', '.join(missing)}" if missing else "any one protocol"
        scored = f" (but under {', '.join(in_order(compared))})" if compared else ""
        raise UsageError(
            f"{names[0]} and {names[1]} were not both scored under {asked}{scored}. Scored again "
            "with `run --protocols` they can be."
        )


def _compare_sides(
    a: tuple[str, list[Found]], b: tuple[str, list[Found]], protocols: Sequence[str]
) -> list[Comparison]:
    """The records of two sides in one setting, each side with what it was called."""
    for text, side in (a, b):
        _refuse_two_of_a_seed(text, side)
    paths_a, paths_b = ({path.resolve() for path, _ in side} for _, side in (a, b))
    if both := sorted(paths_a & paths_b):
        raise UsageError(f"{a[0]} and {b[0]} both mean {both[0].name}. Name two methods.")
    pairs = _pairs(a[1], b[1])
    if not pairs:
        raise UsageError(f"{a[0]} and {b[0]} share no seed, and saw different images.")
    return compare_pairs(pairs, protocols)


def compare_with_the_papers_own(
    records: Sequence[Record], rows: Mapping[str, Published], results: Path
) -> list[Comparison]:
    """Every method against those that the paper measured itself, under the paper's protocol.

    Methods as their recipe has them, and no controls. p-values are corrected over the whole list.
    """
    usual = [(r.path(results), r) for r in records if not (r.variant or is_control(r))]
    found = []
    for in_cell in group_by(usual, lambda one: _cell(one[1], by_path=False)).values():
        methods = list(group_by(in_cell, lambda one: one[1].method).values())
        figures = [find_row(same[0][1].facts.get("published"), rows) for same in methods]
        own = [bool(figure and figure.protocol == PAPERS_PROTOCOL) for figure in figures]
        for (i, a), (j, b) in itertools.combinations(enumerate(methods), 2):
            if pairs := (own[i] or own[j]) and _pairs(a, b):
                found += compare_pairs(pairs, (PAPERS_PROTOCOL,))
    return corrected(found)


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with their p-values corrected for each other (Holm 1979)."""
    adjusted = holm([comparison.difference.p_value for comparison in found])
    return [replace(c, p_holm=p) for c, p in zip(found, adjusted, strict=True)]


# --- which records ----------------------------------------------------------------------------


def _is_path(text: str) -> bool:
    return text.endswith(".json") or "*" in text or "/" in text


def _cell(record: Record, by_path: bool) -> tuple[str, ...]:
    """What two records must share; recipes may differ where records are named one by one."""
    return (record.data,) if by_path else (record.data, record.recipe)


def _list(cells: Iterable[tuple[str, ...]]) -> str:
    return " and ".join(", ".join(cell) for cell in cells)


def _find(text: str, results: Path, data: str | None, recipe: str | None) -> list[Found]:
    if _is_path(text):
        found = [(path, load_record(path)) for path in _files(text) if path.suffix == ".json"]
        known: set[str] = set()
    else:
        name, _, variant = text.partition(":")
        records = load_records(results)
        known = {":".join(filter(None, (r.method, r.variant))) for r in records}
        found = [
            (record.path(results), record)
            for record in records
            if (record.method, record.variant) == (name, variant)
        ]
    kept = [
        (path, record)
        for path, record in found
        if data in (None, record.data) and recipe in (None, record.recipe)
    ]
    if not kept:
        raise UsageError(_nothing_found(text, results, found, known))
    return kept


def _files(text: str) -> list[Path]:
    """The file of that name, brackets and all, or those that the pattern matches."""
    return [Path(text)] if Path(text).is_file() else [Path(p) for p in sorted(glob.glob(text))]


def _nothing_found(text: str, results: Path, found: Sequence[Found], known: set[str]) -> str:
    if found:
        there = _list(dict.fromkeys((record.data, record.recipe) for _, record in found))
        return (
            f"{text} has no record of the data set and recipe that --data and --recipe name; it "
            f"has some of {there}."
        )
    if _is_path(text) and _files(text):
        return f"{text} is no record: a record's file ends in .json."
    if _is_path(text):
        return f"There is no record at {text}."
    if not known:
        return f"There are no records in {results}. `run` writes some; --results says where."
    name = text.partition(":")[0]
    variants = [other for other in sorted(known) if other.partition(":")[0] == name]
    if variants:
        there = f"Named NAME:VARIANT, as in the records' files, there are: {', '.join(variants)}."
        return f"{results} has no record of {text}. {there}"
    methods = sorted({other.partition(":")[0] for other in known})
    near = difflib.get_close_matches(name, methods, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{results} has no record of {text}. {hint}Measured are: {', '.join(methods)}."


def _pairs(side_a: Sequence[Found], side_b: Sequence[Found]) -> list[Pair]:
    """Records of the same seed. A single record is paired with all that saw the same images."""
    digests = {record.provenance["data_sha256"] for _, record in (*side_a, *side_b)}
    if len(digests) == 1 and min(len(side_a), len(side_b)) == 1:
        return [(one, other) for one in side_a for other in side_b]
    seeds_b = {record.seed: (path, record) for path, record in side_b}
    return [(one, seeds_b[one[1].seed]) for one in side_a if one[1].seed in seeds_b]


def _refuse_two_of_a_seed(text: str, side: Sequence[Found]) -> None:
    for seed, same in group_by(side, lambda found: found[1].seed).items():
        if len(same) > 1:
            raise UsageError(
                f"{text} means two records of seed {seed}: {same[0][0]} and {same[1][0]}. Name one "
                "of them, or choose with --data and --recipe."
            )


# --- their images -----------------------------------------------------------------------------


def compare_pairs(pairs: Sequence[Pair], protocols: Sequence[str] = ()) -> list[Comparison]:
    """Compare records that are paired by seed, for every protocol and source they share.

    Raises WorkError where the two records of a pair are not of the same images.
    """
    tables = [tuple(load_per_image(*found) for found in pair) for pair in pairs]
    shared = set.intersection(
        *(set(record.protocols) for pair in pairs for _, record in pair),
        *([set(protocols)] if protocols else []),
    )
    found = []
    for protocol in in_order(shared):
        joined = [
            _join(pair, of_pair, protocol) for pair, of_pair in zip(pairs, tables, strict=True)
        ]
        sources = dict.fromkeys(
            name for table in joined for name in table["group"].to_pylist() if name
        )
        for source in ("", *(sources if len(sources) > 1 else ())):
            found.append(_comparison(pairs, joined, protocol, source))
    return found


def _join(pair: Pair, tables: tuple[pa.Table, ...], protocol: str) -> pa.Table:
    """One row per image that both scored: name, group, hit, hit_b."""
    (path_a, _), (path_b, _) = pair
    digests = {record.provenance["data_sha256"] for _, record in pair}
    options = [record.config.get("data_options") for _, record in pair]
    subsets = any(record.config.get("limit") for _, record in pair)  # which may overlap
    if len(digests) > 1 and options[0] != options[1]:
        raise WorkError(
            f"{path_a} and {path_b} were measured on differently made data ({options[0]} and "
            f"{options[1]}): no image is shared."
        )
    if len(digests) > 1 and not subsets:
        raise WorkError(
            f"{path_a} and {path_b} were measured on different data that bear one name (SHA-256 "
            f"{' and '.join(sha[:8] for sha in sorted(digests))}): their images may differ, too."
        )
    a, b = (table.filter(pc.equal(table["protocol"], protocol)) for table in tables)
    b = b.select(["name", "label", "hit"]).rename_columns(["name", "label_b", "hit_b"])
    joined = a.join(b, "name", join_type="inner").sort_by("name")
    if not len(joined) or not pc.all(pc.equal(joined["label"], joined["label_b"])).as_py():
        raise WorkError(f"{path_a} and {path_b} were not scored on the same images.")
    return joined


def _comparison(
    pairs: Sequence[Pair], joined: Sequence[pa.Table], protocol: str, source: str
) -> Comparison:
    if source:
        joined = [table.filter(pc.equal(table["group"], source)) for table in joined]
    hits = [tuple(table[side].to_numpy() for side in ("hit", "hit_b")) for table in joined]
    first, *others = [table["name"].to_pylist() for table in joined]
    (_, record_a), (_, record_b) = pairs[0]
    return Comparison(
        data=record_a.data,
        recipe=record_a.recipe,
        a=describe(record_a),
        b=describe(record_b),
        protocol=protocol,
        policy=record_a.protocols[protocol]["policy"],
        source=source,
        error_a=_mean_error(hit_a for hit_a, _ in hits),
        error_b=_mean_error(hit_b for _, hit_b in hits),
        difference=compare_hits(hits, same_images=all(names == first for names in others)),
        seeds=tuple(max(a.seed, b.seed) for (_, a), (_, b) in pairs),
    )


def _mean_error(hits: Iterable[np.ndarray]) -> float:
    return fmean(100 * float(1 - hit_N.mean()) for hit_N in hits)


def describe(record: Record) -> str:
    """The method as tables call it, and its variant where settings were changed."""
    return record.title + (f", {record.variant}" if record.variant else "")


# --- written down -----------------------------------------------------------------------------


def comparison_lines(found: Sequence[Comparison]) -> list[dict[str, str]]:
    """A line of text per comparison, all with the same columns in order."""
    return [_line(comparison) for comparison in found]


def _line(found: Comparison) -> dict[str, str]:
    d = found.difference
    return {
        "data": f"{found.data}, {found.recipe}",
        "images from": found.source or "all",
        "protocol": column_title(found.protocol, found.policy),
        "A": f"{found.a} {found.error_a:.1f}",
        "B": f"{found.b} {found.error_b:.1f}",
        "A − B, points": f"{d.value:+.1f} [{d.low:+.1f}, {d.high:+.1f}]",
        "only A / only B hit": f"{d.only_a} / {d.only_b}",
        "p": _p(d.p_value),
        "p, Holm": _p(found.p_holm),
        "detectable": f"{d.detectable:.1f}",
        "images": f"{d.n_images:,}",
        "seeds": " ".join(map(str, found.seeds)),
    }


def _p(value: float) -> str:
    return f"{value:.2g}" if value > 0 else "<1e-300"  # what floating point cannot hold is not 0


EXPLANATION = (
    "A − B: difference of localization errors in points on the same images, negative where A is "
    "better, with a 95 % interval (one seed: Bonett & Price, over images; several: two-level "
    "bootstrap over seeds, then images). p: exact McNemar test, given the trained networks; Holm: "
    "corrected over this table. Detectable: the smallest true difference in points that this many "
    "images would reveal with 80 % power."
)


def comparisons_csv(found: Sequence[Comparison]) -> str:
    """One line per comparison, numbers unrounded."""
    rows = [_flat(comparison) for comparison in found]
    return as_csv(list(rows[0]) if rows else [], rows)


def _flat(found: Comparison) -> dict[str, object]:
    flat = asdict(found)
    flat |= flat.pop("difference")
    for name in ("seeds", "per_seed"):
        flat[name] = " ".join(f"{value:.6g}" for value in flat[name])
    return flat


def write_comparisons(found: Sequence[Comparison], out: Path) -> None:
    """Write the comparisons to a .csv or .json file. Raises UsageError for another ending."""
    if out.suffix == ".csv":
        write_atomically(out, comparisons_csv(found))
    elif out.suffix == ".json":
        rows = [asdict(comparison) for comparison in found]
        write_atomically(out, json.dumps(rows, indent=1) + "\n")
    else:
        raise UsageError(f"--out {out} must end in .csv or .json.")
