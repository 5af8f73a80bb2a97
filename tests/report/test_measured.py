"""Seeds are put together rightly, and only what may be compared stands together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from casm_bench.report.measured import Setting, in_paper_order, measurements, runs
from casm_bench.statistics import error_interval

STUB = Setting("madeup", "quick", "stub (none)")


def by_protocol(found):
    return {m.protocol: m for m in found if not m.source}


def test_seeds_with_their_own_pictures_are_pooled(a_record, rows):
    records = [a_record("casm", hits, seed=seed) for seed, hits in enumerate((60, 70, 80))]
    casm = by_protocol(measurements(records, rows))["casm"]
    assert casm.error.value == pytest.approx(30)
    assert (casm.error.low, casm.error.high) == pytest.approx(error_interval(210, 300))
    assert casm.seeds == (0, 1, 2)
    assert casm.row.value == 36.1


def test_seeds_on_the_same_pictures_are_not(a_record, rows):
    records = [
        a_record("casm", hits, seed=seed, provenance={"data_sha256": "same"})
        for seed, hits in enumerate((60, 70, 80))
    ]
    error = by_protocol(measurements(records, rows))["casm"].error
    assert (error.low, error.high) == pytest.approx(error_interval(70, 100))
    assert (error.lowest, error.highest) == pytest.approx((20, 40))


def test_protocols_come_in_the_order_of_their_declaration(a_record, rows):
    record = a_record(protocols=("wsol", "warp", "casm"))
    assert [m.protocol for m in measurements([record], rows)] == ["casm", "warp", "wsol"]


def test_sources_stand_beside_the_whole(a_record, rows):
    half = {"localization_error": 20.0, "interval": [0, 100], "n_images": 40}
    record = a_record(protocols=("casm",), groups={"web": half})
    whole, web = measurements([record], rows)
    assert (whole.source, whole.error.value, whole.error.n_images) == ("", pytest.approx(40), 100)
    assert (web.source, web.error.value, web.error.n_images) == ("web", 20.0, 40)
    assert (web.error.low, web.error.high) == pytest.approx(error_interval(32, 40))


def test_methods_on_different_classifiers_are_kept_apart(a_record):
    other = a_record("grad", config={"classifier": "other", "weights": None})
    settings = [setting for setting, _ in runs([a_record(), other])]
    assert settings == [STUB, replace(STUB, classifier="other")]


def test_controls_stand_beside_every_classifier(a_record):
    full = a_record("full", config={"classifier": None})
    other = a_record("grad", config={"classifier": "other"})
    settings = [setting.classifier for setting, same in runs([a_record(), other, full])]
    assert settings == ["stub (none)", "other", "stub (none)", "other"]
    ((alone, _),) = runs([full])
    assert alone == Setting("madeup", "quick", "")


def test_variants_are_not_mixed_with_the_recipe(a_record, rows):
    config = a_record().config | {"strategy": "L", "masker": {"smoothing": 2}, "limit": 50}
    variant = a_record(seed=0, variant="0123abcd", config=config)
    found = measurements([a_record(), variant], rows)
    changes = {m.variant: m.change for m in found}
    assert changes == {"": "", "0123abcd": "limit=50, masker.smoothing=2, strategy=L"}


def test_a_variant_without_its_recipe_is_told_by_limit_or_hash(a_record, rows):
    limited = a_record(variant="0123abcd", config={"classifier": "stub", "limit": 50})
    assert measurements([limited], rows)[0].change == "limit=50"
    changed = a_record(variant="0123abcd", config={"classifier": "stub", "limit": None})
    assert measurements([changed], rows)[0].change == "variant 0123abcd"


def test_the_papers_rows_come_first_and_controls_last(a_record, rows):
    methods = ("full", "grad", "novel", "casm", "baseline")
    ordered = in_paper_order([a_record(method) for method in methods], rows)
    assert [r.method for r in ordered] == ["baseline", "casm", "grad", "novel", "full"]
