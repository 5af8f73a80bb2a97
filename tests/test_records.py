"""Records survive the disk unchanged, notice edits, and leave nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casm_bench import records
from casm_bench.errors import WorkError
from casm_bench.records import (
    PER_IMAGE_SCHEMA,
    Record,
    add_metrics,
    is_complete,
    load_private_pictures,
    load_record,
    load_records,
    load_showcase,
    per_image_table,
    record_key,
    record_path,
    save_private_pictures,
    save_record,
    to_json,
    write_per_image,
)

SHOWCASE = {
    "names": np.array(["a", "b"]),
    "images": np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3),
    "binary": np.eye(4, dtype=bool)[None].repeat(2, axis=0),
}


def a_record(**changes) -> Record:
    """A synthetic record: no such thing was ever measured."""
    made_up = Record(
        method="synthetic",
        title="Synthetic",
        facts={"family": "other", "published": None},
        data="nowhere",
        recipe="none",
        seed=3,
        config={"classifier": "stub", "limit": None, "alpha": 0.1},
        key="k" * 64,
        protocols={},
        metrics={"mask_mean": 1 / 3},
        provenance={"data_sha256": "d"},
        cost={"fit_seconds": 0.1, "peak_memory_mb": None},
        training=[{"epoch": 0, "loss": 0.5}],
        skipped=[{"name": "x.JPEG", "reason": "truncated"}],
    )
    return replace(made_up, **changes)


def scores(n: int = 2, **extra):
    columns = {
        "name": [f"picture-{i}" for i in range(n)],
        "label": np.arange(n),
        "group": [None] * n,
        "protocol": ["casm"] * n,
        **{side: np.arange(n, dtype=np.int64) for side in ("x0", "y0", "x1", "y1")},
        "hit": np.arange(n) % 2 == 0,
        "iou": np.linspace(0, 1, n),
        "f1": [None] * n,
        "f1_mean": [None] * n,
    }
    return per_image_table(columns | extra)


@pytest.fixture
def saved(tmp_path) -> Record:
    return save_record(a_record(), tmp_path, scores(), SHOWCASE)


# --- there and back ---------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(saved, tmp_path):
    assert load_record(tmp_path / "nowhere/none/synthetic-seed3.json") == saved
    assert load_records(tmp_path) == [saved]


def test_the_file_is_sorted_and_ends_in_a_line_break(saved, tmp_path):
    text = saved.path(tmp_path).read_text()
    content = json.loads(text)
    assert text == json.dumps(content, sort_keys=True, indent=1) + "\n"
    assert content["schema"] == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values))
def test_any_configuration_survives_its_checksum(config):
    content = json.loads(to_json(a_record(config=config)))
    assert content["config"] == config
    assert content.pop("checksum") == records._digest(content)


def test_numpy_and_not_finite_numbers_are_written_as_json_has_them():
    metrics = {"a": np.float32(0.5), "b": float("nan"), "c": np.int64(3), "d": np.array([1.5])}
    written = json.loads(to_json(a_record(metrics=metrics)), parse_constant=pytest.fail)
    assert written["metrics"] == {"a": 0.5, "b": None, "c": 3, "d": [1.5]}


@pytest.mark.parametrize(
    ("variant", "name"), [("", "casm-seed2.json"), ("0123abcd", "casm-seed2-0123abcd.json")]
)
def test_paths(variant, name):
    path = record_path(Path("results"), "shapes", "quick", "casm", 2, variant)
    assert path == Path("results/shapes/quick") / name


def test_showcases_come_back(saved, tmp_path):
    shown = load_showcase(saved, tmp_path)
    assert shown.keys() == SHOWCASE.keys()
    assert all(np.array_equal(shown[name], SHOWCASE[name]) for name in SHOWCASE)
    assert load_showcase(a_record(), tmp_path) is None


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        save_record(a_record(), tmp_path / folder, scores(), SHOWCASE)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert [file.suffix for file in files] == [".json", ".npz", ".parquet"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


# --- scores of single images ------------------------------------------------------------------


def test_per_image_scores_have_fixed_types_and_further_columns_last(saved, tmp_path):
    table = pq.read_table(saved.path(tmp_path).with_suffix(".parquet"))
    assert table.schema.equals(PER_IMAGE_SCHEMA)
    wider = scores(2, evidence_recall=[0.5, 0.75])
    assert wider.column_names == [*PER_IMAGE_SCHEMA.names, "evidence_recall"]
    assert wider["evidence_recall"].to_pylist() == [0.5, 0.75]


def test_per_image_scores_must_be_whole():
    with pytest.raises(ValueError, match="'label'"):
        per_image_table({"name": ["a"]})


def test_per_image_scores_can_be_written_alone(tmp_path):
    written = write_per_image(tmp_path / "mine.parquet", scores())
    content = (tmp_path / "mine.parquet").read_bytes()
    assert written == {"file": "mine.parquet", "sha256": hashlib.sha256(content).hexdigest()}


# --- what is not accepted ---------------------------------------------------------------------


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metrics": {"mask_mean": 0.9}}, "edited"),
        ({"checksum": "0" * 64}, "edited"),
        ({"added": 1}, "edited"),
        ({"schema": 99}, "schema 99"),
    ],
)
def test_edits_are_noticed(saved, tmp_path, change, reason):
    path = saved.path(tmp_path)
    edit(path, **change)
    with pytest.raises(WorkError, match=f"{re.escape(str(path))}.*{reason}"):
        load_records(tmp_path)
    assert not is_complete(path, saved.key)


def test_reformatting_is_no_edit(saved, tmp_path):
    edit(saved.path(tmp_path))
    assert load_record(saved.path(tmp_path)) == saved


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", "3"])
def test_what_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WorkError, match="broken.json is not a record"):
        load_record(path)


def test_a_field_too_many_is_named(tmp_path):
    content = json.loads(to_json(a_record()))
    del content["checksum"]
    content["extra"] = 1
    content["checksum"] = records._digest(content)
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(WorkError, match="other.json .* extra"):
        load_record(path)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(WorkError, match="gone.json"):
        load_record(tmp_path / "gone.json")


def test_a_copy_under_another_name_is_not_counted_twice(saved, tmp_path):
    path = saved.path(tmp_path)
    path.with_name("synthetic-seed4.json").write_bytes(path.read_bytes())
    with pytest.raises(WorkError, match="seed4.json holds the record that belongs to .*seed3"):
        load_records(tmp_path)


def test_the_cache_holds_no_records(saved, tmp_path):
    cached = tmp_path / "cache" / "shapes" / "state.json"
    cached.parent.mkdir(parents=True)
    cached.write_text("not a record")
    assert load_records(tmp_path) == [saved]


def test_an_empty_folder_has_no_records(tmp_path):
    assert load_records(tmp_path) == load_records(tmp_path / "missing") == []


# --- completeness -----------------------------------------------------------------------------


def test_a_saved_record_is_complete_for_its_key_only(saved, tmp_path):
    path = saved.path(tmp_path)
    assert is_complete(path, saved.key)
    assert not is_complete(path, "another key")
    assert not is_complete(path.with_name("synthetic-seed9.json"), saved.key)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_record_without_its_files_is_incomplete(saved, tmp_path, suffix, damage):
    damage(saved.path(tmp_path).with_suffix(suffix))
    assert not is_complete(saved.path(tmp_path), saved.key)


def test_private_pictures_stay_in_the_cache(tmp_path):
    record = a_record()
    assert load_private_pictures(record, tmp_path) is None
    save_private_pictures(record, tmp_path, SHOWCASE)
    (file,) = tmp_path.rglob("*.npz")
    assert file.relative_to(tmp_path).parts[0] == "cache"
    assert load_showcase(record, tmp_path) is None
    shown = load_private_pictures(record, tmp_path)
    assert all((shown[name] == SHOWCASE[name]).all() for name in SHOWCASE)


def test_changed_showcases_are_refused(saved, tmp_path):
    saved.path(tmp_path).with_suffix(".npz").write_bytes(b"changed")
    with pytest.raises(WorkError, match="synthetic-seed3.npz is not the file"):
        load_showcase(saved, tmp_path)


def test_every_part_of_the_identity_changes_the_key():
    identity = {
        "data": "shapes",
        "recipe": "quick",
        "method": "casm",
        "seed": 0,
        "config": {"lambda_r": 10.0},
        "data_digest": "d",
    }
    changed = [
        identity | {name: value}
        for name, value in (
            ("data", "other"),
            ("recipe", "other"),
            ("method", "other"),
            ("seed", 1),
            ("config", {"lambda_r": 10.5}),
            ("data_digest", "e"),
        )
    ]
    keys = [record_key(**one) for one in (identity, *changed)]
    assert len(set(keys)) == len(keys)
    assert keys[0] == record_key(**identity | {"config": {"lambda_r": np.float64(10)}})


# --- interruptions ----------------------------------------------------------------------------


def test_an_interruption_leaves_no_record_that_looks_complete(tmp_path, monkeypatch):
    """The JSON comes last: whatever fails before it, the run is measured again."""
    real, written = os.replace, []

    def replace_twice(source, target):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(Path(target).suffix)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_twice)
    with pytest.raises(KeyboardInterrupt):
        save_record(a_record(), tmp_path, scores(), SHOWCASE)
    assert set(written) == {".npz", ".parquet"}
    assert load_records(tmp_path) == []
    assert not is_complete(a_record().path(tmp_path), a_record().key)


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(WorkError, match=r"synthetic-seed3.*No space left"):
        save_record(a_record(), tmp_path, scores())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_unwritable_folder_is_explained(tmp_path):
    (tmp_path / "nowhere").write_text("a file where a folder should be")
    with pytest.raises(WorkError, match="nowhere"):
        save_record(a_record(), tmp_path, scores())


def test_a_family_measured_again_leaves_nothing_of_before(tmp_path):
    """Else a network's accuracy on few images would stand on beside another's on all."""
    record = save_record(a_record(), tmp_path, scores())

    def measured(network, record):
        name = f"masked_in_accuracy [{network}]"
        found = {"metrics": {name: 50.0}, "intervals": {name: [40.0, 60.0, "wilson"]}}
        added = {**found, "n_images": 9, "settings": {}, "provenance": {}}
        table = pa.table({"name": ["a"], name: [1.0]})
        return add_metrics(record, tmp_path, "masked", added, table)

    record = measured("two", measured("one", record))
    assert record.metrics == {"mask_mean": 1 / 3, "masked_in_accuracy [two]": 50.0}


def test_what_another_process_added_meanwhile_is_kept(tmp_path):
    record = save_record(a_record(), tmp_path, scores())
    for family in ("pointing", "masks"):  # both hold the record as it was when they began
        found = {"metrics": {family: 1.0}, "intervals": {family: [0.5, 1.5, "bca"]}}
        added = {**found, "n_images": 9, "settings": {}, "provenance": {}}
        table = pa.table({"name": ["a"], family: [1.0]})
        add_metrics(record, tmp_path, family, added, table)
    (after,) = load_records(tmp_path)
    assert sorted(after.added) == ["masks", "pointing"]
    assert after.metrics == {"mask_mean": 1 / 3, "masks": 1.0, "pointing": 1.0}
