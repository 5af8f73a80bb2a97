"""Comparisons from records: which are paired, on which images, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from casm_bench.cli import main
from casm_bench.errors import UsageError, WorkError
from casm_bench.protocols import ALWAYS_REPORTED
from casm_bench.records import load_records, per_image_table, save_record
from casm_bench.report.compare import (
    compare,
    compare_with_the_papers_own,
    comparison_lines,
    write_comparisons,
)


def scores(hits: str, protocols=ALWAYS_REPORTED, groups="", names=None, label=0):
    """Per-image scores from a string of 1 and 0, the same under every protocol."""
    names = names or [f"p{i}" for i in range(len(hits))]
    rows = [
        (n, p, h, g) for p in protocols for n, h, g in zip(names, hits, groups or hits, strict=True)
    ]
    return per_image_table(
        {
            "name": [row[0] for row in rows],
            "label": [label] * len(rows),
            "group": [row[3] if groups else None for row in rows],
            "protocol": [row[1] for row in rows],
            **dict.fromkeys(("x0", "y0", "x1", "y1"), [0] * len(rows)),
            "hit": [row[2] == "1" for row in rows],
            "iou": [0.0] * len(rows),
            "f1": [0.0] * len(rows),
            "f1_mean": [0.0] * len(rows),
        }
    )


@pytest.fixture
def results(tmp_path, a_record):
    """A method that is better than another on two seeds with pictures of their own."""
    for seed in (0, 1):
        names = [f"s{seed}-{i}" for i in range(10)]
        for method, hits in (("casm", "1111111100"), ("baseline", "1100000011")):
            made = a_record(method, seed=seed, protocols=("casm", "warp"))
            save_record(made, tmp_path, scores(hits, names=names))
    return tmp_path


def test_two_methods_over_seeds(results):
    found = compare("casm", "baseline", results)
    assert [c.protocol for c in found] == ["casm", "warp"]
    first = found[0]
    assert (first.error_a, first.error_b) == pytest.approx((20, 60))
    assert first.difference.value == pytest.approx(-40)
    assert (first.difference.only_a, first.difference.only_b) == (12, 4)
    assert first.difference.n_images == 20
    p = binomtest(12, 16).pvalue
    assert first.difference.p_value == pytest.approx(p)
    assert first.p_holm == pytest.approx(2 * p)  # two protocols were looked at
    assert first.seeds == (0, 1)
    back = compare("baseline", "casm", results)[0].difference
    assert back.value == pytest.approx(40)


def test_paths_name_single_records_and_variants(results, a_record):
    variant = a_record("casm", seed=1, variant="0123abcd", protocols=("casm",))
    names = [f"s1-{i}" for i in range(10)]
    save_record(variant, results, scores("0000000011", ("casm",), names=names))
    path = str(results / "madeup" / "quick" / "baseline-seed1.json")
    (by_path,) = compare("casm:0123abcd", path, results)
    with pytest.raises(UsageError, match="there are: casm, casm:0123abcd"):
        compare("casm:n5", "baseline", results)
    assert by_path.a == "CASM, 0123abcd"
    assert by_path.difference.value == pytest.approx(20)
    (between,) = compare(str(variant.path(results)), path, results)
    assert between == by_path
    seeds = compare(str(results / "madeup/quick/casm-seed?.json"), "baseline", results)
    assert seeds[0].seeds == (0, 1)
    by_star = compare(str(results / "madeup/quick/casm-seed?.*"), "baseline", results)
    assert by_star == seeds  # tables lie beside the records


def test_records_named_one_by_one_may_differ_in_recipe(results, a_record):
    other = a_record("casm", recipe="longer", protocols=("casm",))
    names = [f"s0-{i}" for i in range(10)]
    save_record(other, results, scores("1111111111", ("casm",), names=names))
    by_path = compare(str(other.path(results)), "baseline", results)
    assert [c.difference.value for c in by_path] == pytest.approx([-60])
    usual = compare("casm", "baseline", results)  # of the one recipe that both have
    assert {c.recipe for c in usual} == {"quick"}


def test_seeds_with_pictures_of_their_own_are_paired_by_seed(results, a_record):
    grad = a_record("grad", seed=1, protocols=("casm",))
    names = [f"s1-{i}" for i in range(10)]
    save_record(grad, results, scores("1111100000", ("casm",), names=names))
    for pair in (("casm", "grad"), ("grad", "casm")):
        (found,) = compare(*pair, results)
        assert found.seeds == (1,)
        assert abs(found.difference.value) == pytest.approx(30)


@pytest.mark.parametrize("changes", [{"names": ["q0", "q1", "q2", "q3"]}, {"label": 1}])
def test_scores_of_other_images_are_refused(tmp_path, a_record, changes):
    """Though the record says that its data are the same."""
    save_record(a_record("casm"), tmp_path, scores("1100"))
    save_record(a_record("baseline"), tmp_path, scores("1100", **changes))
    with pytest.raises(WorkError, match="not scored on the same images"):
        compare("casm", "baseline", tmp_path)


def test_sources_are_compared_apart_and_together(tmp_path, a_record):
    for method, hits in (("casm", "11110000"), ("baseline", "11001100")):
        save_record(a_record(method), tmp_path, scores(hits, groups="aabbaabb"))
    found = {c.source: c for c in compare("casm", "baseline", tmp_path, protocols=["casm"])}
    assert {s: c.difference.value for s, c in found.items()} == {"": 0, "a": 50, "b": -50}
    assert found["a"].difference.n_images == 4


def test_one_record_is_compared_with_all_seeds_that_saw_its_images(tmp_path, a_record):
    same = {"data_sha256": "one set of pictures"}
    save_record(a_record("grad", provenance=same), tmp_path, scores("1000"))
    for seed, hits in enumerate(("1110", "1100")):
        save_record(a_record("casm", seed=seed, provenance=same), tmp_path, scores(hits))
    found = compare("casm", "grad", tmp_path)[0]
    assert found.seeds == (0, 1)
    assert found.difference.n_images == 4
    assert found.difference.per_seed == pytest.approx((-50, -25))


def test_a_subset_is_compared_on_the_images_both_have(tmp_path, a_record):
    save_record(a_record("casm"), tmp_path, scores("1100", ("casm",)))
    config = a_record().config | {"limit": 2}
    subset = a_record("grad", config=config, provenance={"data_sha256": "some of them"})
    save_record(subset, tmp_path, scores("01", ("casm",), names=["p1", "p2"]))
    (found,) = compare("casm", "grad", tmp_path, protocols=["casm"])
    assert found.difference.n_images == 2
    assert found.difference.value == pytest.approx(0)


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        ("casn", "baseline", {}, "Did you mean 'casm'"),
        ("casm:ffffffff", "baseline", {}, "NAME:VARIANT"),
        ("casm", "nowhere/x.json", {}, "no record at"),
        ("casm", "baseline", {"data": "shapes"}, "no record of the data set.* it has some of "),
        ("casm", "baseline", {"protocols": ["casm", "fonk"]}, r"fonk \(but under casm\)"),
        ("casm", "baseline", {"protocols": ["fong"]}, "under protocol fong. Scored"),
        ("casm", "casm", {}, "casm and casm both mean casm-seed0.json"),
    ],
)
def test_what_cannot_be_compared_is_said(results, a, b, options, words):
    with pytest.raises(UsageError, match=words):
        compare(a, b, results, **options)


def test_paths_are_taken_as_they_are_and_must_be_records(tmp_path, a_record):
    folder = tmp_path / "run [1]"
    saved = [save_record(a_record(m), folder, scores("10")) for m in ("casm", "baseline")]
    paths = [record.path(folder) for record in saved]
    assert compare(str(paths[0]), str(paths[1]), folder)
    with pytest.raises(UsageError, match=r"is no record: .* ends in \.json"):
        compare(str(paths[0]), str(paths[1].with_suffix(".parquet")), tmp_path)


def test_two_records_of_a_seed_are_ambiguous(results):
    with pytest.raises(UsageError, match="two records of seed 0"):
        compare(str(results / "madeup/quick/*.json"), "casm", results)


def test_different_pictures_under_the_same_names_are_refused(tmp_path, a_record):
    save_record(a_record("casm"), tmp_path, scores("1100"))
    config = a_record().config | {"data_options": {"size": 32}}
    other = a_record("baseline", config=config, provenance={"data_sha256": "others"})
    save_record(other, tmp_path, scores("1100"))
    with pytest.raises(WorkError, match="differently made"):
        compare("casm", "baseline", tmp_path)


def test_another_copy_of_the_data_is_refused(tmp_path, a_record):
    save_record(a_record("casm"), tmp_path, scores("1100"))
    other = a_record("baseline", provenance={"data_sha256": "others"})
    save_record(other, tmp_path, scores("1100"))
    with pytest.raises(WorkError, match="different data that bear one name"):
        compare("casm", "baseline", tmp_path)


def test_scores_that_were_edited_are_refused(results):
    next(results.glob("*/*/casm-seed0.parquet")).write_bytes(b"edited")
    with pytest.raises(WorkError, match="not the file"):
        compare("casm", "baseline", results)


def test_the_paper_compares_every_method_with_its_own(tmp_path, a_record, rows):
    records = [a_record(method) for method in ("casm", "baseline", "grad", "novel", "full")]
    records.append(a_record("casm", variant="0123abcd"))
    records.append(a_record("novel", recipe="longer"))  # which none of the paper's own has
    for record in records:
        save_record(record, tmp_path, scores("11110000" if record.method == "casm" else "11000000"))
    saved = load_records(tmp_path)
    found = compare_with_the_papers_own(saved, rows, tmp_path)
    pairs = {frozenset((c.a, c.b)) for c in found}
    assert len(found) == len(pairs) == 5  # neither the quoted rows' pair, controls nor variants
    assert frozenset(("Grad", "Novel_100%")) not in pairs
    assert {c.protocol for c in found} == {"casm"}
    assert all(c.p_holm == pytest.approx(min(1, 5 * c.difference.p_value)) for c in found)


def test_the_table_and_its_files(results, tmp_path, capsys):
    out = tmp_path / "out" / "compared.json"
    command = ["compare", "casm", "baseline", "--results", str(results), "--out", str(out)]
    assert main(command) == 0
    assert "-40.0 [" in capsys.readouterr().out
    row = json.loads(out.read_text())[0]
    assert row["difference"]["only_a"] == 12
    found = compare("casm", "baseline", results)
    write_comparisons(found, out.with_suffix(".csv"))
    lines = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [float(line["value"]) for line in lines] == pytest.approx([-40, -40])
    assert [line["seeds"] for line in lines] == ["0 1", "0 1"]
    low, high = found[0].difference.low, found[0].difference.high
    assert comparison_lines(found)[0] == {
        "data": "madeup, quick",
        "images from": "all",
        "protocol": "casm",
        "A": "CASM 20.0",
        "B": "Baseline 60.0",
        "A − B, points": f"-40.0 [{low:+.1f}, {high:+.1f}]",
        "only A / only B hit": "12 / 4",
        "p": "0.077",  # 2 · (1 + 16 + 120 + 560 + 1820) / 2¹⁶
        "p, Holm": "0.15",
        "detectable": f"{found[0].difference.detectable:.1f}",
        "images": "20",
        "seeds": "0 1",
    }
    tiny = comparison_lines([replace(found[0], p_holm=0.0)])
    assert tiny[0]["p, Holm"] == "<1e-300"
    with pytest.raises(UsageError, match="must end in"):
        write_comparisons(found, out.with_suffix(".txt"))
