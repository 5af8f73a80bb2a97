"""Metrics added to finished runs, from the maps in their cache: nothing is trained or mapped anew.

Only families that ask a classifier run a network, and then a classifier alone, on images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import torch

from .. import registry
from ..api import BoxMethod, SaliencyMethod
from ..backbones.classifier import Classifier
from ..backbones.weights import load_classifier, weights_digest
from ..cache import trim
from ..data.frames import to_frame_mask
from ..errors import UsageError, WorkError
from ..maps import to_grid
from ..metrics.catalog import FAMILIES
from ..metrics.faithfulness import auc, insertion_deletion, saliency_metric, shares_changed
from ..metrics.localization import true_boxes
from ..metrics.masked import masked_pictures, ranks_of_labels
from ..metrics.pixels import PixelAveragePrecision
from ..metrics.pointing import class_mean, pointing
from ..metrics.wsol import IOUS, best_overlaps, hits_at_best
from ..progress import progress
from ..protocols import CASM, PROTOCOLS, get_protocol
from ..records import SIDES, Record, add_metrics, load_per_image, load_records
from ..statistics import mean_interval
from . import sanity
from .bench import Bench, identity
from .method_run import MethodRun, Row, by_metric, present
from .request import Request, check_settings_of_part

IN_PERCENT = ("pointing", "max-box-acc", "top-classes", "masked")  # the others as they come
ASK_THE_CLASSIFIER = ("top-classes", "masked", "insertion-deletion", "saliency-metric")


@dataclass(frozen=True)
class MoreRequest:
    """What `metrics` was asked for, and the run that it belongs to."""

    run: Request
    families: tuple[str, ...]  # or `all`
    images: int | None = None  # only so many, drawn by the seed
    classifiers: tuple[str, ...] = ()  # beside the run's own, for `masked`: NAME or NAME:WEIGHTS


def measure_more(asked: MoreRequest, announce: Callable[[str], None]) -> list[Record]:
    """Add metrics to every record of a run, and return the records as they now are.

    Raises UsageError for unknown families, WorkError for runs that are not finished, and for those
    whose maps or classifier are gone.
    """
    families = FAMILIES if asked.families == ("all",) else asked.families
    if unknown := [name for name in families if name not in FAMILIES]:
        raise UsageError(
            f"There is no family of metrics {unknown[0]!r}. Known are: all, {', '.join(FAMILIES)}."
        )
    if asked.images is not None and asked.images < 1:
        raise UsageError("--images must be at least 1.")
    classes = [registry.get(name) for name in asked.run.methods]
    records = []
    for bench in finished_benches(asked.run, classes):
        judges = Judges(bench, asked.classifiers)
        for cls in classes:
            more = More(bench, cls, asked.images, judges)
            for family in families:
                announce(f"{cls.facts.name}, seed {bench.seed}: {family}")
                more.add(family, announce)
            records.append(more.known)
            trim(bench.cache, asked.run.cache_limit_gb * 1e9)
    return records


class Judges:
    """The classifiers that images are shown to, and what they made of the unmasked ones."""

    def __init__(self, bench: Bench, names: Sequence[str]) -> None:
        self.bench = bench
        self.others = [self._load(*text.partition(":")[::2]) for text in names]
        self.ranks: dict[str, dict[int, int]] = {}  # by frame and image, of the true class

    def _load(self, name: str, weights: str) -> Classifier:
        classifier = load_classifier(name, weights or "pretrained", self.bench.classes)
        return classifier.to(self.bench.device).eval().requires_grad_(False)

    def all(self) -> list[Classifier]:
        """The run's own, then those named."""
        return [self.bench.classifier, *self.others]

    def ranks_in(self, frame: str) -> dict[int, int]:
        """By image, how many classes the run's classifier finds more probable than the true one."""
        if frame not in self.ranks:
            data, size = self.bench.evaluated, self.bench.input_size
            self.ranks[frame] = {}
            with progress(len(data), "images", f"classes, {frame}") as bar:
                for chunk in np.array_split(np.arange(len(data)), max(1, len(data) // 16)):
                    pictures = np.stack([data.frame_image(i, frame, size) for i in chunk])
                    rank_B = ranks_of_labels(self.bench.classifier, pictures, data.labels_N[chunk])
                    self.ranks[frame] |= dict(zip(chunk.tolist(), rank_B.tolist(), strict=True))
                    bar.update(len(chunk))
        return self.ranks[frame]


class More(MethodRun):
    """A finished run, and what else can be measured on its maps."""

    def __init__(self, bench: Bench, cls: type, images: int | None, judges: Judges) -> None:
        self.known = finished_record(bench, cls)
        super().__init__(bench, cls)
        self.judges = judges
        self.frame = CASM.input_frame
        self.images = images
        order = np.random.default_rng(bench.seed).permutation(len(self.dataset)).tolist()
        self.chosen = set(order[:images])
        self.few = order[: images or sanity.IMAGES]  # for what needs a network over and over
        self.pooled: dict[str, float] = {}  # metrics that are no mean over images
        self.curves: dict[str, tuple[list, list[np.ndarray]]] = {}  # by name: x, and y per image
        self.remarks: dict[str, object] = {}  # what else the record says about a family

    def add(self, family: str, announce: Callable[[str], None]) -> None:
        """Measure a family and write it into the record, or say why it does not apply."""
        if reason := self._inapplicable(family):
            announce(f"{self.facts.name}: no {family}, {reason}")
            return
        self.pooled, self.curves, self.remarks = {}, {}, {}
        rows = list(self._measured(family))
        names = [self.dataset.names[index] for index, _ in rows]
        columns = by_metric(rows)
        scale = 100 if family in IN_PERCENT else 1
        intervals, means = {}, {}
        for name, values in columns.items():
            low, high, method = mean_interval(present(values))
            intervals[name] = [scale * low, scale * high, method]
            means[name] = scale * float(present(values).mean())
        found = {
            "metrics": means | {name: scale * value for name, value in self.pooled.items()},
            "intervals": {k: v for k, v in intervals.items() if k not in self.pooled},
            **({"curves": curves} if (curves := self._mean_curves()) else {}),
            "n_images": len(rows),
            "settings": {
                "images": self.images,
                "classifiers": self._judges_of(family),
                **self.remarks,
            },
            "provenance": self.provenance(),
        }
        table = pa.table({"name": names, **columns})
        self.known = add_metrics(self.known, self.bench.request.out, family, found, table)

    def _mean_curves(self) -> dict[str, dict[str, list]]:
        """What was drawn image by image, as the record keeps it (`records.Curve`)."""
        found = {}
        for name, (x, y_per_image) in self.curves.items():
            y_NS = np.array(y_per_image)
            bounds = [mean_interval(y_N)[:2] for y_N in y_NS.T]
            low, high = (list(edge) for edge in zip(*bounds, strict=True))
            found[name] = {"x": list(x), "y": y_NS.mean(axis=0), "low": low, "high": high}
        return found

    def _judges_of(self, family: str) -> list[str]:
        if family not in ASK_THE_CLASSIFIER:
            return []
        return list(self.shown_masked) if family == "masked" else [self.bench.classifier.name]

    def _inapplicable(self, family: str) -> str:
        if issubclass(self.cls, BoxMethod) and family != "top-classes":
            return "it predicts boxes without a map"
        if family == "pixels" and "object" not in self.dataset.evidence_parts:
            return f"{self.dataset.name} has no masks of its objects"
        if family == "randomized-labels" and self.bench.recipe.weights != "scratch":
            return "its classifier was not trained here, so it cannot learn other labels"
        if family == "randomized-labels" and self.imported:
            return "it was not trained here, so it cannot learn other labels"
        if family.startswith("randomized") and self.size < sanity.LEAST_SIDE:
            return f"frames of less than {sanity.LEAST_SIDE} pixels have no SSIM"
        asks = family in ASK_THE_CLASSIFIER
        if asks and not (self.dataset.has_pixels and self.labels_fit()):
            return "no classifier here knows these classes"
        return ""

    # --- maps ---------------------------------------------------------------------------------

    def cached_maps(
        self, frame: str, chosen: set[int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Maps of the chosen images from the cache; made anew only if nothing must be trained."""
        chosen = self.chosen if chosen is None else chosen
        cache = self.cache_of(frame)
        if not self.missing(cache, self.dataset):
            pass
        elif self.is_fitted:
            self.fit()
            cache = self.maps_in(frame)
        else:
            raise WorkError(
                f"The maps of {self.facts.name!r} are no longer in the cache, nor is what it "
                "learned: repeat the run with --fresh."
            )
        with progress(len(chosen), "images", f"{self.facts.name}, {frame}") as bar:
            for index, map_HW in cache:
                if index in chosen:
                    yield index, map_HW
                    bar.update(1)

    def in_frame(self, map_HW: np.ndarray) -> np.ndarray:
        """The map on the frame's grid, enlarged as the method's facts say."""
        return to_grid(map_HW, self.size, self.size, self.facts.upsample)

    def maps_by(
        self, method: SaliencyMethod, indices: list[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Maps that another method than the finished run's makes of these images."""
        return self.maps_now(self.dataset, self.frame, method, indices)

    def _picture(self, index: int) -> np.ndarray:
        return self.dataset.frame_image(index, self.frame, self.size)

    def _normalised(self, index: int) -> torch.Tensor:
        picture_HW3 = torch.tensor(self._picture(index), device=self.bench.device)  # a copy
        return self.bench.classifier.normalize(picture_HW3.movedim(-1, 0)[None])[0]

    # --- families -----------------------------------------------------------------------------

    def _measured(self, family: str) -> Iterator[Row]:
        measures: dict[str, Callable[[], Iterator[Row]]] = {
            "masks": self._masks,
            "pointing": self._pointing,
            "max-box-acc": self._max_box_acc,
            "pixels": self._pixels,
            "top-classes": self._top_classes,
            "masked": self._masked,
            "insertion-deletion": self._insertion_deletion,
            "saliency-metric": self._saliency_metric,
            "randomized-weights": partial(sanity.weights_rows, self, self.few),
            "randomized-labels": partial(sanity.labels_rows, self, self.few),
        }
        return measures[family]()

    def _masks(self) -> Iterator[Row]:
        for index, map_HW in self.cached_maps(self.frame):
            yield self.mask_scores(index, map_HW, self.frame)

    def _pointing(self) -> Iterator[Row]:
        truth = true_boxes(self.dataset, CASM, self.size)
        hits: dict[int, float] = {}
        for index, map_HW in self.cached_maps(self.frame):
            values = dict(pointing(self.in_frame(map_HW), truth.of(index).boxes_M4))
            hits[index] = values["pointing_game_15px"]
            yield index, values
        labels_N = self.dataset.labels_N[list(hits)]
        over_classes = class_mean(np.array(list(hits.values())), labels_N)
        self.pooled["pointing_game_15px_class_mean"] = over_classes

    def _max_box_acc(self) -> Iterator[Row]:
        protocol = PROTOCOLS["wsol"]
        truth = true_boxes(self.dataset, protocol, self.size)
        indices, overlaps = [], []
        frame = self.frame if self.bench.frames_agree else protocol.input_frame
        for index, map_HW in self.cached_maps(frame):
            rows = slice(*truth.offsets[index : index + 2])
            grid_HW = to_grid(map_HW, self.size, self.size, "cubic")
            overlaps.append(best_overlaps(grid_HW, truth.boxes_M4[rows], protocol))
            indices.append(index)
        hits_NI = np.stack([hits_at_best(np.array(overlaps), least) for least in IOUS], axis=1)
        for index, share in zip(indices, hits_NI.mean(axis=1).tolist(), strict=True):
            yield index, {"max_box_acc_v2": share}

    def _pixels(self) -> Iterator[Row]:
        together = PixelAveragePrecision()
        for index, map_HW in self.cached_maps(self.frame):
            object_HW = self.dataset.evidence(index)["object"]
            object_HW = to_frame_mask(object_HW, self.frame, self.size)
            alone = PixelAveragePrecision()
            for gathered in (together, alone):
                gathered.add(self.in_frame(map_HW), object_HW)
            yield index, {"pxap": alone.value()}
        self.pooled["pxap"] = together.value()

    def _top_classes(self) -> Iterator[Row]:
        path = self.known.path(self.bench.request.out)
        table = load_per_image(path, self.known).select(["name", "protocol", "hit"]).to_pylist()
        hits = {(row["name"], row["protocol"]): row["hit"] for row in table}
        for index in sorted(self.chosen):
            name, values = self.dataset.names[index], {}
            if (name, CASM.name) not in hits:
                continue  # a picture that could not be read
            for protocol in self.known.protocols:
                frame = get_protocol(protocol).input_frame
                rank = self.judges.ranks_in(frame)[index]
                missed = not hits[name, protocol]
                values[f"official_metric ({protocol})"] = float(missed or rank >= 1)
                values[f"top5_localization_error ({protocol})"] = float(missed or rank >= 5)
            yield index, values

    def _masked(self) -> Iterator[Row]:
        for index, map_HW in self.cached_maps(self.frame):
            picture_HW3 = self._picture(index)
            pictures = {"clean": picture_HW3}
            pictures |= masked_pictures(picture_HW3, self.binary(map_HW))
            labels_B = np.repeat(self.dataset.labels_N[index], len(pictures))
            values = {}
            for name, judge in self.shown_masked.items():
                rank_B = ranks_of_labels(judge, np.stack(list(pictures.values())), labels_B)
                for kind, rank in zip(pictures, rank_B.tolist(), strict=True):
                    values[f"{kind}_accuracy [{name}]"] = float(rank == 0)
            yield index, values

    @cached_property
    def shown_masked(self) -> dict[str, Classifier]:
        """By name: the run's classifier, those named, and one that learned with the masker."""
        found = {classifier.name: classifier for classifier in self.judges.all()}
        learned = self._learned_classifier()
        return found | ({f"{learned.name}, trained along": learned} if learned else {})

    def _learned_classifier(self) -> Classifier | None:
        """The method's own classifier, if there is one and training has changed it."""
        if not (self.facts.trained and self.is_fitted):
            return None
        own, first = self.fitted().classifier, self.bench.classifier.state_dict()
        same = all(torch.equal(value, first[name]) for name, value in own.state_dict().items())
        return None if same else own.eval()

    def _insertion_deletion(self) -> Iterator[Row]:
        shares = shares_changed((self.size, self.size)).tolist()
        for index, map_HW in self.cached_maps(self.frame):
            values = {}
            image_CHW = self._normalised(index)
            for name, p_S in insertion_deletion(
                self.bench.classifier, image_CHW, self.in_frame(map_HW)
            ):
                self.curves.setdefault(name, (shares, []))[1].append(p_S)
                values[f"{name}_auc"] = auc(p_S)
            yield index, values

    def _saliency_metric(self) -> Iterator[Row]:
        path = self.known.path(self.bench.request.out)
        rows = load_per_image(path, self.known).to_pylist()
        boxes = {
            row["name"]: tuple(row[side] for side in SIDES)
            for row in rows
            if row["protocol"] == CASM.name
        }
        for index in sorted(self.chosen):
            box = boxes.get(self.dataset.names[index])
            if box is None:
                continue  # a picture that could not be read
            label = int(self.dataset.labels_N[index])
            judged = (self.bench.classifier, self._normalised(index), label)
            yield index, {"saliency_metric": saliency_metric(*judged, box if any(box) else None)}


def finished_benches(request: Request, classes: Sequence[type]) -> list[Bench]:
    """A bench per seed, with the very classifier that the records of these runs name.

    Raises UsageError for `--fresh` and settings that no run has; and WorkError, before any network
    is asked or trained, where a record is missing or the classifier is gone or another one.
    """
    if request.fresh:
        raise UsageError("--fresh goes with `run`: what is finished is only looked at here.")
    check_settings_of_part(request)
    benches = [Bench(request, seed) for seed in dict.fromkeys(request.seeds)]
    found = [(bench, finished_record(bench, cls)) for bench in benches for cls in classes]
    for bench, record in found:
        _check_classifier(bench, record)
    return benches


def finished_record(bench: Bench, cls: type) -> Record:
    """The record of this very run; it may have been scored under other protocols.

    Of several, such as one under a name that its recipe had before, the one in the run's own place.
    Raises WorkError if there is none, or if none of several is in that place.
    """
    name, request = cls.facts.name, bench.request
    wanted, place = identity(bench.config_of(cls)), bench.path_of(cls)
    found = {
        record.path(request.out): record
        for record in load_records(request.out)
        if (record.method, record.seed, record.data) == (name, bench.seed, request.data)
        and identity(record.config) == wanted
    }
    if place in found or len(found) == 1:
        return found.get(place) or next(iter(found.values()))
    if found:
        raise WorkError(
            f"{' and '.join(map(str, found))} are all of {name!r} with seed {bench.seed} and these "
            f"settings, and none is at {place}: keep one of them, or repeat the run."
        )
    raise WorkError(
        f"There is no record of {name!r} with seed {bench.seed} and these settings in "
        f"{request.out}: run it first, with the same options."
    )


def _check_classifier(bench: Bench, record: Record) -> None:
    """Refuse to measure, on another classifier's maps, what would go into this record."""
    measured_with = record.provenance["classifier_sha256"]
    if measured_with is None:
        return  # there are no pictures, so none was asked
    path = record.path(bench.request.out)
    if not bench.has_classifier:
        raise WorkError(
            f"The classifier that {path} was measured with is not in {bench.cache}, and another "
            "one might make other maps. Measure it again with the same options, `run --fresh`."
        )
    if (sha256 := weights_digest(bench.classifier)) != measured_with:
        raise WorkError(
            f"{path} was measured with another classifier (SHA-256 {measured_with[:8]}…) than the "
            f"one at hand ({sha256[:8]}…), which makes other maps. Measure it again with the same "
            "options, `run --fresh`."
        )
