"""`--set TARGET.FIELD=VALUE`: parsed, and checked against what a dataclass declares."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable

from .errors import UsageError


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


def check_fields(target: str, cls: type, values: dict[str, object]) -> None:
    """Raise UsageError for a field that `cls` does not have, or a value its annotation forbids."""
    fields = [f.name for f in dataclasses.fields(cls) if f.init and _has_default(f)]
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"--set {target}.{name}: {target} has no such field. {hint}"
                f"It has {', '.join(sorted(fields))}."
            )
        wanted = _annotation(cls, name)
        if not _fits(value, wanted):
            raise UsageError(
                f"--set {target}.{name}={value}: must be {_in_words(wanted)}, not {value!r}."
            )


def _has_default(field: dataclasses.Field) -> bool:
    """What has none, such as a method's classifier, is the harness's to give."""
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _annotation(cls: type, name: str) -> object:
    """The type of a field, read in the module of the class that declares it."""
    owner = next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))
    hint = vars(owner)["__annotations__"][name]
    return eval(hint, vars(sys.modules[owner.__module__])) if isinstance(hint, str) else hint


def _fits(value: object, wanted: object) -> bool:
    origin, choices = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Literal:
        return value in choices
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in choices)
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or wanted
    return isinstance(value, kind) if isinstance(kind, type) else True


def _in_words(wanted: object) -> str:
    origin, choices = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, choices))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(choice) for choice in choices)
    if wanted is type(None):
        return "None"
    return getattr(wanted, "__name__", str(wanted))
