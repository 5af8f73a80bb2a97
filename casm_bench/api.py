"""What a saliency method is: its contract with the harness, and how it is declared.

A method turns a batch of images into saliency maps (or straight into boxes). Everything else,
from reading pictures to the results table, is the harness and the same for every method.

Tensor names end in their shape: B images, C channels, H rows, W columns, K classes.
Images arrive normalised the way the classifier wants them. This module imports neither torch
nor numpy, so that declaring a method costs nothing.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from .errors import UsageError
from .lazy import lazy, optional
from .protocols import CASM_RULE, BoxRule, fong_rule
from .settings import Whole

if TYPE_CHECKING:
    from torch import Tensor

    from .backbones.classifier import Classifier
    from .training import TrainBatches

__all__ = [
    "CASM_RULE",
    "BoxMethod",
    "BoxRule",
    "Facts",
    "SaliencyMethod",
    "added",
    "asked",
    "fong_rule",
    "lazy",
    "optional",
    "register",
]


@dataclass(frozen=True)
class Facts:
    """What a method declares about itself: shown by `list methods`, kept in every record."""

    name: str  # on the command line and in records: lower case, digits, hyphens
    title: str  # the row's title in tables
    family: Literal["trained masker", "gradient", "perturbation", "control", "supervised", "other"]
    paper: str  # who, when, where: enough to find it
    summary: str  # one sentence
    knows_class: bool  # is handed the true class when asked for a map
    trained: bool  # fit() learns something from images
    boxes: Literal["never", "training", "test"] = "never"  # when it is handed true boxes
    deterministic: bool = True  # same inputs and seed, same map
    cost: str = ""  # forward and backward passes per image, in words
    rule: BoxRule = CASM_RULE  # its own way from map to box
    upsample: Literal["nearest", "bilinear"] = "nearest"  # from the map's grid to the frame
    scale_free: bool = False  # values have no scale of their own; otherwise they lie in [0, 1]
    published: str | None = None  # its row in the published Table 1, if it has one
    reinterpretation: bool = False  # no source could be followed: never to be called reproduced
    extra: str = ""  # the optional dependencies it needs: pip install 'casm-bench[EXTRA]'
    deviations: str = ""  # where this implementation knowingly differs from the source
    source_file: str = ""  # filled in by the registry


@dataclass
class SaliencyMethod:
    """Base of every method that makes saliency maps; dataclass fields are its hyperparameters.

    Their annotations, such as `epochs: Count` (see `settings`), say which values `--set` may give.
    `classifier` maps normalised images_BCHW to logits_BK and, through `with_features`, to five
    feature maps as well. It is shared between methods: whoever wants to change it, copies it.
    `seed` decides everything random. `fit` may leave its mean statistics per epoch in `history`,
    and what else it found out, as plain values, in `findings`; both go into the record.
    """

    classifier: Classifier = field(repr=False)
    seed: Whole = field(default=0, kw_only=True)
    history: list[dict[str, float]] = field(default_factory=list, init=False, repr=False)
    findings: dict[str, object] = field(default_factory=dict, init=False, repr=False)

    facts: ClassVar[Facts]  # set by @register

    def fit(self, train_batches: TrainBatches) -> None:
        """Learn from training images. Methods without training leave this as it is."""

    def check(self) -> None:
        """Raise UsageError, in a sentence, if this method cannot work with this classifier.

        The harness asks before it trains anything, with a classifier of the same architecture
        whose weights may still be random. Methods that only need images in and logits out, as
        most do, leave this as it is.
        """

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Saliency maps of a batch.

        Returns saliency_BHW: finite, >= 0, larger is more salient, on any grid that the harness
        can resize to the frame. An image's map must not depend on the rest of the batch.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, object]:
        """What `fit` learned, as tensors and plain values; nothing for training-free methods."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take back what `state_dict` gave."""


@dataclass
class BoxMethod(SaliencyMethod):
    """Base of methods that predict one box per image directly, without a map."""

    @property
    def frame_side(self) -> int | None:
        """Pixels per side at which it wants to be shown frames; None: the classifier's input."""
        return None

    def boxes(
        self, images_BCHW: Tensor, labels_B: Tensor, truth: list[Tensor] | None = None
    ) -> Tensor:
        """Predicted boxes of a batch.

        Returns boxes_B4: x0, y0, x1, y1 in pixels of `images_BCHW`, half-open. `truth` (a
        tensor n×4 per image, same coordinates) is given only to methods whose facts say
        `boxes="test"`. `images_BCHW` has no pixels (device "meta") for data sets without them.
        """
        raise NotImplementedError


def added(default: object) -> object:
    """A hyperparameter that some valid records do not know, because they were made without it.

    Its default must do what the method did without it. While it has that default it does not
    enter a record's key, so those records stay valid.
    """
    return field(default=default, metadata={"added": True})


def asked(default: object) -> object:
    """A hyperparameter that only `maps` reads, not `fit`.

    Another value makes other maps, but needs no new training.
    """
    return field(default=default, metadata={"asked": True})


DECLARED: dict[str, type[SaliencyMethod]] = {}  # by name; `registry` finds the files that fill it


def register(name: str, **facts: object) -> Callable[[type], type]:
    """Class decorator that declares a method and its facts (fields of `Facts`).

    Raises UsageError when the name is malformed or taken, a fact is missing or unknown, or the
    class does not keep the contract.
    """

    def decorate(cls: type) -> type:
        source = _source_file(cls)
        _check_contract(name, cls, source)
        cls.facts = _make_facts(name, facts, source)
        _claim_name(name, cls, source)
        return cls

    return decorate


def _source_file(cls: type) -> str:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return str(Path(file).resolve()) if file else "<interactive>"


def _check_contract(name: str, cls: type, source: str) -> None:
    where = f"{source}: {cls.__name__}, registered as {name!r},"
    if not (isinstance(cls, type) and issubclass(cls, SaliencyMethod)):
        raise UsageError(
            f"{where} must be a subclass of casm_bench.api.SaliencyMethod or "
            "casm_bench.api.BoxMethod."
        )
    verb, base = ("boxes", BoxMethod) if issubclass(cls, BoxMethod) else ("maps", SaliencyMethod)
    if getattr(cls, verb) is getattr(base, verb):
        raise UsageError(f"{where} has no method {verb}(images_BCHW, labels_B); define it.")
    if "__dataclass_fields__" not in vars(cls) and inspect.get_annotations(cls):
        raise UsageError(
            f"{where} declares fields but is not a dataclass; write @dataclass between "
            "@register(…) and the class."
        )


def _make_facts(name: str, facts: dict[str, object], source: str) -> Facts:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise UsageError(
            f"{source}: the method name {name!r} must be lower-case letters and digits, "
            "joined by single hyphens."
        )
    known = {f.name for f in fields(Facts)} - {"name", "source_file"}
    if unknown := sorted(set(facts) - known):
        raise UsageError(
            f"{source}: @register({name!r}) got {', '.join(unknown)}, which no method declares; "
            f"the facts are {', '.join(sorted(known))}."
        )
    try:
        made = Facts(name=name, source_file=source, **facts)
    except TypeError as error:
        missing = str(error).split("argument", 1)[-1].lstrip("s: ")
        raise UsageError(f"{source}: @register({name!r}) must also say {missing}.") from None
    for fact, hint in _hints_of_facts().items():
        if expected := _expected_instead(getattr(made, fact), hint):
            raise UsageError(
                f"{source}: @register({name!r}) says {fact}={getattr(made, fact)!r}, which must be "
                f"{expected}."
            )
    return made


@lru_cache
def _hints_of_facts() -> dict[str, Any]:
    return get_type_hints(Facts)


def _expected_instead(value: object, hint: Any) -> str:
    """What a fact's type allows, in words, if the value is none of it."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return "" if value in choices else " or ".join(map(repr, choices))
    return "" if isinstance(value, hint) else getattr(hint, "__name__", str(hint))


def _claim_name(name: str, cls: type, source: str) -> None:
    holder = DECLARED.get(name)
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
    DECLARED[name] = cls
