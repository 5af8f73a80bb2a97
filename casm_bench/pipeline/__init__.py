"""Joins the stages: data → classifier → method → maps → boxes → metrics → record.

Every stage leaves its result on disk (classifier, fitted method, maps, record) under a name made
from all that decides it, so a run that was interrupted, or repeated, does no work twice.

`Bench` is what the methods of one seed share, `MethodRun` is one method on one seed; it becomes a
record as a `Measurement`, and `More` adds to one that is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .. import registry
from ..api import BoxMethod, SaliencyMethod
from ..cache import MARKER
from ..data.dataset import Dataset
from ..errors import UsageError
from ..files import check_writable, write_atomically
from ..protocols import get_protocol
from ..records import Record
from .bench import Bench
from .export import ExportRequest, export_maps
from .imported import import_casme
from .measurement import measure
from .more import MoreRequest, measure_more
from .ready import fitted_methods, saliency
from .ready import show as _show
from .request import Request, check_settings, check_settings_of_part
from .tuning import REST

__all__ = [
    "Bench",
    "ExportRequest",
    "MoreRequest",
    "Request",
    "controls_for",
    "export_maps",
    "import_casme",
    "load",
    "measure_more",
    "run",
    "saliency",
    "show",
    "with_controls",
]

log = logging.getLogger("casm_bench")


def controls_for(dataset: Dataset) -> dict[str, type[SaliencyMethod]]:
    """The control rows that a data set allows: without pixels, those that predict boxes."""
    names = [facts.name for facts in registry.all_facts() if facts.family == "control"]
    classes = {name: registry.get(name) for name in names}
    return {
        name: cls
        for name, cls in classes.items()
        if dataset.has_pixels or issubclass(cls, BoxMethod)
    }


def with_controls(request: Request) -> Request:
    """The request with the control rows that its data allow among its methods."""
    check_settings_of_part(request)
    controls = controls_for(Bench(request, request.seeds[0]).evaluated)
    return replace(request, methods=tuple(dict.fromkeys((*request.methods, *controls))))


def run(request: Request, announce: Callable[[str], None] = log.info) -> list[Record]:
    """Run every method for every seed; complete records are reused.

    `announce` is told, in a line each, what is going on. Raises UsageError for what cannot be
    run as asked, before any work is done where that can be known, and WorkError for what fails.
    """
    methods = _methods_of(request)
    _check_request(request, methods)
    check_settings(request, methods)
    _check_import(request, methods)
    records = []
    for seed in dict.fromkeys(request.seeds):
        bench = Bench(request, seed)
        for cls in methods.values():
            bench.check_possible(cls)
        controls = controls_for(bench.evaluated) if request.controls else {}
        for cls in (methods | controls).values():
            records.append(measure(bench, cls, announce))
    return records


def load(method: str, **asked: object) -> SaliencyMethod:
    """A method that is ready to use: `saliency(load("casm"), "cat.jpg")`.

    Keyword arguments are those of `Request`, such as `classifier`, `weights`, `weights_from`,
    `recipe`, `seeds` and `out`; a trained method is taken from where such a `run` left it.
    Raises UsageError for a method that would have to be trained first.
    """
    asked |= {name: Path(asked[name]) for name in ("out", "weights_from") if asked.get(name)}
    return _load(Request(methods=(method,), **asked))[0]


def show(
    request: Request, images: Sequence[Path], out: Path, label: int | None = None
) -> list[Path]:
    """Draw what methods see in picture files; returns a sheet per picture. Trains nothing.

    `label` is the class that class-aware methods are asked about, by default the classifier's
    guess. Raises UsageError as `load` does, and for pictures and classes that do not exist.
    """
    return _show(_load(request), images, out, label)


def _load(request: Request) -> list[SaliencyMethod]:
    methods = _methods_of(request)
    check_settings(request, methods)
    _check_import(request, methods)
    return fitted_methods(request, list(methods.values()))


def _methods_of(request: Request) -> dict[str, type[SaliencyMethod]]:
    return {cls.facts.name: cls for cls in map(registry.get, request.methods)}


def _check_request(request: Request, methods: dict[str, type[SaliencyMethod]]) -> None:
    """Refuse, before hours of work, what could only fail after them."""
    if not methods:
        raise UsageError("--methods names no method; `list methods` shows what there is.")
    if not request.seeds or min(request.seeds) < 0:
        raise UsageError("--seeds must be whole numbers from 0 on, at least one.")
    if not request.cache_limit_gb >= 0:  # neither is nan
        raise UsageError("--cache-limit-gb must be 0 or more.")
    _check_tuning(request)
    if request.tensorboard:
        check_writable("--tensorboard", request.tensorboard)
    marker = request.out / "cache" / MARKER  # also keeps backups out of the cache
    write_atomically(marker, "Signature: 8a477f597d28d172789f06886806bc55\n")


def _check_tuning(request: Request) -> None:
    """Refuse pictures to tune on where nothing is tuned, and a number of none."""
    if request.tune_images < 1:
        raise UsageError(f"--tune-images {request.tune_images}: must be at least 1.")
    if request.tune_root and request.tune_data in (None, REST):
        raise UsageError("--tune-root says where --tune-data lies: name that data set, too.")
    if request.tune_data and not any(get_protocol(p).policy == "tuned" for p in request.protocols):
        raise UsageError(
            f"--tune-data {request.tune_data}: no protocol is tuned; ask for one, such as "
            "--protocols casm@tuned, or drop it."
        )


def _check_import(request: Request, methods: dict[str, type[SaliencyMethod]]) -> None:
    """A folder holds what one method learned; it must be clear which."""
    trained = [name for name, cls in methods.items() if cls.facts.trained]
    if request.weights_from is not None and len(trained) != 1:
        raise UsageError(
            f"--weights-from {request.weights_from} goes with one trained method, but --methods "
            f"names {' and '.join(trained) or 'none'}. Run them one by one."
        )
