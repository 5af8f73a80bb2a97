"""One method on one seed, as a run fits it and has it make maps or boxes."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import processes, training
from ..api import BoxMethod, Facts, SaliencyMethod
from ..backbones.weights import weights_digest
from ..boxes import as_read_by, binarise
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
from ..metrics.masks import mask_statistics
from ..metrics.scoring import score_maps
from ..progress import progress
from ..protocols import CASM
from ..provenance import provenance
from .bench import Bench
from .following import Follower
from .imported import FITTED

Row = tuple[int, dict[str, float]]  # index of the image, and its values by metric


class MethodRun:
    """A method with what a run gives it: hyperparameters, training pictures, a place in the cache.

    What was fitted or mapped before, with all the same that decides it, is taken from the cache.
    """

    def __init__(self, bench: Bench, cls: type[SaliencyMethod]) -> None:
        self.bench, self.cls, self.facts = bench, cls, cls.facts
        self.config = bench.config_of(cls)
        self.dataset = bench.evaluated
        self.size = bench.input_size
        self.method = bench.make(cls)
        self.imported = bench.imported_for(cls)
        self.asked = self._hyperparameters(asked=True)  # these decide maps, but no fit
        self.folder = bench.folder("methods", self._folder_name())
        self.cost: dict[str, float | None] = {}

    def _hyperparameters(self, *, asked: bool) -> dict[str, object]:
        """Those that are `api.asked` of a fitted method, or the others."""
        names = {f.name for f in fields(self.cls) if f.metadata.get("asked")}
        given = self.config["hyperparameters"]
        return {name: value for name, value in given.items() if (name in names) == asked}

    def _folder_name(self) -> str:
        deciding = {name: self.config.get(name) for name in ("classifier_settings", "fit")}
        deciding["hyperparameters"] = self._hyperparameters(asked=False)
        if self.imported:
            deciding["imported"] = self.config["imported"]
        return f"{self.facts.name}-{short_hash(deciding)}"

    # --- fitting ------------------------------------------------------------------------------

    @property
    def is_fitted(self) -> bool:
        """Whether nothing must be trained before it can be used."""
        return bool(not self.facts.trained or self.imported or (self.folder / FITTED).exists())

    def fitted(self) -> SaliencyMethod:
        """The method as it was fitted before. Raises UsageError if it was not."""
        if not self.is_fitted:
            raise UsageError(
                f"Method {self.facts.name!r} was not trained with these settings: {self.folder} "
                f"holds nothing. Train it with `run --methods {self.facts.name} --fresh` and the "
                "same options (without --fresh, a finished record is shown and nothing is "
                "trained), or take what was trained elsewhere with --weights-from FOLDER."
            )
        self.fit()
        return self.method

    def fit(self) -> None:
        """Train the method, or load what it has learned before or elsewhere."""
        if not self.facts.trained:
            self.cost["fit_seconds"] = 0.0
            return
        if self.imported:
            self.imported.give_to(self.method)
            return
        path = self.folder / FITTED
        if not processes.from_first(path.exists()):
            self._train_and_keep(path)
            processes.wait()
        fitted = training.read_state(path, self.bench.device)
        with blamed(self.facts, "load_state_dict"):
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
            with blamed(self.facts, "state_dict"):
                state = self.method.state_dict()
            fitted = {
                "state": state,
                "history": history,
                "findings": self.method.findings,
                "seconds": seconds,
            }
            write_atomically(path, partial(_save_fitted, self.facts, fitted))
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
        maps = self.maps_now(pictures, CASM.input_frame, method)
        how = (self.facts.rule, self.size, self.facts.upsample, self.facts.scale_free)
        return localization_error(score_maps(maps, pictures, CASM, *how).hit_N)

    # --- maps ---------------------------------------------------------------------------------

    def maps_in(self, frame: str, pictures: Dataset | None = None) -> MapCache:
        """All maps in one frame; those that are on disk already are not made again.

        Of the evaluated pictures, unless others are given. Several processes deal the batches out
        among them. The batches are those of a single process, so the maps are the same, too.
        """
        cache = self.cache_of(frame, pictures)
        pictures = pictures or self.dataset
        missing = self.missing(cache, pictures)
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

    def cache_of(self, frame: str, pictures: Dataset | None = None) -> MapCache:
        """The kept maps in one frame, of the evaluated pictures unless others are given."""
        data_digest = pictures.digest() if pictures else self.bench.evaluated_digest
        what = [data_digest, frame, self.size, *([self.asked] if self.asked else [])]
        return MapCache(self.folder / "maps" / short_hash(what))

    def missing(self, cache: MapCache, pictures: Dataset) -> list[int]:
        """Indices of the pictures that the cache has no map of, though they can be read."""
        return [
            i
            for i, name in enumerate(pictures.names)
            if i not in cache.done and name not in cache.skipped
        ]

    def _maps_of(
        self, batch: FrameBatch, pictures: Dataset, method: SaliencyMethod | None = None
    ) -> np.ndarray:
        """Checked maps of a batch, by this method as fitted or by the one given."""
        method = method or self.method
        maps_BHW = made_maps(method, *self.on_device(batch))
        for index, map_HW in zip(batch.indices_B, maps_BHW, strict=True):
            check_map(map_HW, f"{self.facts.name} of {pictures.names[index]}")
        return maps_BHW

    def maps_now(
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

    def batches(
        self, frame: str, indices: list[int] | None = None, side: int | None = None
    ) -> Iterator[FrameBatch]:
        """The evaluated pictures in a frame of `side` pixels, the classifier's unless given."""
        size = self.bench.recipe.evaluation_batch_size
        return frame_batches(self.dataset, frame, side or self.size, size, indices)

    def on_device(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        """Normalised images_BCHW, channels last in memory, and labels_B."""
        if batch.images_BCHW.is_meta:
            return batch.images_BCHW, batch.labels_B
        classifier = self.bench.classifier
        images_BCHW = classifier.normalize(batch.images_BCHW.to(self.bench.device))
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        return images_BCHW, batch.labels_B.to(self.bench.device)

    # --- boxes --------------------------------------------------------------------------------

    def boxes_in(self, frame: str) -> tuple[np.ndarray, dict[str, str]]:
        """Predicted boxes of all evaluated pictures, int64 N×4 in pixels of the frame; and those
        that could not be read, by name, with the reason. Theirs are zeros."""
        boxes_N4 = np.zeros((len(self.dataset), 4), dtype=np.int64)
        skipped: dict[str, str] = {}
        with progress(len(self.dataset), "images", f"{self.facts.name}, boxes") as bar:
            for batch in self.batches(frame, side=self.method.frame_side):
                boxes_N4[batch.indices_B] = self._boxes_of(batch, frame)
                skipped |= dict(batch.skipped)
                bar.update(len(batch.indices_B))
        return boxes_N4, skipped

    def _boxes_of(self, batch: FrameBatch, frame: str) -> np.ndarray:
        """Boxes in pixels of the frame, however large the method wants to see it."""
        side = self.method.frame_side or self.size
        truth = self._truth(batch, frame, side) if self.facts.boxes == "test" else None
        images_BCHW, labels_B = self.on_device(batch)
        with blamed(self.facts, "boxes"):
            boxes_B4 = self.method.boxes(images_BCHW, labels_B, truth)
            boxes_B4 = _checked_tensor(boxes_B4, self.facts, "boxes").cpu().numpy()
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

    # --- what a map says ----------------------------------------------------------------------

    def in_unit_range(self, map_HW: np.ndarray) -> np.ndarray:
        """The map, min-max scaled if the method's have no scale of their own."""
        return unit_range(map_HW) if self.facts.scale_free else map_HW

    def binary(self, map_HW: np.ndarray) -> np.ndarray:
        """What the method's own rule calls salient, before components, bool size×size."""
        facts = self.facts
        map_HW = as_read_by(facts.rule, map_HW, facts.scale_free)
        return binarise(to_grid(map_HW, self.size, self.size, facts.upsample), facts.rule)

    def mask_scores(self, index: int, map_HW: np.ndarray, frame: str) -> Row:
        """An image's mask statistics and, where the evidence is known, what it covers of it."""
        share_1HW = self.in_unit_range(map_HW)[None]
        statistics = mask_statistics(share_1HW, self.size, self.facts.upsample)
        values = {f"mask_{name}": float(value_1[0]) for name, value_1 in statistics.items()}
        if self.dataset.evidence_parts:
            evidence = evidence_in_frame(index, self.binary(map_HW), self.dataset, frame)
            values |= {name: 100 * share for name, share in evidence.items()}
        return index, values

    def labels_fit(self) -> bool:
        """Whether the run's classifier knows the classes of the evaluated pictures."""
        return self.bench.classifier.model.num_classes == len(self.dataset.classes)

    def provenance(self) -> dict[str, object]:
        """Code, versions and machine behind what is measured now, for the record."""
        has_pixels = self.dataset.has_pixels
        found = provenance(
            device=_device_name(self.bench.device),
            threads=torch.get_num_threads(),
            classifier_sha256=weights_digest(self.bench.classifier) if has_pixels else None,
            data_sha256=self.bench.evaluated_digest,
        )
        found["clock"] = "processor" if self.bench.device.type == "cpu" else "wall"
        return found | ({"imported": self.imported.origin} if self.imported else {})


def _save_fitted(facts: Facts, fitted: dict[str, object], path: Path) -> None:
    """Save what a method learned. Raises WorkError where it could not be read again."""
    try:
        torch.save(fitted, path)
        torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError):  # the disk's fault
        raise
    except Exception as error:  # a pickler that is fed anything raises anything
        raise WorkError(
            f"What method {facts.name!r} ({facts.source_file}) has learned cannot be kept: "
            "state_dict(), history and findings may hold tensors and plain Python values only, no "
            "numpy and no objects of one's own. CASM_BENCH_DEBUG=1 shows what it is."
        ) from error


def made_maps(method: SaliencyMethod, images_BCHW: Tensor, labels_B: Tensor) -> np.ndarray:
    """Maps that a method makes of a batch, float32 B×H×W; their values are not yet checked.

    Raises WorkError that names the method when it fails or gives anything else.
    """
    facts = method.facts
    with blamed(facts, "maps"):
        maps_BHW = _checked_tensor(method.maps(images_BCHW, labels_B), facts, "maps")
        maps_BHW = maps_BHW.float().cpu().numpy()
    if maps_BHW.ndim != 3 or len(maps_BHW) != len(labels_B):
        raise WorkError(
            f"Method {facts.name!r} ({facts.source_file}) gave maps of shape {maps_BHW.shape} for "
            f"{len(labels_B)} images; maps() must return B×H×W."
        )
    return maps_BHW


def _checked_tensor(given: object, facts: Facts, verb: str) -> Tensor:
    if not isinstance(given, Tensor):
        raise WorkError(
            f"Method {facts.name!r} ({facts.source_file}) gave a {type(given).__name__}; {verb}() "
            "must return a torch tensor."
        )
    return given.detach()


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


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
