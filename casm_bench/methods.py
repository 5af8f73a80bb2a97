"""In a checkout, `casm_bench.methods` is the folder ../methods.

A wheel ships that folder as the package casm_bench/methods/, which Python prefers to this file.
"""

from __future__ import annotations

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "methods")]
