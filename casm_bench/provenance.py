"""Code, versions and machine behind a result: what a record needs to be judged and repeated."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("casm_bench", "torch", "torchvision", "timm", "numpy", "scipy", "pandas", "pyarrow"),
    *("opencv-python-headless", "pillow", "captum"),
)


def provenance(
    *, device: str, threads: int, classifier_sha256: str | None, data_sha256: str
) -> dict[str, Any]:
    """Code, versions and machine behind a result. Imports none of the packages it lists.

    `device` as torch calls it, or the accelerator's name; `threads` used by it; hashes of the
    classifier's weights (None without one) and of the evaluated data.
    """
    commit, dirty = _checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": _versions(),
        "device": device,
        "cpu": _cpu_name(),
        "threads": threads,
        "classifier_sha256": classifier_sha256,
        "data_sha256": data_sha256,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _checkout() -> tuple[str, bool | None]:
    """Commit of the checkout this package runs from, and whether its code was changed since."""
    root = Path(__file__).resolve().parents[1]
    # An installed wheel may lie inside somebody else's repository, whose commit means nothing.
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return _archived_commit(root), None
    # What runs produce is no change of the code.
    changes = _git(root, "status", "--porcelain", "--", ".", ":!results", ":!paper")
    return _git(root, "rev-parse", "HEAD") or "unknown", changes != ""


def _archived_commit(root: Path) -> str:
    """What `git archive` wrote into its copy of this file, for machines without the history."""
    try:
        written = (root / ".git-commit").read_text().strip()
    except OSError:
        return "unknown"
    return "unknown" if written.startswith("$") else written


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
