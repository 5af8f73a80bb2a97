"""What `list` shows: everything that can be named on the command line, as it is declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import registry
from .data.catalog import SOURCES
from .metrics.catalog import METRICS
from .protocols import POLICIES, PROTOCOLS
from .recipes import RECIPES
from .report.cards import as_text, cards_as_text
from .report.published import read_published

# What a line says of an entry beside its name, where that is not its summary alone.
_LINES = {
    "metrics": "{family}: {summary} Source: {source}.",
    "recipes": "{summary} Cost: {cost}.",
}


def entries(what: str) -> list[dict[str, Any]]:
    """All methods, data, recipes, protocols, policies or metrics, each with its declared facts."""
    if what == "policies":
        return [{"name": name, "summary": summary} for name, summary in POLICIES.items()]
    if what == "methods":
        return [asdict(facts) for facts in registry.all_facts()]
    catalogs = {"data": SOURCES, "recipes": RECIPES, "protocols": PROTOCOLS, "metrics": METRICS}
    return [asdict(entry) for entry in catalogs[what].values()]


def lines(what: str) -> Iterator[str]:
    """A line per entry: its name, and what it is."""
    found, line = entries(what), _LINES.get(what, "{summary}")
    width = max(len(entry["name"]) for entry in found)
    for entry in found:
        yield f"{entry['name']:{width}}  {line.format(**entry)}"


def cards(what: str, results: Path) -> str:
    """A card per entry with all that it declares; of methods also what was published.

    `results`: the folder whose ledger of published figures is read.
    """
    if what == "methods":
        return cards_as_text(read_published(results))
    found = []
    for entry in entries(what):
        name, said = entry.pop("name"), {key: _plain(value) for key, value in entry.items()}
        found.append(as_text(name, {k.replace("_", " "): v for k, v in said.items() if v}))
    return "\n\n".join(found)


def _plain(value: Any) -> str:
    """A declared value as words: `a = 1, b (c = 2)` if it has parts, nothing if it is empty."""
    if isinstance(value, dict):
        parts = [(name, _plain(part), isinstance(part, dict)) for name, part in value.items()]
        return ", ".join(f"{n} ({t})" if deep else f"{n} = {t}" for n, t, deep in parts if t)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
