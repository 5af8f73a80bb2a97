"""Curves of training show what records log, method by method and seed by seed."""

from __future__ import annotations

import pytest

from casm_bench.report.drawing import drawn_alike, render
from casm_bench.report.measured import measurements
from casm_bench.report.training import training_caption, training_figure


@pytest.fixture
def trained(a_record):
    def record(method, seed, areas, **changes):
        epochs = [{"epoch": i + 1, "mask_mean": m, "seconds": 1.0} for i, m in enumerate(areas)]
        return a_record(method, seed=seed, training=epochs, **changes)

    return [
        record("casm", 0, (0.5, 0.4)),
        record("casm", 1, (0.7, 0.2)),
        record("baseline", 0, (0.9, 0.8)),
        record("casm", 0, (0.0, 0.0), variant="12345678"),
        a_record("grad"),
    ]


def test_lines_are_means_over_seeds_beside_every_seed(trained, rows):
    with drawn_alike():
        figure = training_figure(trained, measurements(trained, rows))
        (axes,) = figure.axes  # one setting, and one quantity that was logged
        drawn = [list(line.get_ydata()) for line in axes.lines]
        assert drawn[:3] == [[0.5, 0.4], [0.7, 0.2], pytest.approx([0.6, 0.3])]
        assert drawn[3:] == [[0.9, 0.8]]  # one seed is its own mean
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["CASM", "Baseline"]
        assert render(figure, "pdf") == render(
            training_figure(trained, measurements(trained, rows)), "pdf"
        )


@pytest.mark.parametrize(("epochs", "marked"), [(1, 1), (6, 6), (7, 4), (60, 6)])
def test_a_long_training_carries_few_marks(a_record, rows, epochs, marked):
    training = [{"epoch": i + 1, "mask_mean": 0.5, "seconds": 1.0} for i in range(epochs)]
    records = [a_record("casm", training=training)]
    with drawn_alike():
        figure = training_figure(records, measurements(records, rows))
    (line,) = figure.axes[0].lines
    assert len(line.get_xdata()) == epochs
    assert len(range(0, epochs, line.get_markevery())) == marked


def test_without_logged_masks_there_is_no_figure(a_record, rows):
    records = [a_record("casm"), a_record("casm", training=[{"epoch": 1, "loss": 0.1}])]
    assert training_figure(records, measurements(records, rows)) is None


@pytest.fixture
def followed(a_record):
    """CASM was followed on shapes, and its first epoch is not known; nothing on other data."""

    def record(method, data, errors, **changes):
        epochs = [{"epoch": i, "mask_mean": 0.5, "mask_entropy": 0.01} for i in (1, 2, 3)]
        for epoch, error in zip(epochs[-len(errors) :], errors, strict=True):
            epoch |= {"localization_error": error} if error is not None else {}
        return a_record(method, training=epochs, data=data, **changes)

    how = {"on": "shapes held-out", "images": 200, "protocol": "casm"}
    return [
        record("casm", "shapes", (40.0, 20.0), findings={"followed": how}),
        record("casm", "shapes", (60.0, 50.0, 30.0), seed=1, findings={"followed": how}),
        record("baseline", "shapes", (None,)),
        record("casm", "tiny-imagenet", (None,)),
    ]


def test_localization_error_is_drawn_where_it_is_known(followed, rows):
    with drawn_alike():
        figure = training_figure(followed, measurements(followed, rows))
    panels = {
        (axes.get_subplotspec().rowspan.start, axes.get_ylabel()): axes for axes in figure.axes
    }
    assert [label for row, label in panels if row == 0] == [
        *("mask area", "LE (%)", "mask entropy (bits)")
    ]
    assert [label for row, label in panels if row == 1][:2] == ["mask area", "mask entropy (bits)"]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in panels[0, "LE (%)"].lines]
    assert lines == [
        ([2, 3], [40.0, 20.0]),
        ([1, 2, 3], [60.0, 50.0, 30.0]),
        ([2, 3], [45.0, 25.0]),
    ]
    assert panels[0, "LE (%)"].get_ylim() == (-3, 103)


def test_a_method_looks_alike_in_every_row(a_record, rows):
    training = [{"epoch": 1, "mask_mean": 0.5}]
    records = [
        a_record("casm", data="a", training=training),
        a_record("baseline", data="b", training=training),
        a_record("casm", data="b", training=training),
    ]
    with drawn_alike():
        figure = training_figure(records, measurements(records, rows))
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert colours[0] == colours[1][-1:] != colours[1][:1]


def test_the_caption_says_on_how_many_pictures(followed, trained, rows):
    caption = training_caption(followed, measurements(followed, rows))
    assert caption.count("200 pictures of shapes held-out") == 1
    assert "LE" not in training_caption(trained, measurements(trained, rows))
