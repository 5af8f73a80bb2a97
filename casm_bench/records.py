"""Records: what a run measured, with everything needed to judge and repeat it.

A record is one JSON file `<data>/<recipe>/<method>-seed<k>[-<variant>].json` in the results
folder; beside it lie a parquet file with a row per image and protocol and, where pictures may be
shown, an npz file with a few of them. The JSON is written last, so that a record that exists is
complete, and carries a checksum, so that a number edited by hand is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import WorkError
from .files import write_atomically

SCHEMA = 1
REMARK = "remark.txt"  # in the folder of a recipe
MEASUREMENT = 1  # raise it when a change to the code changes results: old records are then redone
CACHE = "cache"  # folder of checkpoints and maps in the results folder; never holds records
SIDES = ("x0", "y0", "x1", "y1")
PER_IMAGE_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("label", pa.int64()),
        ("group", pa.string()),  # null where the data has one source only
        ("protocol", pa.string()),
        # predicted, half-open px of the frame; null where the prediction is a true box that may
        # not be shared
        *((side, pa.int64()) for side in SIDES),
        ("hit", pa.bool_()),
        ("iou", pa.float64()),
        ("f1", pa.float64()),  # null for methods that predict boxes without a map
        ("f1_mean", pa.float64()),
    ]
)


class GroupResult(TypedDict):
    """Localization error of the images of one source, in percent."""

    localization_error: float
    interval: list[float]
    n_images: int


class ProtocolResult(TypedDict):
    """What one protocol says; errors, F1 and intervals in percent."""

    protocol: dict[str, Any]  # the declaration itself, asdict(Protocol)
    rule: dict[str, Any]  # the box rule that was used, asdict(BoxRule)
    policy: str  # own, fixed, tuned or oracle: where the threshold comes from
    tuned_on: str | None  # the split whose boxes chose it
    tuned_images: NotRequired[int]  # how many boxed pictures of it, for policy tuned
    tuned_error: NotRequired[float]  # localization error there, in percent
    localization_error: float
    interval: list[float]
    interval_method: str
    hits: int
    n_images: int
    f1: float | None
    f1_interval: NotRequired[list]  # low, high, and bca
    f1_mean: float | None
    f1_mean_interval: NotRequired[list]
    groups: NotRequired[dict[str, GroupResult]]


class Curve(TypedDict):
    """Means over images along an axis, for figures; all lists are equally long."""

    x: list  # numbers, or the names of stages in order
    y: list[float]
    low: list[float]  # 95 % interval of each mean, BCa or Wilson as `mean_interval` says
    high: list[float]


class AddedMetrics(TypedDict):
    """What `metrics` measured on the maps of a finished run; the means are among its metrics.

    `curves`, by family:

    insertion-deletion
        `insertion`, `deletion`: x is the share of pixels changed, y the probability of the class.
    randomized-weights
        `spearman, cascading`, `ssim, cascading`, `spearman, independent`, `ssim, independent`: x
        names what was randomized, from the logits down, y is the similarity to the method's map.
    """

    intervals: dict[str, list]  # by metric: low, high, and wilson or bca
    curves: NotRequired[dict[str, Curve]]
    n_images: int  # all, or the first of a permutation drawn by the seed
    settings: dict[str, Any]
    provenance: dict[str, Any]
    per_image: HashedFile


class HashedFile(TypedDict):
    """A file beside the record, and the SHA-256 of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement: a method on a data set under a recipe and a seed."""

    method: str
    title: str
    facts: dict[str, Any]  # what the method declares about itself
    data: str
    recipe: str
    seed: int
    config: dict[str, Any]  # resolved: classifier, weights, hyperparameters, limit, recipe ...
    key: str  # record_key of all that decides the result
    protocols: dict[str, ProtocolResult]
    metrics: dict[str, float]
    provenance: dict[str, Any]
    cost: dict[str, float | None]
    variant: str = ""  # eight hex digits where the recipe's settings were changed
    training: list[dict[str, Any]] | None = None  # one entry per epoch
    findings: dict[str, Any] | None = None  # what fitting found out besides, such as a searched λ_r
    skipped: list[dict[str, str]] | None = None  # name and reason
    added: dict[str, AddedMetrics] | None = None  # measured after the run, by family
    per_image: HashedFile | None = None  # filled in by save_record
    showcase: HashedFile | None = None
    schema: int = SCHEMA

    def path(self, results: Path) -> Path:
        """Where this record belongs in the results folder."""
        return record_path(results, self.data, self.recipe, self.method, self.seed, self.variant)


def record_path(
    results: Path, data: str, recipe: str, method: str, seed: int, variant: str = ""
) -> Path:
    """`<results>/<data>/<recipe>/<method>-seed<k>[-<variant>].json`."""
    ending = f"-{variant}" if variant else ""
    return Path(results) / data / recipe / f"{method}-seed{seed}{ending}.json"


def record_key(
    *, data: str, recipe: str, method: str, seed: int, config: Mapping[str, Any], data_digest: str
) -> str:
    """SHA-256 of everything that decides a result: equal keys may share one record."""
    return _digest(
        {
            "data": data,
            "recipe": recipe,
            "method": method,
            "seed": seed,
            "config": config,
            "data_digest": data_digest,
        }
    )


# --- writing ----------------------------------------------------------------------------------


def per_image_table(columns: Mapping[str, Sequence | np.ndarray]) -> pa.Table:
    """The rows of PER_IMAGE_SCHEMA, in its order, followed by any further columns.

    Raises ValueError when a column of the schema is missing.
    """
    missing = [name for name in PER_IMAGE_SCHEMA.names if name not in columns]
    if missing:
        raise ValueError(f"per-image scores lack the columns {missing}")
    known = [pa.array(columns[field.name], field.type) for field in PER_IMAGE_SCHEMA]
    extra = {
        name: pa.array(columns[name]) for name in columns if name not in PER_IMAGE_SCHEMA.names
    }
    return pa.table([*known, *extra.values()], names=[*PER_IMAGE_SCHEMA.names, *extra])


def write_per_image(path: Path, per_image: pa.Table) -> HashedFile:
    """Write per-image scores as parquet, atomically.

    Raises WorkError when the folder cannot be written or the disk is full.
    """
    buffer = io.BytesIO()
    pq.write_table(per_image, buffer, compression="zstd")
    return _write_hashed(path, buffer.getvalue())


def save_record(
    record: Record,
    results: Path,
    per_image: pa.Table,
    showcase: Mapping[str, np.ndarray] | None = None,
) -> Record:
    """Write a record and the files beside it; the JSON comes last and makes it complete.

    `showcase` holds `names` n, `images` uint8 n×H×W×3, `binary` bool n×H×W, and whatever else
    figures may want. Returns the record as written, naming its files.
    Raises WorkError when the folder cannot be written or the disk is full.
    """
    path = record.path(results)
    shown = None
    if showcase is not None:
        shown = _write_hashed(path.with_suffix(".npz"), _packed(showcase))
    scores = write_per_image(path.with_suffix(".parquet"), per_image)
    record = replace(record, per_image=scores, showcase=shown)
    write_atomically(path, to_json(record).encode())
    return record


def save_private_pictures(
    record: Record, results: Path, showcase: Mapping[str, np.ndarray]
) -> None:
    """Keep pictures that may not be shared in the cache, which no repository holds."""
    write_atomically(_private_path(record, results), _packed(showcase))


def _private_path(record: Record, results: Path) -> Path:
    return Path(results) / CACHE / "pictures" / f"{record.key}.npz"


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def add_metrics(
    record: Record, results: Path, family: str, added: dict[str, Any], table: pa.Table
) -> Record:
    """Write a record anew with the metrics of a family, and their values per image beside it.

    `added` holds `metrics` (name → mean) and the other fields of AddedMetrics. What was measured
    of the same family before is replaced, and what the record has got meanwhile is kept. Raises
    WorkError when there is no such record, or when the folder cannot be written.
    """
    path = record.path(results)
    record = load_record(path)  # measuring takes long, and another process may have added to it
    per_image = write_per_image(path.with_suffix(f".{family}.parquet"), table)
    before = (record.added or {}).get(family, {"intervals": {}})["intervals"]
    kept = {name: value for name, value in record.metrics.items() if name not in before}
    metrics = kept | added.pop("metrics")
    families = (record.added or {}) | {family: added | {"per_image": per_image}}
    record = replace(record, metrics=metrics, added=families)
    write_atomically(path, to_json(record).encode())
    return record


def _write_hashed(path: Path, content: bytes) -> HashedFile:
    write_atomically(path, content)
    return HashedFile(file=path.name, sha256=hashlib.sha256(content).hexdigest())


def to_json(record: Record) -> str:
    """The record as text: sorted keys, one value per line, checksum included."""
    content = _plain(asdict(record))
    content["checksum"] = _digest(content)
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _digest(content: object) -> str:
    canonical = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> Any:
    """`value` in JSON's own types. What is not finite has no JSON and becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


# --- reading ----------------------------------------------------------------------------------


def load_record(path: Path) -> Record:
    """Read one record.

    Raises WorkError naming the file when it is missing, is no record, has another schema, or was
    edited since it was written.
    """
    path = Path(path)
    content = _read_object(path)
    if content.get("schema") != SCHEMA:
        raise WorkError(
            f"{path} has schema {content.get('schema')!r}, this version reads {SCHEMA}: measure it "
            "again, or move it out of the results folder."
        )
    if content.pop("checksum", None) != _digest(content):
        raise WorkError(
            f"{path} was edited after it was measured (its checksum disagrees): restore it, for "
            "instance with git, or delete it and measure again."
        )
    return _to_record(path, content)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WorkError(f"Cannot read the record {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise WorkError(
            f"{path} is not a record, it is not even JSON ({error}): delete it and measure again."
        ) from error
    if not isinstance(content, dict):
        raise WorkError(f"{path} is not a record: a JSON object is needed. Move it elsewhere.")
    return content


def _to_record(path: Path, content: dict[str, Any]) -> Record:
    try:
        return Record(**content)
    except TypeError:
        wrong = sorted(set(content) ^ {field.name for field in fields(Record)})
        raise WorkError(
            f"{path} lacks or has too many of the fields {', '.join(wrong)}: measure it again."
        ) from None


def load_records(results: Path) -> list[Record]:
    """All records of a results folder, sorted by path; its cache is left out.

    Raises WorkError as load_record does, and when a record lies where another one belongs.
    """
    results = Path(results)
    found = sorted(results.glob("*/*/*.json"))
    paths = [path for path in found if path.relative_to(results).parts[0] != CACHE]
    return [_load_in_place(path, results) for path in paths]


def _load_in_place(path: Path, results: Path) -> Record:
    record = load_record(path)
    if record.path(results) != path:
        raise WorkError(
            f"{path} holds the record that belongs to {record.path(results)}: a copy would be "
            "counted twice. Move it back or delete it."
        )
    return record


def is_complete(path: Path, key: str) -> bool:
    """Whether `path` holds an intact record of exactly this key, with its files beside it."""
    try:
        record = load_record(path)
        _check_beside(Path(path), record)
    except WorkError:
        return False
    return record.key == key and record.per_image is not None


def check_files(record: Record, results: Path) -> None:
    """Raise WorkError when a file beside the record is missing, or not the one it names."""
    path = record.path(results)
    _check_beside(path, record)
    for added in (record.added or {}).values():
        _read_hashed(path, added["per_image"])


def _check_beside(path: Path, record: Record) -> None:
    for file in (record.per_image, record.showcase):
        if file:
            _read_hashed(path, file)


def load_showcase(record: Record, results: Path) -> dict[str, np.ndarray] | None:
    """The pictures kept with a record, None if it kept none.

    Raises WorkError when they are missing or are not those that were measured.
    """
    if record.showcase is None:
        return None
    path = record.path(results)
    content = _read_hashed(path, record.showcase)
    return _unpacked(content, path.with_name(record.showcase["file"]))


def load_private_pictures(record: Record, results: Path) -> dict[str, np.ndarray] | None:
    """What save_private_pictures kept, None if there is nothing. Raises WorkError if damaged."""
    path = _private_path(record, results)
    return _unpacked(path.read_bytes(), path) if path.is_file() else None


def _unpacked(content: bytes, path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile) as error:
        raise WorkError(f"{path} cannot be read ({error}): measure again.") from error


def load_per_image(path: Path, record: Record) -> pa.Table:
    """The per-image scores of the record that lies at `path`, as PER_IMAGE_SCHEMA.

    Raises WorkError when they are missing or are not those that were measured.
    """
    if record.per_image is None:
        raise WorkError(f"{path} has no scores per image: measure it again.")
    content = _read_hashed(Path(path), record.per_image)
    try:
        return pq.read_table(io.BytesIO(content))
    except pa.ArrowInvalid as error:
        raise WorkError(f"The scores per image of {path} cannot be read: {error}.") from error


def _read_hashed(record: Path, file: HashedFile) -> bytes:
    path = record.with_name(file["file"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkError(
            f"Cannot read {path}, which belongs to the record {record.name}: "
            f"{error.strerror or error}. Restore it or measure again."
        ) from error
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise WorkError(
            f"{path} is not the file that {record.name} was written with: restore it or measure "
            "again."
        )
    return content


def read_remarks(results: Path) -> dict[tuple[str, str], str]:
    """By data and recipe, what a reader must know of these records: their folder's remark.txt."""
    found = sorted(results.glob(f"*/*/{REMARK}"))
    return {path.parts[-3:-1]: " ".join(path.read_text().split()) for path in found}
