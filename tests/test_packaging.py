"""What is installed is what is in the checkout, and it can be imported from anywhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run_python(code: str, folder: Path, path: Path) -> str:
    """Run `code` in `folder` with `path` first on the import path; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def python_folders(top: Path) -> set[Path]:
    return {path.parent for path in top.rglob("*.py")}


def test_every_folder_with_code_is_a_declared_package():
    inside = {folder.relative_to(ROOT) for folder in python_folders(ROOT / "casm_bench")}
    mapped = {"casm_bench.methods"}
    declared = set(PYPROJECT["tool"]["setuptools"]["packages"])
    assert declared == {".".join(folder.parts) for folder in inside} | mapped
    assert python_folders(ROOT / "methods") == {ROOT / "methods"}
    for folder in [*inside, Path("methods")]:
        assert (ROOT / folder / "__init__.py").is_file(), f"{folder} lacks __init__.py"


WHERE_METHODS_ARE = """
import importlib, pkgutil
import casm_bench.methods
for module in pkgutil.iter_modules(casm_bench.methods.__path__):
    print(importlib.import_module(f"casm_bench.methods.{module.name}").__file__)
"""


def test_methods_of_a_checkout_import_from_any_folder(tmp_path):
    files = run_python(WHERE_METHODS_ARE, tmp_path, ROOT).splitlines()
    expected = {str(path) for path in (ROOT / "methods").glob("*.py")}
    assert set(files) == expected - {str(ROOT / "methods" / "__init__.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, built from a copy: setuptools leaves its traces where it works."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("casm_bench", "methods"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    code = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (built,) = copy.glob("*.whl")
    return built


def test_a_wheel_holds_every_file(wheel):
    harness = {str(path.relative_to(ROOT)) for path in (ROOT / "casm_bench").rglob("*.py")}
    methods = {f"casm_bench/methods/{path.name}" for path in (ROOT / "methods").glob("*.py")}
    files = zipfile.ZipFile(wheel).namelist()
    assert {name for name in files if name.endswith(".py")} == harness | methods
    assert any(name.endswith("licenses/LICENSE") for name in files)
    report = ROOT / "casm_bench" / "report"
    page = {*(report / "static").iterdir(), *(report / "templates").iterdir()}
    assert {str(path.relative_to(ROOT)) for path in page} <= set(files)


def test_methods_of_a_wheel_import_from_any_folder(wheel, tmp_path):
    """A wheel holds the bridge casm_bench/methods.py as well; the folder beside it must win."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    files = run_python(WHERE_METHODS_ARE, elsewhere, site).splitlines()
    expected = {path.name for path in (ROOT / "methods").glob("*.py")} - {"__init__.py"}
    assert set(files) == {str(site / "casm_bench" / "methods" / name) for name in expected}


RUN_AND_TELL_IMPORTS = """
import contextlib, io, runpy, sys
sys.argv = ["casm_bench", *{arguments!r}]
printed = io.StringIO()
try:
    with contextlib.redirect_stdout(printed):
        runpy.run_module("casm_bench", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert printed.getvalue().strip()
print(*sorted({{"torch", "timm", "pandas", "numpy", "cv2", "scipy"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], *(["list", what] for what in ("methods", "data", "recipes"))],
    ids=" ".join,
)
def test_help_and_list_import_nothing_heavy(arguments, tmp_path):
    code = RUN_AND_TELL_IMPORTS.format(arguments=arguments)
    assert run_python(code, tmp_path, ROOT) == ""


def imported_packages(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(name), level=0):
                found.add(name)
            case ast.Call(func=ast.Name("lazy" | "optional"), args=[ast.Constant(value=str(name))]):
                found.add(name)
    return {name.split(".")[0] for name in found}


def test_every_imported_package_is_a_declared_dependency():
    files = [*(ROOT / "casm_bench").rglob("*.py"), *(ROOT / "methods").rglob("*.py")]
    imported = {name for file in files for name in imported_packages(file)}
    foreign = imported - sys.stdlib_module_names - {"casm_bench", "__future__"}
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    optional = [text for extra, texts in extras.items() if extra != "test" for text in texts]
    declared = {
        canonicalize_name(Requirement(text).name) for text in [*project["dependencies"], *optional]
    }
    providers = packages_distributions()
    for name in foreign:
        assert declared & {canonicalize_name(p) for p in providers.get(name, [])}, name


def read_constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", pin) for pin in pins)
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def test_constraints_pin_every_requirement_within_its_bounds():
    pins = read_constraints()
    project = PYPROJECT["project"]
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in wanted for text in group):
        name = canonicalize_name(requirement.name)
        if name != project["name"]:
            assert pins[name] in requirement.specifier, f"{name}=={pins[name]} is not {requirement}"
