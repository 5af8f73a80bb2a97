"""The image browser's data: pictures that records keep, maps and boxes of every method on them."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..protocols import CASM, PROTOCOLS, Protocol, column_title
from ..records import SIDES, Record, load_per_image, load_private_pictures, load_showcase
from .measured import group_by

QUALITY = 90  # of 100: a seventh of a PNG's bytes, and faint stripes can still be told apart
USUAL_FRAME = "crop"  # of showcases that do not name theirs


@dataclass(frozen=True)
class Shown:
    """A record and the pictures kept with it."""

    record: Record
    case: Mapping[str, np.ndarray]
    private: bool  # may not be shared

    @property
    def pictures(self) -> str:
        """Equal for records that show the same pictures."""
        sha = hashlib.sha256(np.ascontiguousarray(self.case["images"]).tobytes())
        sha.update("\0".join(map(str, self.case["names"])).encode())
        return sha.hexdigest()


def shown_records(records: Sequence[Record], results: Path, public: bool) -> list[Shown]:
    """Records with pictures; `public` leaves out those that may not be shared.

    Raises WorkError when a file of pictures was changed.
    """
    found = []
    for record in records:
        case = load_showcase(record, results)
        private = case is None
        if case is None and not public:
            case = load_private_pictures(record, results)
        if case is not None and len(case["names"]) and "masks" in case:
            found.append(Shown(record, case, private))
    return found


def picture_sets(shown: Sequence[Shown]) -> list[list[Shown]]:
    """Records on the same pictures, put together; in the order of the records."""
    groups = group_by(shown, lambda s: (s.record.data, s.record.recipe, s.pictures))
    return list(groups.values())


def picture_files(case: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The pictures as WebP by file name; the same picture has the same name wherever it is kept."""
    encoded = [_webp(image_HW3) for image_HW3 in case["images"]]
    return {f"{hashlib.sha256(content).hexdigest()[:16]}.webp": content for content in encoded}


def _webp(pixels_HW3: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "WEBP", quality=QUALITY, method=6)
    return buffer.getvalue()


def set_data(
    shown: Sequence[Shown], results: Path, links: Mapping[int, str], changes: Mapping[int, str]
) -> dict[str, Any]:
    """One set for browse.js.

    From id(record), `links` lead to the page of the record, `changes` to what differs from its
    recipe, in words.
    """
    first = shown[0]
    files = [next(iter(picture_files({"images": [image]}))) for image in first.case["images"]]
    names = [str(name) for name in first.case["names"]]
    return {
        "size": int(first.case["images"].shape[1]),
        "frame": _frame(first.case),
        "private": any(s.private for s in shown),
        "pictures": [
            {"name": name, "file": f"pictures/{file}", "truth": truth}
            for name, file, truth in zip(names, files, _truth(first.case), strict=True)
        ],
        "methods": [
            _method_data(s, names, results)
            | {
                "title": ", ".join(filter(None, (s.record.title, changes[id(s.record)]))),
                "record": links[id(s.record)],
                "variant": bool(s.record.variant),
            }
            for s in shown
        ],
    }


def _frame(case: Mapping[str, np.ndarray]) -> str:
    return str(case["frame"]) if "frame" in case else USUAL_FRAME


def _truth(case: Mapping[str, np.ndarray]) -> list[list[list[int]] | None]:
    """True boxes per picture, None where the record does not keep them."""
    if "truth" not in case:
        return [None] * len(case["names"])
    return [[box for box in boxes if any(box)] for boxes in case["truth"].tolist()]


def _method_data(shown: Shown, names: Sequence[str], results: Path) -> dict[str, Any]:
    record, case = shown.record, shown.case
    rule = record.facts.get("rule") or {}
    protocol = _protocol(record, _frame(case))
    scores = _scores(record, results, protocol) if protocol else {}
    counted = protocol or CASM
    return {
        "rule": rule,
        "upsample": record.facts.get("upsample", "nearest"),
        "grid": list(case["masks"].shape[1:]),
        "masks": [_bytes64((m.astype(np.float32).clip(0, 1) * 255).round()) for m in case["masks"]],
        "binary": [_base64(np.packbits(mask_HW).tobytes()) for mask_HW in case["binary"]],
        "scores": [scores.get(name) for name in names],
        "unclipped": counted.truth_area == "unclipped",
        "inclusive": counted.coordinates == "inclusive",
    }


def _protocol(record: Record, frame: str) -> Protocol | None:
    """The first protocol that the record was scored under and that compares in this frame."""
    fitting = (
        protocol
        for name, protocol in PROTOCOLS.items()
        if name in record.protocols and (protocol.input_frame, protocol.box_frame) == (frame, frame)
    )
    return next(fitting, None)


def _scores(record: Record, results: Path, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Box, IoU and verdict by picture."""
    title = column_title(protocol.name, record.protocols[protocol.name]["policy"])
    rows = load_per_image(record.path(results), record).to_pylist()
    return {
        row["name"]: {
            "protocol": title,
            "box": [row[side] for side in SIDES],
            "iou": row["iou"],
            "hit": row["hit"],
        }
        for row in rows
        if row["protocol"] == protocol.name
    }


def _bytes64(values: np.ndarray) -> str:
    return _base64(values.astype(np.uint8).tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
