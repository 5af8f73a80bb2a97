"""The conformance suite: it agrees, it notices what does not, and others can use its files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from casm_bench import conformance
from casm_bench.cli import main
from casm_bench.conformance.checks import NOTATIONS, Check
from casm_bench.conformance.maps import MAPS


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance")
    assert main(["conformance", "--export", str(folder)]) == 0
    return folder


def test_every_convention_is_asked_and_agrees():
    found = conformance.checks()
    assert {check.convention for check in found} == set(NOTATIONS)
    assert [check for check in found if not check.agrees] == []


def test_a_mismatch_ends_with_1_and_is_marked(monkeypatch, capsys):
    first, *others = conformance.checks()
    wrong = replace(first, expected=first.expected + 1)
    monkeypatch.setattr(conformance, "checks", lambda: [wrong, *others])
    assert main(["conformance"]) == 1
    said = capsys.readouterr()
    assert "MISMATCH" in said.out
    assert f"1 of {len(others) + 1} checks disagree" in said.err


@pytest.mark.parametrize(
    ("expected", "obtained", "agrees"),
    [
        (0.5, 0.5 + 9e-7, True),
        (0.5, 0.5 + 2e-6, False),
        ((1, 2, 3, 4), (1, 2, 3, 4), True),
        ((1, 2, 3, 4), (1, 2, 3, 5), False),
        (None, None, True),
        (None, (0, 0, 0, 0), False),
    ],
)
def test_numbers_may_be_rounded_and_boxes_must_be_equal(expected, obtained, agrees):
    assert Check("c", "m", "asked", {}, expected, obtained).agrees is agrees


def test_the_export_is_complete(exported):
    content = json.loads((exported / "expected.json").read_text())
    assert content["notations"] == NOTATIONS
    assert len(content["checks"]) == len(conformance.checks())
    maps = {name for check in content["checks"] for name in check["map"].split("+") if name}
    assert maps == set(MAPS)
    for name, map_HW in MAPS.items():
        np.testing.assert_array_equal(np.load(exported / "maps" / f"{name}.npy"), map_HW)
    with (exported / "expected.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["checks"])
    assert "obtained" not in rows[0]


def casme_box(map_HW):
    """The official scorer's steps, as anybody would write them: y0, x0, y1, x1."""
    mean = map_HW.mean(dtype=np.float64)
    rank = 1 + int((map_HW.size - 1) * (1 - mean) + 0.5)
    threshold = np.clip(np.sort(map_HW, axis=None)[rank - 1], 1e-6, 1 - 1e-6)
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(
        (map_HW > threshold).astype(np.uint8), connectivity=4
    )
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return None
    largest = [label + 1 for label, area in enumerate(areas) if area == areas.max()]
    first = min(largest, key=lambda label: int(np.flatnonzero(labels_HW.ravel() == label)[0]))
    rows, columns = np.nonzero(labels_HW == first)
    return [rows.min(), columns.min(), rows.max(), columns.max()]


def test_somebody_elses_casme_scorer_passes_on_the_exported_files(exported):
    checks = json.loads((exported / "expected.json").read_text())["checks"]
    asked = [c for c in checks if c["convention"] == "casme" and c["asked"] == "box"]
    assert len(asked) == 10
    for check in asked:
        map_HW = np.load(exported / "maps" / f"{check['map']}.npy")
        assert casme_box(map_HW) == check["expected"]


def wsol_box(map_HW, threshold):
    """The source's steps, as anybody would write them: x0, y0, x1, y1."""
    levels_HW = (map_HW * 255).astype(np.uint8)
    _, above_HW = cv2.threshold(levels_HW, int(threshold * levels_HW.max()), 255, 0)
    contours, _ = cv2.findContours(above_HW, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [0, 0, 0, 0]
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return [x, y, min(x + width, 223), min(y + height, 223)]


def overlap(a, b):
    """With one pixel more per side."""
    wide, high = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1 for i in (0, 1))
    shared = max(0, wide) * max(0, high)
    sizes = [(x1 - x0 + 1) * (y1 - y0 + 1) for x0, y0, x1, y1 in (a, b)]
    return shared / (sum(sizes) - shared)


def test_somebody_elses_max_box_acc_passes_on_the_exported_files(exported):
    folder = exported / "wsolevaluation"
    lines = (folder / "metadata" / "localization.txt").read_text().split()
    truth = {line.split(",")[0]: list(map(int, line.split(",")[1:])) for line in lines}
    maps = {name: np.load(folder / "maps" / f"{name}.npy") for name in truth}
    thresholds = np.arange(0, 1, 0.01)
    hits = [
        [overlap(wsol_box(maps[name], t), truth[name]) >= 0.5 for name in truth] for t in thresholds
    ]
    accuracy = 100 * np.mean(hits, axis=1)
    checks = json.loads((exported / "expected.json").read_text())["checks"]
    wanted = {c["asked"]: c["expected"] for c in checks if c["convention"] == "wsolevaluation"}
    assert accuracy.max() == wanted["MaxBoxAcc, %"]
    assert thresholds[accuracy.argmax()] == pytest.approx(wanted["its threshold"])
    assert all(np.min(m) == 0 and np.max(m) == 1 for m in maps.values())  # as the source demands


def test_the_exported_wsol_split_is_scored_by_the_command_score(exported, tmp_path):
    folder = exported / "wsolevaluation"
    out = tmp_path / "scores.json"
    where = ("--maps", str(folder / "maps"), "--root", str(folder / "metadata"))
    asked = ("--data", "wsol-metadata", "--protocols", "wsol", "--out", str(out))
    assert main(["score", *where, *asked]) == 0
    scored = json.loads(out.read_text())["protocols"]["wsol"]
    assert scored["localization_error"] == 25  # 100 - MaxBoxAcc
