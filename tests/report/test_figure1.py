"""Figure 1 shows the right pixels of the right pictures."""

from __future__ import annotations

import numpy as np
import pytest

from casm_bench.errors import WorkError
from casm_bench.records import load_records, save_private_pictures, save_record
from casm_bench.report import figure1 as module
from casm_bench.report.drawing import drawn_alike
from casm_bench.report.figure1 import (
    Block,
    contact_sheet,
    figure1,
    figure1_blocks,
    treatments,
)
from casm_bench.report.measured import measurements


@pytest.fixture(autouse=True)
def as_in_the_paper():
    with drawn_alike():
        yield


def test_grey_is_the_papers():
    assert abs(module.GREY / 255 - 0.35) <= 0.5 / 255


def test_treatments_of_a_picture_of_one_colour():
    image = np.full((16, 16, 3), (200, 10, 90), dtype=np.uint8)
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:9, 5:12] = True
    masked_in, masked_out, inpainted = treatments(image, mask)
    assert (masked_in[mask] == image[0, 0]).all() and (masked_in[~mask] == 89).all()
    assert (masked_out[~mask] == image[0, 0]).all() and (masked_out[mask] == 89).all()
    assert (inpainted[~mask] == image[0, 0]).all()
    # OpenCV rounds once per ring of pixels that it fills, so that a plain colour drifts a little.
    assert np.abs(inpainted[mask].astype(int) - image[0, 0]).max() <= 3


def test_inpainting_sees_nothing_of_what_is_masked_out():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), dtype=bool)
    mask[4:9, 5:12] = True
    hidden = np.where(mask[..., None], 255 - image, image)
    assert (treatments(image, mask)[2] == treatments(hidden, mask)[2]).all()


def test_an_empty_mask_masks_nothing_out():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    masked_in, masked_out, inpainted = treatments(image, np.zeros((8, 8), dtype=bool))
    assert (masked_in == 89).all()
    assert (masked_out == image).all() and (inpainted == image).all()


def test_figure_1_has_a_column_per_picture_and_four_rows(a_showcase):
    case = a_showcase(["p", "q"], mask_side=10, size=32)
    blocks = [Block(title, case["images"], case["binary"]) for title in ("Left", "Right")]
    figure = figure1(blocks)
    assert [axes.get_title() for axes in figure.axes] == ["Left", "Right"]
    panel = np.asarray(figure.axes[0].images[0].get_array())
    assert panel.shape == (4 * 32 + 3, 2 * 32 + 1, 3)
    second = panel[33:65, 33:65]  # masked-in picture of the second column
    assert (second[:10, :10] == case["images"][1][:10, :10]).all()
    assert (second[10:] == 89).all()
    assert (panel[32] == 255).all()
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["original", "masked in", "masked out", "inpainted"]


# --- which pictures ---------------------------------------------------------------------------


def blocks_of(results, rows):
    records = load_records(results)
    return figure1_blocks(records, measurements(records, rows), results)


def test_figure_1_shows_casm_beside_baseline(saved, rows):
    casm, baseline = blocks_of(saved, rows)
    assert (casm.title, baseline.title) == ("CASM", "Baseline")
    assert (casm.images == baseline.images).all()
    assert (casm.masks[0].sum(), baseline.masks[0].sum()) == (100, 25)


def test_pictures_are_matched_by_name(tmp_path, rows, a_record, a_showcase, scores):
    save_record(a_record("casm"), tmp_path, scores, a_showcase(["p", "q", "r"], 10))
    save_record(a_record("baseline"), tmp_path, scores, a_showcase(["r", "s", "p"], 5))
    casm, baseline = blocks_of(tmp_path, rows)
    assert (casm.images == a_showcase(["p", "r"], 1)["images"]).all()
    assert (baseline.images == casm.images).all()


def test_a_contact_sheet_shows_every_shared_picture_private_ones_too(
    tmp_path, a_record, a_showcase, scores
):
    records = [a_record("casm", key="a"), a_record("baseline", key="b")]
    for record in records:
        save_record(record, tmp_path, scores)
        save_private_pictures(record, tmp_path, a_showcase(list("abcdefghij"), 5, size=32))
    figure = contact_sheet(records, tmp_path)
    panels = [axes.images[0].get_array() for axes in figure.axes]
    assert [panel.shape for panel in panels] == [(4 * 33 - 1, 10 * 33 - 1, 3)] * 2


def test_a_contact_sheet_without_pictures_is_explained(tmp_path, a_record, scores):
    record = save_record(a_record("casm"), tmp_path, scores)
    with pytest.raises(WorkError, match="no pictures on this machine"):
        contact_sheet([record], tmp_path)


def test_at_most_seven_pictures_are_shown(tmp_path, rows, a_record, a_showcase, scores):
    for method in ("casm", "baseline"):
        save_record(a_record(method), tmp_path, scores, a_showcase(list("abcdefghi"), 5))
    assert [len(block.images) for block in blocks_of(tmp_path, rows)] == [7, 7]


def test_different_pictures_under_one_name_are_refused(
    tmp_path, rows, a_record, a_showcase, scores
):
    other = a_showcase(["p"], 5)
    other["images"] = 255 - other["images"]
    save_record(a_record("casm"), tmp_path, scores, a_showcase(["p"], 10))
    save_record(a_record("baseline"), tmp_path, scores, other)
    with pytest.raises(WorkError, match=r"baseline seed 0 .* hold different pictures"):
        blocks_of(tmp_path, rows)


def test_one_method_alone_makes_no_figure_1(tmp_path, rows, a_record, a_showcase, scores):
    save_record(a_record("casm", seed=0), tmp_path, scores, a_showcase(["p"], 10))
    save_record(a_record("baseline", seed=1), tmp_path, scores, a_showcase(["p"], 10))
    assert blocks_of(tmp_path, rows) == []
