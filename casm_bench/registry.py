"""The registry: which saliency methods there are, and where to find one.

A method is declared by the decorator `@register(...)` in a file that is found in one of three
places: the folder `methods/` (every file whose name does not start with "_"), an installed
package's entry point in the group `casm_bench.methods`, or a file named on the command line
(`path/to/file.py:Name`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, TracebackType

from .api import DECLARED, Facts, SaliencyMethod, register
from .errors import CasmBenchError, UsageError

__all__ = ["ENTRY_POINTS", "all_facts", "get", "is_shipped", "load_all", "names", "register"]

ENTRY_POINTS = "casm_bench.methods"
FOLDER = "casm_bench.methods"


def load_all() -> None:
    """Import every method file of the folder and every plug-in. Raises UsageError on a bad one."""
    for path in _folders():
        for module in sorted(pkgutil.iter_modules([str(path)]), key=lambda module: module.name):
            if not module.name.startswith("_"):
                _import_from_folder(path / f"{module.name}.py")
    for point in entry_points(group=ENTRY_POINTS):
        with _explained(f"plug-in {point.name} ({point.value})", remedy="Mend or uninstall it."):
            point.load()
        if point.name not in DECLARED:
            raise UsageError(
                f"The plug-in {point.value} is installed as {point.name!r} but registers no method "
                "of that name; make the entry point's name and the @register line agree."
            )


def names() -> list[str]:
    """Names of all registered methods, in alphabetical order."""
    load_all()
    return sorted(DECLARED)


def all_facts() -> list[Facts]:
    """The facts of every registered method, by name."""
    return [DECLARED[name].facts for name in names()]


def is_shipped(facts: Facts) -> bool:
    """Whether the method is one of the folder `methods/`, not a plug-in or a file of one's own."""
    return Path(facts.source_file).parent in {path.resolve() for path in _folders()}


def get(name: str) -> type[SaliencyMethod]:
    """The class registered under `name`, or the one that `path/to/file.py:Name` names.

    Raises UsageError naming the nearest known method.
    """
    if ".py" in name:
        return _from_file(name)
    if name not in names():
        near = difflib.get_close_matches(name, DECLARED, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"There is no method called {name!r}. {hint}Known are: {', '.join(sorted(DECLARED))}. "
            "A file of your own is named as path/to/file.py:ClassName."
        )
    return DECLARED[name]


def _from_file(reference: str) -> type[SaliencyMethod]:
    path_text, _, wanted = reference.partition(":")
    path = Path(path_text).resolve()
    if not path.is_file():
        raise UsageError(f"The method file {path_text} does not exist.")
    load_all()  # or a file could take the name of a method that nobody has asked for yet
    load_all()  # so that a name which is taken is refused
    classes = _declared_in(_import_file(path))
    by_name = {cls.facts.name: cls for cls in classes.values()} | classes
    if not wanted and len(classes) == 1:
        return next(iter(classes.values()))
    if wanted in by_name:
        return by_name[wanted]
    if not classes:
        raise UsageError(f"{path_text} registers no method; put @register(…) on its class.")
    raise UsageError(
        f"{path_text} registers {', '.join(classes)}; write {path_text}:Name with one of those."
    )


def _declared_in(module: ModuleType) -> dict[str, type[SaliencyMethod]]:
    """By class name, the methods that are registered in this very module."""
    return {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and "facts" in vars(value)
    }


def _folders() -> list[Path]:
    return [Path(path).resolve() for path in importlib.import_module(FOLDER).__path__]


def _import_file(path: Path) -> ModuleType:
    if path.parent in _folders():  # a second copy could not use relative imports
        return _import_from_folder(path)
    name = f"casm_bench_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up by name
    try:
        with _explained(f"method file {path}", file=path, remedy="Mend it."):
            spec.loader.exec_module(module)
    except UsageError:
        del sys.modules[name]
        raise
    return module


def _import_from_folder(path: Path) -> ModuleType:
    remedy = "Mend it, or take it out of the folder."
    with _explained(f"method file methods/{path.name}", file=path, remedy=remedy):
        module = importlib.import_module(f"{FOLDER}.{path.stem}")
    if not _declared_in(module):
        raise UsageError(
            f"The method file methods/{path.name} registers no method: put @register(…) on its "
            "class, or start the file's name with an underscore if it holds shared parts."
        )
    return module


@contextmanager
def _explained(what: str, *, file: Path | None = None, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong while `what` is imported into one paragraph."""
    try:
        yield
    except CasmBenchError:
        raise
    except Exception as error:
        line = _last_line_in(file, error.__traceback__)
        raise UsageError(
            f"The {what}{line} cannot be imported: {type(error).__name__}: {error}. {remedy}"
        ) from error


def _last_line_in(file: Path | None, trace: TracebackType | None) -> str:
    """Where in the method's own file the error arose, if it arose there."""
    line = ""
    while trace is not None:
        if file is not None and Path(trace.tb_frame.f_code.co_filename).resolve() == file:
            line = f", line {trace.tb_lineno},"
        trace = trace.tb_next
    return line
