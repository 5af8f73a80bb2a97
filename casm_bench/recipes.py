"""Recipes: named settings of a whole run. `list recipes` prints them.

A recipe says which classifier, how it comes by its weights, and how each method is trained where
that differs from the method's own defaults (which are the published settings). Anything can be
changed for one run with `--set`; such a run is recorded as a variant.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Literal

from .errors import UsageError
from .settings import Amount, Count, Share, Whole

Precision = Literal["fp32", "tf32", "bf16"]

DEFAULT_METHODS = ("casm", "baseline", "grad")  # what `run` measures unless told otherwise


@dataclass(frozen=True)
class Pretraining:
    """How a classifier is trained from scratch: AdamW, cosine learning rate by epoch."""

    epochs: Count = 8
    learning_rate: Amount = 2e-3
    weight_decay: Amount = 1e-2
    batch_size: Count = 64


@dataclass(frozen=True)
class Recipe:
    """One way to run the whole benchmark."""

    name: str
    summary: str
    command: str
    cost: str  # what it takes, and on what it was measured
    classifier: str = "resnet50.tv_in1k"
    classifier_options: dict[str, object] = field(default_factory=dict)  # for timm's constructor
    weights: str = "pretrained"  # pretrained (timm's), scratch, pip, or a file
    input_size: Count | None = None  # pixels; None: the classifier's own
    pretraining: Pretraining = field(default_factory=Pretraining)  # for weights="scratch"
    batch_size: Count = 128
    evaluation_batch_size: Count = 16  # maps are kept batch by batch, so one may be lost
    augment: str = "crop-flip"  # of training pictures: none, flip, crop-flip
    share: Share = 1.0  # of all batches that make an epoch
    train_data: str | None = None  # what methods train on; None: the data set that is evaluated
    images_per_class: Count | None = None  # different ones, for as many steps as all; None: all
    precision: Precision = "fp32"  # of training; masks, losses and optimizers are fp32 always
    compile: bool = False  # networks through torch.compile while training
    follow: Whole = 200  # pictures on which training is followed, which changes nothing; 0: none
    data: dict[str, dict[str, object]] = field(default_factory=dict)  # options by data set
    methods: dict[str, dict[str, object]] = field(default_factory=dict)  # fields by method


QUICK = Recipe(
    name="quick",
    summary="A slim, ten-layer ResNet on 64-pixel shapes: the whole comparison on a laptop.",
    command="python -m casm_bench run",
    cost="measured: 7 minutes on one core of a busy CPU, 1.4 GB",
    classifier="resnet18",
    classifier_options={"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256)},
    weights="scratch",
    input_size=64,
    pretraining=Pretraining(epochs=5, batch_size=32),
    batch_size=32,
    augment="none",  # a mirrored stripe is another class
    data={"shapes": {"size": 64, "train": 4000, "evaluated": 1000}},
    methods={
        "casm": {"epochs": 6, "save_every": 20},
        "baseline": {"epochs": 6},
        "casm-inout": {"epochs": 6, "save_every": 20},
        "aln": {"epochs": 6, "lambda_r": 18.0},
        "masking-model": {
            "selector_steps": 250,
            "selector_batch_size": 32,
            "mask_steps": 500,
            "mask_batch_size": 32,
            "width": 32,
            "conf": 0.0,
        },
        "vgg-loc": {
            "fine_tune": "all",
            "hidden": 256,
            "epochs": 6,
            "batch_size": 32,
            "learning_rate": 0.03,
        },
        "excitation-backprop": {"tap": 2},  # an 8×8 grid; stride 16 leaves 4×4
        "occlusion": {"positions": 14},  # every 4.6 pixels, not every 2.3
        "rise": {"masks": 400},
        # Lengths as of 224 pixels, a coarser grid, and faster: the areas come out the same.
        "extremal-perturbation": {
            "step": 4,
            "sigma": 6.0,
            "blur": 6.0,
            "iterations": 30,
            "learning_rate": 0.05,
            "growth": 1.1,
        },
    },
)
TINY = Recipe(
    name="tiny-imagenet",
    summary="ResNet-50 trained from scratch on Tiny-ImageNet at 64 pixels.",
    command="python -m casm_bench run --data tiny-imagenet --root FOLDER --recipe tiny-imagenet",
    cost="hours on two CPU cores; meant for a GPU",
    classifier="resnet50",
    weights="scratch",
    input_size=64,
    pretraining=Pretraining(epochs=40, batch_size=128),
    batch_size=128,
    methods={
        "vgg-loc": {
            "fine_tune": "all",
            "epochs": 10,
            "batch_size": 128,
            "learning_rate": 0.01,
        },
    },
)
TINY_CPU = Recipe(
    name="tiny-imagenet-cpu",
    summary="The slim, ten-layer ResNet trained from scratch on Tiny-ImageNet, for a CPU.",
    command="python -m casm_bench run --data tiny-imagenet --root FOLDER "
    "--recipe tiny-imagenet-cpu",
    cost="an hour on one CPU core",
    classifier="resnet18",
    classifier_options={"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256)},
    weights="scratch",
    input_size=64,
    pretraining=Pretraining(epochs=10, batch_size=64),
    batch_size=32,
    augment="flip",
    share=1 / 3,  # with 3 epochs one pass, the learning rates scaled to it
    methods={
        "casm": {"epochs": 3, "masker_rate": 3e-3, "save_every": 50, "lambda_r": "search"},
        "baseline": {"epochs": 3, "masker_rate": 3e-3, "lambda_r": "search"},
        "casm-inout": {"epochs": 3, "masker_rate": 3e-3, "save_every": 50, "lambda_r": "search"},
        "aln": {"epochs": 3, "masker_rate": 3e-3},
        "masking-model": {
            "selector_steps": 750,
            "selector_batch_size": 32,
            "rate_falls_every": 500,
            "mask_steps": 750,
            "mask_batch_size": 32,
            "width": 32,
            "conf": 0.0,
        },
        "vgg-loc": {
            "fine_tune": "all",
            "hidden": 256,
            "epochs": 3,
            "batch_size": 32,
            "learning_rate": 0.03,
        },
    },
)
IMAGENETTE = Recipe(
    name="imagenette",
    summary="Pretrained EfficientNet-Lite0 on photographs of ten ImageNet classes, for a CPU.",
    command="python -m casm_bench run --recipe imagenette --data ilsvrc-pack --root FILE "
    "--train-root FOLDER",
    cost="on one core of a busy CPU, for one λ_r: Baseline 4 minutes, CASM 8; a search is six "
    "trainings of a third of that each",
    classifier="tf_efficientnet_lite0",
    weights="pip",
    train_data="imagenette-pack",
    input_size=128,
    batch_size=32,
    share=0.155,  # 40 batches: with 3 epochs about half a pass, the learning rates scaled to it
    methods={
        # Few steps: the masker, which starts from nothing, learns three times as fast.
        "casm": {
            "epochs": 3,
            "masker_rate": 3e-3,
            "save_every": 20,
            "lambda_r": "search",
            "search_steps": 40,
        },
        "baseline": {
            "epochs": 3,
            "masker_rate": 3e-3,
            "lambda_r": "search",
            "search_steps": 40,
        },
        # The published λ_r: searching takes longer than all the rest.
        "casm-inout": {"epochs": 3, "masker_rate": 3e-3, "save_every": 20},
        "aln": {"epochs": 3, "masker_rate": 3e-3, "lambda_r": 18.0},
        "masking-model": {
            "selector_steps": 120,
            "selector_batch_size": 32,
            "mask_steps": 160,
            "mask_batch_size": 32,
            "width": 32,
            "conf": 0.0,
            "learning_rate": 3e-3,
        },
    },
)
IMAGENETTE_FULL = Recipe(
    name="imagenette-full",
    summary="The same photographs at 224 pixels with the published schedule, for a GPU.",
    command="python -m casm_bench run --recipe imagenette-full --data ilsvrc-pack --root FILE "
    "--train-root FOLDER --device cuda",
    cost="on one H200, four runs side by side: Baseline 3 minutes, CASM 4, and a search of λ_r",
    classifier="tf_efficientnet_lite0",
    weights="pip",
    train_data="imagenette-pack",
    batch_size=128,
    evaluation_batch_size=128,
    share=0.2,  # as published: 60 epochs of a fifth are twelve passes
    precision="bf16",
    methods={
        # An epoch has 15 steps: every 100, as published, would keep none but the first.
        "casm": {"save_every": 5, "lambda_r": "search"},
        "baseline": {"lambda_r": "search"},
        "casm-inout": {"save_every": 5, "lambda_r": "search"},
    },
)
PAPER = Recipe(
    name="paper",
    summary="The published settings: pretrained ResNet-50, 60 epochs of a fifth of ImageNet.",
    command="python -m casm_bench run --data imagenet --root FOLDER --recipe paper",
    cost="days on one GPU; not yet measured here",
    share=0.2,
    methods={  # all others' defaults are published ones
        "vgg-loc": {"backbone": "vgg16.tv_in1k", "scale": 384},
        "masking-model": {"scale": "doubled"},
    },
)
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (QUICK, TINY, TINY_CPU, IMAGENETTE, IMAGENETTE_FULL, PAPER)
}


def get_recipe(name: str) -> Recipe:
    """Look up a recipe. Raises UsageError naming the nearest known one."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"There is no recipe called {name!r}. {hint}Known are: {', '.join(RECIPES)}.")
