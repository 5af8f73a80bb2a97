"""PxAP by hand, and against precision and recall computed threshold by threshold."""

from __future__ import annotations

import numpy as np
import pytest

from casm_bench.errors import WorkError
from casm_bench.metrics.pixels import PixelAveragePrecision


def pxap(*pairs):
    gathered = PixelAveragePrecision()
    for map_HW, object_HW in pairs:
        gathered.add(np.asarray(map_HW, float), np.asarray(object_HW, bool))
    return gathered.value()


def test_a_map_that_is_the_mask_is_perfect():
    mask = np.eye(8)
    assert pxap((mask, mask)) == pytest.approx(100)


def test_worked_by_hand():
    # Thresholds from above: 1.0 → 1 of 1 on the object, recall 1/2; 0.6 → 1 of 2; 0.4 → 2 of 3.
    assert pxap(([[1.0, 0.6, 0.4, 0.0]], [[1, 0, 1, 0]])) == pytest.approx(100 * (1 / 2 + 1 / 3))


def test_pixels_of_all_images_count_together():
    # Image 2 alone is perfect, image 1 alone upside down; together the bins mix.
    one, two = ([[1.0, 0.0]], [[0, 1]]), ([[1.0, 0.0]], [[1, 0]])
    assert pxap(two) == pytest.approx(100)
    assert pxap(one) == pytest.approx(50)  # recall 1 only once everything is kept: precision 1/2
    assert pxap(one, two) == pytest.approx(50)


def test_threshold_by_threshold():
    rng = np.random.default_rng(0)
    maps = np.round(rng.random((5, 6, 6)), 3)
    maps[:, 0, 0], maps[:, 0, 1] = 0, 1  # scaled already
    objects = rng.random((5, 6, 6)) < 0.3
    area, last = 0.0, 0.0
    for threshold in np.arange(1000, -1, -1) / 1000:
        kept = maps >= threshold - 1e-9
        true, recall = (kept & objects).sum(), (kept & objects).sum() / objects.sum()
        area += true / max(kept.sum(), 1) * (recall - last)
        last = recall
    assert pxap(*zip(maps, objects, strict=True)) == pytest.approx(100 * area, rel=0.02)


def test_without_objects_there_is_nothing_to_find():
    with pytest.raises(WorkError, match="show an object"):
        pxap(([[1.0, 0.0]], [[0, 0]]))
