"""Made-up records for tests of tables and figures. Nothing here was measured."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from casm_bench.protocols import ALWAYS_REPORTED, CASM_RULE, PROTOCOLS
from casm_bench.records import Record, per_image_table, save_record
from casm_bench.report.published import read_published, table1_rows
from casm_bench.statistics import error_interval

FACTS = {
    "casm": ("CASM", "trained masker", "CASM"),
    "baseline": ("Baseline", "trained masker", "Baseline"),
    "grad": ("Grad", "gradient", "Grad"),
    "full": ("Whole frame", "control", None),
    "novel": ("Novel_100%", "other", None),
}


def a_result(protocol: str, hits: int, n: int, groups: dict | None = None) -> dict:
    return {
        "protocol": asdict(PROTOCOLS[protocol]),
        "rule": asdict(CASM_RULE),
        "policy": PROTOCOLS[protocol].policy,
        "tuned_on": None,
        "localization_error": 100 * (1 - hits / n),
        "interval": list(error_interval(hits, n)),
        "interval_method": "wilson",
        "hits": hits,
        "n_images": n,
        "f1": 50.0,
        "f1_mean": 45.0,
        "groups": groups or {},
    }


def make_record(method: str = "casm", hits: int = 60, n: int = 100, **changes) -> Record:
    """A made-up record whose errors are 100 * (1 - hits / n) under each usual protocol."""
    title, family, row = FACTS[method]
    seed = changes.get("seed", 0)
    protocols = changes.pop("protocols", ALWAYS_REPORTED)
    groups = changes.pop("groups", None)
    limit = changes.get("config", {}).get("limit") or "all"
    made_up = Record(
        method=method,
        title=title,
        facts={"family": family, "published": row},
        data="madeup",
        recipe="quick",
        seed=seed,
        config={"classifier": "stub", "weights": "none", "limit": None, "strategy": "L100"},
        key="k",
        protocols={name: a_result(name, hits, n, groups) for name in protocols},
        metrics={"evidence_recall": 0.25 + 0.25 * seed},
        provenance={"data_sha256": f"{limit} pictures of seed {seed}"},
        cost={"fit_seconds": 1.5, "map_seconds": 0.5, "peak_memory_mb": 1200.0 + seed},
    )
    return replace(made_up, **changes)


def made_up_scores():
    columns = {
        "name": ["a"],
        "label": [0],
        "group": [None],
        "protocol": ["casm"],
        **dict.fromkeys(("x0", "y0", "x1", "y1"), [1]),
        "hit": [True],
        "iou": [0.75],
        "f1": [0.5],
        "f1_mean": [0.5],
    }
    return per_image_table(columns)


def made_up_showcase(names: list[str], mask_side: int, size: int = 32) -> dict[str, np.ndarray]:
    """A smooth picture per name, the same for every method, with a square mask in its corner."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1]), axis=-1)
    images = np.stack([np.roll(picture, 3 * ord(name[0]), axis=0) for name in names])
    binary = np.zeros(images.shape[:3], dtype=bool)
    binary[:, :mask_side, :mask_side] = True
    return {"names": np.array(names), "images": images, "binary": binary}


def write_records(results, records) -> None:
    """Save made-up records; trained maskers get a showcase."""
    for record in records:
        trained = record.facts["family"] == "trained masker"
        side = 10 if record.method == "casm" else 5
        shown = made_up_showcase(["p", "q", "r"], side) if trained else None
        save_record(record, results, made_up_scores(), shown)


@pytest.fixture
def rows():
    """Table 1 as published, from the ledger of this checkout."""
    return table1_rows(read_published("a folder without a ledger"))


@pytest.fixture(scope="session")
def a_record():
    return make_record


@pytest.fixture
def saved(tmp_path):
    """A results folder with three seeds, a control, and a subset."""
    usual = [
        make_record(method, hits + seed, seed=seed)
        for method, hits in (("casm", 64), ("baseline", 47), ("full", 30))
        for seed in range(3)
    ]
    config = make_record().config | {"limit": 10}
    subset = make_record("grad", 5, 10, variant="0123abcd", config=config)
    write_records(tmp_path / "results", [*usual, subset])
    return tmp_path / "results"


@pytest.fixture
def save():
    return write_records


@pytest.fixture
def a_showcase():
    return made_up_showcase


@pytest.fixture(scope="session")
def scores():
    return made_up_scores()
