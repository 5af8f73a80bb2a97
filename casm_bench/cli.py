"""The command line: parses and calls. Heavy imports happen inside the commands, so that `--help`
and `list` answer at once."""

from __future__ import annotations

import json
import logging
import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from . import processes
from .errors import CasmBenchError, UsageError, WorkError
from .recipes import DEFAULT_METHODS

DEFAULT_RESULTS = Path("results")
PAPER = Path("paper")


@dataclass
class Run:
    """Run saliency methods on a data set and record what they score."""

    methods: list[str] = field(default_factory=lambda: list(DEFAULT_METHODS))
    """Names from `list methods`, or path/to/file.py:Name."""
    controls: bool = True
    """Also run the control rows full, center, oracle and random, where the data allow."""
    data: str = "shapes"
    """Data set to evaluate on, see `list data`."""
    root: str | None = None
    """File or folder that holds the data set."""
    train_data: str | None = None
    """Data set to train on, if it is another one than the recipe's or the evaluated one."""
    train_root: str | None = None
    """File or folder that holds the training data set."""
    recipe: str = "quick"
    """Named settings of the whole run, see `list recipes`."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """One run per seed; a seed decides the drawn pictures, the networks and the training."""
    limit: int | None = None
    """Evaluate on this many pictures, drawn by the seed."""
    classifier: str | None = None
    """A timm name, if another one than the recipe's."""
    weights: str | None = None
    """A timm tag, a file with a state dict, pip (an installed package), or scratch."""
    weights_from: Path | None = None
    """Folder with a method fitted elsewhere (see import-casme), taken in place of training."""
    protocols: list[str] = field(default_factory=list)
    """Protocols beside casm, casm-clipped and warp, see `list protocols`; each also as
    PROTOCOL@POLICY[/RULE], such as casm@fixed:0.5 or fong@tuned/energy, see `list policies`."""
    tune_data: str | None = None
    """Data set whose boxes choose the thresholds of policy tuned, instead of the held-out split;
    rest: the pictures that --limit leaves out."""
    tune_root: str | None = None
    """File or folder that holds it."""
    tune_images: int = 5000
    """At most so many of its pictures, drawn by the seed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto takes a GPU if there is one."""
    tensorboard: Path | None = None
    """Folder for training statistics that TensorBoard shows (needs the extra `tensorboard`)."""
    out: Path = DEFAULT_RESULTS
    """Folder for records; checkpoints and maps go to its subfolder cache."""
    cache_limit_gb: float = 50.0
    """How much disk maps may take; those longest unused are removed first."""
    fresh: bool = False
    """Measure again what already has a complete record, from the first step of training."""
    set: list[str] = field(default_factory=list)
    """METHOD.FIELD=VALUE; METHOD may also be data, recipe or pretraining."""

    def __call__(self) -> None:
        from . import pipeline

        try:
            records = pipeline.run(_request(self), announce=_say)
        finally:
            processes.leave()
        if processes.is_first():
            _print_results(records, self.out)


@dataclass
class Show:
    """Draw what methods see in any picture: map, mask and box. Trains nothing."""

    images: Annotated[list[Path], tyro.conf.Positional]
    """Picture files."""
    methods: list[str] = field(default_factory=lambda: list(DEFAULT_METHODS))
    """Names from `list methods`, or path/to/file.py:Name."""
    label: int | None = None
    """Number of the class that is asked about; by default the classifier's guess."""
    recipe: str = "quick"
    """The recipe that trained methods were trained with."""
    seed: int = 0
    """The seed that they were trained with."""
    data: str = "shapes"
    """The data set that they were trained on."""
    root: str | None = None
    """File or folder that holds it."""
    classifier: str | None = None
    """A timm name, if another one than the recipe's."""
    weights: str | None = None
    """A timm tag, a file with a state dict, or pip (an installed package)."""
    weights_from: Path | None = None
    """Folder with a fitted method (see import-casme), in place of one from RESULTS/cache."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto takes a GPU if there is one."""
    results: Path = DEFAULT_RESULTS
    """The --out folder of the `run` that trained the methods."""
    out: Path = Path("shown")
    """Folder for the drawings: NAME.png, overlays, masks, and boxes.json."""
    open: bool = False
    """Show the drawings when they are done."""
    set: list[str] = field(default_factory=list)
    """METHOD.FIELD=VALUE, as in `run`."""

    def __call__(self) -> None:
        from . import pipeline
        from .settings import parse_settings

        if not self.images:
            raise UsageError("show needs picture files: show photo.jpg --methods grad …")
        same = ("recipe", "data", "root", "classifier", "weights", "weights_from", "device")
        request = pipeline.Request(
            **{name: getattr(self, name) for name in same},
            methods=tuple(self.methods),
            seeds=(self.seed,),
            out=self.results,
            settings=parse_settings(self.set),
        )
        for sheet in pipeline.show(request, self.images, self.out, self.label):
            print(sheet)
            if self.open:
                webbrowser.open(sheet.resolve().as_uri())


@dataclass
class ImportCasme:
    """Turn a checkpoint of the official CASM code into a folder for `run --weights-from`."""

    file: Annotated[Path, tyro.conf.Positional]
    """FILE.chk as the official train.py writes it; no code in it is run."""
    out: Path
    """Folder for the weights and imported.json, which says where they came from."""

    def __call__(self) -> None:
        from .pipeline import import_casme

        origin = import_casme(self.file, self.out)
        options = ", ".join(f"{name}={value}" for name, value in origin["options"].items())
        print(f"{self.out}: {self.file.name}, epoch {origin['epoch']}, {options or 'no options'}")
        print(
            f"Evaluate it with: run --methods METHOD --weights-from {self.out} --classifier "
            f"resnet50 --weights {self.file} --data imagenet --root FOLDER; METHOD is the one that "
            "the options belong to (fixed_classifier: against one classifier)."
        )


@dataclass
class Metrics(Run):
    """Add metrics to a finished run, from its cached maps; name the run by its own options."""

    families: list[str] = field(default_factory=lambda: ["all"])
    """Families from `list metrics`, or all."""
    images: int | None = None
    """Only so many images, drawn by the seed, for what is slow."""
    classifiers: list[str] = field(default_factory=list)
    """For the family masked: classifiers beside the run's own, NAME or NAME:WEIGHTS."""
    controls: bool = False
    """Also add to the control rows."""

    def __call__(self) -> None:
        from . import pipeline

        asked = (tuple(self.families), self.images, tuple(self.classifiers))
        more = pipeline.MoreRequest(_finished(self), *asked)
        records = pipeline.measure_more(more, _say)
        for record in records:
            for name, value in sorted(record.metrics.items()):
                print(f"{record.method}, seed {record.seed}: {name} {value:.4g}")


@dataclass
class Export(Run):
    """Write the maps of a finished run as .npy files; name the run by its own options."""

    to: Path = Path("maps")
    """Folder that gets METHOD-seedK/maps/<image id>.npy, and metadata as wsolevaluation's."""
    frame: Literal["crop", "warp"] = "crop"
    """Which of the run's maps: of the cropped or of the squashed pictures."""
    layout: Literal["own", "wsolevaluation"] = "own"
    """own: as the method made them; wsolevaluation: of the frame's size, scaled to [0, 1]."""
    controls: bool = False
    """Also those of control rows."""

    def __call__(self) -> None:
        from . import pipeline

        asked = pipeline.ExportRequest(_finished(self), self.to, self.frame, self.layout)
        pipeline.export_maps(asked, _say)


@dataclass
class List:
    """List what there is to choose from."""

    what: Annotated[
        Literal["methods", "data", "recipes", "protocols", "policies", "metrics"],
        tyro.conf.Positional,
    ]
    """methods, data, recipes, protocols, policies or metrics."""
    json: bool = False
    """As JSON, with every declared fact."""
    verbose: bool = False
    """A card each, with all that is declared; of methods also what was published."""

    def __call__(self) -> None:
        from . import listing

        if self.verbose and self.json:
            raise UsageError("--verbose and --json exclude each other; --json has every fact, too.")
        if self.verbose:
            print(listing.cards(self.what, DEFAULT_RESULTS))
        elif self.json:
            print(json.dumps(listing.entries(self.what), indent=1))
        else:
            print(*listing.lines(self.what), sep="\n")


@dataclass
class Score:
    """Score a folder of .npy saliency maps made by anybody, without any network."""

    maps: Path
    """Folder with <image name>.npy per picture: H×W, any resolution, float in [0, 1], of the
    cropped or the squashed picture, whichever the protocols show a network."""
    data: str
    """Data set whose boxes they are scored against, see `list data`."""
    protocols: list[str]
    """Protocols to score under, see `list protocols`."""
    out: Path
    """FILE.json for the scores; FILE.parquet beside it gets a row per image and protocol."""
    root: str | None = None
    """File or folder that holds the data set."""
    rule: str | None = None
    """Box rule instead of the protocol's: quantile, or KIND:ALPHA such as mean:5 or fixed:0.5."""
    size: int = 224
    """Side of the frame in pixels."""
    scale_free: bool = False
    """The maps' values have no scale of their own, as gradients: [0, 1] is not asked for."""
    partial: bool = False
    """Score the pictures that have a map and list those that have none."""

    def __call__(self) -> None:
        from .given import GivenMaps, score_given_maps
        from .protocols import column_title, parse_rule

        rule = None if self.rule is None else parse_rule(self.rule)
        asked = vars(self) | {"protocols": tuple(self.protocols), "rule": rule}
        result = score_given_maps(GivenMaps(**asked))
        for name, scores in result["protocols"].items():
            low, high = scores["interval"]
            error = f"LE {scores['localization_error']:.2f} % [{low:.2f}, {high:.2f}]"
            rest = f"F1 {scores['f1']:.2f} %, {scores['n_images']} images"
            print(f"{column_title(name, scores['policy'])}: {error}, {rest}")
        if result["missing"]:
            print(f"{len(result['missing'])} pictures have no map; they are listed in {self.out}.")
        if result["remark"]:
            print(result["remark"])


@dataclass
class Conformance:
    """Score built-in maps as casme, Fong & Vedaldi, wsolevaluation and TorchRay score them."""

    export: Path | None = None
    """Folder for the maps, boxes and expected values, so that other evaluators can be asked."""

    def __call__(self) -> None:
        from . import conformance

        found = conformance.checks()
        _print_table("Conformance", conformance.check_lines(found))
        if self.export is not None:
            files = conformance.export(found, self.export)
            print(f"{len(files)} files in {self.export}; README.txt says which is what.")
        wrong = sum(not check.agrees for check in found)
        if wrong:
            raise WorkError(f"{wrong} of {len(found)} checks disagree; they are marked above.")
        print(f"All {len(found)} checks agree.")


@dataclass
class ClearCache:
    """Remove the cache of runs: maps, fitted methods, trained classifiers. Records stay."""

    out: Path = DEFAULT_RESULTS
    """The folder that runs were written to."""

    def __call__(self) -> None:
        from .cache import clear

        if not self.out.is_dir():
            raise UsageError(f"--out {self.out}: there is no such folder.")
        freed = clear(self.out / "cache")
        print(f"{self.out / 'cache'}: {freed / 1e6:,.1f} MB freed")


@dataclass
class Compare:
    """Compare two methods on the same images: paired difference, exact McNemar test, Holm."""

    a: Annotated[str, tyro.conf.Positional]
    """A method, METHOD:VARIANT, or a record's path; a quoted path with * takes several seeds."""
    b: Annotated[str, tyro.conf.Positional]
    """What A is compared with, named in the same way."""
    data: str | None = None
    """Only on this data set."""
    recipe: str | None = None
    """Only under this recipe (as the records' folder is called)."""
    protocols: list[str] = field(default_factory=list)
    """Only these protocols; all that both were scored under otherwise."""
    results: Path = DEFAULT_RESULTS
    """Folder with records."""
    out: Path | None = None
    """FILE.csv or FILE.json for the comparisons, numbers unrounded."""

    def __call__(self) -> None:
        from .report import compare

        asked = {"data": self.data, "recipe": self.recipe, "protocols": self.protocols}
        found = compare.compare(self.a, self.b, self.results, **asked)
        if self.out is not None:
            compare.write_comparisons(found, self.out)
        _print_table("Paired comparison", compare.comparison_lines(found))
        print(compare.EXPLANATION)


@dataclass
class ContactSheet:
    """Draw records' pictures side by side: original, masked in, masked out, inpainted.

    Pictures that may not be passed on, such as ImageNet's, are there only on the machine that
    measured the record, in the cache.
    """

    records: Annotated[list[Path], tyro.conf.Positional]
    """Record files (.json) of the same data and seed, a block of columns each."""
    results: Path = DEFAULT_RESULTS
    """Folder that the records are in."""
    out: Path = Path("contact-sheet.png")
    """File to write; its ending says the format, png or pdf."""

    def __call__(self) -> None:
        from .files import write_atomically
        from .records import load_record
        from .report.drawing import drawn_alike, render
        from .report.figure1 import contact_sheet

        kind = self.out.suffix.lstrip(".")
        if kind not in ("png", "pdf"):
            raise UsageError(f"--out {self.out}: the file's name must end in .png or .pdf.")
        for path in self.records:
            if not path.is_file():
                raise UsageError(f"There is no record at {path}.")
        with drawn_alike():
            figure = contact_sheet([load_record(path) for path in self.records], self.results)
            write_atomically(self.out, render(figure, kind))
        print(self.out)


@dataclass
class Paper:
    """Write tables, figures and the PDF anew from the records; trains nothing."""

    results: Path = DEFAULT_RESULTS
    """Folder with records."""
    out: Path = PAPER
    """Folder whose generated/ and casm-bench.pdf are written."""
    drop_missing: bool = False
    """Go on without records that the last paper was made from and that are gone."""
    fill: list[Path] = field(default_factory=list)
    """Text files whose tables between `<!-- table: … -->` marks are made anew, too."""

    def __call__(self) -> None:
        from .report.paper import write_paper

        options = {"drop_missing": self.drop_missing, "digest_of": _data_now}
        for path in write_paper(self.results, self.out, fill=self.fill, **options):
            print(path)


@dataclass
class Report:
    """Write the page: results, methods, records and an image browser, opened from disk."""

    results: Path = DEFAULT_RESULTS
    """Folder with records."""
    out: Path = Path("report")
    """Folder for the page; index.html is its first file."""
    public: bool = False
    """Leave out pictures that may not be shared."""
    open: bool = False
    """Show the page when it is done."""

    def __call__(self) -> None:
        from .report.page import write_page

        page = write_page(self.results, self.out, self.public)
        print(page)
        if self.open:
            webbrowser.open(page.resolve().as_uri())


COMMANDS = {
    "run": Run,
    "show": Show,
    "import-casme": ImportCasme,
    "list": List,
    "metrics": Metrics,
    "export": Export,
    "score": Score,
    "compare": Compare,
    "contact-sheet": ContactSheet,
    "paper": Paper,
    "report": Report,
    "conformance": Conformance,
    "clear-cache": ClearCache,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for failed work, 2 for what cannot be done as asked.

    Errors are one paragraph on standard error; with CASM_BENCH_DEBUG set, a traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    level = logging.INFO if processes.is_first() else logging.ERROR
    logging.getLogger("casm_bench").setLevel(level)
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        command()
    except CasmBenchError as error:
        if os.environ.get("CASM_BENCH_DEBUG"):
            raise
        print(f"casm_bench: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `… | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("casm_bench: interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments mean; calling it does the work. Exits where they mean none."""
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="python -m casm_bench",
        description="A benchmark of saliency maps by localization, around CASM.",
        args=_join_repeated(arguments),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _join_repeated(arguments: Sequence[str]) -> list[str]:
    """`--set a --set b` as `--set a b`: nothing that was said is silently dropped."""
    said: dict[str, list[str]] = {}
    option = ""
    for word in arguments:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            said.setdefault(option, []).extend([value] if equals else [])
        else:
            said.setdefault(option, []).append(word)
    return [word for option, values in said.items() for word in (option, *values) if word]


def _request(run: Run) -> Any:
    """A run's request from its options, whatever options a command adds to them."""
    from .pipeline import Request
    from .settings import parse_settings

    asked = {f.name: getattr(run, f.name) for f in fields(Run) if f.name != "set"}
    asked |= {name: tuple(asked[name]) for name in ("methods", "seeds", "protocols")}
    return Request(**asked, settings=parse_settings(run.set))


def _finished(run: Run) -> Any:
    """The request of a finished run that a command is about, with its controls if asked for."""
    from .pipeline import with_controls

    request = _request(run)
    return with_controls(request) if run.controls else request


def _data_now(record: Any) -> str | None:
    """Hash of the data a record was measured on, as they are now; None where files are needed."""
    from .data.catalog import digest_now

    if record.config.get("limit"):
        return None
    return digest_now(record.data, record.seed, record.config.get("data_options") or {})


def _say(line: str) -> None:
    if processes.is_first():
        print(line, file=sys.stderr, flush=True)


def _print_results(records: list[Any], results: Path) -> None:
    from .report.cells import NO_BETTER, NO_BETTER_MEANS
    from .report.published import read_published, table1_rows
    from .report.summary import final_table

    lines = final_table(records, table1_rows(read_published(results)))
    _print_table("Localization error in %, with 95 % intervals", lines)
    if any(NO_BETTER in text for line in lines for text in line.values()):
        print(NO_BETTER_MEANS)
    for record in records:
        for skip in record.skipped or []:
            _say(f"skipped {skip['name']}: {skip['reason']}")


def _print_table(title: str, lines: Sequence[dict[str, str]]) -> None:
    """Print lines that share their columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in lines[0]:
        table.add_column(column)
    for line in lines:
        table.add_row(*line.values())
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a log is not as narrow as the terminal it might be read in
    console.print(table)
