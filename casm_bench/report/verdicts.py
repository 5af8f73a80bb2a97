"""Does a measured row reproduce a published figure? A verdict by rule, never by eye.

The rules, in order:

1. *Not comparable* where the two numbers do not speak of the same thing. Every reason is given:
   - the figure is of another metric than LE, or under a protocol that was not scored;
   - what is published does not say enough (no entry in `conditions.csv`);
   - other images: another data set, or all of it but in another number; for trained methods also
     other training images;
   - another network, another recipe or changed settings (a seeded `--limit` changes none), another
     box rule or threshold policy;
   - the method is a reinterpretation of a paper that does not say how it was done;
   - the method was not trained here: its weights were imported. Nothing that was not trained and
     scored here can be reproduced.
2. Otherwise an equivalence test (`statistics.equivalence`, two one-sided tests at 5 %) of the mean
   LE over seeds against the printed figure, which counts as exact: *reproduced* where its 90 %
   interval, over images (Wilson) and over seeds (Student's t) together, lies within ± MARGIN
   points of it, bounds included; *not reproduced* where it lies wholly outside. A single seed's
   verdict is on that one training.
3. *Undecided* where the interval crosses the margin: too few images or seeds to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ..protocols import BoxRule
from ..records import Record
from ..statistics import equivalence
from .as_csv import as_csv
from .published import Conditions, Published

MARGIN = 1.0  # points of LE
METRIC = "localization_error"
WORDS = {"equivalent": "reproduced", "different": "not reproduced", "undecided": "undecided"}


@dataclass(frozen=True)
class Verdict:
    """One measured row beside one published figure."""

    published: Published
    word: Literal["reproduced", "not reproduced", "not comparable", "undecided"]
    reasons: tuple[str, ...] = ()  # why the two cannot be compared
    measured: float | None = None  # LE in percent, mean over seeds; None under another protocol

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points, where both are LE under the same protocol."""
        if self.measured is None or self.published.metric != METRIC:
            return None
        return self.measured - self.published.value


def judge(
    records: Sequence[Record], published: Published, *, same_images: bool, margin: float = MARGIN
) -> Verdict:
    """The verdict on the records of one method, which differ in their seed alone."""
    results = [record.protocols.get(published.protocol) for record in records]
    reasons = tuple(dict.fromkeys(why for record in records for why in _reasons(record, published)))
    errors = [result[METRIC] for result in results if result]
    measured = fmean(errors) if len(errors) == len(records) else None
    if reasons:
        return Verdict(published, "not comparable", reasons, measured)
    counts = [result["n_images"] for result in results]
    outcome = equivalence(errors, counts, published.value, margin, same_images=same_images)
    return Verdict(published, WORDS[outcome], measured=measured)


def _reasons(record: Record, published: Published) -> Iterator[str]:
    """Why this record and this figure do not speak of the same thing."""
    if record.facts.get("reinterpretation"):
        yield "reinterpretation"
    trained = record.facts.get("trained")
    if record.config.get("imported") or (trained and not record.training):
        yield "not trained here"
    if published.metric != METRIC:
        yield "metric"
        return
    result = record.protocols.get(published.protocol)
    if result is None:
        yield "protocol"
    if published.conditions is None:
        yield "conditions not known"
        return
    if record.data != published.conditions.data:
        yield "data"
    if result is not None:
        yield from _differences_in_scoring(record, result, published)
    yield from _differences_in_making(record, published.conditions)


def _differences_in_scoring(record: Record, result: dict, published: Published) -> Iterator[str]:
    conditions = published.conditions
    all_images = not record.config.get("limit")
    if all_images and result["n_images"] != published.images:
        yield "data"
    if str(BoxRule(**result["rule"])) != conditions.rule:
        yield "box rule"
    if result["policy"] != conditions.policy:
        yield "threshold policy"


def _differences_in_making(record: Record, conditions: Conditions) -> Iterator[str]:
    fit = record.config.get("fit") or {}
    if fit and fit.get("train_data") != conditions.data:
        yield "training data"
    network, weights = record.config.get("classifier"), record.config.get("weights")
    if (network, weights) != (conditions.network, "pretrained"):
        yield "network"
    if conditions.recipe and record.recipe.partition("+")[0] != conditions.recipe:
        yield "recipe"
    if not re.fullmatch(r"(n\d+)?", record.variant):
        yield "settings"


# --- written down -----------------------------------------------------------------------------

CAPTION = (
    "Every measured row beside every published figure of the same method. Reproduced: the 90 % "
    f"interval of the mean LE, over images and seeds, lies within ± {MARGIN:g} point of the figure "
    "(two one-sided tests at 5 %); not reproduced: wholly outside; undecided: too few images or "
    "seeds to tell; not comparable: for the reasons given. LE in %."
)
COLUMNS = (
    *("data", "recipe", "method", "published", "value", "protocol", "measured", "difference"),
    *("verdict", "reasons"),
)


def verdicts_csv(lines: Sequence[dict[str, object]]) -> str:
    """One line per measured row and published figure, with the columns COLUMNS."""
    return as_csv(COLUMNS, lines)


def verdict_line(record: Record, verdict: Verdict) -> dict[str, object]:
    """The verdict on the records that `record` is one of."""
    published, difference = verdict.published, verdict.difference
    return {
        "data": record.data,
        "recipe": record.recipe,
        "method": record.title + (f", {record.variant}" if record.variant else ""),
        "published": published.row,
        "value": f"{published.value:g}",
        "protocol": published.protocol,
        "measured": "" if verdict.measured is None else f"{verdict.measured:.2f}",
        "difference": "" if difference is None else f"{difference:+.2f}",
        "verdict": verdict.word,
        "reasons": "; ".join(verdict.reasons),
    }
