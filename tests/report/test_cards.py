"""Cards of methods: complete, true to the declarations, and in the paper's folder."""

import json
from pathlib import Path

import pytest

from casm_bench import registry
from casm_bench.cli import main
from casm_bench.report.cards import card, cards_as_markdown, cards_as_text, published_for
from casm_bench.report.published import read_published

ROOT = Path(__file__).resolve().parents[2]
IN_FOLDER = sorted(
    facts.name
    for facts in registry.all_facts()
    if Path(facts.source_file).parent == ROOT / "methods"
)


@pytest.fixture(scope="module")
def ledger():
    return read_published(ROOT / "results")


@pytest.mark.parametrize("name", registry.names())
def test_every_method_has_a_card(name, ledger):
    found = card(registry.get(name), ledger)
    for heading in ("says", "family", "paper", "cost per image", "classifier", "box rule"):
        assert found[heading].strip(), heading
    assert str(ROOT) not in " ".join(found.values())


def test_a_card_by_hand(ledger):
    found = card(registry.get("grad-cam"), ledger)
    assert found["learns from images"] == "no"
    assert found["is told the true class"] == "yes"
    assert found["is given true boxes"] == "never"
    assert found["classifier"] == "not for a classifier that has no such map"
    assert found["box rule"] == "value 0.35, all; maps enlarged bilinearly"
    assert found["hyperparameters"] == "none"
    assert "53.03 % localization error (fong; Fong & Vedaldi 2017" in found["published"]
    assert "VGG16: 55.82 % top1 localization error" in found["published"]
    assert found["file"] == "methods/grad_cam.py"
    assert "reinterpretation" not in found


def test_what_is_unusual_is_said(ledger):
    assert "reinterpretation" in card(registry.get("aln"), ledger)
    assert "supervised" in card(registry.get("vgg-loc"), ledger)["is given true boxes"]
    assert "bound" in card(registry.get("oracle"), ledger)["is given true boxes"]
    assert "[captum]" in card(registry.get("input-x-gradient"), ledger)["needs"]
    assert card(registry.get("cam"), ledger)["classifier"].startswith("only if logits are")
    settings = card(registry.get("mask"), ledger)["hyperparameters"]
    assert "iterations = 300" in settings
    assert "seed" not in settings


def test_figures_are_found_by_title_and_by_row(ledger):
    titles = {entry.title for entry in published_for(registry.get("cam").facts, ledger)}
    assert titles == {"CAM", "CAM, VGG16", "CAM, InceptionV3"}
    rows = {entry.row for entry in published_for(registry.get("vgg-loc").facts, ledger)}
    assert "table1/vgg-supervised" in rows


def test_markdown_holds_every_method_of_the_folder(ledger):
    text = cards_as_markdown(ledger)
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == IN_FOLDER
    assert text == cards_as_markdown(ledger)


def test_the_papers_folder_knows_every_method():
    text = (ROOT / "paper/generated/methods.md").read_text()
    absent = [name for name in IN_FOLDER if f"\n## {name}\n" not in text]
    assert not absent, "run `python -m casm_bench paper` and commit what it writes"


def test_list_prints_them(capsys):
    assert main(["list", "methods", "--verbose"]) == 0
    printed = capsys.readouterr().out
    for name in registry.names():
        assert f"{name}: {registry.get(name).facts.title}\n" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_text_and_json_agree_on_who_there_is(capsys, ledger):
    main(["list", "methods", "--json"])
    listed = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    blocks = cards_as_text(ledger).split("\n\n")
    assert {block.partition(":")[0] for block in blocks} == listed
