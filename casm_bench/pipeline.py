"""Joins the stages: data → classifier → method → maps → boxes → metrics → record.

Every stage leaves its result on disk (classifier, fitted method, maps, record) under a name made
from all that decides it, so a run that was interrupted, or repeated, does no work twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import registry, training
from .api import BoxMethod, Facts, SaliencyMethod
from .backbones.classifier import Classifier, build_classifier
from .backbones.pretrain import ClassifierTraining
from .backbones.weights import IMAGENET_CLASSES, load_classifier, weights_digest
from .boxes import UNIT_RANGE_RULES, binarise
from .cache import MapCache
from .cost import Cost
from .data.catalog import load_splits
from .data.dataset import Dataset, Splits
from .data.frames import truth_in_frame
from .data.loader import FrameBatch, frame_batches
from .errors import CasmBenchError, UsageError, WorkError
from .files import sha256_of, write_atomically
from .maps import check_map, to_grid, unit_range
from .metrics.evidence import evidence_metrics
from .metrics.masked import masked_correct
from .metrics.masks import mask_statistics, summarise_masks
from .metrics.scoring import Scores, image_columns, score_maps, score_predicted_boxes
from .progress import progress
from .protocols import ALWAYS_REPORTED, BoxRule, Protocol, get_protocol
from .recipes import DEFAULT_METHODS, Pretraining, Recipe, get_recipe
from .records import (
    Record,
    is_complete,
    load_record,
    per_image_table,
    provenance,
    record_key,
    record_path,
    save_record,
)
from .settings import check_fields
from .statistics import error_interval

log = logging.getLogger("casm_bench")

SHOWCASE_IMAGES = 8  # kept with a record for Figure 1, chosen by seed
FRAME_WITHOUT_CLASSIFIER = 224  # side in pixels, for data without pictures
MEASUREMENT = 1  # raise it when a change to the code changes results: old records are then redone


@dataclass(frozen=True)
class Request:
    """What `run` was asked for; field by field the command line's options."""

    methods: tuple[str, ...] = DEFAULT_METHODS
    data: str = "shapes"
    root: str | None = None
    train_data: str | None = None  # trains on another data set than is evaluated
    train_root: str | None = None
    recipe: str = "quick"
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    classifier: str | None = None
    weights: str | None = None
    protocols: tuple[str, ...] = ()
    controls: bool = False  # add the control rows that the data allow
    device: str = "auto"
    out: Path = Path("results")
    fresh: bool = False  # ignore records, checkpoints and maps of earlier runs
    settings: dict[str, dict[str, object]] = field(default_factory=dict)  # by method, data, recipe

    @property
    def variant(self) -> str:
        """Names what differs from the recipe: empty, or for instance `n100-1a2b3c4d`."""
        parts = [] if self.limit is None else [f"n{self.limit}"]
        if self.settings or self.train_data:
            changed = json.dumps([self.settings, self.train_data], sort_keys=True, default=str)
            parts.append(hashlib.sha256(changed.encode()).hexdigest()[:8])
        return "-".join(parts)

    @property
    def recipe_name(self) -> str:
        """The recipe, and the classifier where another one than the recipe's was named."""
        parts = [self.recipe, self.classifier, self.weights and Path(self.weights).stem]
        return "+".join(part for part in parts if part)


def controls_for(dataset: Dataset) -> dict[str, type[SaliencyMethod]]:
    """The control rows that a data set allows: without pixels, those that predict boxes."""
    names = [facts.name for facts in registry.all_facts() if facts.family == "control"]
    classes = {name: registry.get(name) for name in names}
    return {
        name: cls
        for name, cls in classes.items()
        if dataset.has_pixels or issubclass(cls, BoxMethod)
    }


def run(request: Request, announce: Callable[[str], None] = log.info) -> list[Record]:
    """Run every method for every seed; complete records are reused.

    `announce` is told, in a line each, what is going on. Raises UsageError for what cannot be
    run as asked, before any work is done where that can be known, and WorkError for what fails.
    """
    methods = {cls.facts.name: cls for cls in map(registry.get, request.methods)}
    _check_request(request, methods)
    _check_settings(request, methods)
    records = []
    for seed in dict.fromkeys(request.seeds):
        bench = Bench(request, seed)
        for cls in methods.values():
            bench.check_possible(cls)
        controls = controls_for(bench.evaluated) if request.controls else {}
        for cls in (methods | controls).values():
            records.append(bench.record(cls, announce))
    return records


def _check_request(request: Request, methods: dict[str, type[SaliencyMethod]]) -> None:
    """Refuse, before hours of work, what could only fail after them."""
    if not methods:
        raise UsageError("--methods names no method; `list methods` shows what there is.")
    if not request.seeds or min(request.seeds) < 0:
        raise UsageError("--seeds must be whole numbers from 0 on, at least one.")
    marker = request.out / "cache" / "CACHEDIR.TAG"  # also keeps backups out of the cache
    write_atomically(marker, "Signature: 8a477f597d28d172789f06886806bc55\n")


def _check_settings(request: Request, methods: dict[str, type[SaliencyMethod]]) -> None:
    """Refuse `--set` for what does not take part, and for fields or values that do not fit."""
    declared = {"recipe": Recipe, "pretraining": Pretraining} | methods
    for target, values in request.settings.items():
        if target == "data":
            continue  # its loader knows its own options
        if target not in declared:
            raise UsageError(
                f"--set {target}.…: {target!r} is none of this run's methods "
                f"({', '.join(methods)}), nor data, recipe or pretraining."
            )
        check_fields(target, declared[target], values)


class Bench:
    """One seed of a run: the data, the classifier and the folders that its methods share."""

    def __init__(self, request: Request, seed: int) -> None:
        self.request = request
        self.seed = seed
        self.recipe = _adapted_recipe(request)
        self.device = _device(request.device)
        self.cache = request.out / "cache"
        names = dict.fromkeys((*ALWAYS_REPORTED, *request.protocols))
        self.protocols: list[Protocol] = [get_protocol(name) for name in names]

    # --- data ---------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> Splits:
        request = self.request
        splits = self._load(request.data, request.root)
        if request.train_data:
            other = self._load(request.train_data, request.train_root)
            splits = replace(splits, train=other.train, held_out=other.held_out)
        return splits

    def _load(self, name: str, root: str | None) -> Splits:
        options = self.data_options if name == self.request.data else {}
        try:
            return load_splits(name, root, seed=self.seed, **options)
        except TypeError as error:  # an option the loader does not have, or of another type
            raise UsageError(
                f"Data set {name!r} cannot be loaded with the options {options}: {error}. "
                "Check --set data.…"
            ) from error

    @property
    def data_options(self) -> dict[str, object]:
        """What the recipe and `--set data.…` say about the evaluated data set."""
        given = self.recipe.data.get(self.request.data, {})
        return given | self.request.settings.get("data", {})

    @cached_property
    def evaluated(self) -> Dataset:
        dataset = self.splits.evaluated
        if not any(len(boxes) for boxes in dataset.boxes):
            raise UsageError(
                f"Data set {dataset.name!r} has no boxes to evaluate on. Use it for training: "
                f"--data ilsvrc-pack --root FILE --train-data {dataset.name} --train-root …"
            )
        if self.request.limit is None:
            return dataset
        if not 1 <= self.request.limit <= len(dataset):
            raise UsageError(f"--limit must lie in 1..{len(dataset)} for {dataset.name!r}.")
        chosen = np.random.default_rng(self.seed).permutation(len(dataset))[: self.request.limit]
        return dataset.subset(np.sort(chosen))

    @cached_property
    def evaluated_digest(self) -> str:
        return self.evaluated.digest()

    @cached_property
    def train_digest(self) -> str:
        if self.splits.train is None:
            raise UsageError(
                f"Data set {self.request.data!r} has no training pictures. Name some: "
                "--train-data NAME --train-root PATH; or take a method that is not trained."
            )
        return self.splits.train.digest()

    @property
    def frames_agree(self) -> bool:
        """Square pictures: crop and warp are the same frame, and maps are made once."""
        sizes_N2 = self.evaluated.sizes_N2
        return bool((sizes_N2[:, 0] == sizes_N2[:, 1]).all())

    # --- classifier ---------------------------------------------------------------------------

    @cached_property
    def classifier_config(self) -> dict[str, object]:
        recipe = self.recipe
        config: dict[str, object] = {
            "name": recipe.classifier,
            "options": recipe.classifier_options,
            "weights": Path(recipe.weights).name,  # a file is told by its hash, wherever it lies
            "input_size": recipe.input_size,
        }
        if recipe.weights == "scratch":
            config |= {
                "pretraining": asdict(recipe.pretraining),
                "augment": recipe.augment,
                "seed": self.seed,
                "train_digest": self.train_digest,
            }
        elif Path(recipe.weights).is_file():
            config["weights_sha256"] = sha256_of(Path(recipe.weights))
        return config

    @property
    def classes(self) -> int:
        """How many the classifier tells apart: ImageNet's, unless it comes from here or a file."""
        weights = self.recipe.weights
        of_the_data = weights == "scratch" or Path(weights).is_file()
        return len(self.evaluated.classes) if of_the_data else IMAGENET_CLASSES

    @cached_property
    def classifier(self) -> Classifier:
        recipe = self.recipe
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            if recipe.weights == "scratch":
                classifier = self._trained_here()
            else:
                classifier = load_classifier(
                    recipe.classifier,
                    recipe.weights,
                    self.classes,
                    input_size=recipe.input_size,
                    options=recipe.classifier_options,
                ).to(self.device)
        return classifier.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def _trained_here(self) -> Classifier:
        recipe, train = self.recipe, self.splits.train
        folder = self.folder("classifiers", _short_hash(self.classifier_config))
        if train is None:
            raise UsageError(
                f"Recipe {recipe.name!r} trains its classifier, but data set "
                f"{self.request.data!r} has no training pictures. Name a classifier with weights: "
                "--classifier tf_efficientnet_lite0 --weights pip; or --train-data."
            )
        classes = len(train.classes)
        classifier = build_classifier(
            recipe.classifier, classes, recipe.input_size, recipe.classifier_options
        ).to(self.device, memory_format=torch.channels_last)
        batches = training.TrainBatches(
            train,
            classifier,
            recipe.pretraining.batch_size,
            self.seed,
            recipe.augment,
            workspace=folder,
            description=f"classifier {recipe.classifier}",
        )
        trainee = ClassifierTraining(classifier, recipe.pretraining)
        self.pretraining_history = training.run(trainee, batches, recipe.pretraining.epochs)
        return classifier

    @cached_property
    def input_size(self) -> int:
        if not self.evaluated.has_pixels:
            return FRAME_WITHOUT_CLASSIFIER
        return self.classifier.input_size

    def folder(self, kind: str, name: str) -> Path:
        """A folder of the cache; empty at the start of a `--fresh` run."""
        folder = self.cache / kind / name
        if self.request.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        return folder

    # --- methods ------------------------------------------------------------------------------

    def check_possible(self, cls: type[SaliencyMethod]) -> None:
        """Raise UsageError if this method cannot run on this data, before anything is trained."""
        facts, data = cls.facts, self.evaluated
        if not data.has_pixels and not issubclass(cls, BoxMethod):
            raise UsageError(
                f"Method {facts.name!r} needs pictures, but {data.name!r} has none; it serves "
                "controls such as full, center and oracle, and `score`."
            )
        if not data.has_pixels:
            return
        trained_here = self.recipe.weights == "scratch"
        if facts.trained or trained_here:
            _ = self.train_digest  # says what is missing where there are no training pictures
        if trained_here or issubclass(cls, BoxMethod):
            return
        shown = [self.splits.train] if facts.trained else []
        shown += [data] if facts.knows_class else []
        for dataset in shown:
            if len(dataset.classes) != self.classes:
                raise UsageError(
                    f"Method {facts.name!r} needs the classifier to know the classes of "
                    f"{dataset.name!r}, which has {len(dataset.classes)}; {self.recipe.classifier} "
                    f"with weights {self.recipe.weights!r} knows {self.classes}."
                )

    def make(self, cls: type[SaliencyMethod]) -> SaliencyMethod:
        """The method with this run's hyperparameters; network and state not yet fitted."""
        values = dict(self.recipe.methods.get(cls.facts.name, {}))
        values |= self.request.settings.get(cls.facts.name, {})
        values.setdefault("seed", self.seed)
        classifier = self.classifier if self.evaluated.has_pixels else None
        return cls(classifier, **values)

    def config_of(self, cls: type[SaliencyMethod]) -> dict[str, object]:
        """Everything that decides this method's result, as plain values."""
        defaults = {
            f.name: f.default
            for f in dataclasses.fields(cls)
            if f.init and f.default is not dataclasses.MISSING
        }
        given = self.recipe.methods.get(cls.facts.name, {})
        chosen = self.request.settings.get(cls.facts.name, {})
        config: dict[str, object] = {
            "measurement": MEASUREMENT,
            "hyperparameters": defaults | given | chosen | {"seed": self.seed},
            "data_options": self.data_options,
            "limit": self.request.limit,
            "protocols": [asdict(protocol) for protocol in self.protocols],
            "rule": asdict(cls.facts.rule),
        }
        if self.evaluated.has_pixels:
            recipe = self.recipe
            weights = "trained here" if recipe.weights == "scratch" else Path(recipe.weights).name
            config |= {"classifier": recipe.classifier, "weights": weights}
            config["classifier_settings"] = self.classifier_config
        if cls.facts.trained:
            config["fit"] = self._fit_config(cls)
        return config

    def _fit_config(self, cls: type[SaliencyMethod]) -> dict[str, object]:
        recipe = self.recipe
        return {
            "train_data": self.request.train_data or self.request.data,
            "train_digest": self.train_digest,
            "batch_size": recipe.batch_size,
            "augment": recipe.augment,
            "share": recipe.share,
        }

    def record(self, cls: type[SaliencyMethod], announce: Callable[[str], None]) -> Record:
        """Measure one method, or return its record if that is complete."""
        request, name = self.request, cls.facts.name
        config = self.config_of(cls)
        where = {"data": request.data, "recipe": request.recipe_name, "method": name}
        where |= {"seed": self.seed}
        key = record_key(config=config, data_digest=self.evaluated_digest, **where)
        path = record_path(request.out, variant=request.variant, **where)
        if not request.fresh and is_complete(path, key):
            record = load_record(path)
            measured = f"measured {record.provenance['created'][:10]}"
            announce(f"{name}, seed {self.seed}: {measured}, see {path}; --fresh repeats it")
            return record
        announce(f"{name}, seed {self.seed}: measuring on {len(self.evaluated)} pictures")
        return _Measurement(self, cls, config, key).record(where | {"variant": request.variant})


class _Measurement:
    """One method on one seed, from fitting to the record."""

    def __init__(self, bench: Bench, cls: type, config: dict[str, object], key: str) -> None:
        self.bench, self.cls, self.facts = bench, cls, cls.facts
        self.config, self.key = config, key
        self.dataset = bench.evaluated
        self.size = bench.input_size
        self.method = bench.make(cls)
        fit = {name: config.get(name) for name in ("classifier_settings", "fit", "hyperparameters")}
        self.folder = bench.folder("methods", f"{self.facts.name}-{_short_hash(fit)}")
        self.cost: dict[str, float | None] = {}

    def record(self, where: dict[str, object]) -> Record:
        with Cost(self.bench.device) as cost:
            self._fit()
            scores, skipped = self._score()
            metrics, showcase = self._look_closer()
        self.cost["peak_memory_mb"] = round(cost.peak_memory_mb, 1)
        record = Record(
            **where,
            title=self.facts.title,
            facts=_plain_facts(self.facts),
            config=self.config,
            key=self.key,
            protocols={p.name: self._summary(p, s) for p, s in scores},
            metrics=metrics,
            training=self.method.history or None,
            skipped=[{"name": name, "reason": why} for name, why in skipped.items()] or None,
            provenance=self._provenance(),
            cost=self.cost,
        )
        table = per_image_table(image_columns(self.dataset, scores))
        return save_record(record, self.bench.request.out, table, showcase)

    # --- fitting ------------------------------------------------------------------------------

    def _fit(self) -> None:
        if not self.facts.trained:
            self.cost["fit_seconds"] = 0.0
            return
        path = self.folder / "fitted.pt"
        if not path.exists():
            self._train_and_keep(path)
        fitted = training.read_state(path, self.bench.device)
        self.method.load_state_dict(fitted["state"])
        self.method.history = fitted["history"]
        self.cost["fit_seconds"] = fitted["seconds"]

    def _train_and_keep(self, path: Path) -> None:
        recipe = self.bench.recipe
        batches = training.TrainBatches(
            self.bench.splits.train,
            self.method.classifier,
            recipe.batch_size,
            self.bench.seed,
            recipe.augment,
            recipe.share,
            workspace=self.folder,
            description=self.facts.name,
        )
        with Cost(self.bench.device, peak=False) as cost, blamed(self.facts, "fit"):
            self.method.fit(batches)
        history = self.method.history
        seconds = sum(epoch.get("seconds", 0.0) for epoch in history) or cost.seconds
        fitted = {"state": self.method.state_dict(), "history": history, "seconds": seconds}
        write_atomically(path, lambda temporary: torch.save(fitted, temporary))
        (self.folder / "training.pt").unlink(missing_ok=True)

    # --- maps and boxes -----------------------------------------------------------------------

    def _score(self) -> tuple[list[tuple[Protocol, Scores]], dict[str, str]]:
        if isinstance(self.method, BoxMethod):
            return self._score_boxes()
        caches = {frame: self._maps_in(frame) for frame in self._input_frames()}
        first = next(iter(caches.values()))
        self.cost["map_seconds"] = first.seconds
        self.cost["images_per_second"] = len(first.done) / max(first.seconds, 1e-9)
        scores = []
        for protocol in self.bench.protocols:
            maps = caches.get(protocol.input_frame, first)
            scores.append((protocol, self._score_maps(maps, protocol)))
        return scores, {
            name: why for cache in caches.values() for name, why in cache.skipped.items()
        }

    def _input_frames(self) -> list[str]:
        frames = dict.fromkeys(protocol.input_frame for protocol in self.bench.protocols)
        return list(frames)[:1] if self.bench.frames_agree else list(frames)

    def _score_maps(self, maps: MapCache, protocol: Protocol) -> Scores:
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

    def _maps_in(self, frame: str) -> MapCache:
        """All maps in one frame; those that are on disk already are not made again."""
        digest = _short_hash([self.bench.evaluated_digest, frame, self.size])
        cache = MapCache(self.folder / "maps" / digest)
        missing = [
            i
            for i, name in enumerate(self.dataset.names)
            if i not in cache.done and name not in cache.skipped
        ]
        if not missing:
            return cache
        batches = self._batches(frame, missing)
        with progress(len(missing), "images", f"{self.facts.name}, maps") as bar:
            for batch in batches:
                with Cost(self.bench.device, peak=False) as cost:
                    maps_BHW = self._maps_of(batch)
                cache.add(batch.indices_B, maps_BHW, batch.skipped, cost.seconds)
                bar.update(len(batch.indices_B))
        return cache

    def _batches(self, frame: str, indices: list[int] | None = None) -> Iterator[FrameBatch]:
        size = self.bench.recipe.evaluation_batch_size
        return frame_batches(self.dataset, frame, self.size, size, indices)

    def _maps_of(self, batch: FrameBatch) -> np.ndarray:
        images_BCHW, labels_B = self._on_device(batch)
        with blamed(self.facts, "maps"):
            maps_BHW = self.method.maps(images_BCHW, labels_B).detach().float().cpu().numpy()
        if maps_BHW.ndim != 3 or len(maps_BHW) != len(labels_B):
            raise WorkError(
                f"Method {self.facts.name!r} ({self.facts.source_file}) gave maps of shape "
                f"{maps_BHW.shape} for {len(labels_B)} images; maps() must return B×H×W."
            )
        for index, map_HW in zip(batch.indices_B, maps_BHW, strict=True):
            check_map(map_HW, f"{self.facts.name} of {self.dataset.names[index]}")
        return maps_BHW

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
            for batch in self._batches(frame):
                truth = self._truth(batch, frame) if self.facts.boxes == "test" else None
                images = self._on_device(batch)
                with blamed(self.facts, "boxes"):
                    predicted_B4 = self.method.boxes(*images, truth).cpu().numpy()
                    boxes_N4[batch.indices_B] = predicted_B4.round()
                skipped |= dict(batch.skipped)
                bar.update(len(batch.indices_B))
        return boxes_N4, skipped

    def _truth(self, batch: FrameBatch, frame: str) -> list[Tensor]:
        data = self.dataset
        return [
            torch.from_numpy(truth_in_frame(data.boxes[i], *data.sizes_N2[i], frame, self.size))
            for i in batch.indices_B.tolist()
        ]

    # --- what else is measured ----------------------------------------------------------------

    def _look_closer(self) -> tuple[dict[str, float], dict[str, np.ndarray] | None]:
        """Metrics beyond localization, and the pictures to show; both need pictures and maps."""
        if isinstance(self.method, BoxMethod):
            return {}, None
        frame = self._input_frames()[0]
        maps = self._maps_in(frame)
        metrics = self._mask_metrics(maps, frame)
        metrics |= self._masked_accuracy(maps, frame)
        return metrics, self._showcase(maps, frame) if self.dataset.shareable else None

    def _mask_metrics(self, maps: MapCache, frame: str) -> dict[str, float]:
        facts = self.facts
        shares = (self._in_unit_range(map_HW)[None] for _, map_HW in maps)
        rows = [mask_statistics(share_1HW, self.size, facts.upsample) for share_1HW in shares]
        columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        metrics = {f"mask_{name}": value for name, value in summarise_masks(columns).items()}
        if self.dataset.evidence_parts:
            masks = ((index, self._binary(map_HW)) for index, map_HW in maps)
            evidence = evidence_metrics(masks, self.dataset, frame)
            metrics |= {name: 100 * share for name, share in evidence.items()}
        return metrics

    def _in_unit_range(self, map_HW: np.ndarray) -> np.ndarray:
        return unit_range(map_HW) if self.facts.scale_free else map_HW

    def _binary(self, map_HW: np.ndarray) -> np.ndarray:
        """What the method's own rule calls salient, before components, bool size×size."""
        rule = self.facts.rule
        if rule.kind in UNIT_RANGE_RULES:
            map_HW = self._in_unit_range(map_HW)
        return binarise(to_grid(map_HW, self.size, self.size, self.facts.upsample), rule)

    def _masked_accuracy(self, maps: MapCache, frame: str) -> dict[str, float]:
        """Accuracy in percent of the run's classifier, not of the one that CASM trains on."""
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
        """Eight pictures drawn by the seed alone, the same for every method of this seed."""
        rng = np.random.default_rng([self.bench.seed, len(self.dataset)])
        count = min(SHOWCASE_IMAGES, len(self.dataset))
        chosen = np.sort(rng.permutation(len(self.dataset))[:count]).tolist()
        by_index = {i: map_HW for i, map_HW in maps if i in set(chosen)}
        chosen = [i for i in chosen if i in by_index]
        images = [self.dataset.frame_image(i, frame, self.size) for i in chosen]
        shares = [self._in_unit_range(by_index[i]) for i in chosen]
        return {
            "names": np.array([self.dataset.names[i] for i in chosen]),
            "images": np.stack(images),
            "masks": np.stack(shares).astype(np.float16),
            "binary": np.stack([self._binary(by_index[i]) for i in chosen]),
        }

    # --- the record ---------------------------------------------------------------------------

    def _summary(self, protocol: Protocol, scores: Scores) -> dict[str, object]:
        values = scores.summary()
        hits, n = int(scores.hit_N.sum()), len(scores.hit_N)
        rule = protocol.rule if protocol.overrides_rule else self.facts.rule
        if scores.threshold is not None:
            rule = replace(rule, alpha=scores.threshold)
        summary = {
            "protocol": asdict(protocol),
            "rule": asdict(rule if not isinstance(self.method, BoxMethod) else BoxRule()),
            "policy": protocol.policy,
            "tuned_on": f"{self.dataset.name} {self.dataset.split} (the evaluated pictures)"
            if protocol.policy == "oracle"
            else None,
            "interval": list(error_interval(hits, n)),
            "interval_method": "wilson",
            "hits": hits,
            **values,
        }
        return summary | ({"groups": self._groups(scores)} if self.dataset.groups else {})

    def _groups(self, scores: Scores) -> dict[str, dict[str, object]]:
        group_N = np.array([self.dataset.groups[i] for i in scores.index_N])
        return {
            group: _group_summary(scores.hit_N[group_N == group])
            for group in dict.fromkeys(group_N.tolist())
        }

    def _provenance(self) -> dict[str, object]:
        has_pixels = self.dataset.has_pixels
        return provenance(
            device=_device_name(self.bench.device),
            threads=torch.get_num_threads(),
            classifier_sha256=weights_digest(self.bench.classifier) if has_pixels else None,
            data_sha256=self.bench.evaluated_digest,
        )


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


def _adapted_recipe(request: Request) -> Recipe:
    """The recipe with this run's `--classifier`, `--weights` and `--set recipe.…` in place."""
    recipe = get_recipe(request.recipe)
    if request.classifier:
        # Slim channels and small pictures belong to the recipe's own classifier.
        recipe = replace(
            recipe,
            classifier=request.classifier,
            classifier_options={},
            input_size=None,
            weights=request.weights or "pretrained",
        )
    elif request.weights:
        recipe = replace(recipe, weights=request.weights)
    pretraining = replace(recipe.pretraining, **request.settings.get("pretraining", {}))
    recipe = replace(recipe, pretraining=pretraining, **request.settings.get("recipe", {}))
    sizes = (recipe.batch_size, recipe.evaluation_batch_size, recipe.pretraining.batch_size)
    if min(sizes) < 1:
        raise UsageError("--set: batch sizes of recipe and pretraining must be at least 1.")
    return recipe


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here. Use --device cpu or auto.")
    return torch.device(name)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _short_hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
