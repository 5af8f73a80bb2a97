"""What every data set offers: pictures, classes and boxes, all in original pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..protocols import Frame
from .frames import to_frame_image


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A split of labelled pictures.

    Boxes are `x0, y0, x1, y1` in pixels of the original picture as annotated (0-based); they
    belong to the harness and are never handed to a method. Subclasses override `image`, and
    `evidence` where the pixels that carry the class are known.
    """

    name: str  # of the data set, as on the command line
    split: str  # train, held-out or evaluated
    classes: Sequence[str]
    names: Sequence[str]  # one per picture, unique
    labels_N: np.ndarray  # int64, index into classes
    sizes_N2: np.ndarray  # int64, original width and height; 0, 0 if unknown (only without boxes)
    boxes: Sequence[np.ndarray]  # one float64 n×4 per picture; n may be 0 in training splits
    groups: Sequence[str] | None = None  # sources to be reported apart as well as together
    has_pixels: bool = True
    evidence_parts: tuple[str, ...] = ()  # names of the known evidence masks
    shareable: bool = False  # may pictures be shown and committed?
    positions_N: np.ndarray = field(default=None)  # rows of the store behind; set by subset

    def __post_init__(self) -> None:
        if self.positions_N is None:
            object.__setattr__(self, "positions_N", np.arange(len(self.names)))

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """Picture `index` as uint8 H×W×3 RGB, in the geometry of the original (sizes_N2).

        Called from several threads at once. Raises WorkError naming the picture when it cannot
        be decoded.
        """
        raise NotImplementedError

    def frame_image(self, index: int, frame: Frame, size: int) -> np.ndarray:
        """Picture `index` as the network sees it: uint8 size×size×3 in the crop or warp frame.

        Data sets whose pictures are stored in another geometry override this.
        """
        return to_frame_image(self.image(index), frame, size)

    def evidence(self, index: int) -> dict[str, np.ndarray]:
        """Per part, the boolean H×W mask of the pixels that carry the class."""
        raise NotImplementedError

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """The same data set, only with these pictures, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            labels_N=self.labels_N[chosen],
            sizes_N2=self.sizes_N2[chosen],
            boxes=[self.boxes[i] for i in chosen],
            groups=None if self.groups is None else [self.groups[i] for i in chosen],
            positions_N=self.positions_N[chosen],
        )

    def without_boxes(self) -> Dataset:
        """The same pictures and classes, with nothing to learn a box from."""
        return replace(self, boxes=[np.zeros((0, 4))] * len(self))

    def only_boxed(self) -> Dataset:
        """The pictures that have a box."""
        return self.subset([i for i, boxes in enumerate(self.boxes) if len(boxes)])

    def digest(self) -> str:
        """SHA-256 over names, classes, sizes and boxes, and whatever `pixels_digest` says."""
        sha = hashlib.sha256()
        for text in (*self.classes, *self.names, self.pixels_digest()):
            sha.update(text.encode() + b"\0")
        for array in (self.labels_N, self.sizes_N2, *self.boxes):
            sha.update(np.ascontiguousarray(array).tobytes() + b"\0")
        return sha.hexdigest()

    def pixels_digest(self) -> str:
        """What identifies the pixels: a hash of the encoded files, or the drawing's parameters."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What a run works on. Thresholds are tuned on `held_out`, never on `evaluated`."""

    evaluated: Dataset
    train: Dataset | None = None
    held_out: Dataset | None = None
