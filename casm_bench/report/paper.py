"""`make paper`: everything in the paper that depends on measurements, made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import WorkError
from ..files import write_atomically
from ..records import Record, load_records
from .compare import (
    EXPLANATION,
    compare_with_the_papers_own,
    comparison_lines,
    comparisons_csv,
)
from .figures import drawn_alike, error_figure, figure1, figure1_blocks, render
from .measured import Measurement, in_paper_order, measurements, verdicts
from .pdf import to_pdf
from .published import LEDGER, read_published, table1_rows
from .sweep import (
    NAMES,
    Sweep,
    equal_area_table,
    find_sweeps,
    sweep_csv,
    sweep_figure,
    sweep_table,
)
from .table import (
    Table,
    comparison_table,
    make_tables,
    to_csv,
    to_latex,
    to_markdown,
    verdict_table,
)
from .training import training_figure
from .verdicts import verdict_line, verdicts_csv

GENERATED = "generated"
PDF = "casm-bench.pdf"
FIGURES = tuple(
    f"{name}.{kind}" for name in ("figure1", "le", "training") for kind in ("pdf", "png")
)
TABLES = tuple(f"{name}.{kind}" for name in ("verdicts", "comparisons") for kind in ("md", "csv"))
SWEEP_STEMS = ("sweep-*", *(name for name, _ in NAMES.values()))


def write_paper(results: Path, paper: Path) -> list[Path]:
    """Regenerate `<paper>/generated` and the PDF from the records; train and measure nothing.

    Returns the files that belong there now. Files whose content has not changed are not touched;
    a figure or table for which records no longer suffice is removed rather than left to mislead.
    Raises WorkError when there is no record, when one was edited, or when writing fails.
    """
    content, pdf = _contents(Path(results))
    folder = Path(paper) / GENERATED
    for name in (*FIGURES, *TABLES, *(path.name for path in _sweep_files(folder))):
        if name not in content:
            (folder / name).unlink(missing_ok=True)
    for name, new in content.items():
        _write_if_changed(folder / name, new)
    _write_if_changed(Path(paper) / PDF, pdf)
    return [*(folder / name for name in content), Path(paper) / PDF]


def _contents(results: Path) -> tuple[dict[str, bytes], bytes]:
    """Generated files by name, and the PDF."""
    records = load_records(results)
    if not records:
        raise WorkError(
            f"There are no records in {results}: measure something first, for instance with "
            "`python -m casm_bench run`, or name the folder that holds the records."
        )
    ledger = read_published(results)
    rows = table1_rows(ledger)
    if not rows:
        raise WorkError(f"{results / LEDGER} is missing or lacks the rows of the paper's Table 1.")
    records = in_paper_order(records, rows)
    sweeps = {sweep.name: sweep for sweep in find_sweeps(records)}
    swept = {id(record) for sweep in sweeps.values() for record in sweep.records()}
    kept = [record for record in records if not record.variant or id(record) not in swept]
    tables = {"table1": make_tables(kept, rows)}
    texts = {"table1.tex": to_latex(tables["table1"]), "table1.csv": to_csv(records, rows)}
    if judged := verdicts(kept, ledger):
        tables["verdicts"] = [verdict_table(judged)]
        texts["verdicts.csv"] = verdicts_csv([verdict_line(*found) for found in judged])
    if compared := compare_with_the_papers_own(kept, rows, results):
        tables["comparisons"] = [comparison_table(comparison_lines(compared), EXPLANATION)]
        texts["comparisons.csv"] = comparisons_csv(compared)
    for name, sweep in sweeps.items():
        found = (sweep_table(sweep), equal_area_table(sweep))
        tables[name] = [table for table in found if table]
        texts[f"{name}.csv"] = sweep_csv(sweep)
    texts |= {f"{name}.md": to_markdown(found) for name, found in tables.items()}
    drawn = _figures(records, measurements(records, rows), sweeps, results)
    files = {name: text.encode() for name, text in texts.items()} | drawn
    return files, _pdf(tables, drawn, records)


def _pdf(
    tables: Mapping[str, Sequence[Table]], drawn: Mapping[str, bytes], records: Sequence[Record]
) -> bytes:
    """The PDF, in which what stands beside Table 1 comes last."""
    first, *others = tables["table1"]
    figures = {Path(n).stem: content for n, content in drawn.items() if n.endswith(".pdf")}
    return to_pdf(tables | {"table1": [first], "others": others}, figures, records)


def _sweep_files(folder: Path) -> list[Path]:
    """Files of sweeps, of whichever records they were made."""
    return [path for stem in SWEEP_STEMS for path in folder.glob(f"{stem}.*")]


def _figures(
    records: Sequence[Record],
    found: Sequence[Measurement],
    sweeps: Mapping[str, Sweep],
    results: Path,
) -> dict[str, bytes]:
    """File by file, those figures that the records suffice for."""
    figures = {}
    with drawn_alike():
        if blocks := figure1_blocks(records, found, results):
            figures["figure1"] = figure1(blocks)
        if whole := [m for m in found if not (m.variant or m.source or m.renamed)]:
            figures["le"] = error_figure(whole)
        if training := training_figure(records, found):
            figures["training"] = training
        figures |= {name: sweep_figure(sweep) for name, sweep in sweeps.items()}
        return {
            f"{name}.{kind}": render(figure, kind)
            for name, figure in figures.items()
            for kind in ("pdf", "png")
        }


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
