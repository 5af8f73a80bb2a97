"""One method on one seed: fit, maps, boxes, scores, record."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from .. import processes, training
from ..api import BoxMethod, Facts, SaliencyMethod
from ..backbones.weights import weights_digest
from ..boxes import UNIT_RANGE_RULES, binarise
from ..cache import MapCache
from ..cost import Cost
from ..data.dataset import Dataset
from ..data.frames import resized_boxes, truth_in_frame
from ..data.loader import FrameBatch, frame_batches
from ..errors import CasmBenchError, UsageError, WorkError
from ..files import short_hash, write_atomically
from ..maps import check_map, to_grid, unit_range
from ..metrics.evidence import evidence_in_frame
from ..metrics.localization import localization_error
from ..metrics.masked import masked_correct
from ..metrics.masks import mask_statistics, summarise_masks
from ..metrics.scoring import (
    Scores,
    Tuned,
    image_columns,
    score_maps,
    score_predicted_boxes,
    tune,
)
from ..progress import progress
from ..protocols import CASM, BoxRule, Protocol
from ..records import (
    SIDES,
    Record,
    load_per_image,
    per_image_table,
    provenance,
    save_private_pictures,
    save_record,
)
from ..statistics import error_interval, mean_interval
from .following import Follower

if TYPE_CHECKING:
    from .bench import Bench

SHOWCASE_IMAGES = 10  # kept with a record for Figure 1 and contact sheets, chosen by seed
CLASSES_SEEN, CLASSES_UNSEEN = "classes seen in training", "classes unseen in training"


Row = tuple[int, dict[str, float]]  # index of the image, and its values by metric


class Measurement:
    """One method on one seed, from fitting to the record."""

    def __init__(self, bench: Bench, cls: type, config: dict[str, object], key: str) -> None:
        self.bench, self.cls, self.facts = bench, cls, cls.facts
        self.config, self.key = config, key
        self.dataset = bench.evaluated
        self.size = bench.input_size
        self.method = bench.make(cls)
        self.imported = bench.imported if "imported" in config else None
        deciding = ("classifier_settings", "fit", "hyperparameters")
        deciding += ("imported",) if self.imported else ()
        fit = {name: config.get(name) for name in deciding}
        names = {f.name for f in fields(cls) if f.metadata.get("asked")}
        given = fit["hyperparameters"]
        self.asked = {name: value for name, value in given.items() if name in names}
        fit["hyperparameters"] = {k: v for k, v in given.items() if k not in names}
        self.folder = bench.folder("methods", f"{self.facts.name}-{short_hash(fit)}")
        self.cost: dict[str, float | None] = {}
        self.tuned: dict[str, Tuned] = {}  # by protocol, where its threshold came from

    def record(self, where: dict[str, object], before: Record | None = None) -> Record:
        """Measure, keep and return. Of several processes all train and make maps, one scores.

        `before` is a record of this run. If its maps were these, as its scores tell, then what was
        added to it belongs to this one, too; they are not where something was trained anew.
        """
        with Cost(self.bench.device) as cost:
            self._fit()
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
            key=self.key,
            training=self.method.history or None,
            findings=self.method.findings or None,
            provenance=self._provenance(),
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

    # --- fitting ------------------------------------------------------------------------------

    def fitted(self) -> SaliencyMethod:
        """The method as it was fitted before. Raises UsageError if it was not."""
        if self.facts.trained and not (self.imported or (self.folder / "fitted.pt").exists()):
            raise UsageError(
                f"Method {self.facts.name!r} was not trained with these settings: {self.folder} "
                f"holds nothing. Train it with `run --methods {self.facts.name} --fresh` and the "
                "same options (without --fresh, a finished record is shown and nothing is "
                "trained), or take what was trained elsewhere with --weights-from FOLDER."
            )
        self._fit()
        return self.method

    def _fit(self) -> None:
        if not self.facts.trained:
            self.cost["fit_seconds"] = 0.0
            return
        if self.imported:
            self.imported.give_to(self.method)
            return
        path = self.folder / "fitted.pt"
        if not processes.from_first(path.exists()):
            self._train_and_keep(path)
            processes.wait()
        fitted = training.read_state(path, self.bench.device)
        self.method.load_state_dict(fitted["state"])
        self.method.history = fitted["history"]
        self.method.findings = fitted.get("findings", {})
        self.cost["fit_seconds"] = fitted["seconds"]

    def _train_and_keep(self, path: Path) -> None:
        bench, recipe = self.bench, self.bench.recipe
        follower = self._follower()
        batches = training.batches_for(self.facts)(
            bench.pictures_to_fit(self.facts),
            self.method.classifier,
            recipe.batch_size,
            bench.seed,
            recipe.augment,
            recipe.share,
            workspace=self.folder,
            description=self.facts.name,
            held_out=bench.splits.held_out,
            arithmetic=bench.arithmetic,
            tensorboard=bench.tensorboard(self.facts.name),
            onlooker=follower,
        )
        with Cost(bench.device, peak=False) as cost, blamed(self.facts, "fit"):
            self.method.fit(batches)
        if follower:
            follower.tell(self.method)
        history = self.method.history
        seconds = sum(epoch.get("seconds", 0.0) for epoch in history) or cost.seconds
        if processes.is_first():
            fitted = {
                "state": self.method.state_dict(),
                "history": history,
                "findings": self.method.findings,
                "seconds": seconds,
            }
            write_atomically(path, lambda temporary: torch.save(fitted, temporary))
            for checkpoint in self.folder.rglob(training.CHECKPOINT):  # one for every phase
                checkpoint.unlink()

    def _follower(self) -> Follower | None:
        """Who measures localization error during training, if anybody is to."""
        bench = self.bench
        if not bench.recipe.follow or isinstance(self.method, BoxMethod):
            return None
        pictures = bench.followed_pictures
        error = partial(self._error_on, pictures)
        twin = partial(bench.make, self.cls)
        return Follower(self.method, twin, error, pictures, self.folder / "followed.json")

    def _error_on(self, pictures: Dataset, method: SaliencyMethod) -> float:
        """Localization error in percent, under protocol `casm`, of maps that are made now."""
        maps = self._maps_now(pictures, CASM.input_frame, method)
        how = (self.facts.rule, self.size, self.facts.upsample, self.facts.scale_free)
        return localization_error(score_maps(maps, pictures, CASM, *how).hit_N)

    # --- maps and boxes -----------------------------------------------------------------------

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

    def _input_frames(self) -> list[str]:
        frames = dict.fromkeys(protocol.input_frame for protocol in self.bench.protocols)
        return list(frames)[:1] if self.bench.frames_agree else list(frames)

    def _tune(self, protocol: Protocol) -> Protocol:
        """The protocol with a threshold chosen on held-out pictures."""
        pictures = self.bench.tuning_pictures
        maps = self.tuning_caches[protocol.input_frame]
        how = (self.size, self.facts.upsample, self.facts.scale_free)
        self.tuned[protocol.name] = tune(maps, pictures, protocol, *how)
        return self.tuned[protocol.name].applied_to(protocol)

    def _score_maps(self, maps: MapCache, protocol: Protocol) -> Scores:
        if protocol.policy == "tuned":
            protocol = self._tune(protocol)
        with progress(len(maps.done), "images", f"{self.facts.name}, {protocol.name}") as bar:
            return score_maps(
                _counted(maps, bar),
                self.dataset,
                protocol,
                self.facts.rule,
                self.size,
                self.facts.upsample,
                self.facts.scale_free,
            )

    def _make_maps(self) -> None:
        """Maps in every frame that a protocol asks for; box methods have none."""
        frames = [] if isinstance(self.method, BoxMethod) else self._input_frames()
        self.caches = {frame: self._maps_in(frame) for frame in frames}
        tuned = {p.input_frame for p in self.bench.protocols if frames and p.policy == "tuned"}
        self.tuning_caches = {
            frame: self._maps_in(frame, self.bench.tuning_pictures) for frame in sorted(tuned)
        }

    def _maps_in(self, frame: str, pictures: Dataset | None = None) -> MapCache:
        """All maps in one frame; those that are on disk already are not made again.

        Of the evaluated pictures, unless others are given. Several processes deal the batches out
        among them. The batches are those of a single process, so the maps are the same, too.
        """
        cache = self._cache_of(frame, pictures)
        pictures = pictures or self.dataset
        missing = self._missing(cache, pictures)
        if not (missing := processes.from_first(missing)):
            return cache
        size = self.bench.recipe.evaluation_batch_size
        dealt = processes.own([missing[i : i + size] for i in range(0, len(missing), size)])
        mine = [index for batch in dealt for index in batch]
        with progress(len(mine), "images", f"{self.facts.name}, maps") as bar:
            for batch in frame_batches(pictures, frame, self.size, size, mine):
                with Cost(self.bench.device, peak=False) as cost:
                    maps_BHW = self._maps_of(batch, pictures)
                cache.add(batch.indices_B, maps_BHW, batch.skipped, cost.seconds)
                bar.update(len(batch.indices_B))
        processes.wait()
        return MapCache(cache.folder) if processes.count() > 1 else cache

    def _cache_of(self, frame: str, pictures: Dataset | None = None) -> MapCache:
        data_digest = pictures.digest() if pictures else self.bench.evaluated_digest
        what = [data_digest, frame, self.size, *([self.asked] if self.asked else [])]
        return MapCache(self.folder / "maps" / short_hash(what))

    def _missing(self, cache: MapCache, pictures: Dataset) -> list[int]:
        return [
            i
            for i, name in enumerate(pictures.names)
            if i not in cache.done and name not in cache.skipped
        ]

    def _batches(
        self, frame: str, indices: list[int] | None = None, side: int | None = None
    ) -> Iterator[FrameBatch]:
        size = self.bench.recipe.evaluation_batch_size
        return frame_batches(self.dataset, frame, side or self.size, size, indices)

    def _maps_of(
        self, batch: FrameBatch, pictures: Dataset, method: SaliencyMethod | None = None
    ) -> np.ndarray:
        """Checked maps of a batch, by this method as fitted or by the one given."""
        method = method or self.method
        images_BCHW, labels_B = self._on_device(batch)
        with blamed(self.facts, "maps"):
            maps_BHW = method.maps(images_BCHW, labels_B).detach().float().cpu().numpy()
        if maps_BHW.ndim != 3 or len(maps_BHW) != len(labels_B):
            raise WorkError(
                f"Method {self.facts.name!r} ({self.facts.source_file}) gave maps of shape "
                f"{maps_BHW.shape} for {len(labels_B)} images; maps() must return B×H×W."
            )
        for index, map_HW in zip(batch.indices_B, maps_BHW, strict=True):
            check_map(map_HW, f"{self.facts.name} of {pictures.names[index]}")
        return maps_BHW

    def _maps_now(
        self,
        pictures: Dataset,
        frame: str,
        method: SaliencyMethod,
        indices: list[int] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Maps that a method makes, kept nowhere; of all pictures unless `indices` are given."""
        size = self.bench.recipe.evaluation_batch_size
        for batch in frame_batches(pictures, frame, self.size, size, indices):
            maps_BHW = self._maps_of(batch, pictures, method)
            yield from zip(batch.indices_B.tolist(), maps_BHW, strict=True)

    def _on_device(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        if batch.images_BCHW.is_meta:
            return batch.images_BCHW, batch.labels_B
        classifier = self.bench.classifier
        images_BCHW = classifier.normalize(batch.images_BCHW.to(self.bench.device))
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        return images_BCHW, batch.labels_B.to(self.bench.device)

    def _score_boxes(self) -> tuple[list[tuple[Protocol, Scores]], dict[str, str]]:
        skipped: dict[str, str] = {}
        boxes: dict[str, np.ndarray] = {}
        with Cost(self.bench.device, peak=False) as cost:
            for frame in dict.fromkeys(p.input_frame for p in self.bench.protocols):
                boxes[frame], bad = self._boxes_in(frame)
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

    def _boxes_in(self, frame: str) -> tuple[np.ndarray, dict[str, str]]:
        boxes_N4 = np.zeros((len(self.dataset), 4), dtype=np.int64)
        skipped: dict[str, str] = {}
        with progress(len(self.dataset), "images", f"{self.facts.name}, boxes") as bar:
            for batch in self._batches(frame, side=self.method.frame_side):
                boxes_N4[batch.indices_B] = self._boxes_of(batch, frame)
                skipped |= dict(batch.skipped)
                bar.update(len(batch.indices_B))
        return boxes_N4, skipped

    def _boxes_of(self, batch: FrameBatch, frame: str) -> np.ndarray:
        """Boxes in pixels of the frame, however large the method wants to see it."""
        side = self.method.frame_side or self.size
        truth = self._truth(batch, frame, side) if self.facts.boxes == "test" else None
        images_BCHW, labels_B = self._on_device(batch)
        with blamed(self.facts, "boxes"):
            boxes_B4 = self.method.boxes(images_BCHW, labels_B, truth).detach().cpu().numpy()
        if boxes_B4.shape != (len(labels_B), 4) or not np.isfinite(boxes_B4).all():
            raise WorkError(
                f"Method {self.facts.name!r} ({self.facts.source_file}) gave boxes of shape "
                f"{boxes_B4.shape} for {len(labels_B)} images; boxes() must return B×4 finite "
                "numbers."
            )
        return resized_boxes(boxes_B4, side, self.size)

    def _truth(self, batch: FrameBatch, frame: str, side: int) -> list[Tensor]:
        data = self.dataset
        return [
            torch.from_numpy(truth_in_frame(data.boxes[i], *data.sizes_N2[i], frame, side))
            for i in batch.indices_B.tolist()
        ]

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
        columns = by_metric(self._mask_scores(index, map_HW, frame) for index, map_HW in maps)
        metrics = {name: float(present(values).mean()) for name, values in columns.items()}
        spread = summarise_masks({"mean": np.array(columns["mask_mean"])})
        return metrics | {f"mask_{name}": value for name, value in spread.items()}

    def _mask_scores(self, index: int, map_HW: np.ndarray, frame: str) -> Row:
        """An image's mask statistics and, where the evidence is known, what it covers of it."""
        share_1HW = self._in_unit_range(map_HW)[None]
        statistics = mask_statistics(share_1HW, self.size, self.facts.upsample)
        values = {f"mask_{name}": float(value_1[0]) for name, value_1 in statistics.items()}
        if self.dataset.evidence_parts:
            evidence = evidence_in_frame(index, self._binary(map_HW), self.dataset, frame)
            values |= {name: 100 * share for name, share in evidence.items()}
        return index, values

    def _in_unit_range(self, map_HW: np.ndarray) -> np.ndarray:
        return unit_range(map_HW) if self.facts.scale_free else map_HW

    def _binary(self, map_HW: np.ndarray) -> np.ndarray:
        """What the method's own rule calls salient, before components, bool size×size."""
        rule = self.facts.rule
        if rule.kind in UNIT_RANGE_RULES:
            map_HW = self._in_unit_range(map_HW)
        return binarise(to_grid(map_HW, self.size, self.size, self.facts.upsample), rule)

    def _masked_accuracy(self, maps: MapCache, frame: str) -> dict[str, float]:
        """Accuracy in percent of the run's classifier, not of the one that CASM trains on.

        Kept beside the maps: scoring them under another protocol asks no network again.
        """
        kept = maps.folder / f"masked-{short_hash(asdict(self.facts.rule))}.json"
        if not kept.exists():
            write_atomically(kept, json.dumps(self._measure_masked_accuracy(maps, frame)))
        return json.loads(kept.read_text())

    def _measure_masked_accuracy(self, maps: MapCache, frame: str) -> dict[str, float]:
        binary = {i: np.packbits(self._binary(map_HW)) for i, map_HW in maps}
        if not self._labels_fit():
            return {}
        correct: dict[str, list[Tensor]] = {}
        description = f"{self.facts.name}, masked accuracy"
        with progress(len(binary), "images", description) as bar:
            for batch in self._batches(frame, sorted(binary)):
                binary_B1HW = self._unpacked(binary, batch.indices_B)
                images = self._on_device(batch)
                for name, correct_B in masked_correct(self.bench.classifier, *images, binary_B1HW):
                    correct.setdefault(name, []).append(correct_B)
                bar.update(len(batch.indices_B))
        return {
            name: 100 * float(torch.cat(values).float().mean()) for name, values in correct.items()
        }

    def _labels_fit(self) -> bool:
        outputs = self.bench.classifier.model.num_classes
        return outputs == len(self.dataset.classes)

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
        shares = [self._in_unit_range(by_index[i]) for i in chosen]
        return {
            "names": np.array([self.dataset.names[i] for i in chosen]),
            "frame": np.array(frame),
            "truth": self._padded_truth(chosen, frame),
            "images": np.stack(images),
            "masks": np.stack(shares).astype(np.float16),
            "binary": np.stack([self._binary(by_index[i]) for i in chosen]),
        }

    def _padded_truth(self, chosen: list[int], frame: str) -> np.ndarray:
        """True boxes in the frame, int64 n×most×4; all zeros where a picture has fewer."""
        data = self.dataset
        boxes = [truth_in_frame(data.boxes[i], *data.sizes_N2[i], frame, self.size) for i in chosen]
        most = max(map(len, boxes))
        return np.stack([np.pad(b, ((0, most - len(b)), (0, 0))) for b in boxes])

    # --- the record ---------------------------------------------------------------------------

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

    def _provenance(self) -> dict[str, object]:
        has_pixels = self.dataset.has_pixels
        found = provenance(
            device=_device_name(self.bench.device),
            threads=torch.get_num_threads(),
            classifier_sha256=weights_digest(self.bench.classifier) if has_pixels else None,
            data_sha256=self.bench.evaluated_digest,
        )
        found["clock"] = "processor" if self.bench.device.type == "cpu" else "wall"
        return found | ({"imported": self.imported.origin} if self.imported else {})


@contextmanager
def blamed(facts: Facts, verb: str) -> Iterator[None]:
    """Explain what goes wrong inside a method by its name, file and line."""
    try:
        yield
    except CasmBenchError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == facts.source_file]
        line = f", line {lines[-1]}" if lines else ""
        raise WorkError(
            f"Method {facts.name!r} failed in {verb}() ({facts.source_file}{line}): "
            f"{type(error).__name__}: {error}. CASM_BENCH_DEBUG=1 shows the traceback."
        ) from error


def by_metric(rows: Iterable[Row]) -> dict[str, list[float | None]]:
    """Columns of the rows; None where an image has no value, such as of a part it does not show."""
    scores = [values for _, values in rows]
    names = dict.fromkeys(name for values in scores for name in values)
    return {name: [values.get(name) for values in scores] for name in names}


def present(values: Sequence[float | None]) -> np.ndarray:
    """The values of those images that have one."""
    return np.array([value for value in values if value is not None])


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


def _counted(maps: MapCache, bar: object) -> Iterator[tuple[int, np.ndarray]]:
    for pair in maps:
        yield pair
        bar.update(1)


def _plain_facts(facts: object) -> dict[str, object]:
    plain = asdict(facts)
    plain["source_file"] = Path(plain["source_file"]).name  # where it lay is nobody's business
    return plain


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
