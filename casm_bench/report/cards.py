"""A card per method: what it declares about itself, and what papers printed about it.

The headings answer those of saliency cards (Boggust et al. 2023) as far as a declaration can:
determinism, hyperparameter dependence, model agnosticism, computational efficiency, semantic
directness. What has to be measured is in the records.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import registry
from ..api import BoxMethod, Facts, SaliencyMethod
from .published import Published

BOXES = {
    "never": "never",
    "training": "in training: it is supervised",
    "test": "at test time: a bound, no competitor",
}
WIDTH = 100  # of a card on the terminal
OVERVIEW = ("method", "title", "family", "learns", "class", "true boxes", "cost")


def card(cls: type[SaliencyMethod], ledger: Sequence[Published]) -> dict[str, str]:
    """What there is to know of a method before running it, by heading."""
    facts = cls.facts
    settings = hyperparameters(cls)
    lines = {
        "says": facts.summary,
        "family": facts.family,
        "paper": facts.paper,
        "learns from images": _yes(facts.trained),
        "is told the true class": _yes(facts.knows_class),
        "is given true boxes": BOXES[facts.boxes],
        "deterministic": "yes" if facts.deterministic else "no: differs between equal runs",
        "cost per image": facts.cost,
        "classifier": _classifier(cls),
        "box rule": _rule(cls),
        "hyperparameters": ", ".join(f"{k} = {v}" for k, v in settings.items()) or "none",
        "published": "; ".join(_figure(entry) for entry in published_for(facts, ledger)) or "none",
        "known deviations": facts.deviations or "none",
        "reinterpretation": "yes: no source could be followed" if facts.reinterpretation else "",
        "needs": f"pip install 'casm-bench[{facts.extra}]'" if facts.extra else "",
        "file": _file(facts),
    }
    return {heading: text for heading, text in lines.items() if text}


def hyperparameters(cls: type[SaliencyMethod]) -> dict[str, object]:
    """Every field that `--set` takes, with its default, but for the seed that all have."""
    return {
        f.name: f.default
        for f in dataclasses.fields(cls)
        if f.init and f.default is not dataclasses.MISSING and f.name != "seed"
    }


def published_for(facts: Facts, ledger: Sequence[Published]) -> list[Published]:
    """Entries of the ledger under the method's title, or `TITLE, NETWORK`, or its Table 1 row."""
    return [
        entry
        for entry in ledger
        if entry.title in (facts.title, facts.published)
        or entry.title.startswith(f"{facts.title}, ")
    ]


def cards_as_text(ledger: Sequence[Published]) -> str:
    """Every registered method's card, for a terminal."""
    classes = map(registry.get, registry.names())
    titled = ((f"{cls.facts.name}: {cls.facts.title}", card(cls, ledger)) for cls in classes)
    return "\n\n".join(as_text(title, found) for title, found in titled)


def cards_as_markdown(ledger: Sequence[Published]) -> str:
    """A table of the methods in `methods/`, then their cards. Plug-ins are left to their makers."""
    head = "Made from the declarations in `methods/` by `python -m casm_bench paper`.\n"
    sections = [_section(cls, ledger) for cls in _own_methods()]
    return "\n".join(["# Methods\n", head, methods_table(), *sections])


def methods_table(file: str = "") -> str:
    """The methods in `methods/`, a line each, linked to their cards in the Markdown `file`."""
    rows = [OVERVIEW, ("---",) * len(OVERVIEW), *(_row(cls.facts, file) for cls in _own_methods())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _own_methods() -> list[type[SaliencyMethod]]:
    classes = [registry.get(name) for name in registry.names()]
    return [cls for cls in classes if registry.is_shipped(cls.facts)]


def _row(facts: Facts, file: str) -> tuple[str, ...]:
    family = f"{facts.family}, reinterpreted" if facts.reinterpretation else facts.family
    link = f"[`{facts.name}`]({file}#{facts.name})"
    known = (_yes(facts.trained), _yes(facts.knows_class), facts.boxes)
    return (link, facts.title, family, *known, facts.cost)


def _section(cls: type[SaliencyMethod], ledger: Sequence[Published]) -> str:
    lines = (f"- **{heading}**: {text}" for heading, text in card(cls, ledger).items())
    name, title = cls.facts.name, cls.facts.title
    return "\n".join([f"## {name}\n", f"{title}\n", *lines, ""])


def as_text(title: str, found: Mapping[str, str]) -> str:
    """What is said under each heading, for a terminal."""
    indent = max(map(len, found)) + 4
    lines = (
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"  {heading}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        for heading, text in found.items()
    )
    return "\n".join([title, *lines])


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _rule(cls: type[SaliencyMethod]) -> str:
    if issubclass(cls, BoxMethod):
        return "none: it predicts boxes directly"
    enlarged = "by repeating values" if cls.facts.upsample == "nearest" else "bilinearly"
    return f"{cls.facts.rule}; maps enlarged {enlarged}"


def _classifier(cls: type[SaliencyMethod]) -> str:
    """Which classifiers `check` lets pass, as its docstring says."""
    said = (inspect.getdoc(cls.check) or "").partition("\n\n")[0].replace("\n", " ")
    for start, reading in (("for ", "not "), ("unless ", "only if ")):
        if said.startswith(f"Raises UsageError {start}"):
            rest = said.removeprefix(f"Raises UsageError {start}").rstrip(".")
            return f"{reading}{start if reading == 'not ' else ''}{rest}"
    return "any"


def _figure(entry: Published) -> str:
    """`53.03 % localization error (fong; source)`."""
    metric = entry.metric.replace("_", " ")
    name = f"{entry.title.partition(', ')[2]}: " if ", " in entry.title else ""
    return f"{name}{entry.value:g} {entry.unit} {metric} ({entry.protocol}; {entry.source})"


def _file(facts: Facts) -> str:
    path = Path(facts.source_file)
    return f"methods/{path.name}" if registry.is_shipped(facts) else path.name
