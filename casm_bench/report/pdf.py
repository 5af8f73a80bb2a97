"""The report as a PDF: tables, figures and provenance of the records, set by typst.

Typst comes as a Python package, so that no TeX is needed. Text from records reaches it as data,
never as markup, and nothing in the file depends on the day it was made.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import typst

from ..errors import WorkError
from ..protocols import PROTOCOLS
from ..records import Record
from .drawing import FONT
from .measured import Setting, is_control, runs
from .table import Table, by_group, note_on

TEMPLATE = "paper.typ"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # those of the figures


def to_pdf(
    sections: Mapping[str, Sequence[Table]],
    figures: Mapping[str, tuple[bytes, str]],
    records: Sequence[Record],
) -> bytes:
    """The PDF. `sections`: tables by name, `figures`: PDF files and their captions by name.

    Raises WorkError when typst cannot set it.
    """
    content = {
        "sections": {name: _tables(found) for name, found in sections.items()},
        "figures": [{"file": f"{name}.pdf", "caption": c} for name, (_, c) in figures.items()],
        "font": FONT,
        "runs": [_run(str(setting), same) for setting, same in sorted(runs(records), key=_setting)],
        "protocols": [_protocol(name) for name in _protocols(records)],
        "deviations": _deviations(records),
        "environments": _environments(records),
        "records": len(records),
        "newest": max(str(record.provenance.get("created", "")) for record in records)[:10],
    }
    template = resources.files("casm_bench.report") / "templates" / TEMPLATE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / TEMPLATE).write_bytes(template.read_bytes())
        (folder / "data.json").write_text(json.dumps(content, ensure_ascii=False))
        for figure, (drawn, _) in figures.items():
            (folder / f"{figure}.pdf").write_bytes(drawn)
        try:
            return typst.compile(
                str(folder / TEMPLATE),
                font_paths=[str(FONTS)],
                ignore_system_fonts=True,  # other fonts would be another file
                timestamp=datetime.fromtimestamp(0, UTC),
            )
        except RuntimeError as error:
            raise WorkError(f"typst cannot set the PDF: {error}. Please report this.") from error


def _tables(found: Sequence[Table]) -> list[dict[str, Any]]:
    return [
        asdict(part) | {"group": group, "note": note_on(part, group)}
        for table in found
        for group, part in by_group(table)
    ]


def _setting(run: tuple[Setting, Sequence[Record]]) -> Setting:
    return run[0]


def _run(setting: str, same: Sequence[Record]) -> dict[str, Any]:
    last = same[-1]
    return {
        "setting": setting,
        "method": last.title,
        "variant": last.variant,
        "control": is_control(last),
        "seeds": ", ".join(str(record.seed) for record in same),
        "images": f"{max(result['n_images'] for result in last.protocols.values()):,}",
    }


def _protocols(records: Sequence[Record]) -> list[str]:
    used = {name.partition("@")[0] for record in records for name in record.protocols}
    return [name for name in PROTOCOLS if name in used]


def _protocol(name: str) -> dict[str, str]:
    protocol = PROTOCOLS[name]
    return {"name": name, "summary": protocol.summary, "source": protocol.source}


def _deviations(records: Sequence[Record]) -> list[dict[str, str]]:
    """What each method says of itself, from its newest record."""
    said = {record.title: record.facts for record in records}
    return [
        {"method": title, "paper": facts.get("paper", ""), "text": facts["deviations"]}
        for title, facts in said.items()
        if facts.get("deviations")
    ]


def _environments(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Machines, versions and commits, each with the number of records made there."""
    counts = Counter(_environment(record.provenance) for record in records)
    names = ("device", "threads", "python", "torch", "timm", "commit", "dirty")
    return [
        dict(zip(names, found, strict=True)) | {"records": count}
        for found, count in sorted(counts.items())
    ]


def _environment(made: Mapping[str, Any]) -> tuple[str, ...]:
    device = made.get("device", "")
    versions = made.get("versions", {})
    return (
        made.get("cpu", "") if device == "cpu" else device,
        str(made.get("threads", "")),
        made.get("python", ""),
        versions.get("torch", ""),
        versions.get("timm", ""),
        str(made.get("commit", ""))[:10],
        "yes" if made.get("dirty") else "no",
    )
