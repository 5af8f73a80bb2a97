"""Curves of training show what records log, method by method and seed by seed."""

from __future__ import annotations

import pytest

from casm_bench.report.drawing import drawn_alike, render
from casm_bench.report.measured import measurements
from casm_bench.report.training import training_figure


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
        assert drawn[3:] == [[0.9, 0.8], [0.9, 0.8]]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["CASM", "Baseline"]
        assert render(figure, "pdf") == render(
            training_figure(trained, measurements(trained, rows)), "pdf"
        )


def test_without_logged_masks_there_is_no_figure(a_record, rows):
    records = [a_record("casm"), a_record("casm", training=[{"epoch": 1, "loss": 0.1}])]
    assert training_figure(records, measurements(records, rows)) is None
