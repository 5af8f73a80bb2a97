"""Modules that are imported when they are first used.

Importing torch takes seconds, and `--help` and `list` need nothing of it. A file in `methods/`
that says `torch = lazy("torch")` instead of `import torch` can be listed without that wait; a
file with a plain import works just as well, only more slowly.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import UsageError


class _LazyModule(ModuleType):
    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self.__name__), attribute)


def lazy(name: str) -> ModuleType:
    """Stand in for module `name` until one of its attributes is asked for."""
    return _LazyModule(name)


class _OptionalModule(ModuleType):
    def __init__(self, name: str, extra: str) -> None:
        super().__init__(name)
        self._extra = extra

    def __getattr__(self, attribute: str) -> object:
        package = self.__name__.partition(".")[0]
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            raise UsageError(
                f"The package {package} is not installed; pip install "
                f"'casm-bench[{self._extra}]' brings it."
            ) from None
        return getattr(importlib.import_module(self.__name__), attribute)


def optional(name: str, extra: str) -> ModuleType:
    """As `lazy`, for a package of the optional dependencies `extra`.

    Where it is not installed, asking for an attribute raises UsageError with the pip command.
    """
    return _OptionalModule(name, extra)
