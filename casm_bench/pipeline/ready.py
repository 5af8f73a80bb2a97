"""Methods that are ready to use, and what they see in any picture.

Pictures are handed to a method in the warp frame, whole; maps, masks and boxes come back in the
pixels of the picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from ..api import BoxMethod, SaliencyMethod
from ..boxes import Box, as_read_by, binarise, predict_box
from ..data.frames import boxes_to_original, to_frame_image
from ..data.stored import decode_rgb
from ..errors import UsageError
from ..files import write_atomically
from ..images import FIGURE_GREY, heat
from ..maps import check_map, to_grid, unit_range
from .bench import Bench
from .method_run import MethodRun, made_maps
from .request import Request

FRAME = "warp"
BOX_COLOUR = (255, 255, 255)
GREY = np.uint8(255 * FIGURE_GREY)
GAP = 8  # pixels between the pictures of a sheet


@dataclass(frozen=True)
class View:
    """What a method sees in one picture, in the picture's pixels."""

    map_HW: np.ndarray  # float32
    mask_HW: np.ndarray  # bool: what the method's own rule calls salient
    box: Box | None  # half-open
    label: int  # the class that was asked for, or the classifier's guess


def fitted_methods(
    request: Request, classes: Sequence[type[SaliencyMethod]]
) -> list[SaliencyMethod]:
    """Methods as an earlier `run` left them, or as `--weights-from` brings them.

    Raises UsageError for what would have to be trained first, and for methods without maps.
    """
    for cls in classes:
        if issubclass(cls, BoxMethod):
            raise UsageError(f"Method {cls.facts.name!r} makes boxes, not maps: nothing to show.")
    bench = Bench(request, request.seeds[0])
    for cls in classes:
        bench.check_architecture(cls)
    bench.check_classifier_is_there()
    return [MethodRun(bench, cls).fitted() for cls in classes]


def read_picture(path: Path) -> np.ndarray:
    """A picture file, upright, as uint8 H×W×3.

    Raises UsageError when there is no such file, WorkError when it cannot be decoded.
    """
    _check_is_file(path)
    return decode_rgb(path.read_bytes(), str(path), upright=True)


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name picture files.")
    if not path.is_file():
        raise UsageError(f"There is no picture {path}.")


def look(method: SaliencyMethod, picture_HW3: np.ndarray, label: int | None = None) -> View:
    """Map, mask and box of one picture.

    `label` is the class that is asked about; by default the one the classifier finds most likely.
    Raises UsageError for a class that the classifier does not know, WorkError when the method
    fails.
    """
    classifier, facts = method.classifier, method.facts
    size, outputs = classifier.input_size, classifier.model.num_classes
    if label is not None and not 0 <= label < outputs:
        raise UsageError(f"The class {label} must lie in 0..{outputs - 1}, as the classifier's do.")
    frame_HW3 = to_frame_image(picture_HW3, FRAME, size)
    pixels_1CHW = torch.from_numpy(frame_HW3.transpose(2, 0, 1).copy())[None]
    images_1CHW = classifier.normalize(pixels_1CHW.to(classifier.mean.device))
    images_1CHW = images_1CHW.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        guess_1 = classifier(images_1CHW).argmax(1)
    labels_1 = guess_1 if label is None else torch.full_like(guess_1, label)
    (map_hw,) = made_maps(method, images_1CHW, labels_1)
    return _in_picture(facts, check_map(map_hw, facts.name), picture_HW3, size, int(labels_1))


def _in_picture(
    facts: object, map_hw: np.ndarray, picture_HW3: np.ndarray, size: int, label: int
) -> View:
    map_hw = as_read_by(facts.rule, map_hw, facts.scale_free)
    height, width = picture_HW3.shape[:2]
    in_frame = to_grid(map_hw, size, size, facts.upsample)
    mask = binarise(in_frame, facts.rule).astype(np.uint8)
    box = predict_box(map_hw, facts.rule, size, facts.upsample)
    if box is not None:
        box = tuple(boxes_to_original([box], width, height, FRAME, size)[0].tolist())
    return View(
        map_HW=to_grid(in_frame, height, width, "bilinear").astype(np.float32),
        mask_HW=cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool),
        box=box,
        label=label,
    )


def saliency(
    method: SaliencyMethod, image: str | Path | np.ndarray, label: int | None = None
) -> np.ndarray:
    """The saliency map of one picture, float32 H×W in its own pixels.

    `image` is a file, or a uint8 H×W×3 array. `label`: see `look`, whose errors this raises.
    """
    is_array = isinstance(image, np.ndarray)
    if is_array and not (image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
        raise UsageError(
            f"An image is a file or a uint8 array H×W×3, not {image.dtype} {image.shape}."
        )
    return look(method, image if is_array else read_picture(Path(image)), label).map_HW


def show(
    methods: Sequence[SaliencyMethod], paths: Sequence[Path], out: Path, label: int | None = None
) -> list[Path]:
    """Write a sheet per picture, overlay and mask per picture and method, and boxes.json.

    Returns the sheets. Raises UsageError, before anything is computed, for a missing picture and
    for one that a drawing would replace.
    """
    names = _unique_names(paths)
    _check_pictures(methods, paths, names, out)
    sheets, found = [], []
    for path, name in zip(paths, names, strict=True):
        picture_HW3 = read_picture(path)
        tiles = [picture_HW3]
        for method in methods:
            view = look(method, picture_HW3, label)
            overlay = draw_box(heat(picture_HW3, unit_range(view.map_HW)), view.box)
            overlay_path, mask_path = _drawings(name, method)
            _write_png(out / overlay_path, overlay)
            _write_png(out / mask_path, view.mask_HW * np.uint8(255))
            tiles += [overlay, np.where(view.mask_HW[..., None], picture_HW3, GREY)]
            found.append(
                {"image": path.name, "method": method.facts.name, "class": view.label}
                | {"box": view.box, "size": [picture_HW3.shape[1], picture_HW3.shape[0]]}
            )
        sheets.append(out / f"{name}.png")
        _write_png(sheets[-1], np.concatenate(list(_with_gaps(tiles)), axis=1))
    write_atomically(out / "boxes.json", json.dumps(found, indent=1) + "\n")
    return sheets


def draw_box(picture_HW3: np.ndarray, box: Box | None) -> np.ndarray:
    """The picture with a half-open box on it, white within black, so that it shows on anything."""
    drawn = np.ascontiguousarray(picture_HW3).copy()
    if box is None:
        return drawn
    x0, y0, x1, y1 = box
    width = max(1, round(min(picture_HW3.shape[:2]) / 150))
    for colour, thickness in (((0, 0, 0), 3 * width), (BOX_COLOUR, width)):
        cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), colour, thickness)
    return drawn


def _check_pictures(
    methods: Sequence[SaliencyMethod], paths: Sequence[Path], names: Sequence[str], out: Path
) -> None:
    """Refuse pictures that are not there, and to write over those that are."""
    for path in paths:
        _check_is_file(path)
    pictures = {path.resolve() for path in paths}
    for name in names:
        for file in (f"{name}.png", *(file for m in methods for file in _drawings(name, m))):
            if (out / file).resolve() in pictures:
                raise UsageError(f"--out {out}: the drawing {file} would replace the picture.")


def _drawings(name: str, method: SaliencyMethod) -> tuple[str, str]:
    """Names of the files with a picture's overlay and mask."""
    return f"{name}-{method.facts.name}-overlay.png", f"{name}-{method.facts.name}-mask.png"


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Stems, numbered where two pictures, of different folders or kinds, share one."""
    names: list[str] = []
    for path in paths:
        numbered = (f"{path.stem}-{number}" for number in count(2))
        free = (name for name in chain([path.stem], numbered) if name not in names)
        names.append(next(free))
    return names


def _with_gaps(tiles: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    yield tiles[0]
    for tile in tiles[1:]:
        yield np.full((tile.shape[0], GAP, 3), 255, np.uint8)
        yield tile


def _write_png(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, "PNG"))
