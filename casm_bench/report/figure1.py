"""The paper's Figure 1: what masks leave and what they hide; contact sheets of any records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import WorkError
from ..records import Record, load_private_pictures, load_showcase
from .drawing import TEXT_WIDTH
from .measured import Measurement, group_by

FIGURE1_ROWS = ("table1/casm", "table1/baseline")  # left and right block
FIGURE1_PICTURES = 7  # at most, as in the paper
GREY = round(0.35 * 255)  # the paper's fill
INPAINT_RADIUS = 3  # pixels, Telea's method, as in the authors' evaluation
GAP = 1 / 32  # between pictures, in their heights


@dataclass(frozen=True)
class Block:
    """Pictures n×H×W×3 with the binary masks n×H×W that one method found for them."""

    title: str
    images: np.ndarray
    masks: np.ndarray


def figure1(blocks: Sequence[Block]) -> Figure:
    """Original, masked-in, masked-out and inpainted pictures; one block of columns per method."""
    panels = [_panel(block) for block in blocks]
    height, width = panels[0].shape[:2]
    # Across, the rows' names take something too; above, there is room for the titles.
    inches = (TEXT_WIDTH - 0.65) * height / (len(panels) * width)
    figure = Figure(figsize=(TEXT_WIDTH, inches + 0.25), layout="constrained")
    figure.get_layout_engine().set(wspace=0.03)
    for axes, block, panel in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), blocks, panels, strict=True
    ):
        axes.imshow(panel, interpolation="none")
        axes.set_title(block.title)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    _name_rows(figure.axes[0], height)
    return figure


def _name_rows(axes: Axes, height: int) -> None:
    rows = ("original", "masked in", "masked out", "inpainted")
    axes.set_yticks([(i + 0.5) * height / len(rows) for i in range(len(rows))], rows, fontsize=8)
    axes.tick_params(left=False)


def _panel(block: Block) -> np.ndarray:
    """All pictures of a method on white: a column per picture, a row per treatment."""
    gap = max(1, round(GAP * block.images.shape[1]))
    columns = [_column(*pair, gap) for pair in zip(block.images, block.masks, strict=True)]
    return np.concatenate(columns, axis=1)[:-gap, :-gap]


def _column(image_HW3: np.ndarray, mask_HW: np.ndarray, gap: int) -> np.ndarray:
    pictures = [image_HW3, *treatments(image_HW3, mask_HW)]
    frame = ((0, gap), (0, gap), (0, 0))
    return np.concatenate([np.pad(p, frame, constant_values=255) for p in pictures])


def treatments(
    image_HW3: np.ndarray, mask_HW: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masked-in, masked-out and inpainted masked-out picture, uint8 like the original.

    What is masked away becomes grey; inpainting (Telea 2004) fills it from its surroundings.
    """
    inside_HW1 = mask_HW.astype(bool)[..., None]
    grey = np.uint8(GREY)
    inpainted = cv2.inpaint(
        np.ascontiguousarray(image_HW3), mask_HW.astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA
    )
    return np.where(inside_HW1, image_HW3, grey), np.where(inside_HW1, grey, image_HW3), inpainted


def figure1_blocks(
    records: Sequence[Record], found: Sequence[Measurement], results: Path
) -> list[Block]:
    """The methods of Figure 1 on pictures that they share; empty if no two records show any.

    Of several such pairs the first recipe as it stands with the lowest seed is taken.
    Raises WorkError when a showcase was changed, or pictures of the same name differ.
    """
    names = {m.method: m.row.row for m in found if m.row}
    shown = [r for r in records if r.showcase and names.get(r.method) in FIGURE1_ROWS]
    comparable = group_by(shown, lambda r: (bool(r.variant), r.data, r.recipe, r.variant, r.seed))
    for _, together in sorted(comparable.items()):
        by_row = {names[record.method]: record for record in together}
        if set(by_row) == set(FIGURE1_ROWS):
            chosen = [by_row[row] for row in FIGURE1_ROWS]
            showcases = [load_showcase(record, results) for record in chosen]
            return _shared_pictures(chosen, showcases, FIGURE1_PICTURES)
    return []


def contact_sheet(records: Sequence[Record], results: Path) -> Figure:
    """What Figure 1 shows, for any records and every picture they share, private ones included.

    Raises WorkError where a record has no pictures here, or no picture is shared.
    """
    showcases = [_pictures(record, results) for record in records]
    for record, case in zip(records, showcases, strict=True):
        if case is None:
            raise WorkError(
                f"{record.path(results)} has no pictures on this machine: its data may not be "
                "passed on, so they are only in the cache of the machine that measured it."
            )
    blocks = _shared_pictures(records, showcases)
    if not blocks:
        raise WorkError("These records share no picture: take some of the same data and seed.")
    return figure1(blocks)


def _pictures(record: Record, results: Path) -> dict[str, np.ndarray] | None:
    return load_showcase(record, results) or load_private_pictures(record, results)


def _shared_pictures(
    records: Sequence[Record],
    showcases: Sequence[dict[str, np.ndarray]],
    most: int | None = None,
) -> list[Block]:
    positions = [{str(n): i for i, n in enumerate(case["names"])} for case in showcases]
    shared = [name for name in positions[0] if all(name in p for p in positions)]
    blocks = []
    for record, case, position in zip(records, showcases, positions, strict=True):
        chosen = [position[name] for name in shared[:most]]
        blocks.append(Block(record.title, case["images"][chosen], case["binary"][chosen]))
    if any(not np.array_equal(blocks[0].images, block.images) for block in blocks):
        files = " and ".join(f"{r.method} seed {r.seed} ({r.data}, {r.recipe})" for r in records)
        raise WorkError(
            f"The records {files} hold different pictures under the same names, so they cannot be "
            "shown side by side: measure them again on the same data."
        )
    return blocks if shared else []
