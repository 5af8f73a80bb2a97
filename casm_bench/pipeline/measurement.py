"""One method on one seed, measured: scores under every protocol, masks, pictures, the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from .. import processes, registry
from ..api import BoxMethod, Facts, SaliencyMethod
from ..cache import MapCache, trim
from ..cost import Cost
from ..data.frames import truth_in_frame
from ..errors import WorkError
from ..files import short_hash, write_atomically
from ..metrics.masked import masked_correct
from ..metrics.masks import summarise_masks
from ..metrics.scoring import (
    Scores,
    Tuned,
    image_columns,
    score_maps,
    score_predicted_boxes,
    tune,
)
from ..progress import counted, progress
from ..protocols import CASM, BoxRule, Protocol
from ..records import (
    SIDES,
    Record,
    is_complete,
    load_per_image,
    load_record,
    per_image_table,
    record_key,
    save_private_pictures,
    save_record,
)
from ..statistics import error_interval, mean_interval
from .bench import Bench, identity
from .method_run import MethodRun, by_metric, present

SHOWCASE_IMAGES = 10  # kept with a record for Figure 1 and contact sheets, chosen by seed
CLASSES_SEEN, CLASSES_UNSEEN = "classes seen in training", "classes unseen in training"


def measure(bench: Bench, cls: type[SaliencyMethod], announce: Callable[[str], None]) -> Record:
    """Measure one method on one seed, or return its record if that is complete.

    `announce` is told which of both, in a line.
    """
    request, name = bench.request, cls.facts.name
    config = bench.config_of(cls)
    place, path = bench.place_of(cls), bench.path_of(cls)
    key = record_key(config=config, data_digest=bench.evaluated_digest, **place)
    if processes.from_first(not request.fresh and is_complete(path, key)):
        record = load_record(path)
        measured = f"measured {record.provenance['created'][:10]}"
        changed = " its file was changed since;" if changed_since(cls.facts, record) else ""
        announce(f"{name}, seed {bench.seed}: {measured}, see {path};{changed} --fresh repeats it")
        return record
    announce(f"{name}, seed {bench.seed}: measuring on {len(bench.evaluated)} pictures")
    where = place | {"variant": bench.variant_of(cls), "key": key}
    record = Measurement(bench, cls).record(where, before=_added_before(bench, path, config))
    if processes.is_first():
        trim(bench.cache, request.cache_limit_gb * 1e9)
    return record


def _added_before(bench: Bench, path: Path, config: dict[str, object]) -> Record | None:
    """The record at `path` if more was measured on the very maps that are scored now."""
    if bench.request.fresh or not path.exists():
        return None
    try:
        record = load_record(path)
    except WorkError:  # damaged, or of another schema: it is written anew
        return None
    same_data = record.provenance["data_sha256"] == bench.evaluated_digest
    same = same_data and identity(record.config) == identity(config)
    return record if same and record.added else None


def changed_since(facts: Facts, record: Record) -> bool:
    """Whether the file of a method from elsewhere is younger than its record.

    A checkout's own files are as young as the checkout; their records name the commit.
    """
    if registry.is_shipped(facts) or not Path(facts.source_file).is_file():
        return False
    measured = datetime.fromisoformat(record.provenance["created"]).timestamp()
    return Path(facts.source_file).stat().st_mtime > measured


class Measurement(MethodRun):
    """One method on one seed, from fitting to the record."""

    def __init__(self, bench: Bench, cls: type[SaliencyMethod]) -> None:
        super().__init__(bench, cls)
        self.tuned: dict[str, Tuned] = {}  # by protocol, where its threshold came from

    def record(self, where: dict[str, object], before: Record | None = None) -> Record:
        """Measure, keep and return. Of several processes all train and make maps, one scores.

        `where` are the names that the record goes by: data, recipe, method, seed, variant and key.
        `before` is an earlier record of this run. If both are of the same maps, which shows in
        equal scores, the metrics that were added to it are kept; maps of a new training differ.
        """
        with Cost(self.bench.device) as cost:
            self.fit()
            self._make_maps()
            measured = self._measure() if processes.is_first() else None
        self.cost["peak_memory_mb"] = round(cost.peak_memory_mb, 1)
        return processes.from_first(self._save(where, before, *measured) if measured else None)

    def _measure(self) -> tuple[dict[str, object], dict[str, np.ndarray], object]:
        """What the record says, its per-image columns, and the pictures to show."""
        scores, skipped = self._score()
        metrics, showcase = self._look_closer()
        said = {
            "protocols": {p.name: self._summary(p, s) for p, s in scores},
            "metrics": metrics,
            "skipped": [{"name": name, "reason": why} for name, why in skipped.items()] or None,
        }
        return said, self._columns(scores), showcase

    def _columns(self, scores: list[tuple[Protocol, Scores]]) -> dict[str, Sequence | np.ndarray]:
        """The per-image columns; a record of data that may not be shared holds no true boxes."""
        columns = image_columns(self.dataset, scores)
        if self.facts.boxes == "test" and not self.dataset.shareable:
            columns |= dict.fromkeys(SIDES, [None] * len(columns["name"]))
        return columns

    def _save(
        self,
        where: dict[str, object],
        before: Record | None,
        said: dict[str, object],
        columns: dict[str, np.ndarray],
        showcase: dict[str, np.ndarray] | None,
    ) -> Record:
        record = Record(
            **where,
            **said,
            title=self.facts.title,
            facts=_plain_facts(self.facts),
            config=self.config,
            training=self.method.history or None,
            findings=self.method.findings or None,
            provenance=self.provenance(),
            cost=self.cost,
        )
        results, table = self.bench.request.out, per_image_table(columns)
        if before and _same_maps(before, results, table):
            metrics = before.metrics | record.metrics
            record = replace(record, added=before.added, metrics=metrics)
        if showcase and not self.dataset.shareable:
            save_private_pictures(record, results, showcase)
            showcase = None
        return save_record(record, results, table, showcase)

    # --- scores -------------------------------------------------------------------------------

    def _make_maps(self) -> None:
        """Maps in every frame that a protocol asks for; box methods have none."""
        frames = [] if isinstance(self.method, BoxMethod) else self._input_frames()
        self.caches = {frame: self.maps_in(frame) for frame in frames}
        tuned = {p.input_frame for p in self.bench.protocols if frames and p.policy == "tuned"}
        self.tuning_caches = {
            frame: self.maps_in(frame, self.bench.tuning_pictures) for frame in sorted(tuned)
        }

    def _input_frames(self) -> list[str]:
        frames = dict.fromkeys(protocol.input_frame for protocol in self.bench.protocols)
        return list(frames)[:1] if self.bench.frames_agree else list(frames)

    def _score(self) -> tuple[list[tuple[Protocol, Scores]], dict[str, str]]:
        if isinstance(self.method, BoxMethod):
            return self._score_boxes()
        first = next(iter(self.caches.values()))
        self.cost["map_seconds"] = first.seconds
        self.cost["images_per_second"] = len(first.done) / max(first.seconds, 1e-9)
        scores = []
        for protocol in self.bench.protocols:
            maps = self.caches.get(protocol.input_frame, first)
            scores.append((protocol, self._score_maps(maps, protocol)))
        return scores, {
            name: why for cache in self.caches.values() for name, why in cache.skipped.items()
        }

    def _score_maps(self, maps: MapCache, protocol: Protocol) -> Scores:
        if protocol.policy == "tuned":
            protocol = self._tune(protocol)
        with progress(len(maps.done), "images", f"{self.facts.name}, {protocol.name}") as bar:
            return score_maps(
                counted(maps, bar),
                self.dataset,
                protocol,
                self.facts.rule,
                self.size,
                self.facts.upsample,
                self.facts.scale_free,
            )

    def _tune(self, protocol: Protocol) -> Protocol:
        """The protocol with a threshold chosen on held-out pictures."""
        pictures = self.bench.tuning_pictures
        maps = self.tuning_caches[protocol.input_frame]
        how = (self.size, self.facts.upsample, self.facts.scale_free)
        self.tuned[protocol.name] = tune(maps, pictures, protocol, *how)
        return self.tuned[protocol.name].applied_to(protocol)

    def _score_boxes(self) -> tuple[list[tuple[Protocol, Scores]], dict[str, str]]:
        skipped: dict[str, str] = {}
        boxes: dict[str, np.ndarray] = {}
        with Cost(self.bench.device, peak=False) as cost:
            for frame in dict.fromkeys(p.input_frame for p in self.bench.protocols):
                boxes[frame], bad = self.boxes_in(frame)
                skipped |= bad
        self.cost["map_seconds"] = cost.seconds
        self.cost["images_per_second"] = len(boxes) * len(self.dataset) / max(cost.seconds, 1e-9)
        kept = [i for i, name in enumerate(self.dataset.names) if name not in skipped]
        subset = self.dataset.subset(kept)
        scores = []
        for protocol in self.bench.protocols:
            predicted_N4 = boxes[protocol.input_frame][kept]
            score = score_predicted_boxes(predicted_N4, subset, protocol, self.size)
            scores.append((protocol, replace(score, index_N=np.array(kept))))
        return scores, skipped

    # --- what else is measured ----------------------------------------------------------------

    def _look_closer(self) -> tuple[dict[str, float], dict[str, np.ndarray] | None]:
        """Metrics beyond localization, and the pictures to show; both need pictures and maps."""
        if isinstance(self.method, BoxMethod):
            return {}, None
        frame, maps = next(iter(self.caches.items()))
        metrics = self._mask_metrics(maps, frame)
        metrics |= self._masked_accuracy(maps, frame)
        return metrics, self._showcase(maps, frame)

    def _mask_metrics(self, maps: MapCache, frame: str) -> dict[str, float]:
        columns = by_metric(self.mask_scores(index, map_HW, frame) for index, map_HW in maps)
        metrics = {name: float(present(values).mean()) for name, values in columns.items()}
        spread = summarise_masks({"mean": np.array(columns["mask_mean"])})
        return metrics | {f"mask_{name}": value for name, value in spread.items()}

    def _masked_accuracy(self, maps: MapCache, frame: str) -> dict[str, float]:
        """Accuracy in percent of the run's classifier, not of the one that CASM trains on.

        Kept beside the maps: scoring them under another protocol asks no network again.
        """
        kept = maps.folder / f"masked-{short_hash(asdict(self.facts.rule))}.json"
        if not kept.exists():
            write_atomically(kept, json.dumps(self._measure_masked_accuracy(maps, frame)))
        return json.loads(kept.read_text())

    def _measure_masked_accuracy(self, maps: MapCache, frame: str) -> dict[str, float]:
        binary = {i: np.packbits(self.binary(map_HW)) for i, map_HW in maps}
        if not self.labels_fit():
            return {}
        correct: dict[str, list[Tensor]] = {}
        description = f"{self.facts.name}, masked accuracy"
        with progress(len(binary), "images", description) as bar:
            for batch in self.batches(frame, sorted(binary)):
                binary_B1HW = self._unpacked(binary, batch.indices_B)
                images = self.on_device(batch)
                for name, correct_B in masked_correct(self.bench.classifier, *images, binary_B1HW):
                    correct.setdefault(name, []).append(correct_B)
                bar.update(len(batch.indices_B))
        return {
            name: 100 * float(torch.cat(values).float().mean()) for name, values in correct.items()
        }

    def _unpacked(self, binary: dict[int, np.ndarray], index_B: np.ndarray) -> Tensor:
        shape = (1, self.size, self.size)
        count = self.size**2
        masks = [np.unpackbits(binary[i], count=count).reshape(shape) for i in index_B.tolist()]
        return torch.from_numpy(np.stack(masks)).to(self.bench.device)

    def _showcase(self, maps: MapCache, frame: str) -> dict[str, np.ndarray]:
        """Some pictures drawn by the seed alone, the same for every method of this seed."""
        rng = np.random.default_rng([self.bench.seed, len(self.dataset)])
        count = min(SHOWCASE_IMAGES, len(self.dataset))
        chosen = np.sort(rng.permutation(len(self.dataset))[:count]).tolist()
        by_index = {i: map_HW for i, map_HW in maps if i in set(chosen)}
        chosen = [i for i in chosen if i in by_index]
        images = [self.dataset.frame_image(i, frame, self.size) for i in chosen]
        shares = [self.in_unit_range(by_index[i]) for i in chosen]
        return {
            "names": np.array([self.dataset.names[i] for i in chosen]),
            "frame": np.array(frame),
            "truth": self._padded_truth(chosen, frame),
            "images": np.stack(images),
            "masks": np.stack(shares).astype(np.float16),
            "binary": np.stack([self.binary(by_index[i]) for i in chosen]),
        }

    def _padded_truth(self, chosen: list[int], frame: str) -> np.ndarray:
        """True boxes in the frame, int64 n×most×4; all zeros where a picture has fewer."""
        data = self.dataset
        boxes = [truth_in_frame(data.boxes[i], *data.sizes_N2[i], frame, self.size) for i in chosen]
        most = max(map(len, boxes))
        return np.stack([np.pad(b, ((0, most - len(b)), (0, 0))) for b in boxes])

    # --- what the record says of a protocol ---------------------------------------------------

    def _summary(self, protocol: Protocol, scores: Scores) -> dict[str, object]:
        values = scores.summary()
        hits, n = int(scores.hit_N.sum()), len(scores.hit_N)
        rule = protocol.rule if protocol.overrides_rule else self.facts.rule
        if scores.threshold is not None:
            rule = replace(rule, alpha=scores.threshold)
        if tuned := self.tuned.get(protocol.name):
            rule = replace(rule, alpha=tuned.alpha)
        summary = {
            "protocol": asdict(protocol),
            "rule": asdict(rule if not isinstance(self.method, BoxMethod) else BoxRule()),
            **self._policy(protocol),
            "interval": list(error_interval(hits, n)),
            "interval_method": "wilson",
            "hits": hits,
            "f1_interval": _in_percent(mean_interval(scores.f1_N)),
            "f1_mean_interval": _in_percent(mean_interval(scores.f1_mean_N)),
            **values,
        }
        return summary | ({"groups": groups} if (groups := self._groups(scores)) else {})

    def _policy(self, protocol: Protocol) -> dict[str, object]:
        """Where the threshold comes from, and whose boxes it has seen."""
        policy: dict[str, object] = {"policy": protocol.policy, "tuned_on": None}
        if protocol.policy == "oracle":
            split = f"{self.dataset.name} {self.dataset.split}"
            policy["tuned_on"] = f"{split} (the evaluated pictures)"
        elif tuned := self.tuned.get(protocol.name):
            policy["tuned_on"] = self.config["tuning"]["on"]
            policy["tuned_images"] = tuned.n_images
            policy["tuned_error"] = tuned.localization_error
        elif isinstance(self.method, BoxMethod):
            policy["policy"] = "own"  # no threshold is asked for
        return policy

    def _groups(self, scores: Scores) -> dict[str, dict[str, object]]:
        """Scores of the data's sources apart, and of classes that training showed or did not."""
        columns = [self.dataset.groups] if self.dataset.groups else []
        if self.facts.trained and (seen := self._seen_in_training()):
            columns.append(seen)
        found = {}
        for names in columns:
            group_N = np.array([names[i] for i in scores.index_N])
            for group in dict.fromkeys(group_N.tolist()):
                found[group] = _group_summary(scores.hit_N[group_N == group])
        return found

    def _seen_in_training(self) -> list[str]:
        """Per evaluated picture, whether its class was trained on; empty where all were."""
        train = self.bench.splits.train
        if train is None or len(train.classes) != len(self.dataset.classes):
            return []
        seen_N = np.isin(self.dataset.labels_N, train.labels_N)
        return [] if seen_N.all() else [CLASSES_SEEN if seen else CLASSES_UNSEEN for seen in seen_N]


def _same_maps(before: Record, results: Path, now: pa.Table) -> bool:
    """Whether a record's maps scored as now on all images under `casm`, which every run reports."""
    try:
        scored = load_per_image(before.path(results), before)
    except WorkError:
        return False
    first, second = (_casm_scores(table) for table in (scored, now))
    same = first.keys() == second.keys()
    return same and np.allclose(list(first.values()), [second[name] for name in first], atol=1e-6)


def _casm_scores(table: pa.Table) -> dict[str, tuple[float, float, float]]:
    rows = table.select(["name", "protocol", "hit", "iou", "f1"]).to_pylist()
    return {
        row["name"]: (row["hit"], row["iou"], row["f1"])
        for row in rows
        if row["protocol"] == CASM.name
    }


def _in_percent(interval: tuple[float, float, str]) -> list[float | str]:
    low, high, method = interval
    return [100 * low, 100 * high, method]


def _group_summary(hit_N: np.ndarray) -> dict[str, object]:
    hits, n = int(hit_N.sum()), len(hit_N)
    return {
        "localization_error": 100 * (1 - hits / n),
        "interval": list(error_interval(hits, n)),
        "n_images": n,
    }


def _plain_facts(facts: object) -> dict[str, object]:
    plain = asdict(facts)
    plain["source_file"] = Path(plain["source_file"]).name  # where it lay is nobody's business
    return plain
