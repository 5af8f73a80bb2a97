"""What can be measured: `list metrics` prints it. Light: formulas and sources, nothing computed.

`run` measures the family `localization` and the others marked so; the rest is added to finished
runs by the command `metrics`, from the maps that a run leaves in its cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number, as `list metrics` shows it."""

    name: str
    family: str  # what `metrics` is asked for; `run` for what every run measures
    unit: str
    better: Literal["lower", "higher", ""]  # empty where neither is better
    asks: Literal["maps", "boxes", "evidence", "classifier"]  # what it takes beside the images
    summary: str  # formula
    source: str


FAMILIES = (
    "masks",
    "pointing",
    "max-box-acc",
    "pixels",
    "top-classes",
    "masked",
    "insertion-deletion",
    "saliency-metric",
    "randomized-weights",
    "randomized-labels",
)
_ZOLNA = "Zolna, Geras & Cho 2019, official code"
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "localization_error",
            *("run", "%", "lower", "boxes"),
            "LE: 100 · share of images where no true box has IoU above the threshold; no class.",
            f"{_ZOLNA}; Fong & Vedaldi 2017",
        ),
        Metric(
            "f1",
            *("run", "%", "higher", "boxes"),
            "2PR/(P+R), P = Σ map in box / Σ map, R = Σ map in box / area; best true box.",
            _ZOLNA,
        ),
        Metric(
            "f1_mean",
            *("run", "%", "higher", "boxes"),
            "F1a: as f1, mean over the image's true boxes.",
            _ZOLNA,
        ),
        Metric(
            "mask_mean, mask_std, mask_entropy, mask_total_variation",
            *("masks", "share", "", "maps"),
            "Mean; std of per-image means; mean of -m log2 m; mean squared differences. A run "
            "measures them, `masks` adds intervals and values per image.",
            _ZOLNA,
        ),
        Metric(
            "evidence_recall_PART, evidence_precision",
            *("masks", "%", "higher", "evidence"),
            "Share of a part's pixels that the mask covers; share of the mask on any part. Also by "
            "`run`.",
            "this project; drawn data only",
        ),
        Metric(
            "clean_accuracy, masked_in_accuracy, masked_out_accuracy[_mean_fill]",
            *("run", "%", "", "classifier"),
            "Top-1 of the run's classifier on the image, on what is masked in, masked out.",
            f"{_ZOLNA}, eval.py",
        ),
        Metric(
            "images_per_second, peak_memory_mb, fit_seconds",
            *("run", "1/s, MB, s", "", "maps"),
            "Cost of making maps and of training, on the machine that the record names; seconds of "
            "processor time on a CPU, by the clock on a GPU.",
            "this project",
        ),
        Metric(
            "pointing_game, pointing_game_15px",
            *("pointing", "%", "higher", "boxes"),
            "The map's highest pixel lies in a true box; less than 15 px from one.",
            "Zhang et al. 2018; TorchRay",
        ),
        Metric(
            "pointing_game_15px_class_mean",
            *("pointing", "%", "higher", "boxes"),
            "Mean over classes of each class's share of hits within 15 px; classes shown only.",
            "TorchRay, which counts classes without images as missed",
        ),
        Metric(
            "energy_pointing",
            *("pointing", "%", "higher", "boxes"),
            "Σ map inside the true boxes / Σ map.",
            "Wang et al. 2020, Score-CAM",
        ),
        Metric(
            "max_box_acc_v2",
            *("max-box-acc", "%", "higher", "boxes"),
            "Share of images where any contour has IoU ≥ δ with any true box, mean over δ of 0.3, "
            "0.5, 0.7, each at its best threshold on the evaluated images: an upper bound. "
            "MaxBoxAcc is 100 - LE under protocol wsol.",
            "Choe et al. 2020, wsolevaluation",
        ),
        Metric(
            "pxap",
            *("pixels", "%", "higher", "evidence"),
            "Area under precision-recall of all pixels against the object's mask.",
            "Choe et al. 2020, wsolevaluation",
        ),
        Metric(
            "official_metric (PROTOCOL)",
            *("top-classes", "%", "lower", "classifier"),
            "OM: not localized or not classified correctly: a top-1 localization error.",
            f"{_ZOLNA}; there the method's own classifier, here the run's",
        ),
        Metric(
            "top5_localization_error (PROTOCOL)",
            *("top-classes", "%", "lower", "classifier"),
            "As OM, correct if the class is among the five most probable; one box for all five.",
            "Russakovsky et al. 2015, ILSVRC'14",
        ),
        Metric(
            "masked_in_accuracy [NETWORK], masked_out_…, inpainted_…",
            *("masked", "%", "", "classifier"),
            "Top-1 of the run's classifier, of others, and of one `trained along` with the masker; "
            "inpainted: the mask filled from its rim (Telea, 3 px).",
            f"{_ZOLNA}, eval.py",
        ),
        Metric(
            "insertion_auc, deletion_auc",
            *("insertion-deletion", "share", "", "classifier"),
            "Area under p(top-1 class) while pixels, highest first, appear on a blurred image "
            "(higher is better) or turn to the mean colour (lower is better).",
            "Petsiuk, Das & Saenko 2018, RISE",
        ),
        Metric(
            "saliency_metric",
            *("saliency-metric", "nats", "lower", "classifier"),
            "SM: ln max(area share of the box, 0.05) - ln p(class | the box, cut out, enlarged).",
            "Dabkowski & Gal 2017",
        ),
        Metric(
            "randomized_weights_spearman, randomized_weights_ssim",
            *("randomized-weights", "share", "lower", "classifier"),
            "How alike a map is to the one after all weights were drawn anew: rank correlation; "
            "SSIM of maps scaled to [0, 1]. The record's curves have every layer group, cascading "
            "and alone; of trained methods first what they learned themselves.",
            "Adebayo et al. 2018, Sanity checks for saliency maps",
        ),
        Metric(
            "randomized_labels_spearman, randomized_labels_ssim",
            *("randomized-labels", "share", "lower", "classifier"),
            "How alike a map is to that of a network (and method) that learned permuted labels by "
            "heart; only where the classifier is trained here.",
            "Adebayo et al. 2018, Sanity checks for saliency maps",
        ),
    )
}
