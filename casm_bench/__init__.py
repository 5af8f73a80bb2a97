"""Classifier-agnostic saliency maps, and a benchmark of saliency methods by localization.

`casm_bench.api` is what a method needs; `python -m casm_bench --help` what a user needs. In
Python, `load` gives a method that is ready to use and `saliency` its map of any picture.
"""

from __future__ import annotations

__all__ = ["load", "saliency"]


def __getattr__(name: str) -> object:
    """The public functions, imported on first use: this package itself stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pipeline

    return getattr(pipeline, name)
