"""Maps of finished runs as files that other evaluators read: one `.npy` per image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import registry
from ..api import BoxMethod
from ..cache import trim
from ..data.wsol_metadata import write_wsol_metadata
from ..errors import UsageError
from ..maps import save_map, to_grid, unit_range
from .more import Judges, More, finished_benches
from .request import Request

Layout = Literal["own", "wsolevaluation"]


@dataclass(frozen=True)
class ExportRequest:
    """What `export` was asked for, and the run that the maps belong to."""

    run: Request
    to: Path
    frame: Literal["crop", "warp"] = "crop"
    layout: Layout = "own"  # or scaled to [0, 1] in the frame, cubically, as wsolevaluation does


def export_maps(asked: ExportRequest, announce: Callable[[str], None]) -> list[Path]:
    """Write TO/METHOD-seedK/maps/<image id>.npy and, beside, metadata in wsolevaluation's form.

    Returns the folders METHOD-seedK. Nothing is trained, nor mapped if it is in the cache. Raises
    UsageError where only box methods were named and as `check_frame`, WorkError as
    `measure_more` does.
    """
    classes = [registry.get(name) for name in asked.run.methods]
    with_maps = [cls for cls in classes if not issubclass(cls, BoxMethod)]
    if not with_maps:
        raise UsageError("None of these methods makes maps; name others with --methods.")
    folders = []
    for bench in finished_benches(asked.run, with_maps):
        check_frame(asked, bench.frames_agree)
        for cls in with_maps:
            folders.append(asked.to / f"{cls.facts.name}-seed{bench.seed}")
            count = _export(More(bench, cls, None, Judges(bench, ())), asked, folders[-1])
            announce(f"{folders[-1]}: {count} maps")
        trim(bench.cache, asked.run.cache_limit_gb * 1e9)
    return folders


def check_frame(asked: ExportRequest, frames_agree: bool) -> None:
    """Raise UsageError for maps of cropped pictures in wsolevaluation's layout.

    It holds them against boxes of squashed pictures; `frames_agree` where these are the same.
    """
    if asked.layout == "wsolevaluation" and asked.frame == "crop" and not frames_agree:
        raise UsageError(
            "wsolevaluation scores maps of squashed pictures: --layout wsolevaluation needs "
            "--frame warp."
        )


def _export(finished: More, asked: ExportRequest, folder: Path) -> int:
    dataset, size = finished.dataset, finished.size
    frame = finished.frame if finished.bench.frames_agree else asked.frame
    kept = []
    for index, map_HW in finished.cached_maps(frame):
        if asked.layout == "wsolevaluation":
            map_HW = unit_range(to_grid(map_HW, size, size, "cubic"))
        save_map(folder / "maps" / f"{dataset.names[index]}.npy", map_HW)
        kept.append(index)
    write_wsol_metadata(dataset.subset(sorted(kept)), folder / "metadata")
    return len(kept)
