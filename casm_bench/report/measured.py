"""What records say once their seeds are put together: one measurement per number in a table."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..protocols import BoxRule, in_order
from ..records import Record
from ..statistics import Estimate, mean_error
from .published import Published, find_row, table1_rows
from .verdicts import Verdict, judge

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

PAPERS_PROTOCOL = "casm"  # rows published under it are the paper's own, others it quotes
CONTROL = "control"  # the family of methods that only mark where the scale begins and ends
SUPERVISED = "supervised"  # that of methods that learn boxes
SUBSET = re.compile(r"n(\d+)")  # the variant of a record that differs in --limit alone


@dataclass(frozen=True, order=True)
class Setting:
    """What methods share when their numbers may be compared: one group of columns."""

    data: str
    recipe: str
    classifier: str  # empty where only controls were measured

    def __str__(self) -> str:
        # A recipe with another classifier carries its name, which need not be read twice.
        recipe = "+".join(part for part in self.recipe.split("+") if part not in self.classifier)
        return ", ".join(part for part in (self.data, recipe, self.classifier) if part)

    @property
    def slug(self) -> str:
        """Its name in files: data and recipe, which carries the classifier if it is another."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{self.data}-{self.recipe}").strip("-.")


@dataclass(frozen=True)
class Measurement:
    """Localization error of a method in a setting under a protocol, over all seeds."""

    setting: Setting
    method: str
    title: str
    family: str
    sees_boxes: bool  # is handed the true boxes of the very images it is scored on
    row: Published | None  # the method's row in the paper's Table 1
    variant: str  # hash of the changed settings; empty for the recipe as it stands
    change: str  # the changed settings in words
    protocol: str
    source: str  # of the images, where a data set has several; empty for all together
    error: Estimate
    seeds: tuple[int, ...]
    images: frozenset[str]  # hashes of the pictures of each seed
    policy: str  # where the threshold comes from
    rule: str  # the box rule with its threshold, of each seed if they differ; empty without maps
    tuned_on: str  # and on how many images; empty without maps
    verdict: Verdict | None  # on the method's row in Table 1; None without one, and for a source

    @property
    def renamed(self) -> bool:
        """Whether policy or rule are not those of the method or of a named protocol."""
        return "@" in self.protocol

    @property
    def subset(self) -> int | None:
        """Of how many images it is where `--limit` alone differs from the recipe."""
        return _subset_size(self.variant)

    @property
    def run(self) -> Run:
        """What all measurements of the same runs share."""
        return self.setting, self.method, self.variant


Run = tuple[Setting, str, str]  # with method and variant


def standing(runs: Iterable[Run]) -> set[Run]:
    """The runs that represent their methods in tables, at most one per setting and method.

    That is the one on all images with the recipe's own settings; for methods that are too slow
    for that, the one on the largest seeded subset.
    """
    sizes: dict[tuple[Setting, str], dict[str, float]] = defaultdict(dict)
    for setting, method, variant in runs:
        size = math.inf if not variant else _subset_size(variant)
        if size is not None:
            sizes[setting, method][variant] = size
    return {(*of, max(found, key=found.__getitem__)) for of, found in sizes.items()}


def _subset_size(variant: str) -> int | None:
    found = SUBSET.fullmatch(variant)
    return int(found[1]) if found else None


def measurements(records: Sequence[Record], rows: Mapping[str, Published]) -> list[Measurement]:
    """Put the seeds of each method together. `rows` are those of the paper's Table 1."""
    usual = usual_settings(records)
    found = []
    for setting, of_method in runs(records):
        change = change_of(of_method[0], usual)
        for protocol, source in _scores_of(of_method):
            found.append(_measurement(setting, of_method, change, protocol, source, rows))
    return found


def in_paper_order(records: Sequence[Record], rows: Mapping[str, Published]) -> list[Record]:
    """Records of the paper's rows in its order, then of other methods, then of controls."""
    order = {row.row: place for place, row in enumerate(rows.values())}

    def place(record: Record) -> tuple[bool, int]:
        row = find_row(record.facts.get("published"), rows)
        return is_control(record), order[row.row] if row else len(order)

    return sorted(records, key=place)


def runs(records: Sequence[Record]) -> list[tuple[Setting, list[Record]]]:
    """The records of each method that differ in nothing but their seed, by setting, in order.

    Controls use no classifier, so their numbers stand beside every classifier's.
    """
    classifiers = group_by(
        (record for record in records if not is_control(record)), lambda r: (r.data, r.recipe)
    )
    grouped: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        beside = [record]
        if is_control(record):
            beside = classifiers.get((record.data, record.recipe), [])
        for name in dict.fromkeys(map(describe_classifier, beside)) or ("",):
            setting = Setting(record.data, record.recipe, name)
            grouped[setting, record.method, record.variant].append(record)
    return [
        (setting, sorted(same, key=lambda record: record.seed))
        for (setting, _, _), same in grouped.items()
    ]


def group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by key, keys in the order in which they are first met."""
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def is_control(record: Record) -> bool:
    """Whether the method is a control row, such as the whole frame."""
    return record.facts.get("family") == CONTROL


def describe_classifier(record: Record) -> str:
    """The classifier and where its weights come from, as far as the record has them."""
    name, weights = record.config.get("classifier"), record.config.get("weights")
    if not name:
        return ""
    return f"{name} ({weights})" if weights else str(name)


Usual = Mapping[tuple[str, str, str], Mapping[str, Any]]


def usual_settings(records: Sequence[Record]) -> Usual:
    """The settings of each method's run as its recipe stands, by data, recipe and method."""
    return {_cell(record): record.config for record in records if not record.variant}


def change_of(record: Record, usual: Usual) -> str:
    """`describe_change` beside the recipe's own run, if there is one."""
    return describe_change(record, usual.get(_cell(record)))


def describe_change(record: Record, recipe: Mapping[str, Any] | None) -> str:
    """How a record's settings differ from its recipe's, as `limit=100, strategy=L`."""
    if not record.variant:
        return ""
    settings, usual = flat_settings(record.config), flat_settings(recipe or {})
    changed = {
        name: value
        for name, value in settings.items()
        if (recipe is not None and value != usual.get(name)) or (name == "limit" and value)
        # A file's name tells a reader more than its hash; what else was scored changes nothing.
        if not (name.endswith("sha256") or name == "protocols")
    }
    if not changed:
        return f"variant {record.variant}"
    return ", ".join(f"{name}={value}" for name, value in sorted(changed.items()))


CONSEQUENCES = ("seed", "train_digest")  # settings that say only which pictures were drawn


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted names, without those that a seed or the data entail."""
    flat = _flat(config)
    return {k: v for k, v in flat.items() if k.rpartition(".")[2] not in CONSEQUENCES}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _cell(record: Record) -> tuple[str, str, str]:
    return record.data, record.recipe, record.method


def _scores_of(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Protocols and sources that every seed has; protocols in the order of their declaration."""
    shared = set.intersection(*(_scores(record) for record in records))
    return [
        score
        for name in in_order(protocol for protocol, _ in shared)
        for score in sorted(shared)
        if score[0] == name
    ]


def _scores(record: Record) -> set[tuple[str, str]]:
    return {
        (name, source)
        for name, result in record.protocols.items()
        for source in ("", *(result.get("groups") or {}))
    }


def _measurement(
    setting: Setting,
    records: Sequence[Record],
    change: str,
    protocol: str,
    source: str,
    rows: Mapping[str, Published],
) -> Measurement:
    last = records[-1]
    results = [record.protocols[protocol] for record in records]
    scores = [result["groups"][source] if source else result for result in results]
    row = find_row(last.facts.get("published"), rows)
    same_images = not own_images(records)
    return Measurement(
        setting=setting,
        method=last.method,
        title=last.title,
        family=last.facts.get("family", ""),
        sees_boxes=last.facts.get("boxes") == "test",
        row=row,
        variant=last.variant,
        change=change,
        protocol=protocol,
        source=source,
        error=mean_error(
            [score["localization_error"] for score in scores],
            [score["n_images"] for score in scores],
            same_images=same_images,
        ),
        seeds=tuple(record.seed for record in records),
        images=frozenset(record.provenance["data_sha256"] for record in records),
        policy=results[-1]["policy"],
        rule="" if predicts_boxes(last) else "; ".join(dict.fromkeys(map(_rule, results))),
        tuned_on="" if predicts_boxes(last) else _tuned_on(results[-1]),
        verdict=judge(records, row, same_images=same_images) if row and not source else None,
    )


def predicts_boxes(record: Record) -> bool:
    """Whether a method gives boxes and no maps, so that no rule or threshold has any say."""
    return record.facts.get("family") in (CONTROL, SUPERVISED) and "mask_mean" not in record.metrics


def _rule(result: Mapping[str, Any]) -> str:
    return str(BoxRule(**result["rule"]))


def _tuned_on(result: Mapping[str, Any]) -> str:
    images = f", {result['tuned_images']:,} images" if "tuned_images" in result else ""
    return f"{result['tuned_on'] or ''}{images}"


def verdicts(
    records: Sequence[Record], ledger: Sequence[Published]
) -> list[tuple[Record, Verdict]]:
    """Each method's records, by one of them, with a verdict on every published figure of it."""
    rows = table1_rows(ledger)
    found = []
    for _, same in runs([record for record in records if not is_control(record)]):
        first = same[0]
        row = find_row(first.facts.get("published"), rows)
        for figure in ledger:
            if figure == row or figure.title.casefold() == first.title.casefold():
                verdict = judge(same, figure, same_images=not own_images(same))
                found.append((first, verdict))
    return found


def own_images(records: Sequence[Record]) -> bool:
    """Whether every seed was scored on pictures of its own, as drawn data are."""
    digests = {record.provenance["data_sha256"] for record in records}
    return len(digests) == len(records)
