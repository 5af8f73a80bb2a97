"""Fitted methods from elsewhere: another run's, or a checkpoint of the official CASM code.

A folder holds `fitted.pt`, what a method learned, and, where this program did not train it,
`imported.json` with its origin.
"""

from __future__ import annotations

import io
import json
from functools import cached_property
from pathlib import Path

import torch

from ..api import SaliencyMethod
from ..backbones.official import read_official
from ..backbones.weights import read_content
from ..errors import UsageError
from ..files import sha256_of, write_atomically

FITTED = "fitted.pt"
ORIGIN = "imported.json"


class Imported:
    """What a folder holds in place of training; raises UsageError where it holds nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FITTED
        if not self.path.is_file():
            raise UsageError(
                f"--weights-from {folder}: there is no {FITTED} in it. `import-casme` makes such a "
                "folder, and a run leaves one per trained method in OUT/cache/methods."
            )

    @cached_property
    def origin(self) -> dict[str, object]:
        """Format, file name and SHA-256 of the file that the weights came in, and what it says."""
        path = self.path.with_name(ORIGIN)
        if not path.exists():
            return {"format": "casm_bench", "file": FITTED, "sha256": sha256_of(self.path)}
        try:
            origin = json.loads(path.read_bytes())
            return origin | {name: str(origin[name]) for name in ("format", "file", "sha256")}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is damaged ({error}): import the checkpoint again.") from None

    @cached_property
    def identity(self) -> dict[str, object]:
        """The part of it that enters a record's key, and the hash of the state itself."""
        named = {name: self.origin[name] for name in ("format", "file", "sha256")}
        return named | {"state_sha256": sha256_of(self.path)}

    @property
    def variant(self) -> str:
        """Keeps such records apart from those that were trained here."""
        return f"imported-{self.identity['state_sha256'][:8]}"

    def give_to(self, method: SaliencyMethod) -> None:
        """Load state and history into a method. Raises UsageError if they are not its own."""
        fitted = read_content(self.path)
        try:
            method.load_state_dict(fitted["state"])
            method.history = list(fitted["history"])
            method.findings = dict(fitted.get("findings", {}))
        except Exception as error:  # a method that is fed another one's state raises anything
            reason = str(error).strip().splitlines()[:2]
            raise UsageError(
                f"{self.path} does not fit method {method.facts.name!r} with this classifier "
                f"({type(error).__name__}: {' '.join(map(str.strip, reason))}). Name the method, "
                "--recipe and --classifier that it was trained with."
            ) from None


def import_casme(file: Path, out: Path) -> dict[str, object]:
    """Turn a checkpoint of the official CASM code into a folder for `--weights-from`.

    Returns its origin, as `imported.json` keeps it. Raises UsageError when the file is no such
    checkpoint, and WorkError when the folder cannot be written.
    """
    checkpoint = read_official(file)
    state = {"classifier": checkpoint.classifier, "decoder": checkpoint.decoder}
    content = io.BytesIO()  # a file would carry its own name inside, and so another hash
    torch.save({"state": state, "history": [], "seconds": None}, content)
    origin = {
        "format": "official CASM code",
        "file": file.name,
        "sha256": sha256_of(file),
        "epoch": checkpoint.epoch,
        "options": checkpoint.options,
    }
    write_atomically(out / FITTED, content.getvalue())
    write_atomically(out / ORIGIN, json.dumps(origin, indent=1, sort_keys=True) + "\n")
    return origin
