"""What a record says of the code, versions and machine behind it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from casm_bench import provenance as module
from casm_bench.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]


def test_provenance_without_importing_what_it_lists():
    code = (
        "import sys, json\n"
        "from casm_bench.provenance import provenance\n"
        "found = provenance(device='cpu', threads=2, classifier_sha256=None, data_sha256='d')\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "print(json.dumps(found))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["versions"]["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == 2
    assert found["cpu"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["created"])


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository of its own, from which the package seems to run."""
    file = tmp_path / "casm_bench" / "provenance.py"
    file.parent.mkdir()
    file.write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "First")
    monkeypatch.setattr(module, "__file__", str(file))
    return tmp_path


def commit_and_dirty() -> tuple[str, bool | None]:
    found = provenance(device="cpu", threads=1, classifier_sha256=None, data_sha256="d")
    return found["commit"], found["dirty"]


def test_results_do_not_make_a_checkout_dirty_but_code_does(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert commit_and_dirty() == (head, False)
    (checkout / "results").mkdir()
    (checkout / "results" / "new.json").write_text("{}")
    assert commit_and_dirty() == (head, False)
    (checkout / "new_method.py").write_text("")
    assert commit_and_dirty() == (head, True)


def test_somebody_elses_repository_is_not_ours(checkout, monkeypatch):
    installed = checkout / "lib" / "site-packages" / "casm_bench" / "provenance.py"
    monkeypatch.setattr(module, "__file__", str(installed))
    assert commit_and_dirty() == ("unknown", None)


def test_an_archive_of_a_checkout_knows_its_commit(checkout, tmp_path):
    (checkout / ".git-commit").write_text("$Format:%H$\n")
    (checkout / ".gitattributes").write_text(".git-commit export-subst\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "Second")
    head = git(checkout, "rev-parse", "HEAD")
    git(checkout, "archive", "--output", "copy.tar", "HEAD")
    shutil.rmtree(checkout / ".git")
    assert commit_and_dirty() == ("unknown", None)  # a plain copy: nothing was written into it
    shutil.unpack_archive(checkout / "copy.tar", checkout)
    assert commit_and_dirty() == (head, None)
