"""Whole runs on tiny pictures: records, reuse, resuming, and independence of the batch."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from casm_bench import registry
from casm_bench.cache import MapCache
from casm_bench.cli import main
from casm_bench.errors import UsageError
from casm_bench.methods._algorithm1 import Game
from casm_bench.methods.masking_model import MaskPhase
from casm_bench.pipeline import Bench, Request
from casm_bench.pipeline.measurement import Measurement, changed_since
from casm_bench.records import load_records
from casm_bench.training import _Checkpoint

TINY = (
    "recipe.classifier=test_resnet",
    "recipe.classifier_options={}",
    "recipe.batch_size=8",
    "recipe.evaluation_batch_size=5",
    "pretraining.epochs=1",
    "pretraining.batch_size=8",
    "data.train=24",
    "data.held_out=2",
    "data.evaluated=12",
)
SHORT = ("casm.epochs=2", "casm.save_every=2")


def run(out: Path, *options, methods=("casm", "grad"), controls=False, settings=(*TINY, *SHORT)):
    arguments = ["run", "--methods", *methods, "--out", str(out), *options]
    arguments += [] if controls else ["--no-controls"]
    return main([*arguments, *(["--set", *settings] if settings else [])])


def measured(out):
    """What records say, without what may differ between two runs: times and machine."""
    return {
        record.method: (
            record.protocols,
            record.metrics,
            [{k: v for k, v in e.items() if k != "seconds"} for e in record.training or []],
            pq.read_table(record.path(out).parent / record.per_image["file"]).to_pylist(),
        )
        for record in load_records(out)
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("finished")
    assert run(out, "--protocols", "fong", "wsol", controls=True) == 0
    return out


def test_every_row_is_recorded_under_every_protocol(finished):
    records = {record.method: record for record in load_records(finished)}
    assert set(records) == {"casm", "grad", "center", "full", "oracle", "random"}
    for record in records.values():
        assert set(record.protocols) == {"casm", "casm-clipped", "warp", "fong", "wsol"}
        assert all(result["n_images"] == 12 for result in record.protocols.values())
        assert record.provenance["data_sha256"]
        assert record.cost["peak_memory_mb"] > 0
    assert records["oracle"].protocols["casm"]["localization_error"] == 0
    assert records["full"].protocols["casm"]["localization_error"] == 100
    assert records["casm"].protocols["wsol"]["policy"] == "oracle"
    assert records["casm"].protocols["casm"]["rule"]["kind"] == "quantile"
    assert records["grad"].protocols["casm"]["rule"] | {} == {
        "kind": "mean",
        "alpha": 5.0,
        "component": "all",
        "connectivity": 4,
        "empty": "full",
    }


def test_what_is_measured_beside_localization(finished):
    casm = next(r for r in load_records(finished) if r.method == "casm")
    for part in ("object", "spot", "body"):
        assert 0 <= casm.metrics[f"evidence_recall_{part}"] <= 100
    for name in ("evidence_precision", "masked_out_accuracy", "masked_in_accuracy"):
        assert 0 <= casm.metrics[name] <= 100
    assert 0 < casm.metrics["mask_mean"] < 1
    assert [epoch["epoch"] for epoch in casm.training] == [1, 2]
    assert {"masked_accuracy", "size_term", "confusion_term"} <= casm.training[0].keys()


def test_records_name_no_place_on_this_machine(finished):
    text = "".join(path.read_text() for path in finished.glob("*/*/*.json"))
    assert str(finished) not in text
    assert str(Path(__file__).resolve().parents[1]) not in text


def test_training_pictures_that_the_recipe_names_must_be_found(tmp_path):
    bench = Bench(Request(recipe="imagenette", out=tmp_path), 0)
    assert bench.request.trained_on == "imagenette-pack"
    with pytest.raises(UsageError, match="'imagenette' trains on 'imagenette-pack'.*--train-root"):
        _ = bench.train_digest


def test_a_classifier_that_diverged_is_not_the_methods_fault(tmp_path, capsys):
    diverging = (*TINY, "pretraining.learning_rate=1e9")
    for _ in range(2):  # also when its end is found in the cache
        assert run(tmp_path, methods=("grad",), settings=diverging) == 1
        said = capsys.readouterr().err
        assert "training of classifier 'test_resnet' diverged" in said
        assert "1e+09" in said and "Method 'grad'" not in said
    assert not load_records(tmp_path)


def test_a_second_run_takes_what_is_there(finished, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/*/*")}
    monkeypatch.setattr(Game, "step", None)  # would fail if anything trained
    assert run(finished, "--protocols", "fong", "wsol", controls=True) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/*/*")} == before
    assert "--fresh repeats it" in capsys.readouterr().err


def test_a_method_of_ones_own_that_was_changed_since_is_pointed_out(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("")
    record = SimpleNamespace(provenance={"created": "2026-01-02T03:04:05+00:00"})
    facts = dataclasses.replace(registry.get("grad").facts, source_file=str(file))
    for age, changed in ((-1, False), (1, True)):
        os.utime(file, (1767323045 + age,) * 2)  # 2026-01-02T03:04:05Z
        assert changed_since(facts, record) is changed
    assert not changed_since(dataclasses.replace(facts, source_file=""), record)  # from no file
    assert not changed_since(registry.get("grad").facts, record)


def interrupt(monkeypatch, cls, name, call):
    """Press Ctrl-C in the n-th call of cls.name."""
    original, calls = getattr(cls, name), []

    def pressed(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(cls, name, pressed)


@pytest.mark.parametrize(
    ("cls", "name", "call"), [(Game, "step", 2), (Game, "step", 5), (MapCache, "add", 2)]
)
def test_an_interrupted_run_goes_on_to_the_same_record(
    finished, tmp_path, monkeypatch, cls, name, call
):
    protocols = ("--protocols", "fong", "wsol")
    with monkeypatch.context() as patch:
        # These runs take a second; a checkpoint a minute would never be written.
        patch.setattr(_Checkpoint, "save_if_due", lambda self, *state: self.save(*state))
        interrupt(patch, cls, name, call)
        assert run(tmp_path, *protocols) == 130
    assert not list(tmp_path.glob("*/*/casm*.json"))
    assert run(tmp_path, *protocols) == 0
    expected = measured(finished)
    assert measured(tmp_path) == {name: expected[name] for name in ("casm", "grad")}


def test_neither_batch_size_nor_order_matters(finished, tmp_path):
    # The same pictures in other batches, after the same training.
    settings = [*TINY, *SHORT, "recipe.evaluation_batch_size=3"]
    assert run(tmp_path, "--protocols", "fong", "wsol", settings=settings) == 0
    expected = measured(finished)
    for method, (*_, rows) in measured(tmp_path).items():
        for row, reference in zip(rows, expected[method][-1], strict=True):
            for column, value in reference.items():
                if isinstance(value, float):
                    assert row[column] == pytest.approx(value, abs=1e-5)
                else:
                    assert row[column] == value


def test_fresh_measures_again(finished, capsys):
    protocols = ("--protocols", "fong", "wsol")
    before = measured(finished)
    assert run(finished, *protocols, "--fresh", methods=("casm",)) == 0
    assert "measuring on 12 pictures" in capsys.readouterr().err
    assert measured(finished) == before


def test_a_limit_takes_a_seeded_subset_and_says_so(tmp_path):
    assert run(tmp_path, "--limit", "5", methods=("full",), settings=TINY) == 0
    (record,) = load_records(tmp_path)
    assert record.protocols["casm"]["n_images"] == 5
    assert record.variant.startswith("n5-")


def test_two_seeds_draw_two_data_sets(tmp_path):
    assert run(tmp_path, "--seeds", "3", "4", methods=("oracle",), settings=TINY) == 0
    records = load_records(tmp_path)
    assert {record.seed for record in records} == {3, 4}
    assert len({record.provenance["data_sha256"] for record in records}) == 2


def test_another_classifier_has_the_published_grids_and_the_recipes_training():
    own, other = (Bench(Request(classifier=name), 0).recipe for name in (None, "test_resnet"))
    assert own.methods["occlusion"] == {"positions": 14}  # for 64 pixels
    assert set(own.methods) - set(other.methods) == {
        *("occlusion", "rise", "extremal-perturbation", "excitation-backprop"),
    }
    assert other.methods["casm"] == own.methods["casm"]


def test_what_differs_from_the_recipe_names_the_variant():
    assert Request().variant == ""
    assert Request(limit=7).variant == "n7"
    assert Request(recipe="imagenette", train_data="imagenette-pack").variant == ""
    assert Request(recipe="imagenette", train_data="imagenet").variant != ""
    assert Request(train_data="shapes").variant == ""  # trained on what is evaluated, as usual
    assert Request(data="imagenet", train_data="imagenet", train_root="elsewhere").variant != ""
    assert Request(data="imagenet", train_data="shapes").variant != ""
    undeciding = {"recipe": {"follow": 0, "evaluation_batch_size": 64}}
    assert Request(settings=undeciding).variant == ""
    changed = Request(settings={"casm": {"lambda_r": 5}}).variant
    assert len(changed) == 8
    assert Request(settings={"casm": {"lambda_r": 6}}).variant != changed
    assert Request(classifier="resnet18", weights="a/b.pth").recipe_name == "quick+resnet18+b"
    assert Request(classifier="resnet18", weights="scratch").recipe_name == "quick+resnet18+scratch"
    assert Request(weights="scratch").recipe_name == "quick"  # as the recipe has it
    assert Request(weights="pip").recipe_name == "quick+pip"


def test_what_was_added_later_is_in_the_key_only_where_it_differs():
    """So records from before an option existed stay valid."""

    def hyperparameters(**settings):
        bench = Bench(Request(settings={"baseline": settings}), 0)
        return bench.config_of(registry.get("baseline"))["hyperparameters"]

    assert "search_trials" not in hyperparameters(search_trials=6)
    assert hyperparameters(search_trials=5)["search_trials"] == 5
    assert hyperparameters()["update_order"] == "clean"


def test_precision_is_in_the_key_only_where_it_is_not_fp32():
    def fit(**settings):
        bench = Bench(Request(settings={"recipe": settings}), 0)
        return bench.config_of(registry.get("baseline"))["fit"]

    assert not {"precision", "compile"} & set(fit(precision="fp32"))
    assert fit(precision="bf16")["precision"] == "bf16"


def test_what_a_trained_method_is_asked_needs_no_new_training(tmp_path, monkeypatch):
    steps, original = [], MaskPhase.step
    monkeypatch.setattr(MaskPhase, "step", lambda *a: steps.append(1) or original(*a))
    short = ("selector_steps=1", "mask_steps=2", "width=8", "mask_batch_size=8")
    settings = (*TINY, *(f"masking-model.{setting}" for setting in short))
    for conf in (-9.0, 9.0):
        chosen = (*settings, f"masking-model.conf={conf}")
        assert run(tmp_path, methods=("masking-model",), settings=chosen) == 0
    low, high = sorted(load_records(tmp_path), key=lambda r: r.config["hyperparameters"]["conf"])
    assert len(steps) == 2
    assert low.training == high.training
    assert low.key != high.key
    assert low.metrics["mask_mean"] != high.metrics["mask_mean"]


def test_few_pictures_are_in_the_key_of_what_is_trained_on_them():
    def config(method, **settings):
        bench = Bench(Request(settings={"recipe": settings}), 0)
        return bench.config_of(registry.get(method))

    assert config("casm", images_per_class=10)["fit"]["images_per_class"] == 10
    assert "images_per_class" not in config("casm")["fit"]
    assert config("grad", images_per_class=10) == config("grad")
    few = Bench(Request(settings={"recipe": {"images_per_class": 3}}), 1)
    train, classes = few.splits.train, len(few.evaluated.classes)
    boxes = [b if i % 3 else b[:0] for i, b in enumerate(train.boxes)]
    few.splits = dataclasses.replace(few.splits, train=dataclasses.replace(train, boxes=boxes))
    for method, boxed in (("casm", False), ("vgg-loc", True)):
        pictures = few.pictures_to_fit(registry.get(method).facts)
        assert len(set(pictures.names)) == 3 * classes
        assert all(map(len, pictures.boxes)) == boxed
    assert few.splits.train.names == train.names  # the classifier learns from all


def test_classes_seen_in_training_are_scored_apart():
    measurement = object.__new__(Measurement)
    measurement.facts = SimpleNamespace(trained=True)
    measurement.dataset = SimpleNamespace(
        classes="abc", labels_N=np.array([0, 1, 2, 1]), groups=["left", "left", "right", "left"]
    )
    train = SimpleNamespace(classes="abc", labels_N=np.array([1, 1]))
    measurement.bench = SimpleNamespace(splits=SimpleNamespace(train=train))
    # The picture at 2 could not be read.
    scores = SimpleNamespace(hit_N=np.array([True, False, True]), index_N=np.array([0, 1, 3]))
    found = measurement._groups(scores)
    assert {name: (g["localization_error"], g["n_images"]) for name, g in found.items()} == {
        "left": (pytest.approx(100 / 3), 3),
        "classes unseen in training": (0.0, 1),
        "classes seen in training": (50.0, 2),
    }
    train.labels_N = np.array([0, 1, 2])  # all were seen: nothing to tell apart
    assert list(measurement._groups(scores)) == ["left"]


METHOD = """
from dataclasses import dataclass
import torch
from casm_bench.api import SaliencyMethod, register

@register("own", title="Own", family="other", paper="none", summary="Of one's own.",
          knows_class=False, trained=False)
@dataclass
class Own(SaliencyMethod):
    def maps(self, images_BCHW, labels_B):
        {body}
"""


def own(tmp_path, body, out):
    file = tmp_path / f"own_{abs(hash(body))}.py"
    file.write_text(METHOD.format(body=body).replace('"own"', f'"{out}"'))
    return f"{file}:Own"


def test_a_method_from_a_file(tmp_path):
    method = own(tmp_path, "return images_BCHW.abs().mean(1).clamp(0, 1)", "own-good")
    assert run(tmp_path / "out", methods=(method,), settings=TINY) == 0
    (record,) = load_records(tmp_path / "out")
    assert (record.method, record.title) == ("own-good", "Own")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return images_BCHW", "must return B×H×W"),
        ("return images_BCHW[:1, 0].abs()", "must return B×H×W"),
        ("return images_BCHW[:, 0] * float('nan')", "NaN|nan|not a number|finite"),
        ("return -torch.ones(len(images_BCHW), 4, 4)", "negative|below"),
        ("return 5 + images_BCHW[:, 0].abs()", "Scale the maps"),
        ("raise ValueError('my own mistake')", "line 11.*ValueError: my own mistake"),
        ("return None", r"gave a NoneType; maps\(\) must return a torch tensor"),
        ("return images_BCHW[:, 0].abs().numpy()", "gave a ndarray"),
    ],
)
def test_a_method_that_breaks_is_blamed(tmp_path, body, message, capsys):
    name = f"own-{abs(hash(body))}"
    assert run(tmp_path / "out", methods=(own(tmp_path, body, name),), settings=TINY) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error), error
    assert not list((tmp_path / "out").glob("*/*/*.json"))


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("own-scalar", "numpy.float64(2)", "has learned cannot be kept"),
        ("own-function", "lambda: 2", "has learned cannot be kept"),
        ("own-mistake", "1 / 0", "failed in state_dict"),
        ("own-reader", "2", "failed in load_state_dict"),
    ],
)
def test_what_cannot_be_kept_is_not_kept(tmp_path, name, state, message, capsys):
    body = f"""return images_BCHW[:, 0].abs()

    def state_dict(self):
        import numpy
        return {{"learned": {state}}}

    def load_state_dict(self, state):
        raise KeyError("weights")
"""
    file = tmp_path / "own.py"
    text = METHOD.format(body=body).replace('"own"', f'"{name}"')
    file.write_text(text.replace("trained=False", "trained=True"))
    assert run(tmp_path / "out", methods=(f"{file}:Own",), settings=TINY) == 1
    assert message in capsys.readouterr().err
    kept = list((tmp_path / "out").glob("cache/methods/*/fitted.pt"))
    assert bool(kept) == (name == "own-reader")


def test_damaged_checkpoints_are_named(finished, tmp_path, capsys):
    assert run(tmp_path, methods=("casm",)) == 0
    (fitted,) = tmp_path.glob("cache/methods/casm-*/fitted.pt")
    fitted.write_bytes(b"PK cut off")
    next(tmp_path.glob("*/*/casm*.json")).unlink()
    assert run(tmp_path, methods=("casm",)) == 1
    assert "fitted.pt" in capsys.readouterr().err


def test_an_edited_record_is_measured_again(tmp_path):
    assert run(tmp_path, methods=("full",), settings=TINY) == 0
    (path,) = tmp_path.glob("*/*/full*.json")
    content = json.loads(path.read_text())
    content["protocols"]["casm"]["localization_error"] = 1.0
    path.write_text(json.dumps(content))
    assert run(tmp_path, methods=("full",), settings=TINY) == 0
    (record,) = load_records(tmp_path)
    assert record.protocols["casm"]["localization_error"] == 100
