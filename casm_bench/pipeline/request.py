"""What a run was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import registry
from ..errors import UsageError
from ..recipes import DEFAULT_METHODS, Pretraining, Recipe, get_recipe
from ..settings import check_fields

SETTABLE = {"recipe": Recipe, "pretraining": Pretraining}  # beside methods and data
UNDECIDING = {("recipe", "follow"), ("recipe", "evaluation_batch_size")}  # change no result


@dataclass(frozen=True)
class Request:
    """What `run` was asked for; field by field the command line's options."""

    methods: tuple[str, ...] = DEFAULT_METHODS
    data: str = "shapes"
    root: str | None = None
    train_data: str | None = None  # trains on another data set than the recipe says
    train_root: str | None = None
    recipe: str = "quick"
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    classifier: str | None = None
    weights: str | None = None
    weights_from: Path | None = None  # folder with a fitted method, in place of training
    protocols: tuple[str, ...] = ()
    tune_data: str | None = None  # whose boxes choose tuned thresholds; "rest": what limit leaves
    tune_root: str | None = None
    tune_images: int = 5000  # at most as many, drawn by the seed
    controls: bool = False  # add the control rows that the data allow
    device: str = "auto"
    tensorboard: Path | None = None  # folder for training statistics, if they are wanted there
    out: Path = Path("results")
    cache_limit_gb: float = 50.0  # for saliency maps; those longest unused go first
    fresh: bool = False  # ignore records, checkpoints and maps of earlier runs
    settings: dict[str, dict[str, object]] = field(default_factory=dict)  # by method, data, recipe

    @property
    def trained_on(self) -> str:
        """Name of the data set that methods train on."""
        return self.train_data or get_recipe(self.recipe).train_data or self.data

    @property
    def variant(self) -> str:
        """Names what differs from the recipe: empty, or for instance `n100-1a2b3c4d`."""
        parts = [] if self.limit is None else [f"n{self.limit}"]
        usual = get_recipe(self.recipe).train_data or (None if self.train_root else self.data)
        others = self.train_data if self.train_data != usual else None
        settings = _deciding(self.settings)
        if settings or others:
            changed = json.dumps([settings, others], sort_keys=True, default=str)
            parts.append(hashlib.sha256(changed.encode()).hexdigest()[:8])
        return "-".join(parts)

    @property
    def recipe_name(self) -> str:
        """The recipe, and the classifier where another one than the recipe's was named."""
        parts = [self.recipe, self.classifier, self.weights and Path(self.weights).stem]
        return "+".join(part for part in parts if part)


def _deciding(settings: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Settings without what changes no result."""
    kept = {
        target: {name: value for name, value in values.items() if (target, name) not in UNDECIDING}
        for target, values in settings.items()
    }
    return {target: values for target, values in kept.items() if values or not settings[target]}


def check_settings(request: Request, methods: Mapping[str, type]) -> None:
    """Refuse `--set` for what does not take part, and for fields or values that do not fit."""
    declared = SETTABLE | dict(methods)
    for target, values in request.settings.items():
        if target == "data":
            continue  # its loader knows its own options
        if target not in declared:
            raise UsageError(
                f"--set {target}.…: {target!r} is none of this run's methods "
                f"({', '.join(methods)}), nor data, recipe or pretraining."
            )
        check_fields(target, declared[target], values)


def check_settings_of_part(request: Request) -> None:
    """As `check_settings`, where only some of a run's methods are named, and settings of others."""
    named = request.settings.keys() - {*SETTABLE, "data"}
    check_settings(request, {name: registry.get(name) for name in sorted(named)})
