"""Every number as a line of its own, published and measured, with what is needed to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..records import Record
from .as_csv import as_csv
from .measured import Measurement, Setting, measurements, runs
from .measures import measures, protocol_of
from .published import Published

CSV_COLUMNS = (
    *("kind", "data", "recipe", "classifier", "method", "title", "variant", "change"),
    *("images_from", "protocol", "metric", "value", "low", "high", "lowest_seed", "highest_seed"),
    *("images", "seeds", "policy", "tuned_on", "published"),
)


def to_csv(records: Sequence[Record], rows: Mapping[str, Published]) -> str:
    """Long format: a line per number, published and measured, with what is needed to read it."""
    lines = [_published_line(name, row) for name, row in rows.items()]
    lines += [_error_line(m) for m in measurements(records, rows)]
    for setting, same in runs(records):
        lines += _measure_lines(setting, same)
    return as_csv(CSV_COLUMNS, lines)


def _published_line(name: str, row: Published) -> dict[str, object]:
    return {
        "kind": "published",
        "method": name,
        "title": row.title,
        "protocol": row.protocol,
        "metric": row.metric,
        "value": row.value,
        "images": row.images or "",
        "published": row.value,
    }


def _error_line(found: Measurement) -> dict[str, object]:
    error = found.error
    return {
        "kind": "measured",
        **vars(found.setting),
        "method": found.method,
        "title": found.title,
        "variant": found.variant,
        "change": found.change,
        "images_from": found.source,
        "protocol": found.protocol,
        "metric": "localization_error",
        "value": f"{error.value:.4f}",
        "low": f"{error.low:.4f}",
        "high": f"{error.high:.4f}",
        "lowest_seed": f"{error.lowest:.4f}",
        "highest_seed": f"{error.highest:.4f}",
        "images": error.n_images,
        "seeds": " ".join(map(str, found.seeds)),
        "policy": found.policy,
        "tuned_on": found.tuned_on,
        "published": found.row.value if found.row else "",
    }


def _measure_lines(setting: Setting, records: Sequence[Record]) -> list[dict[str, object]]:
    common = {
        "kind": "measured",
        **vars(setting),
        "method": records[0].method,
        "title": records[0].title,
        "variant": records[0].variant,
    }
    return [
        common
        | {
            "metric": name,
            "value": f"{spread.value:.6g}",
            "lowest_seed": f"{spread.lowest:.6g}",
            "highest_seed": f"{spread.highest:.6g}",
            "images": spread.images,
            "seeds": " ".join(map(str, spread.seeds)),
            "policy": records[-1].protocols.get(protocol_of(name), {}).get("policy", ""),
        }
        for name, spread in measures(records).items()
        if not name.startswith("LE (")  # has a line with its interval over images
    ]
