"""The page: one folder that opens from disk, with every result, method, record and picture.

Nothing in it is fetched from elsewhere, and a browser that runs no scripts still shows all but
the image browser. Everything that comes from records is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from .. import registry
from ..errors import UsageError, WorkError
from ..files import write_atomically
from ..protocols import column_title
from ..records import Record, load_records
from .browser import Shown, picture_files, picture_sets, set_data, shown_records
from .cards import card
from .cells import NO_BETTER_MEANS, OF_SUBSET, best_controls, no_better, subset_legend
from .charts import charts
from .measured import (
    Measurement,
    change_of,
    describe_classifier,
    group_by,
    in_paper_order,
    measurements,
    runs,
    standing,
    usual_settings,
)
from .measures import measure_title, upper_bounds
from .published import read_published, table1_rows

MANIFEST = "files.txt"  # what this program wrote into the folder, and so may remove
STATIC = (
    *("style.css", "table.js", "browse.js", "charts.js"),
    *("uPlot.iife.min.js", "uPlot.min.css", "uPlot-LICENSE.txt"),  # 1.6.32, as npm has it
)


def write_page(results: Path, out: Path, public: bool = False) -> Path:
    """Write the page of all records in `results` into `out`; returns its first file.

    `public` leaves out pictures that may not be shared. Files of an earlier page that no longer
    belong there are removed, other people's files stay.
    Raises WorkError when there is no record, when one was edited, or when writing fails.
    """
    results, out = Path(results), Path(out)
    records = load_records(results)
    if not records:
        raise WorkError(
            f"There are no records in {results}: measure something first, for instance with "
            "`python -m casm_bench run`, or name the folder that holds the records."
        )
    content = dict(Site(records, results, public).files())
    _remove_stale(out, content)
    write_atomically(out / MANIFEST, "".join(f"{name}\n" for name in sorted(content)))
    for name, new in content.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != new:
            write_atomically(path, new)
    return out / "index.html"


def _remove_stale(out: Path, content: Mapping[str, bytes]) -> None:
    manifest = out / MANIFEST
    listed = manifest.read_text().splitlines() if manifest.is_file() else []
    for name in set(listed) - set(content):
        path = (out / name).resolve()
        if path.is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)


class Site:
    """All files of the page, by name."""

    def __init__(self, records: Sequence[Record], results: Path, public: bool) -> None:
        self.ledger = read_published(results)
        rows = table1_rows(self.ledger)
        self.records, self.results = in_paper_order(records, rows), results
        self.found = measurements(self.records, rows)
        self.standing = standing(m.run for m in self.found)
        self.controls = best_controls(self.found)
        names = _unique(_slug(f"{r.data}-{r.recipe}-{r.path(results).stem}") for r in self.records)
        pairs = zip(self.records, names, strict=True)
        self.links = {id(record): f"records/{name}.html" for record, name in pairs}
        self.methods = group_by(self.records, lambda record: record.method)
        pages = _unique(map(_slug, self.methods))
        self.method_links = {
            method: f"methods/{name}.html" for method, name in zip(self.methods, pages, strict=True)
        }
        usual = usual_settings(self.records)
        self.changes = {id(r): change_of(r, usual) for r in self.records}
        shown = shown_records(self.records, results, public)
        sets = picture_sets(shown)
        titles = _unique((self._set_name(same) for same in sets), " ({})")
        self.sets = list(zip(titles, sets, strict=True))
        self.private = any(s.private for s in shown)
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("casm_bench.report"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"words": _words, "number": _number, "short": _short}
        self.templates.globals["protocol_title"] = column_title

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every file."""
        folder = resources.files("casm_bench.report") / "static"
        for name in STATIC:
            yield name, (folder / name).read_bytes()
        yield "index.html", self._page("index.html", **self._lines(self.found))
        for method, records in self.methods.items():
            yield self.method_links[method], self._method_page(method, records)
        for record in self.records:
            yield self.links[id(record)], self._record_page(record)
        yield from self._browser_files()

    def _page(self, template: str, root: str = "", **values: Any) -> bytes:
        values |= {"root": root, "private": self.private, "browsable": bool(self.sets)}
        values |= {"template": template}
        return self.templates.get_template(template).render(**values).encode()

    # --- results --------------------------------------------------------------------------------

    def _lines(self, found: Sequence[Measurement]) -> dict[str, Any]:
        """Rows of the results table, and what their marks mean."""
        subsets = subset_legend(m.subset for m in found)
        return {
            "lines": [self._line(m) for m in found],
            "legend": f"{NO_BETTER_MEANS} {subsets}".strip(),
        }

    def _line(self, m: Measurement) -> dict[str, Any]:
        """A row of the results table, with a link to each seed's record."""
        seeds = [
            (record.seed, self.links[id(record)])
            for record in self.methods[m.method]
            if (record.data, record.recipe, record.variant)
            == (m.setting.data, m.setting.recipe, m.variant)
        ]
        return {
            "m": m,
            "error": asdict(m.error),
            "marks": no_better(m, self.controls) + (OF_SUBSET if m.subset else ""),
            "hidden": m.run not in self.standing or m.source or m.renamed,
            "differs": ", ".join(filter(None, (m.change, m.source))),
            "method_link": self.method_links[m.method],
            "seeds": seeds,
        }

    # --- methods and records --------------------------------------------------------------------

    def _method_page(self, method: str, records: Sequence[Record]) -> bytes:
        sections = [
            {
                "setting": str(setting),
                "change": self.changes[id(same[0])],
                "charts": charts(same),
                "records": [(record, self.links[id(record)]) for record in same],
            }
            for setting, same in runs(records)
        ]
        return self._page(
            "method.html",
            "../",
            card=self._card(records[-1]),
            title=records[-1].title,
            sections=sections,
            charted=any(section["charts"] for section in sections),
            **self._lines([m for m in self.found if m.method == method]),
        )

    def _card(self, record: Record) -> dict[str, str]:
        """As `list methods --verbose` has it; of what is not installed, what its record says."""
        try:
            return card(registry.get(record.method), self.ledger)
        except UsageError:
            known = {name: _said(value) for name, value in record.facts.items() if name != "title"}
            return {"says": known.pop("summary", ""), **known}

    def _record_page(self, record: Record) -> bytes:
        said, bounds = asdict(record), upper_bounds([record])
        return self._page(
            "record.html",
            "../",
            record=record,
            file=str(record.path(Path("results"))),
            method_link=self.method_links[record.method],
            classifier=describe_classifier(record),
            change=self.changes[id(record)],
            metrics={measure_title(k, bounds): v for k, v in record.metrics.items()},
            raw=json.dumps(said, indent=1, sort_keys=True, default=str, ensure_ascii=False),
        )

    # --- pictures -------------------------------------------------------------------------------

    def _browser_files(self) -> Iterator[tuple[str, bytes]]:
        listed = []
        for number, (title, shown) in enumerate(self.sets):
            for name, content in picture_files(shown[0].case).items():
                yield f"pictures/{name}", content
            data = set_data(shown, self.results, self.links, self.changes)
            file = f"sets/{number}.js"
            listed.append({"title": title, "file": file, "private": data["private"]})
            yield file, f"window.casmBench.take({number}, {json.dumps(data)});\n".encode()
        yield "sets/list.js", f"window.casmBenchSets = {json.dumps(listed)};\n".encode()
        yield "browse.html", self._page("browse.html")

    def _set_name(self, same: Sequence[Shown]) -> str:
        """Data, recipe, seed, and the changed options of the data that all records share."""
        record = same[0].record
        changes = [set(self.changes[id(s.record)].split(", ")) for s in same]
        common = sorted(set.intersection(*changes))
        about_data = [c for c in common if c.startswith(("data_options.", "limit="))]
        return ", ".join((record.data, record.recipe, f"seed {record.seed}", *about_data))


def _slug(text: str) -> str:
    """`text` as a file name that needs no quoting anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "unnamed"


def _unique(names: Iterator[str], ending: str = "-{}") -> Iterator[str]:
    """Names as they are, numbered from the second time on; upper and lower case are alike."""
    seen: dict[str, int] = {}
    for name in names:
        count = seen[name.casefold()] = seen.get(name.casefold(), 0) + 1
        yield name if count == 1 else name + ending.format(count)


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _said(fact: object) -> str:
    """A fact of a record, in words."""
    if isinstance(fact, Mapping):
        return "; ".join(f"{name}: {_number(value)}" for name, value in fact.items())
    return {True: "yes", False: "no"}[fact] if isinstance(fact, bool) else _number(fact)


def _short(value: object) -> str:
    """A value of a chart."""
    return f"{value:.4g}" if isinstance(value, int | float) else _number(value)


def _number(value: object) -> str:
    """Numbers short, everything else as it is."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
