"""Who may import whom: data flows one way, and methods cannot see the true boxes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOUNDATIONS = (
    *("errors", "lazy", "files", "memory", "processes", "progress", "settings"),
    *("protocols", "api", "registry", "recipes"),
)
LAYERS = (
    FOUNDATIONS,
    ("data",),
    ("backbones",),
    ("training", "images", "cost"),
    ("methods",),
    ("maps",),
    ("boxes",),
    ("metrics",),
    ("statistics",),
    ("records", "provenance"),
    ("cache",),
    ("pipeline", "given", "conformance"),
    ("report",),
    ("listing",),
    ("cli",),
    ("__main__",),
)
RANK = {stage: rank for rank, layer in enumerate(LAYERS) for stage in layer}
FOR_METHODS = {*FOUNDATIONS, "backbones", "training", "images", "methods"}
FOR_REPORT = {*FOUNDATIONS, "statistics", "records", "report"}
WITHOUT_TORCH = {
    "maps",
    "boxes",
    "metrics",
    "statistics",
    "records",
    "provenance",
    "conformance",
    "report",
}
ASKS_THE_CLASSIFIER = {  # what it makes of masked images
    "casm_bench.metrics.masked",
    "casm_bench.metrics.faithfulness",
}
LIGHT = ("cli", "registry", "recipes", "protocols", "api", "data.catalog")
HEAVY = {"torch", "pandas", "numpy"}


def module_name(file: Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "methods":
        parts.insert(0, "casm_bench")
    return ".".join(parts)


FILES = {
    module_name(file): file
    for folder in ("casm_bench", "methods")
    for file in sorted((ROOT / folder).rglob("*.py"))
}


def stage_of(module: str) -> str:
    """`casm_bench.data.frames` belongs to the stage `data`."""
    return module.split(".")[1]


def walk_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but for what only a type checker sees."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_at_run_time(child)


def imported_modules(module: str, source: str) -> Iterator[str]:
    """Absolute names of what `module` imports, also inside functions or through `lazy`."""
    for node in walk_at_run_time(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                parts = module.split(".")[: -node.level] if node.level else []
                base = ".".join([*parts, *([node.module] if node.module else [])])
                submodules = base == "casm_bench"
                yield from (f"{base}.{alias.name}" if submodules else base for alias in node.names)
            case ast.Call(func=ast.Name("lazy" | "optional"), args=[ast.Constant(value=str(name))]):
                yield name


def imported_stages(module: str) -> set[str]:
    found = imported_modules(module, FILES[module].read_text())
    stages = {stage_of(name) for name in found if name.startswith("casm_bench.")}
    return stages & set(RANK)  # `from casm_bench import name` may name something public


def imported_packages(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(module, FILES[module].read_text())}


def test_imports_are_read_correctly():
    source = """
import torch.nn as nn
from typing import TYPE_CHECKING
from casm_bench import data
from ..api import SaliencyMethod
from . import _shared
if TYPE_CHECKING:
    from ..boxes import box_from_map
def late():
    from ..metrics.overlap import iou
pandas = lazy("pandas")
"""
    assert set(imported_modules("casm_bench.methods.grad", source)) == {
        "torch.nn",
        "typing",
        "casm_bench.data",
        "casm_bench.api",
        "casm_bench.methods",
        "casm_bench.metrics.overlap",
        "pandas",
    }


@pytest.mark.parametrize("module", [m for m in FILES if m != "casm_bench.__init__"])
def test_stages_import_only_from_their_left(module):
    stage = stage_of(module)
    assert stage in RANK, f"{module} belongs to no layer; add it to LAYERS"
    too_far_right = {other for other in imported_stages(module) if RANK[other] > RANK[stage]}
    assert not too_far_right


def modules_of(*stages: str) -> list[str]:
    return [module for module in FILES if stage_of(module) in stages]


@pytest.mark.parametrize("module", modules_of("methods"))
def test_methods_see_neither_data_nor_boxes_nor_metrics(module):
    assert imported_stages(module) <= FOR_METHODS


@pytest.mark.parametrize("module", modules_of("report"))
def test_reports_read_records_only(module):
    assert imported_stages(module) <= FOR_REPORT


@pytest.mark.parametrize("module", sorted(set(modules_of(*WITHOUT_TORCH)) - ASKS_THE_CLASSIFIER))
def test_what_follows_the_maps_does_without_torch(module):
    assert not imported_packages(module) & {"torch", "torchvision", "timm"}


@pytest.mark.parametrize("joint", ["pipeline", "given", "conformance"])
def test_only_the_outside_imports_what_joins_the_stages(joint):
    users = {stage_of(module) for module in FILES if joint in imported_stages(module)} - {joint}
    assert users - {"__init__"} == {"cli"}  # the package's own public names


def test_light_modules_import_nothing_heavy():
    """Checked on the running interpreter, for what these modules import imports others."""
    modules = [f"casm_bench.{name}" for name in LIGHT]
    code = f"import sys, {', '.join(modules)}; print(*{HEAVY} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


def string_constants(module: str) -> set[str]:
    nodes = ast.walk(ast.parse(FILES[module].read_text()))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def registered_names() -> set[str]:
    """First argument of every @register(...) in methods/."""
    return {
        node.args[0].value
        for module in modules_of("methods")
        for node in ast.walk(ast.parse(FILES[module].read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("register") and node.args
    }


def test_the_harness_names_no_method():
    """Words that also mean something else, as protocols use `full`, cannot be told apart."""
    names = registered_names() - string_constants("casm_bench.protocols") - {"random"}
    harness = [m for m in FILES if stage_of(m) not in ("methods", "recipes")]
    named = {module: string_constants(module) & names for module in harness}
    assert not {module: found for module, found in named.items() if found}
