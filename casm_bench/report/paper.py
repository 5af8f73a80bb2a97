"""`make paper`: everything in the paper that depends on measurements, made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UsageError, WorkError
from ..files import write_atomically
from ..records import Record, load_records, read_remarks
from .cards import cards_as_markdown
from .compare import (
    EXPLANATION,
    compare_with_the_papers_own,
    comparison_lines,
    comparisons_csv,
)
from .drawing import drawn_alike, render
from .gallery import PER_SETTING, Drawn, draw_all
from .latex import to_latex
from .long_csv import to_csv
from .marked import with_tables
from .measured import in_paper_order, measurements, verdicts
from .measures import metric_tables
from .pdf import to_pdf
from .published import LEDGER, Published, read_published, table1_rows
from .sound import LISTED, DigestOf, check_records, list_of
from .sweep import (
    NAMES,
    equal_area_table,
    find_sweeps,
    sweep_csv,
    sweep_table,
)
from .table import Table, plain_table, to_markdown
from .table1 import make_tables
from .verdicts import CAPTION, verdict_line, verdicts_csv

GENERATED = "generated"
PDF = "casm-bench.pdf"
OURS = (  # stems of what may lie in the folder, and goes when records no longer suffice for it
    *("figure1", "training", "le", "verdicts", "comparisons", "table2", "sweep-*"),
    *(name for name, _ in NAMES.values()),
    *(f"{family}-*" for family in PER_SETTING),
)
KINDS = ("pdf", "png", "md", "csv", "tex")


def write_paper(
    results: Path,
    paper: Path,
    *,
    drop_missing: bool = False,
    digest_of: DigestOf | None = None,
    fill: Sequence[Path] = (),
) -> list[Path]:
    """Regenerate `<paper>/generated` and the PDF from the records; train and measure nothing.

    Returns the files that belong there now. Files whose content has not changed are not touched;
    a figure or table for which records no longer suffice is removed rather than left to mislead.
    `drop_missing`: do without records that the last paper was made from and that are gone.
    `digest_of`: hash of the data that a record was measured on, as they are now, or None.
    `fill`: texts whose marked tables are made anew, see `report.marked`.
    Raises WorkError when there is no record, when one is missing, stale or was edited, or when
    writing fails; then nothing is written.
    """
    results, folder = Path(results), Path(paper) / GENERATED
    records = _sound_records(results, folder / LISTED if not drop_missing else Path(), digest_of)
    content, pdf = _contents(records, results)
    texts = {text: _filled(text, records, _rows(results)) for text in fill}
    for path in {path for stem in OURS for path in folder.glob(f"{stem}.*")}:
        if path.name not in content and path.suffix.lstrip(".") in KINDS:
            path.unlink()
    for name, new in content.items():
        _write_if_changed(folder / name, new)
    _write_if_changed(Path(paper) / PDF, pdf)
    for text, new in texts.items():
        _write_if_changed(text, new.encode())
    return [*(folder / name for name in content), Path(paper) / PDF, *texts]


def _filled(path: Path, records: Sequence[Record], rows: Mapping[str, Published]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--fill {path} cannot be read: {error}.") from None
    return with_tables(text, in_paper_order(records, rows), rows)


def _rows(results: Path) -> dict[str, Published]:
    rows = table1_rows(read_published(results))
    if not rows:
        raise WorkError(f"{results / LEDGER} is missing or lacks the rows of the paper's Table 1.")
    return rows


def _sound_records(results: Path, listed: Path, digest_of: DigestOf | None) -> list[Record]:
    records = load_records(results)
    if not records:
        raise WorkError(
            f"There are no records in {results}: measure something first, for instance with "
            "`python -m casm_bench run`, or name the folder that holds the records."
        )
    check_records(records, results, listed, digest_of)
    return records


def _contents(records: Sequence[Record], results: Path) -> tuple[dict[str, bytes], bytes]:
    """Generated files by name, and the PDF."""
    ledger, rows = read_published(results), _rows(results)
    records = in_paper_order(records, rows)
    sweeps = {sweep.name: sweep for sweep in find_sweeps(records)}
    swept = {id(record) for sweep in sweeps.values() for record in sweep.records()}
    kept = [record for record in records if not record.variant or id(record) not in swept]
    tables = {"table1": make_tables(kept, rows, read_remarks(results))}
    texts = {"table1.tex": to_latex(tables["table1"]), "table1.csv": to_csv(records, rows)}
    texts[LISTED] = list_of(records, results)
    if metrics := metric_tables(kept):
        tables["table2"] = metrics
        texts["table2.tex"] = to_latex(metrics)
    if judged := verdicts(kept, ledger):
        lines = [verdict_line(*found) for found in judged]
        tables["verdicts"] = [plain_table("verdicts", CAPTION, lines)]
        texts["verdicts.csv"] = verdicts_csv(lines)
    if compared := compare_with_the_papers_own(kept, rows, results):
        lines = comparison_lines(compared)
        tables["comparisons"] = [plain_table("comparisons", EXPLANATION, lines)]
        texts["comparisons.csv"] = comparisons_csv(compared)
    measured = measurements(records, rows)
    for name, sweep in sweeps.items():
        found = (sweep_table(sweep, measured), equal_area_table(sweep))
        tables[name] = [table for table in found if table]
        texts[f"{name}.csv"] = sweep_csv(sweep)
    texts |= {f"{name}.md": to_markdown(found) for name, found in tables.items()}
    texts["methods.md"] = cards_as_markdown(ledger)
    with drawn_alike():
        drawn = draw_all(records, measured, sweeps, results)
        figures = {
            f"{name}.{kind}": render(one.figure, kind)
            for name, one in drawn.items()
            for kind in ("pdf", "png")
        }
    files = {name: text.encode() for name, text in texts.items()} | figures
    return files, _pdf(tables, drawn, figures, records)


def _pdf(
    tables: Mapping[str, Sequence[Table]],
    drawn: Mapping[str, Drawn],
    files: Mapping[str, bytes],
    records: Sequence[Record],
) -> bytes:
    """The PDF, in which what stands beside Table 1 comes last, and Table 2 would be too long."""
    first, *others = tables["table1"]
    figures = {name: (files[f"{name}.pdf"], one.caption) for name, one in drawn.items()}
    shown = {name: found for name, found in tables.items() if name != "table2"}
    return to_pdf(shown | {"table1": [first], "others": others}, figures, records)


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
