"""Metrics and protocols added to finished runs: from the cache, without asking a network."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from casm_bench import registry
from casm_bench.backbones.classifier import Classifier
from casm_bench.backbones.pretrain import ClassifierTraining
from casm_bench.cli import main
from casm_bench.data.catalog import load_splits
from casm_bench.errors import UsageError
from casm_bench.metrics.catalog import FAMILIES, METRICS
from casm_bench.metrics.faithfulness import auc
from casm_bench.pipeline import Bench, Request
from casm_bench.pipeline.export import ExportRequest, check_frame
from casm_bench.pipeline.more import Judges, More
from casm_bench.pipeline.sanity import PermutedLabels, Randomized
from casm_bench.records import load_per_image, load_records, save_record, to_json

SETTINGS = (
    "--set",
    "recipe.classifier=test_resnet",
    "recipe.classifier_options={}",
    "recipe.batch_size=8",
    "pretraining.epochs=1",
    "pretraining.batch_size=8",
    "data.train=16",
    "data.held_out=4",
    "data.evaluated=10",
    "casm.epochs=1",
)
METHODS = ("--no-controls", "--methods", "casm", "grad", "full")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    assert main(["run", *METHODS, "--out", str(out), *SETTINGS]) == 0
    return out


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def more(out, *options, methods=METHODS):
    return main(["metrics", *methods, "--out", str(out), *options, *SETTINGS])


def refuse_networks(monkeypatch):
    def asked(*arguments, **options):
        raise AssertionError("a network was asked")

    for name in ("forward", "with_features"):
        monkeypatch.setattr(Classifier, name, asked)


def records_of(out):
    return {record.method: record for record in load_records(out)}


def test_another_protocol_asks_no_network(copied, monkeypatch):
    refuse_networks(monkeypatch)
    before = records_of(copied)
    protocols = ("--protocols", "wsol", "casm@oracle", "warp@fixed:0.2/mean,all")
    assert main(["run", *METHODS, "--out", str(copied), *protocols, *SETTINGS]) == 0
    for method, record in records_of(copied).items():
        assert len(record.protocols) == 6
        assert record.protocols["casm"] == before[method].protocols["casm"]
        assert record.metrics == before[method].metrics


def test_what_was_added_stays_when_a_protocol_is_added(copied):
    assert more(copied, "--families", "pointing", "pixels") == 0
    before = records_of(copied)["casm"]
    run = ("run", *METHODS, "--out", str(copied), "--protocols", "wsol", *SETTINGS)
    assert main([*run]) == 0
    after = records_of(copied)["casm"]
    assert (after.added, after.metrics) == (before.added, before.metrics)
    assert set(after.protocols) == {*before.protocols, "wsol"}
    assert main([*run, "--fresh"]) == 0  # its maps are new, and may be others
    assert records_of(copied)["casm"].added is None


def test_what_was_added_to_other_maps_does_not_stay(copied):
    """As where the cache is gone and another machine trains anew."""
    assert more(copied, "--families", "pointing") == 0
    record = records_of(copied)["casm"]
    table = load_per_image(record.path(copied), record)
    f1 = table.column_names.index("f1")
    other = table.set_column(f1, "f1", pc.add(table["f1"], 1e-3).cast(table.schema.field(f1).type))
    save_record(record, copied, other)
    run = ("run", *METHODS, "--out", str(copied), "--protocols", "wsol", *SETTINGS)
    assert main([*run]) == 0
    after = records_of(copied)
    assert after["casm"].added is None
    assert "pointing_game" not in after["casm"].metrics
    assert "pointing_game" in after["grad"].metrics


def test_metrics_of_maps_ask_no_network(copied, monkeypatch, capsys):
    refuse_networks(monkeypatch)
    before = records_of(copied)
    assert more(copied, "--families", "pointing", "max-box-acc", "pixels") == 0
    assert "full: no pointing, it predicts boxes without a map" in capsys.readouterr().err
    records = records_of(copied)
    for method in ("casm", "grad"):
        record = records[method]
        assert record.key == before[method].key
        assert record.protocols == before[method].protocols
        new = set(record.metrics) - set(before[method].metrics)
        assert new == {
            *("pointing_game", "pointing_game_15px", "energy_pointing"),
            *("pointing_game_15px_class_mean", "max_box_acc_v2", "pxap"),
        }
        assert all(0 <= record.metrics[name] <= 100 for name in new)
        added = record.added["pointing"]
        low, high, how = added["intervals"]["pointing_game"]
        assert (how, added["n_images"]) == ("wilson", 10)
        assert low <= record.metrics["pointing_game"] <= high
        table = pq.read_table(record.path(copied).with_name(added["per_image"]["file"]))
        mean = 100 * np.mean(table["energy_pointing"].to_numpy())
        assert record.metrics["energy_pointing"] == pytest.approx(mean)
        assert added["provenance"]["data_sha256"] == record.provenance["data_sha256"]
    assert records["full"] == before["full"]


def test_what_a_run_says_of_masks_gets_intervals_and_values_per_image(copied, monkeypatch):
    refuse_networks(monkeypatch)
    before = records_of(copied)["casm"]
    assert more(copied, "--families", "masks", methods=("--no-controls", "--methods", "casm")) == 0
    record = records_of(copied)["casm"]
    assert record.metrics == before.metrics
    added = record.added["masks"]
    table = pq.read_table(record.path(copied).with_name(added["per_image"]["file"]))
    assert {"mask_mean", "mask_entropy", "evidence_recall_object"} < set(added["intervals"])
    assert "mask_std" not in added["intervals"]
    for name, (low, high, _) in added["intervals"].items():
        assert low <= record.metrics[name] <= high
        assert record.metrics[name] == pytest.approx(np.mean(table[name].drop_null().to_numpy()))


def test_metrics_that_ask_the_classifier(copied):
    families = ("top-classes", "masked", "insertion-deletion", "saliency-metric")
    assert more(copied, "--families", *families, "--images", "4") == 0
    records = records_of(copied)
    for record in records.values():
        error = record.added["top-classes"]
        assert error["n_images"] == 4
        assert error["settings"]["images"] == 4
        top1 = record.metrics["official_metric (casm)"]
        assert top1 >= record.metrics["top5_localization_error (casm)"]
    grad = records["grad"]
    assert grad.added["masked"]["settings"]["classifiers"] == ["test_resnet"]
    for name in ("clean", "masked_in", "masked_out", "inpainted"):
        assert 0 <= grad.metrics[f"{name}_accuracy [test_resnet]"] <= 100
    assert 0 <= grad.metrics["deletion_auc"] <= 1
    assert grad.added["insertion-deletion"]["intervals"]["deletion_auc"][2] == "bca"
    assert "saliency_metric" in grad.metrics
    for name, curve in grad.added["insertion-deletion"]["curves"].items():
        assert (curve["x"][0], curve["x"][-1], len(curve["y"])) == (0, 1, len(curve["x"]))
        area = auc(np.array(curve["y"]))  # the mean of areas is the area under the mean
        assert grad.metrics[f"{name}_auc"] == pytest.approx(area)
        assert np.all(np.array(curve["low"]) <= np.array(curve["y"]))
        assert np.all(np.array(curve["y"]) <= np.array(curve["high"]))


def test_what_depends_on_nothing_learned(copied, capsys):
    """Each method's maps beside those of its copies with random weights."""
    assert more(copied, "--families", "randomized-weights", "--images", "3") == 0
    records = records_of(copied)
    layers = ["logits", "layer4", "layer3", "layer2", "layer1", "stem"]
    for method, stages in (("casm", ["masker", *layers]), ("grad", layers)):
        record = records[method]
        added = record.added["randomized-weights"]
        assert added["n_images"] == 3
        assert set(added["curves"]) == {
            f"{measure}, {order}"
            for measure in ("spearman", "ssim")
            for order in ("cascading", "independent")
        }
        for name, curve in added["curves"].items():
            assert curve["x"] == stages
            assert all(-1 <= y <= 1 + 1e-9 for y in curve["y"])
            measure, order = name.split(", ")
            if order == "cascading":
                end = record.metrics[f"randomized_weights_{measure}"]
                assert curve["y"][-1] == pytest.approx(end)
        both = (added["curves"][f"ssim, {order}"]["y"][0] for order in ("cascading", "independent"))
        assert len(set(both)) == 1  # the first group of a cascade is alone
    alone = records["casm"].added["randomized-weights"]["curves"]["spearman, independent"]
    assert alone["y"][1] == pytest.approx(1)  # a mask does not look at the logits
    assert alone["y"][0] < 0.99
    assert records["full"].added is None


def test_maps_of_networks_that_learned_permuted_labels(copied):
    asked = ("--families", "randomized-labels", "--images", "3")
    assert more(copied, *asked, methods=("--no-controls", "--methods", "casm", "grad")) == 0
    for record in (records_of(copied)[name] for name in ("casm", "grad")):
        added = record.added["randomized-labels"]
        assert 0 <= added["settings"]["training_accuracy"] <= 1
        assert -1 <= record.metrics["randomized_labels_spearman"] < 0.999
        assert "curves" not in added


def bench_of(out):
    options = {"pretraining": {"epochs": 1, "batch_size": 8}, "casm": {"epochs": 1}}
    recipe = {"classifier": "test_resnet", "classifier_options": {}, "batch_size": 8}
    data = {"train": 16, "held_out": 4, "evaluated": 10}
    return Bench(Request(out=out, settings=options | {"recipe": recipe, "data": data}), 0)


def test_nothing_drawn_anew_is_the_method_itself(copied):
    bench = bench_of(copied)
    for name in ("casm", "grad"):
        finished = More(bench, registry.get(name), 3, Judges(bench, ()))
        maps = dict(finished.cached_maps(finished.frame))
        subject = Randomized(finished)
        for index, map_HW in finished.maps_by(subject.method([]), sorted(maps)):
            np.testing.assert_allclose(map_HW, maps[index], rtol=1e-4, atol=1e-6)
        everything = subject.method(subject.stages)
        states = (everything.classifier.state_dict(), subject.fresh.state_dict())
        assert all(
            torch.equal(own, fresh) for own, fresh in zip(*map(dict.values, states), strict=True)
        )
        assert finished.fitted().classifier is not everything.classifier


def test_permuted_labels_are_those_of_other_pictures(tmp_path):
    bench = bench_of(tmp_path)
    usual, permuted = bench.splits.train, PermutedLabels(bench).splits.train
    assert len(permuted) == len(usual) == 16
    assert len(set(permuted.names)) == 4  # a quarter, over and over
    few = usual.subset([usual.names.index(name) for name in permuted.names])
    assert sorted(permuted.labels_N) == sorted(few.labels_N)
    assert PermutedLabels(bench).splits.train.digest() == permuted.digest() != few.digest()
    again = dict(zip(permuted.names, permuted.labels_N, strict=True))
    assert [again[name] for name in permuted.names] == permuted.labels_N.tolist()


def test_pretrained_networks_cannot_learn_other_labels(tmp_path):
    request = Request(out=tmp_path, settings={"data": {"train": 2, "evaluated": 2}})
    bench = Bench(replace(request, classifier="test_resnet", weights="pip"), 0)
    finished = More.__new__(More)
    finished.bench, finished.cls = bench, registry.get("grad")
    assert "not trained here" in finished._inapplicable("randomized-labels")


def test_the_classifier_that_learned_with_the_masker_is_asked_too(copied):
    """Its top-1 of the ten evaluated pictures, from the weights that training left."""
    assert more(copied, "--families", "masked") == 0
    casm, grad = (records_of(copied)[name] for name in ("casm", "grad"))
    assert grad.added["masked"]["settings"]["classifiers"] == ["test_resnet"]
    names = ["test_resnet", "test_resnet, trained along"]
    assert casm.added["masked"]["settings"]["classifiers"] == names

    bench = bench_of(copied)
    (kept,) = copied.glob("cache/methods/**/fitted.pt")
    learned = copy.deepcopy(bench.classifier)
    learned.load_state_dict(torch.load(kept)["state"]["classifier"])
    data = bench.evaluated
    pictures_NHW3 = np.stack([data.frame_image(i, "crop", 64) for i in range(len(data))])
    with torch.no_grad():
        images_NCHW = learned.normalize(torch.from_numpy(pictures_NHW3).movedim(-1, 1))
        top_N = learned.eval()(images_NCHW).argmax(1).numpy()
    right = 100 * (top_N == data.labels_N).mean()
    assert casm.metrics[f"clean_accuracy [{names[1]}]"] == pytest.approx(right)


def test_top_classes_agree_with_the_runs_own_clean_accuracy(copied):
    assert more(copied, "--families", "top-classes", "masked") == 0
    grad = records_of(copied)["grad"]
    assert grad.metrics["clean_accuracy [test_resnet]"] == pytest.approx(
        grad.metrics["clean_accuracy"]
    )
    for kind in ("masked_in", "masked_out"):
        assert grad.metrics[f"{kind}_accuracy [test_resnet]"] == pytest.approx(
            grad.metrics[f"{kind}_accuracy"], abs=10.1
        )  # one of ten pictures may differ: its masked pixels are rounded to bytes


def export(out, to, *options):
    return main(["export", *METHODS, "--out", str(out), "--to", str(to), *options, *SETTINGS])


def score(folder, *options, size=64):
    where = ("--maps", str(folder / "maps"), "--root", str(folder / "metadata"))
    out = ("--out", str(folder / "scores.json"), "--size", str(size))
    assert main(["score", "--data", "wsol-metadata", *where, *out, *options]) == 0
    return json.loads((folder / "scores.json").read_text())["protocols"]


def test_exported_maps_score_as_the_run_did(copied, tmp_path, monkeypatch):
    refuse_networks(monkeypatch)
    assert export(copied, tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"casm-seed0", "grad-seed0"}
    records = records_of(copied)
    options = {"casm": (), "grad": ("--scale-free", "--rule", "mean:5")}
    for method, how in options.items():
        found = score(tmp_path / f"{method}-seed0", *how, "--protocols", "casm")["casm"]
        recorded = records[method].protocols["casm"]
        for name in ("localization_error", "f1", "f1_mean", "interval", "n_images"):
            assert found[name] == pytest.approx(recorded[name])


def test_maps_come_out_as_they_are_in_the_cache(copied, tmp_path):
    assert export(copied, tmp_path) == 0
    bench = bench_of(copied)
    finished = More(bench, registry.get("casm"), None, Judges(bench, ()))
    for index, map_HW in finished.cached_maps("crop"):
        path = tmp_path / "casm-seed0" / "maps" / f"{bench.evaluated.names[index]}.npy"
        np.testing.assert_array_equal(np.load(path), map_HW)
    again = load_splits("wsol-metadata", str(tmp_path / "casm-seed0" / "metadata")).evaluated
    assert again.names == list(bench.evaluated.names)
    for own, read in zip(bench.evaluated.boxes, again.boxes, strict=True):
        np.testing.assert_array_equal(own, read)


def test_maps_for_wsolevaluation_fill_the_frame_and_the_range(copied, tmp_path):
    assert export(copied, tmp_path, "--layout", "wsolevaluation", "--frame", "warp") == 0
    paths = list((tmp_path / "casm-seed0" / "maps").rglob("*.npy"))
    assert len(paths) == 10
    for path in paths:
        map_HW = np.load(path)
        assert map_HW.shape == (64, 64)
        assert (map_HW.min(), map_HW.max()) == (0, 1)


def test_maps_of_cropped_pictures_are_none_for_wsolevaluation():
    asked = ExportRequest(Request(), Path("maps"), frame="crop", layout="wsolevaluation")
    check_frame(asked, frames_agree=True)
    check_frame(replace(asked, frame="warp"), frames_agree=False)
    with pytest.raises(UsageError, match="needs --frame warp"):
        check_frame(asked, frames_agree=False)


def test_box_methods_have_no_maps_to_export(copied, tmp_path, capsys):
    asked = ("--methods", "full", "--out", str(copied), "--to", str(tmp_path))
    assert main(["export", *asked, *SETTINGS]) == 2
    assert "None of these methods makes maps" in capsys.readouterr().err


def test_what_was_not_run_gets_no_metrics(copied, capsys):
    assert more(copied, "--seeds", "7", "--families", "pointing") == 1
    assert "run it first, with the same options" in capsys.readouterr().err
    assert more(copied, "--families", "pointning") == 2
    assert "Known are: all, masks, pointing" in capsys.readouterr().err


COMMANDS = {"metrics": ("--families", "pointing"), "export": ("--to", "unused")}


@pytest.fixture(params=COMMANDS)
def look_at(request, tmp_path, monkeypatch):
    """`metrics` or `export`, of Grad, where nothing may be trained."""

    def trained(*arguments):
        raise AssertionError("a classifier was trained")

    monkeypatch.setattr(ClassifierTraining, "step", trained)
    monkeypatch.chdir(tmp_path)  # where maps would go

    def call(out, *options):
        asked = ("--no-controls", "--methods", "grad", "--out", str(out), *options)
        return main([request.param, *asked, *COMMANDS[request.param], *SETTINGS])

    return call


def test_of_two_records_with_the_same_settings_the_runs_own_is_taken(copied, capsys):
    own = records_of(copied)["grad"]
    twins = [replace(own, variant=variant) for variant in ("0" * 8, "1" * 8)]
    for twin in twins:
        write_twin(twin, own, copied)
    asked = ("--families", "masks")
    grad = ("--no-controls", "--methods", "grad")
    assert more(copied, *asked, methods=grad) == 0
    assert {r.variant for r in load_records(copied) if r.added} == {own.variant}
    own.path(copied).unlink()
    capsys.readouterr()
    assert more(copied, *asked, methods=grad) == 1
    said = capsys.readouterr().err
    assert all(str(twin.path(copied)) in said for twin in twins)
    twins[0].path(copied).unlink()
    assert more(copied, *asked, methods=grad) == 0  # the only one left


def write_twin(twin, own, out):
    shutil.copy(own.path(out).with_suffix(".parquet"), twin.path(out).with_suffix(".parquet"))
    shutil.copy(own.path(out).with_suffix(".npz"), twin.path(out).with_suffix(".npz"))
    twin.path(out).write_text(to_json(twin))


def test_without_a_run_nothing_is_trained(look_at, tmp_path, capsys):
    assert look_at(tmp_path / "nothing") == 1
    assert "no record of 'grad' with seed 0" in capsys.readouterr().err
    assert not (tmp_path / "unused").exists()


def test_a_classifier_that_is_gone_is_not_trained_anew(look_at, copied, capsys):
    shutil.rmtree(copied / "cache")
    before = records_of(copied)
    assert look_at(copied) == 1
    said = capsys.readouterr().err
    assert "grad-seed0" in said and "is not in" in said and "`run --fresh`" in said
    assert records_of(copied) == before


def test_another_classifiers_maps_are_not_taken_for_the_records(look_at, copied, capsys):
    """A cache that a later run filled, beside a record that was measured elsewhere."""
    record = records_of(copied)["grad"]
    elsewhere = replace(record, provenance=record.provenance | {"classifier_sha256": "0" * 64})
    record.path(copied).write_text(to_json(elsewhere))
    assert look_at(copied) == 1
    said = capsys.readouterr().err
    assert f"{record.path(copied)} was measured with another classifier (SHA-256 00000000…)" in said
    assert "`run --fresh`" in said
    assert records_of(copied)["grad"] == elsewhere


def test_looking_at_a_run_afresh_is_refused(look_at, copied, capsys):
    assert look_at(copied, "--fresh") == 2
    assert list(copied.rglob("training.pt"))  # `--fresh` would have begun by removing it


def test_a_cleared_cache_is_only_a_loss_where_something_was_trained(copied, capsys):
    shutil.rmtree(copied / "cache" / "methods")
    grad, casm = (("--no-controls", "--methods", name) for name in ("grad", "casm"))
    assert more(copied, "--families", "pointing", methods=grad) == 0
    assert more(copied, "--families", "pointing", methods=casm) == 1
    assert "repeat the run with --fresh" in capsys.readouterr().err


def test_every_family_is_described():
    assert {metric.family for metric in METRICS.values()} == {"run", *FAMILIES}
    assert all(metric.summary and metric.source and metric.unit for metric in METRICS.values())
