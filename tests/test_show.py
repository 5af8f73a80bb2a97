"""`show`, `load` and `saliency`: what fitted methods see in any picture."""

from __future__ import annotations

import json
import subprocess
import sys
import webbrowser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import casm_bench
from casm_bench.backbones.classifier import build_classifier
from casm_bench.cli import main
from casm_bench.data.catalog import load_splits
from casm_bench.errors import UsageError
from casm_bench.methods._algorithm1 import Game
from casm_bench.pipeline.ready import View, _unique_names, draw_box, look, read_picture

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    *("recipe.classifier=test_resnet", "recipe.classifier_options={}", "recipe.batch_size=8"),
    *("pretraining.epochs=1", "pretraining.batch_size=8", "casm.epochs=1"),
    *("data.train=16", "data.held_out=2", "data.evaluated=6"),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder in which a run has trained CASM."""
    out = tmp_path_factory.mktemp("results")
    run = ["run", "--methods", "casm", "--no-controls", "--out", str(out), "--set", *TINY]
    assert main(run) == 0
    return out


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of the evaluated split, and one that is not square."""
    data = load_splits("shapes", None, seed=0, train=16, held_out=2, evaluated=6).evaluated
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"shape{number}.png")
        Image.fromarray(data.image(number)).save(paths[-1])
    paths.append(tmp_path / "wide.jpg")
    Image.fromarray(data.image(0)).resize((90, 40)).save(paths[-1])
    return paths


def show(results, out, *arguments, methods=("casm", "grad")):
    options = ["--methods", *methods, "--results", str(results), "--out", str(out)]
    return main(["show", *map(str, arguments), *options, "--set", *TINY])


def test_what_a_run_trained_is_shown_without_training(results, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Game, "step", None)  # would fail if anything trained
    out = tmp_path / "shown"
    assert show(results, out, *pictures) == 0
    assert {path.name for path in out.iterdir()} == {"boxes.json"} | {
        f"{picture}{ending}.png"
        for picture in ("shape0", "shape1", "wide")
        for ending in ("", *(f"-{m}-{k}" for m in ("casm", "grad") for k in ("overlay", "mask")))
    }
    assert read_picture(out / "wide-casm-overlay.png").shape == (40, 90, 3)
    assert read_picture(out / "wide.png").shape == (40, 5 * 90 + 4 * 8, 3)
    assert set(np.unique(read_picture(out / "shape0-casm-mask.png"))) == {0, 255}
    found = json.loads((out / "boxes.json").read_text())
    assert [(f["image"], f["method"], f["size"]) for f in found[-2:]] == [
        ("wide.jpg", "casm", [90, 40]),
        ("wide.jpg", "grad", [90, 40]),
    ]


def test_boxes_are_those_of_the_record(results, pictures, tmp_path):
    """Square pictures are their own frame, so the record's boxes are the picture's."""
    (path,) = results.glob("shapes/*/casm-*.parquet")
    rows = [row for row in pq.read_table(path).to_pylist() if row["protocol"] == "warp"]
    expected = [[row[side] for side in ("x0", "y0", "x1", "y1")] for row in rows[:2]]
    assert np.any(expected)
    assert show(results, tmp_path / "shown", *pictures[:2], methods=("casm",)) == 0
    found = json.loads((tmp_path / "shown" / "boxes.json").read_text())
    assert [f["box"] or [0, 0, 0, 0] for f in found] == expected


def test_public_names(results, pictures):
    settings = {"recipe": {"classifier": "test_resnet", "classifier_options": {}, "batch_size": 8}}
    settings |= {"pretraining": {"epochs": 1, "batch_size": 8}, "casm": {"epochs": 1}}
    settings |= {"data": {"train": 16, "held_out": 2, "evaluated": 6}}
    method = casm_bench.load("casm", out=results, settings=settings)
    map_HW = casm_bench.saliency(method, pictures[2])
    assert (map_HW.shape, map_HW.dtype) == ((40, 90), np.float32)
    assert 0 <= map_HW.min() < map_HW.max() <= 1
    assert np.array_equal(map_HW, casm_bench.saliency(method, read_picture(pictures[2])))
    with pytest.raises(UsageError, match="uint8 array H×W×3"):
        casm_bench.saliency(method, map_HW)


def test_a_weights_file_says_how_many_classes(pictures, tmp_path):
    path = tmp_path / "five.pth"
    torch.save(build_classifier("test_resnet", 5).model.state_dict(), path)
    method = casm_bench.load("grad", classifier="test_resnet", weights=str(path), out=tmp_path)
    assert method.classifier.model.num_classes == 5
    maps = [casm_bench.saliency(method, pictures[0], label) for label in (None, 0, 1)]
    assert not np.array_equal(maps[1], maps[2])  # Grad knows the class
    assert any(
        np.array_equal(maps[0], look(method, read_picture(pictures[0]), k).map_HW) for k in range(5)
    )
    with pytest.raises(UsageError, match=r"class 5 must lie in 0\.\.4"):
        casm_bench.saliency(method, pictures[0], 5)


def test_the_package_stays_light():
    code = "import sys, casm_bench; print(casm_bench.__all__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "['load', 'saliency'] False"
    with pytest.raises(AttributeError, match="no attribute 'saliencies'"):
        casm_bench.saliencies  # noqa: B018


def test_boxes_are_drawn_half_open():
    drawn = draw_box(np.full((9, 9, 3), 100, np.uint8), (2, 3, 7, 8))
    white = np.argwhere((drawn == 255).all(-1))
    assert white.min(0).tolist() == [3, 2]
    assert white.max(0).tolist() == [7, 6]
    assert np.array_equal(draw_box(drawn, None), drawn)


class HalfMethod:
    """The right half is salient, whatever the picture."""

    def maps(self, images_BCHW, labels_B):
        maps_BHW = torch.zeros(len(images_BCHW), 8, 8)
        maps_BHW[:, :, 4:] = 1.0
        return maps_BHW


def test_boxes_come_back_in_the_pictures_pixels():
    from casm_bench.methods.casm import CASM

    method = HalfMethod()
    method.facts, method.classifier = CASM.facts, build_classifier("test_resnet", 3, 32).eval()
    view = look(method, np.zeros((50, 200, 3), np.uint8), label=2)
    assert isinstance(view, View)
    assert (view.box, view.label) == ((100, 0, 200, 50), 2)
    assert view.mask_HW.shape == (50, 200)
    assert view.mask_HW[:, 100:].all() and not view.mask_HW[:, :100].any()


def test_pictures_are_shown_upright(tmp_path):
    picture = Image.fromarray(np.zeros((20, 10, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "phone.jpg", exif=exif)
    assert read_picture(tmp_path / "phone.jpg").shape == (10, 20, 3)


def test_same_names_and_opening(results, pictures, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    folder = tmp_path / "other"
    folder.mkdir()
    twin = folder / pictures[0].name
    twin.write_bytes(pictures[0].read_bytes())
    out = tmp_path / "shown"
    assert show(results, out, pictures[0], twin, "--open", methods=("casm",)) == 0
    assert opened == [(out / name).resolve().as_uri() for name in ("shape0.png", "shape0-2.png")]


def test_no_picture_is_written_over(results, pictures, capsys):
    before = pictures[0].read_bytes()
    assert show(results, pictures[0].parent, *pictures[:2], methods=("casm",)) == 2
    assert "shape0.png would replace the picture" in capsys.readouterr().err
    assert pictures[0].read_bytes() == before
    overlay = pictures[0].rename(pictures[0].with_name("wide-casm-overlay.png"))
    assert show(results, overlay.parent, pictures[2], overlay, methods=("casm",)) == 2
    assert overlay.read_bytes() == before


def test_every_picture_has_names_of_its_own():
    paths = [Path(name) for name in ("a.png", "b/a.png", "a-2.png", "a.jpg", "a-2.jpg")]
    assert _unique_names(paths) == ["a", "a-2", "a-2-2", "a-3", "a-2-3"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.png", "--methods", "casm"], 2, "There is no picture nowhere.png"),
        (["../", "--methods", "casm"], 2, ".. is a folder; name picture files"),
        (["text.png", "--methods", "casm"], 1, "text.png cannot be decoded"),
        (["wide.jpg", "--methods", "baseline"], 2, "'baseline' was not trained with these"),
        (["wide.jpg", "--methods", "baseline"], 2, "`run --methods baseline --fresh`"),
        (["wide.jpg", "--methods", "full"], 2, "makes boxes, not maps"),
        (["wide.jpg", "--methods", "cassm"], 2, "Did you mean 'casm'"),
        (["wide.jpg", "--methods", "casm", "--seed", "7"], 2, "trains its classifier"),
        (["wide.jpg", "--methods", "casm", "--seed", "7"], 2, "`run --methods casm --fresh`"),
        (["wide.jpg", "--methods", "casm", "--label", "9"], 2, "must lie in 0..7"),
        (["wide.jpg", "--methods", "casm", "--weights-from", "x"], 2, "no fitted.pt"),
    ],
)
def test_what_cannot_be_shown(
    results, pictures, tmp_path, monkeypatch, capsys, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    settings = [s for s in TINY if not s.startswith("casm.") or "casm" in arguments]
    options = ["--results", str(results), "--out", "shown", "--set", *settings]
    assert main(["show", *arguments, *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
