"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import UsageError, WorkError


def write_atomically(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write `path` so that a reader, or an interruption, never meets half a file.

    `content` is the bytes or text, or a function that writes to the temporary path it is given.
    Raises WorkError naming the path when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        _fill(temporary, content)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise WorkError(
            f"Cannot write {path}: {_reason(error)}. Make the folder writable, free some "
            "disk space, or choose another folder with --out."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(option: str, folder: Path) -> None:
    """Make the folder, or raise UsageError where nothing could be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
    else:
        reason = "" if os.access(folder, os.W_OK) else "it may not be written to"
    if reason:
        raise UsageError(f"{option} {folder}: cannot be used as a folder ({reason}).")


def _reason(error: OSError | RuntimeError) -> object:
    """What went wrong. torch.save says of a full disk only where in the file it found itself."""
    if "unexpected pos" in str(error):
        return "the disk took only a part of it"
    return getattr(error, "strerror", None) or error


def _fill(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(value: object) -> str:
    """Sixteen hex digits that name a plain value (anything JSON or `str` can express)."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
