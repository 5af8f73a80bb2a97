"""Policy tuned: thresholds from held-out pictures, never from one that is evaluated."""

from __future__ import annotations

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from casm_bench.cli import main
from casm_bench.records import load_records

TINY = (
    "recipe.classifier=test_resnet",
    "recipe.classifier_options={}",
    "pretraining.epochs=1",
    "pretraining.batch_size=8",
    "data.train=16",
    "data.held_out=6",
    "data.evaluated=8",
)


def run(out, *options, methods=("grad",)):
    command = ["run", "--no-controls", "--methods", *methods, "--out", str(out), *options]
    return main(command)


def test_the_record_says_on_what_the_threshold_was_tuned(tmp_path):
    protocols = ("--protocols", "casm@tuned", "casm@oracle/mean,all", "casm@fixed:0.25")
    assert run(tmp_path, *protocols, "--set", *TINY, methods=("grad", "full")) == 0
    grad, full = sorted(load_records(tmp_path), key=lambda record: record.method, reverse=True)
    tuned = grad.protocols["casm@tuned"]
    assert (tuned["policy"], tuned["tuned_on"]) == ("tuned", "shapes held-out")
    assert tuned["tuned_images"] == 6
    assert tuned["rule"]["kind"] == "value"
    assert 0 <= tuned["rule"]["alpha"] < 1
    assert 0 <= tuned["tuned_error"] <= 100
    oracle = grad.protocols["casm@oracle/mean,all"]
    assert (oracle["policy"], oracle["rule"]["kind"]) == ("oracle", "mean")
    assert "evaluated pictures" in oracle["tuned_on"]
    fixed = grad.protocols["casm@fixed:0.25"]
    assert (fixed["policy"], fixed["rule"]["alpha"], fixed["tuned_on"]) == ("fixed", 0.25, None)
    assert grad.config["tuning"]["on"] == "shapes held-out"
    assert full.protocols["casm@tuned"]["policy"] == "own"  # a box has no threshold
    assert "tuning" not in full.config


def test_the_rest_of_a_limited_run_can_tune(tmp_path):
    options = ("--limit", "5", "--tune-data", "rest", "--protocols", "casm@tuned")
    assert run(tmp_path, *options, "--set", *TINY) == 0
    (record,) = load_records(tmp_path)
    tuned = record.protocols["casm@tuned"]
    assert (tuned["tuned_on"], tuned["tuned_images"]) == (
        *("shapes evaluated, what --limit leaves out", 3),
    )


def jpeg(grey: int) -> bytes:
    buffer = io.BytesIO()
    picture = np.full((32, 32, 3), grey, np.uint8)
    picture[8:24, 8:24] = 255 - grey
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def pack(path, names, greys):
    rows = [
        {
            "source": "made-up",
            "name": f"{name}.JPEG",
            "wnid": "n01440764",
            "label": 0,
            "orig_width": 32,
            "orig_height": 32,
            "width": 32,
            "height": 32,
            "boxes_orig": [[8, 8, 24, 24]],
            "boxes": [[8, 8, 24, 24]],
            "jpeg": jpeg(grey),
        }
        for name, grey in zip(names, greys, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


LITE = ("--classifier", "tf_efficientnet_lite0", "--weights", "pip")  # never loaded


@pytest.mark.parametrize(
    ("names", "greys", "words"),
    [
        (["a", "b"], [10, 20], "also evaluated, the first as a.JPEG and here as a.JPEG"),
        (["z", "y"], [90, 20], "1 pictures .* the first as b.JPEG and here as y.JPEG"),
    ],
)
def test_evaluated_pictures_do_not_tune_under_any_name(tmp_path, capsys, names, greys, words):
    evaluated = pack(tmp_path / "evaluated.parquet", ["a", "b"], [10, 20])
    other = pack(tmp_path / "other.parquet", names, greys)
    options = ("--data", "ilsvrc-pack", "--root", evaluated, "--protocols", "casm@tuned")
    options += ("--tune-data", "ilsvrc-pack", "--tune-root", other)
    assert run(tmp_path / "out", *options, *LITE) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not load_records(tmp_path / "out")


def test_without_boxes_nothing_is_tuned(tmp_path, capsys):
    evaluated = pack(tmp_path / "evaluated.parquet", ["a", "b"], [10, 20])
    options = ("--data", "ilsvrc-pack", "--root", evaluated, "--protocols", "casm@tuned")
    assert run(tmp_path, *options, *LITE) == 2
    assert "--tune-data NAME --tune-root PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tune-data", "rest"], "--tune-data rest: no protocol is tuned"),
        (["--tune-data", "shapes", "--protocols", "casm@oracle"], "no protocol is tuned"),
        (["--tune-root", "x", "--protocols", "casm@tuned"], "name that data set"),
        (["--tune-images", "0", "--protocols", "casm@tuned"], "--tune-images 0: must be at least"),
        (
            ["--tune-data", "ilsvrc-pack", "--tune-root", "x", "--protocols", "casm@tuned"],
            "--tune-root x does not exist",
        ),
        (["--tune-data", "ilsvrc-pack", "--protocols", "casm@tuned"], "needs --tune-root:"),
        (["--train-data", "shapes", "--train-root", "x"], "drop --train-root"),
    ],
)
def test_the_option_at_fault_is_named(tmp_path, capsys, options, words):
    assert run(tmp_path, *options, "--set", *TINY) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("cache/classifiers/*"))
