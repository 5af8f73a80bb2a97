"""`shapes`: pictures drawn from a seed, on which the paper's claim can be tested exactly.

Every picture shows one object, a blob with a random outline, that carries its class twice:

- the **spot**, a small disc whose hue is the class: obvious, easy to learn;
- the **body**, the rest of the blob, under faint stripes whose orientation is the class.

Either cue suffices. A masker that is to stop *any* classifier must therefore hide the whole
object; one that fools a single classifier need only hide what that classifier happens to use.
Backgrounds (a colour gradient, distractor blobs, noise) are drawn without looking at the class.
The evidence masks are exact: `object` is the union of the two parts.

`stripes` sets how strong the second cue is; see paper/generated/cue-strength.md for what it does.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Annotated

import numpy as np

from ..errors import UsageError
from ..settings import (
    Amount,
    Count,
    Positive,
    Share,
    Whole,
    Within,
    check_fields,
    check_options,
)
from .dataset import Dataset, Splits

VERSION = 1  # part of every record's data hash: change it whenever a drawn pixel changes
PARTS = ("object", "spot", "body")
_SPLITS = ("train", "held-out", "evaluated")


@dataclass(frozen=True)
class Drawing:
    """The knobs of the generator. Lengths are shares of the picture's side."""

    size: Annotated[int, Within(16)] = 64  # pixels per side
    classes: Annotated[int, Within(2, 64)] = 8
    stripes: Annotated[float, Within(0, 0.3)] = 0.05  # contrast of the class's, of full scale
    stripe_period: Positive = 0.11
    spot_radius: Share = 0.05
    radius: tuple[Share, Share] = (0.15, 0.3)  # of the object, before its outline wobbles
    distractors: Whole = 4
    noise: Amount = 0.02  # standard deviation of the pixel noise


@dataclass(frozen=True, kw_only=True)
class ShapesDataset(Dataset):
    """Drawn pictures; picture i of a split is a pure function of (seed, split, i, drawing)."""

    seed: int
    drawing: Drawing = field(default_factory=Drawing)
    drawn: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def image(self, index: int) -> np.ndarray:
        # Training reads every picture once per epoch, and drawing costs more than a step.
        position = int(self.positions_N[index])
        if position not in self.drawn:
            self.drawn[position] = draw(self.drawing, self._key(index))[0]
        return self.drawn[position].copy()

    def evidence(self, index: int) -> dict[str, np.ndarray]:
        return draw(self.drawing, self._key(index))[1]

    def pixels_digest(self) -> str:
        drawn = {"version": VERSION, "seed": self.seed, "split": self.split}
        text = json.dumps(drawn | asdict(self.drawing), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _key(self, index: int) -> tuple[int, int, int]:
        return self.seed, _SPLITS.index(self.split), int(self.positions_N[index])


def load_shapes(
    root: str | None = None,
    *,
    seed: int = 0,
    train: Count = 4000,
    held_out: Count = 500,
    evaluated: Count = 1000,
    **drawing: object,
) -> Splits:
    """Draw the three splits; `drawing` are fields of `Drawing`.

    Raises UsageError for a root (there are no files), counts below one, or unknown knobs.
    """
    if root:
        raise UsageError("Data set 'shapes' is drawn from a seed and has no files: drop --root.")
    given = {"train": train, "held_out": held_out, "evaluated": evaluated}
    check_options("data", load_shapes, given)
    check_fields("data", Drawing, drawing)
    knobs = Drawing(**drawing)
    counts = dict(zip(_SPLITS, given.values(), strict=True))
    sets = {split: _split(seed, split, count, knobs) for split, count in counts.items()}
    return Splits(train=sets["train"], held_out=sets["held-out"], evaluated=sets["evaluated"])


def evaluated_digest(
    seed: int, *, train: int = 0, held_out: int = 0, evaluated: int = 1000, **drawing: object
) -> str:
    """Hash of the evaluated pictures that `load_shapes` gives for the same options."""
    return _split(seed, "evaluated", evaluated, Drawing(**drawing)).digest()


def _split(seed: int, split: str, count: int, drawing: Drawing) -> ShapesDataset:
    keys = [(seed, _SPLITS.index(split), i) for i in range(count)]
    return ShapesDataset(
        name="shapes",
        split=split,
        classes=[f"class-{k}" for k in range(drawing.classes)],
        names=[f"{split}-{seed}-{i:05d}" for i in range(count)],
        labels_N=np.array([_label(drawing, key) for key in keys], dtype=np.int64),
        sizes_N2=np.full((count, 2), drawing.size, dtype=np.int64),
        boxes=[_box(_object_mask(drawing, key)) for key in keys],
        evidence_parts=PARTS,
        shareable=True,
        seed=seed,
        drawing=drawing,
    )


def draw(drawing: Drawing, key: tuple[int, int, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw one picture: uint8 H×W×3, and the boolean H×W evidence mask of each part."""
    object_HW = _object_mask(drawing, key)
    spot_HW = _spot_mask(drawing, key, object_HW)
    rng = _rng(key, "paint")
    picture_HW3 = _background(drawing, rng)
    _paint_body(picture_HW3, object_HW, drawing, _label(drawing, key), rng)
    picture_HW3[spot_HW] = _spot_colour(drawing, _label(drawing, key))
    picture_HW3 += rng.normal(0, drawing.noise, picture_HW3.shape)
    parts = {"object": object_HW, "spot": spot_HW, "body": object_HW & ~spot_HW}
    return np.round(picture_HW3.clip(0, 1) * 255).astype(np.uint8), parts


def _rng(key: tuple[int, int, int], purpose: str) -> np.random.Generator:
    # One stream per purpose, so that boxes can be had without painting, and changing how
    # backgrounds are painted moves no object.
    return np.random.default_rng([*key, int.from_bytes(purpose.encode(), "big")])


def _label(drawing: Drawing, key: tuple[int, int, int]) -> int:
    return key[2] % drawing.classes  # classes are balanced, whatever the count


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres as (y, x) in shares of the side."""
    centres = (np.arange(size) + 0.5) / size
    return centres[:, None], centres[None, :]


def _blob(size: int, rng: np.random.Generator, radius: float) -> np.ndarray:
    """A smooth, star-shaped region with a wobbling outline, wholly inside the picture."""
    reach = 1.35 * radius
    cy, cx = rng.uniform(reach, 1 - reach, 2)
    y, x = _grid(size)
    angle = np.arctan2(y - cy, x - cx)
    amplitudes, phases = rng.uniform(0, 0.11, 3), rng.uniform(0, 2 * np.pi, 3)
    stretch, tilt = rng.uniform(0, 0.25), rng.uniform(0, np.pi)
    outline = 1 + stretch * np.cos(2 * (angle - tilt)) / 2
    for k in range(3):
        outline = outline + amplitudes[k] * np.cos((k + 3) * angle + phases[k]) / 2
    return np.hypot(y - cy, x - cx) < radius * outline


def _object_mask(drawing: Drawing, key: tuple[int, int, int]) -> np.ndarray:
    rng = _rng(key, "object")
    return _blob(drawing.size, rng, rng.uniform(*drawing.radius))


def _box(mask_HW: np.ndarray) -> np.ndarray:
    """Tight half-open box around a mask, as float64 1×4."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)


def _spot_mask(drawing: Drawing, key: tuple[int, int, int], object_HW: np.ndarray) -> np.ndarray:
    """A disc centred on a random pixel of the object, cut off at its outline."""
    inside = np.argwhere(object_HW)
    cy, cx = (_rng(key, "spot").choice(inside) + 0.5) / drawing.size
    y, x = _grid(drawing.size)
    return (np.hypot(y - cy, x - cx) < drawing.spot_radius) & object_HW


def _muted_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour that no spot has: little saturation, and room for stripes on either side."""
    return rng.uniform(0.35, 0.65) + rng.uniform(-0.08, 0.08, 3)


def _spot_colour(drawing: Drawing, label: int) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(label / drawing.classes, 0.85, 0.9))


def _background(drawing: Drawing, rng: np.random.Generator) -> np.ndarray:
    y, x = _grid(drawing.size)
    corner_colours = [_muted_colour(rng) for _ in range(4)]
    weights = ((1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x)
    picture_HW3 = sum(w[..., None] * c for w, c in zip(weights, corner_colours, strict=True))
    for _ in range(drawing.distractors):
        blob_HW = _blob(drawing.size, rng, rng.uniform(0.05, 0.2))
        picture_HW3[blob_HW] = _muted_colour(rng)
    return picture_HW3


def _paint_body(
    picture_HW3: np.ndarray,
    object_HW: np.ndarray,
    drawing: Drawing,
    label: int,
    rng: np.random.Generator,
) -> None:
    y, x = _grid(drawing.size)
    angle = np.pi * label / drawing.classes
    wave = (x * np.cos(angle) + y * np.sin(angle)) / drawing.stripe_period
    stripes_HW = np.sin(2 * np.pi * (wave + rng.uniform()))
    body_HW3 = _muted_colour(rng) + drawing.stripes * stripes_HW[..., None]
    picture_HW3[object_HW] = body_HW3[object_HW]
