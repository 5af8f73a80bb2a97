"""Fills `<!-- generated: NAME -->` in the pages with what the code says of itself.

MkDocs calls `on_page_markdown`. Nothing that a page shows of methods, protocols, metrics, records
or verdicts is written twice: it comes from the registry, from declarations and from their comments.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from casm_bench import records, registry
from casm_bench.metrics.catalog import METRICS, Metric
from casm_bench.protocols import ALWAYS_REPORTED, POLICIES, PROTOCOLS, BoxRule
from casm_bench.report import published, verdicts
from casm_bench.report.cards import cards_as_markdown

PLACE = re.compile(r"<!-- generated: (\S+?)(?: (\w+))? -->")
NOTEBOOK = Path(__file__).with_name("try-a-picture.ipynb")
RESULTS = Path(__file__).resolve().parents[1] / "results"


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page with every place filled in. Raises KeyError for a name that nothing generates."""

    def fill(place: re.Match[str]) -> str:
        name, argument = place.groups()
        return GENERATED[name](argument) if argument else GENERATED[name]()

    return PLACE.sub(fill, markdown)


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    """Bars are escaped, but for those in code, where Markdown takes them as they are."""
    parts = str(value).replace("\n", " ").split("`")
    return "`".join(p if i % 2 else p.replace("|", r"\|") for i, p in enumerate(parts))


# --- methods ----------------------------------------------------------------------------------


def methods() -> str:
    """An overview, then the card of every method, as `make paper` writes them too."""
    _, _, cards = cards_as_markdown(published.read_published(RESULTS)).partition("\n|")
    return f"|{cards}"


# --- declarations and their comments ----------------------------------------------------------


def _fields(cls: type) -> list[tuple[str, str, str, str]]:
    """Name, type, default and comment of every annotated field, from the source."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    (body,) = ast.parse(source).body
    found = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign):
            comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()
            default = f"`{ast.unparse(node.value)}`" if node.value else ""
            name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
            found.append((f"`{name}`", f"`{kind}`", default, comment))
    return found


def schema(name: str) -> str:
    """The fields of a class of `records` or of the ledger, with its docstring."""
    cls = getattr(records, name, None) or getattr(published, name)
    rows = [(field, kind, comment) for field, kind, _, comment in _fields(cls)]
    return f"{inspect.getdoc(cls)}\n\n{table(('field', 'type', 'what it is'), rows)}"


def per_image() -> str:
    """The columns of the scores per image."""
    rows = [(f"`{field.name}`", f"`{field.type}`") for field in records.PER_IMAGE_SCHEMA]
    return table(("column", "type"), rows)


# --- protocols and metrics --------------------------------------------------------------------


def protocols() -> str:
    """Every protocol: what it is and where it comes from, then all that it declares."""
    said = [f"`{p.name}`\n:   {p.summary} Source: {p.source}." for p in PROTOCOLS.values()]
    declared = {
        "input": lambda p: p.input_frame,
        "boxes compared in": lambda p: p.box_frame,
        "area of the true box": lambda p: p.truth_area,
        "coordinates": lambda p: p.coordinates,
        "a hit has IoU": lambda p: f"{'≥' if p.iou_at_least else '>'} {p.iou_threshold}",
        "box rule": lambda p: f"{p.rule}{'' if p.overrides_rule else ', or the method’s own'}",
        "threshold policy": lambda p: p.policy,
        "version": lambda p: p.version,
    }
    rows = [(name, *map(get, PROTOCOLS.values())) for name, get in declared.items()]
    return "\n\n".join([*said, table(("", *PROTOCOLS), rows)])


def policies() -> str:
    """What the threshold policies mean."""
    return table(("policy", "what it is"), POLICIES.items())


def box_rule() -> str:
    """The rule's own docstring, its indented paragraphs as a list of terms."""
    first, _, rest = inspect.getdoc(BoxRule).partition("\n\n")
    terms = re.sub(r"^(\w+)\n    ", r"\n`\1`\n:   ", rest, flags=re.M)
    return f"{first}\n{terms}"


def verdict_rules() -> str:
    """The rules as `report/verdicts.py` says them; lists nested as Markdown wants them."""
    _, _, rules = inspect.getdoc(verdicts).partition("\n\n")
    return re.sub(r"^   (?=[- ]|\S)", "    ", rules.partition("\n\n")[2], flags=re.M)


def always_reported() -> str:
    """Protocols that no run leaves out."""
    *first, last = (f"`{name}`" for name in ALWAYS_REPORTED)
    return f"{', '.join(first)} and {last}"


def metrics() -> str:
    """Every metric with formula and source, by the family that `metrics` is asked for."""
    parts = []
    for family in dict.fromkeys(m.family for m in METRICS.values()):
        rows = [
            (f"{', '.join(f'`{n}`' for n in m.name.split(', '))}<br>{_scale(m)}", m.summary)
            + (m.asks, m.source)
            for m in METRICS.values()
            if m.family == family
        ]
        parts += [f"## `{family}`", table(("metric", "formula", "asks for", "source"), rows)]
    return "\n\n".join(parts)


def _scale(metric: Metric) -> str:
    return f"{metric.unit}, {metric.better} is better" if metric.better else metric.unit


def deviations() -> str:
    """Methods that say where they differ, or that follow no source."""
    rows = [
        (f"[{f.title}](methods.md#{f.name})", f.paper, f.deviations)
        for f in registry.all_facts()
        if f.deviations
    ]
    return table(("method", "paper", "how this differs"), rows)


def notebook() -> str:
    """The notebook's cells: text as it is, code as code."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return "\n\n".join(
        "".join(cell["source"])
        if cell["cell_type"] == "markdown"
        else f"```python\n{''.join(cell['source'])}\n```"
        for cell in cells
    )


GENERATED: dict[str, Callable[..., str]] = {
    "methods": methods,
    "protocols": protocols,
    "policies": policies,
    "always-reported": always_reported,
    "box-rule": box_rule,
    "verdict-rules": verdict_rules,
    "metrics": metrics,
    "schema": schema,
    "per-image": per_image,
    "deviations": deviations,
    "notebook": notebook,
}
