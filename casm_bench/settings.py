"""`--set TARGET.FIELD=VALUE`: parsed, and checked against what a dataclass declares.

A field says which numbers it takes by its annotation, `epochs: Count = 60`; others are refused
before anything is trained.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from .errors import UsageError


@dataclass(frozen=True)
class Within:
    """The numbers from `least` to `most`; with `above`, without `least` itself. All are finite."""

    least: float
    most: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        enough = value > self.least if self.above else value >= self.least
        return enough and value <= self.most and math.isfinite(value)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"{'above' if self.above else 'of at least'} {self.least:g}"
        start = f"above {self.least:g} and up" if self.above else f"from {self.least:g}"
        return f"{start} to {self.most:g}"


Count = Annotated[int, Within(1)]  # of epochs, steps, pictures, pixels ...
Whole = Annotated[int, Within(0)]
Amount = Annotated[float, Within(0)]  # weights of a loss, learning rates, widths of blurs
Positive = Annotated[float, Within(0, above=True)]
Share = Annotated[float, Within(0, 1, above=True)]
Fraction = Annotated[float, Within(0, 1)]


def parse_settings(assignments: Iterable[str]) -> dict[str, dict[str, object]]:
    """From `casm.lambda_r=5 data.stripes=0.03` to {"casm": {"lambda_r": 5}, "data": …}.

    Values are Python literals; what is none is a string. Raises UsageError for other forms.
    """
    settings: dict[str, dict[str, object]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        target, dot, name = path.partition(".")
        if not (equals and dot and target and name.isidentifier()):
            raise UsageError(
                f"--set {assignment}: write METHOD.FIELD=VALUE, for instance casm.lambda_r=5."
            )
        settings.setdefault(target, {})[name] = _literal(text)
    return settings


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_fields(target: str, cls: type, values: Mapping[str, object]) -> None:
    """Raise UsageError for a field that `cls` does not have, or a value its annotation forbids."""
    fields = [f.name for f in dataclasses.fields(cls) if f.init and _has_default(f)]
    for name, value in values.items():
        if name not in fields:
            raise _unknown(target, name, fields)
        _check(f"{target}.{name}", value, _annotation(cls, name))


def check_options(target: str, function: Callable, values: Mapping[str, object]) -> None:
    """As `check_fields`, of a function's keyword-only arguments but `seed`, which is no setting.

    Options that a function collects in `**` are left to its own checks.
    """
    parameters = inspect.signature(function).parameters.values()
    hints = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    hints.pop("seed", None)
    others = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name, value in values.items():
        if name in hints:
            _check(f"{target}.{name}", value, _evaluated(hints[name], function.__module__))
        elif not others or name == "seed":
            raise _unknown(target, name, list(hints))


def _unknown(target: str, name: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    has = f" It has {', '.join(sorted(known))}." if known else ""
    return UsageError(f"--set {target}.{name}: {target} has no such field.{hint}{has}")


def _check(path: str, value: object, wanted: object) -> None:
    if not _fits(value, wanted):
        raise UsageError(f"--set {path}={value}: must be {_in_words(wanted)}, not {value!r}.")


def _has_default(field: dataclasses.Field) -> bool:
    """A field without a default, such as a method's classifier, is given by the harness."""
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _annotation(cls: type, name: str) -> object:
    """The type of a field, read in the module of the class that declares it."""
    owner = next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))
    return _evaluated(vars(owner)["__annotations__"][name], owner.__module__)


def _evaluated(hint: object, module: str) -> object:
    return eval(hint, vars(sys.modules[module])) if isinstance(hint, str) else hint


def _fits(value: object, wanted: object) -> bool:
    origin, choices = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Annotated:
        bounds = [choice for choice in choices[1:] if isinstance(choice, Within)]
        return _fits(value, choices[0]) and all(value in bound for bound in bounds)
    if origin is typing.Literal:
        return value in choices
    if origin is tuple:
        return isinstance(value, tuple) and _fit_each(value, choices)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in choices)
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or wanted
    return isinstance(value, kind) if isinstance(kind, type) else True


def _fit_each(values: tuple, wanted: tuple) -> bool:
    if wanted[-1] is Ellipsis:
        wanted = wanted[:1] * len(values)
    return len(values) == len(wanted) > 0 and all(map(_fits, values, wanted))


def _in_words(wanted: object) -> str:
    origin, choices = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Annotated:
        return " ".join([_in_words(choices[0]), *map(str, choices[1:])])
    if origin is tuple:
        count = "" if choices[-1] is Ellipsis else f" of {len(choices)}"
        return f"tuple{count}, each {_in_words(choices[0])}"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, choices))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(choice) for choice in choices)
    if wanted is type(None):
        return "None"
    return getattr(wanted, "__name__", str(wanted))
