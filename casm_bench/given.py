"""Scores saliency maps that somebody else made: a folder of .npy files, no method, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .data.catalog import load_splits
from .data.dataset import Dataset
from .errors import UsageError
from .files import check_writable, write_atomically
from .maps import find_maps, load_map
from .metrics.scoring import Scores, image_columns, score_maps
from .progress import counted, progress
from .protocols import BoxRule, Protocol, get_protocol
from .provenance import provenance
from .records import per_image_table, write_per_image
from .statistics import error_interval


@dataclass(frozen=True)
class GivenMaps:
    """What `score` was asked for; field by field the command line's options."""

    maps: Path
    data: str
    root: str | None
    protocols: tuple[str, ...]
    out: Path
    rule: BoxRule | None = None  # instead of each protocol's own
    size: int = 224  # side of the frame in pixels
    scale_free: bool = False
    partial: bool = False  # score the pictures that have maps, and list those that have none


def score_given_maps(asked: GivenMaps) -> dict[str, object]:
    """Score the maps under every protocol and write FILE.json with FILE.parquet beside it.

    Returns what is in FILE.json. Raises UsageError for missing maps, folders and unknown names,
    WorkError naming the file for a map that cannot be scored; then nothing is written.
    """
    if asked.out.suffix != ".json":
        raise UsageError(f"--out must end in .json, as {asked.out.with_suffix('.json')} does.")
    if asked.out.is_dir():
        raise UsageError(f"--out {asked.out} is a folder; name a file.")
    if asked.size < 1:
        raise UsageError(f"--size must be at least 1 pixel, not {asked.size}.")
    if not asked.protocols:
        raise UsageError("--protocols names no protocol; `list protocols` shows what there is.")
    protocols = [get_protocol(name) for name in dict.fromkeys(asked.protocols)]
    check_writable("--out", asked.out.parent)
    dataset = load_splits(asked.data, asked.root).evaluated
    dataset, paths, missing = _with_maps(asked, dataset)
    scores = [(protocol, _score(asked, dataset, paths, protocol)) for protocol in protocols]
    parquet = asked.out.with_suffix(".parquet")
    file = write_per_image(parquet, per_image_table(image_columns(dataset, scores)))
    result = {
        "protocols": {p.name: _summary(asked, p, s) for p, s in scores},
        "per_image": parquet.name,
        "per_image_sha256": file["sha256"],
        "maps": asked.maps.name,
        "data": asked.data,
        "size": asked.size,
        "missing": missing,
        "remark": _remark(protocols, dataset),
        "provenance": provenance(
            device="cpu", threads=1, classifier_sha256=None, data_sha256=dataset.digest()
        ),
    }
    write_atomically(asked.out, json.dumps(result, indent=1, sort_keys=True) + "\n")
    return result


def _remark(protocols: Sequence[Protocol], dataset: Dataset) -> str | None:
    """That maps of one frame were scored in two, where these differ; None where they do not."""
    names: dict[str, list[str]] = {}
    for protocol in protocols:
        names.setdefault(protocol.input_frame, []).append(protocol.name)
    if len(names) == 1 or (dataset.sizes_N2[:, 0] == dataset.sizes_N2[:, 1]).all():
        return None
    return (
        f"Maps were taken as of cropped pictures under {', '.join(names['crop'])} and as of "
        f"squashed ones under {', '.join(names['warp'])}: believe only what they were made of."
    )


def _with_maps(asked: GivenMaps, dataset: Dataset) -> tuple[Dataset, list[Path], list[str]]:
    """The pictures that have maps, their files, and the names of those that have none."""
    found = find_maps(asked.maps, dataset.names, partial=asked.partial)
    present = [i for i, path in enumerate(found) if path is not None]
    missing = [name for name, path in zip(dataset.names, found, strict=True) if path is None]
    if not present:
        raise UsageError(f"{asked.maps} has no map for any picture of {dataset.name}.")
    return dataset.subset(present), [found[i] for i in present], missing


def _score(asked: GivenMaps, dataset: Dataset, paths: list[Path], protocol: Protocol) -> Scores:
    maps = ((index, load_map(path)) for index, path in enumerate(paths))
    with progress(len(paths), "maps", protocol.name) as bar:
        return score_maps(
            counted(maps, bar),
            dataset,
            protocol,
            asked.rule,
            asked.size,
            scale_free=asked.scale_free,
        )


def _summary(asked: GivenMaps, protocol: Protocol, scores: Scores) -> dict[str, object]:
    rule = protocol.rule if protocol.overrides_rule else asked.rule or protocol.rule
    return scores.summary() | {
        "interval": list(error_interval(int(scores.hit_N.sum()), len(scores.hit_N))),
        "interval_method": "wilson",
        "protocol": asdict(protocol),
        "rule": asdict(rule),
        "policy": protocol.policy,
    }
