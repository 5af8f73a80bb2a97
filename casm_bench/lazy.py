"""Modules that are imported when they are first used.

Importing torch takes seconds, and `--help` and `list` need nothing of it. A file in `methods/`
that says `torch = lazy("torch")` instead of `import torch` can be listed without that wait; a
file with a plain import works just as well, only more slowly.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class _LazyModule(ModuleType):
    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self.__name__), attribute)


def lazy(name: str) -> ModuleType:
    """Stand in for module `name` until one of its attributes is asked for."""
    return _LazyModule(name)
