"""Verdicts at the edges of every rule. Records are made up; none of it was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from casm_bench.errors import WorkError
from casm_bench.records import Record
from casm_bench.report.measured import verdicts
from casm_bench.report.published import Conditions, Published, read_published
from casm_bench.report.verdicts import MARGIN, judge, verdict_line, verdicts_csv
from casm_bench.statistics import wilson

FIGURE = Published(
    row="table1/casm",
    title="CASM",
    metric="localization_error",
    value=40.0,
    unit="%",
    protocol="casm",
    images=50_000,
    source="somebody",
    note="",
    conditions=Conditions("imagenet", "resnet50.tv_in1k", "paper", "quantile, largest", "own"),
)
CONFIG = {
    "classifier": "resnet50.tv_in1k",
    "weights": "pretrained",
    "limit": None,
    "fit": {"train_data": "imagenet"},
}


@pytest.fixture
def full_run(a_record):
    """A record that agrees with FIGURE in everything, with this error."""

    def make(error: float = 40.0, n: int = 50_000, **changes) -> Record:
        record = a_record(
            "casm", data="imagenet", recipe="paper", config=CONFIG, training=[{"epoch": 1}]
        )
        record = replace(record, facts=record.facts | {"trained": True}, **changes)
        scores = {"localization_error": error, "n_images": n}
        return replace(record, protocols={name: r | scores for name, r in record.protocols.items()})

    return make


def verdict(*records, figure=FIGURE, **options):
    return judge(records, figure, same_images=True, **options)


def test_a_full_run_within_the_margin_is_reproduced(full_run):
    found = verdict(full_run(40.3))
    assert (found.word, found.reasons) == ("reproduced", ())
    assert found.difference == pytest.approx(0.3)


def test_a_full_run_outside_is_not_reproduced(full_run):
    for error in (36.0, 44.0):
        assert verdict(full_run(error)).word == "not reproduced"


def test_few_images_are_undecided_however_close(full_run):
    config = CONFIG | {"limit": 1000}
    sample = full_run(40.0, 1000, config=config, variant="n1000")
    assert verdict(sample).word == "undecided"


def test_the_edge_of_the_margin(full_run):
    """The verdict turns where the 90 % interval of 20,100 misses of 50,000 touches the margin."""
    record = full_run(40.2)
    high = 100 * wilson(20_100, 50_000, confidence=0.9)[1]
    assert verdict(record, margin=high - 40 + 1e-9).word == "reproduced"
    assert verdict(record, margin=high - 40 - 1e-9).word == "undecided"
    low = 100 * wilson(20_100, 50_000, confidence=0.9)[0]
    far = replace(FIGURE, value=low - 1)
    assert verdict(record, figure=far, margin=1 + 1e-9).word == "undecided"
    assert verdict(record, figure=far, margin=1 - 1e-9).word == "not reproduced"
    assert MARGIN == 1.0


def test_the_mean_over_seeds_is_judged(full_run):
    for spread, word in ((0.2, "reproduced"), (2, "undecided")):
        errors = (40.0 - spread, 40.0, 40.0 + spread)
        seeds = [full_run(error, seed=seed) for seed, error in enumerate(errors)]
        assert verdict(*seeds).word == word
    assert verdict(*seeds).measured == pytest.approx(40)
    mixed = [*seeds, full_run(seed=3, data="shapes")]
    assert verdict(*mixed).reasons == ("data",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": "ilsvrc-pack"}, "data"),
        ({"recipe": "quick"}, "recipe"),
        ({"recipe": "quick+resnet50.tv_in1k"}, "recipe"),
        ({"variant": "0123abcd"}, "settings"),
        ({"variant": "n1000-0123abcd"}, "settings"),
        ({"training": None}, "not trained here"),
        ({"config": CONFIG | {"imported": {"format": "official"}}}, "not trained here"),
        ({"config": CONFIG | {"classifier": "resnet18"}}, "network"),
        ({"config": CONFIG | {"weights": "trained here"}}, "network"),
        ({"config": CONFIG | {"fit": {"train_data": "shapes"}}}, "training data"),
    ],
)
def test_what_differs_is_named_and_never_reproduced(full_run, changes, reason):
    found = verdict(full_run(**changes))
    assert (found.word, found.reasons) == ("not comparable", (reason,))


def test_a_reinterpretation_is_never_reproduced(full_run):
    record = full_run()
    facts = record.facts | {"reinterpretation": True}
    assert verdict(replace(record, facts=facts)).reasons == ("reinterpretation",)


def test_another_number_of_images_is_other_data(full_run):
    assert verdict(full_run(n=48_238)).reasons == ("data",)


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (replace(FIGURE, metric="max_box_acc_v2"), "metric"),
        (replace(FIGURE, protocol="fong"), "protocol"),
        (replace(FIGURE, protocol="not known", conditions=None), "protocol"),
        (replace(FIGURE, conditions=None), "conditions not known"),
        (replace(FIGURE, conditions=replace(FIGURE.conditions, rule="mean 5, all")), "box rule"),
        (
            replace(FIGURE, conditions=replace(FIGURE.conditions, policy="oracle")),
            "threshold policy",
        ),
    ],
)
def test_figures_of_something_else(full_run, figure, reason):
    found = verdict(full_run(), figure=figure)
    assert found.word == "not comparable"
    assert reason in found.reasons
    if reason in ("metric", "protocol"):
        assert found.difference is None


def test_other_data_are_named_under_another_protocol_too(full_run):
    found = verdict(full_run(data="shapes"), figure=replace(FIGURE, protocol="fong"))
    assert found.reasons == ("protocol", "data")


def test_an_upper_bound_is_not_the_methods_own_threshold(full_run):
    record = full_run()
    protocols = record.protocols | {"casm": record.protocols["casm"] | {"policy": "oracle"}}
    assert verdict(replace(record, protocols=protocols)).reasons == ("threshold policy",)


def test_training_free_methods_need_no_training(full_run):
    config = {name: value for name, value in CONFIG.items() if name != "fit"}
    record = full_run(config=config, training=None)
    free = replace(record, facts=record.facts | {"trained": False})
    assert verdict(free).word == "reproduced"


def test_every_figure_of_a_method_gets_a_verdict(full_run, rows):
    ledger = read_published("a folder without a ledger")
    found = verdicts([full_run(36.1), full_run(36.2, seed=1)], ledger)
    assert [v.published.row for _, v in found] == ["table1/casm"]
    assert found[0][1].word == "reproduced"
    text = verdicts_csv([verdict_line(*pair) for pair in found])
    assert "table1/casm,36.1,casm,36.15,+0.05,reproduced," in text


def test_a_line_names_the_variant_and_leaves_open_what_was_not_measured(full_run):
    record = full_run(40.25)
    line = verdict_line(record, verdict(record))
    assert (line["method"], line["measured"], line["difference"]) == ("CASM", "40.25", "+0.25")
    variant = replace(full_run(variant="0123abcd"), protocols={})
    line = verdict_line(variant, verdict(variant))
    assert (line["method"], line["measured"], line["difference"]) == ("CASM, 0123abcd", "", "")


def test_conditions_in_the_ledger_are_of_rows_that_exist():
    ledger = {entry.row: entry for entry in read_published("a folder without a ledger")}
    assert ledger["table1/casm"].conditions == FIGURE.conditions
    assert ledger["table1/mask"].conditions.rule == "energy 0.95, all"
    assert ledger["fong/mask/value"].conditions.rule == "value 0.1, all"
    assert ledger["table1/aln"].conditions is None  # nobody knows how it was done
    known = [entry for entry in ledger.values() if entry.conditions]
    assert all(entry.protocol in ("casm", "fong") for entry in known)


def test_conditions_without_a_row_are_refused(tmp_path):
    (tmp_path / "published.csv").write_text(
        "row,title,metric,value,unit,protocol,images,source,note\n"
    )
    (tmp_path / "conditions.csv").write_text(
        "row,data,network,recipe,rule,policy\ntable1/casn,imagenet,x,,y,own\n"
    )
    with pytest.raises(WorkError, match="published.csv has no row table1/casn"):
        read_published(tmp_path)
