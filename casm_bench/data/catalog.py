"""The data sets that `--data` knows. Light on purpose: loaders are imported when called."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..settings import check_options

if TYPE_CHECKING:
    from .dataset import Splits


@dataclass(frozen=True)
class DataSource:
    """One entry of `list data`."""

    name: str
    summary: str
    root: str  # what --root must be; empty if none is needed
    loader: str  # module:function, called with (root, **options)
    trains: bool = True  # has a training split
    digest: str = ""  # module:function, hash of the evaluated pictures where they need no files


SOURCES: dict[str, DataSource] = {
    source.name: source
    for source in (
        DataSource(
            "shapes",
            "Drawn from a seed: every object carries its class twice, evidence masks are known.",
            "",
            "shapes:load_shapes",
            digest="shapes:evaluated_digest",
        ),
        DataSource(
            "ilsvrc-pack",
            "ILSVRC validation pictures with boxes, squashed, in one parquet file.",
            "the parquet file",
            "packs:load_ilsvrc_pack",
            trains=False,
        ),
        DataSource(
            "imagenette-pack",
            "ImageNet training pictures of ten classes, 224 px, without boxes: for training.",
            "the parquet file, or the folder with its parts",
            "packs:load_imagenette_pack",
        ),
        DataSource(
            "tiny-imagenet",
            "Tiny-ImageNet-200, 64 px, one box each: parquet packs or the unzipped folder.",
            "the folder with the parquet files, or the unzipped tiny-imagenet-200",
            "tiny_imagenet:load_tiny_imagenet",
        ),
        DataSource(
            "ilsvrc-boxes",
            "Class, size and boxes of the 50,000 ILSVRC validation pictures, without pixels: "
            "for controls and given maps.",
            "the parquet file",
            "packs:load_ilsvrc_boxes",
            trains=False,
        ),
        DataSource(
            "wsol-metadata",
            "wsolevaluation's metadata folders: classes, sizes and boxes; pictures with "
            "--set data.images=FOLDER.",
            "the folder of a split, or the one with test and val",
            "wsol_metadata:load_wsol_metadata",
            trains=False,
        ),
        DataSource(
            "imagenet",
            "ImageNet-1k on disk: train/ and val/ class folders, and a folder of XML boxes.",
            "the folder that holds train, val and the annotations",
            "imagenet:load_imagenet",
        ),
    )
}


def get_source(name: str) -> DataSource:
    """Look up a data set. Raises UsageError naming the nearest known one."""
    if name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    known = ", ".join(SOURCES)
    raise UsageError(f"There is no data set called {name!r}. {hint}Known are: {known}.")


def check_loading(name: str, options: Mapping[str, object]) -> None:
    """Raise UsageError for options that the loader of data set `name` does not take."""
    check_options("data", _found(get_source(name).loader), options)


def load_splits(
    name: str, root: str | None, *, said_with: str = "--root", **options: object
) -> Splits:
    """Load data set `name` from `root`.

    Raises UsageError when `root` is missing, unreadable or not what the data set needs; it speaks
    of the command line's option `said_with`.
    """
    source = get_source(name)
    try:
        if source.root and not root:
            raise UsageError(f"Data set {name!r} needs --root: {source.root}.")
        return _found(source.loader)(root, **options)
    except UsageError as error:
        raise UsageError(str(error).replace("--root", said_with)) from None


def digest_now(name: str, seed: int, options: Mapping[str, object]) -> str | None:
    """Hash of the evaluated pictures of a data set that needs no files; None for all others."""
    source = SOURCES.get(name)
    return _found(source.digest)(seed, **options) if source and source.digest else None


def _found(where: str) -> Callable[..., Any]:
    module, function = where.split(":")
    return getattr(importlib.import_module(f".{module}", __package__), function)
