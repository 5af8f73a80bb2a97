"""The registry: which saliency methods there are, and where to find one.

A method is registered by the decorator `@register(...)` in a file that is found in one of three
places: the folder `methods/` (every file whose name does not start with "_"), an installed
package's entry point in the group `casm_bench.methods`, or a file named on the command line
(`path/to/file.py:Name`).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from .api import BoxMethod, Facts, SaliencyMethod
from .errors import CasmBenchError, UsageError

ENTRY_POINTS = "casm_bench.methods"
_METHODS: dict[str, type[SaliencyMethod]] = {}


def register(name: str, **facts: object) -> Callable[[type], type]:
    """Class decorator that declares a method and its facts (fields of `api.Facts`).

    Raises UsageError when the name is malformed or taken, a fact is missing or unknown, or the
    class does not keep the contract.
    """

    def decorate(cls: type) -> type:
        source = inspect.getsourcefile(cls) or "<unknown>"
        _check_contract(name, cls, source)
        cls.facts = _make_facts(name, facts, source)
        _claim_name(name, cls, source)
        return cls

    return decorate


def _make_facts(name: str, facts: dict[str, object], source: str) -> Facts:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise UsageError(
            f"{source}: the method name {name!r} must be lower-case letters and digits, "
            "joined by single hyphens."
        )
    known = {f.name for f in dataclasses.fields(Facts)} - {"name", "source_file"}
    if unknown := sorted(set(facts) - known):
        raise UsageError(
            f"{source}: @register({name!r}) got {', '.join(unknown)}, which no method declares; "
            f"the facts are {', '.join(sorted(known))}."
        )
    try:
        return Facts(name=name, source_file=source, **facts)
    except TypeError as error:
        missing = str(error).split("argument", 1)[-1].lstrip("s: ")
        raise UsageError(f"{source}: @register({name!r}) must also say {missing}.") from None


def _check_contract(name: str, cls: type, source: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, SaliencyMethod)):
        raise UsageError(
            f"{source}: {cls.__name__}, registered as {name!r}, must be a subclass of "
            "casm_bench.api.SaliencyMethod or casm_bench.api.BoxMethod."
        )
    verb, base = ("boxes", BoxMethod) if issubclass(cls, BoxMethod) else ("maps", SaliencyMethod)
    if getattr(cls, verb) is getattr(base, verb):
        raise UsageError(
            f"{source}: {cls.__name__}, registered as {name!r}, has no method {verb}(images_BCHW, "
            f"labels_B); define it."
        )
    if "__dataclass_fields__" not in vars(cls) and "__annotations__" in vars(cls):
        raise UsageError(
            f"{source}: {cls.__name__} declares fields but is not a dataclass; write @dataclass "
            f"between @register({name!r}, …) and the class."
        )


def _claim_name(name: str, cls: type, source: str) -> None:
    holder = _METHODS.get(name)
    if holder is not None and holder.facts.source_file != source:
        raise UsageError(
            f"Two methods are called {name!r}: {holder.facts.source_file} and {source}. "
            "Rename one of them in its @register line."
        )
    if holder is not None and holder.__qualname__ != cls.__qualname__:
        raise UsageError(
            f"{source} registers {name!r} twice ({holder.__qualname__} and {cls.__qualname__}). "
            "Rename one of them in its @register line."
        )
    _METHODS[name] = cls


def load_all() -> None:
    """Import every method file of the folder and every plug-in. Raises UsageError on a bad one."""
    for module in sorted(pkgutil.iter_modules(_folder()), key=lambda module: module.name):
        if not module.name.startswith("_"):
            _import(f"casm_bench.methods.{module.name}", f"methods/{module.name}.py")
    for point in entry_points(group=ENTRY_POINTS):
        with _explained(f"plug-in {point.name} ({point.value})"):
            loaded = point.load()
        if point.name not in _METHODS:
            raise UsageError(
                f"The plug-in {point.value} is installed as {point.name!r} but registers no method "
                f"of that name (it loads {loaded!r}); make the entry point's name and the "
                "@register line agree."
            )


def names() -> list[str]:
    """Names of all registered methods, in alphabetical order."""
    load_all()
    return sorted(_METHODS)


def all_facts() -> list[Facts]:
    """The facts of every registered method, by name."""
    return [_METHODS[name].facts for name in names()]


def get(name: str) -> type[SaliencyMethod]:
    """The class registered under `name`, or the one that `path/to/file.py:Name` names.

    Raises UsageError naming the nearest known method.
    """
    if ".py" in name:
        return _from_file(name)
    if name not in names():
        near = difflib.get_close_matches(name, _METHODS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"There is no method called {name!r}. {hint}Known are: {', '.join(sorted(_METHODS))}. "
            "A file of your own is named as path/to/file.py:ClassName."
        )
    return _METHODS[name]


def _folder() -> list[str]:
    return list(importlib.import_module("casm_bench.methods").__path__)


def _from_file(reference: str) -> type[SaliencyMethod]:
    path_text, _, wanted = reference.partition(":")
    path = Path(path_text).resolve()
    if not path.is_file():
        raise UsageError(f"The method file {path_text} does not exist.")
    module = _import_file(path)
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and "facts" in vars(value)
    }
    by_name = {cls.facts.name: cls for cls in classes.values()} | classes
    if not wanted and len(classes) == 1:
        return next(iter(classes.values()))
    if wanted in by_name:
        return by_name[wanted]
    raise UsageError(
        f"{path_text} holds no registered method called {wanted!r}; it registers "
        f"{', '.join(classes) or 'none (use @register on the class)'}. "
        f"Write {path_text}:Name with one of those."
    )


def _import_file(path: Path) -> object:
    name = f"casm_bench_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up by name
    try:
        with _explained(str(path)):
            spec.loader.exec_module(module)
    except UsageError:
        del sys.modules[name]
        raise
    return module


def _import(module: str, file: str) -> None:
    with _explained(file):
        importlib.import_module(module)


class _explained:
    """Turn whatever goes wrong while a method file is imported into one paragraph."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        if error is None or isinstance(error, CasmBenchError) or not isinstance(error, Exception):
            return False
        line = ""
        while trace is not None:  # the last line of the traceback that lies in the file itself
            if trace.tb_frame.f_code.co_filename.endswith(self.where.split(" ")[0]):
                line = f", line {trace.tb_lineno}"
            trace = trace.tb_next
        raise UsageError(
            f"The method file {self.where}{line} cannot be imported: "
            f"{type(error).__name__}: {error}. Mend it, or take it out of the folder."
        ) from error


__all__ = ["ENTRY_POINTS", "all_facts", "get", "load_all", "names", "register"]
