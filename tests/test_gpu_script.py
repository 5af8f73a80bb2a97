"""`benchmarks/gpu.py` runs where there is no GPU, too, so that it is ready where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"
SMALL = [
    *("--device", "cpu", "--classifier", "test_resnet", "--batch", "2", "--map-batch", "2"),
    *("--size", "32", "--rounds", "1", "--warm-up", "1", "--no-methods", "--settings"),
    *("fp32", "fp32+channels_last", "bf16", "bf16+channels_last"),
]


@pytest.mark.slow
def test_every_setting_and_step_has_its_row(tmp_path):
    out = tmp_path / "gpu.md"
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL, "--out", str(out)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = json.loads(out.with_suffix(".json").read_text())["steps"]
    kinds = ("plain", "fresh", "hist", "fixed", "fresh torch04")
    settings = {(row["precision"], row["channels_last"], row["compile"]) for row in rows}
    assert settings == {(p, c, False) for p in ("fp32", "bf16") for c in (False, True)}
    assert [row["step"] for row in rows] == list(kinds) * 4
    assert all(row["times_plain"] == 1 for row in rows if row["step"] == "plain")
    assert all(row["ms"] > 0 for row in rows)
    assert out.read_text().count("\n| ") >= len(rows)
