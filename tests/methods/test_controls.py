"""Controls: fixed boxes by hand, the oracle against a search, random maps' distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from casm_bench import registry
from casm_bench.data.frames import truth_in_frame
from casm_bench.data.packs import load_ilsvrc_boxes
from casm_bench.errors import WorkError
from casm_bench.metrics.scoring import score_predicted_boxes
from casm_bench.protocols import get_protocol

FRAME = torch.empty(2, 3, 224, 224, device="meta")
LABELS_B = torch.zeros(2, dtype=torch.int64)


def predict(name, images_BCHW=FRAME, truth=None):
    return registry.get(name)(None).boxes(images_BCHW, LABELS_B, truth)


def test_full_is_the_frame():
    assert predict("full").tolist() == [[0, 0, 224, 224]] * 2


@pytest.mark.parametrize(
    ("size", "box"), [(224, [33, 33, 191, 191]), (64, [9, 9, 55, 55]), (448, [66, 66, 382, 382])]
)
def test_center_leaves_the_published_margin(size, box):
    images_BCHW = torch.empty(2, 3, size, size, device="meta")
    assert predict("center", images_BCHW).tolist() == [box] * 2


def test_center_covers_half_of_the_frame():
    x0, y0, x1, y1 = predict("center")[0].tolist()
    assert (x1 - x0) * (y1 - y0) / 224**2 == pytest.approx(0.5, abs=0.003)


def test_oracle_prefers_the_box_of_which_most_is_visible():
    large_cut, small_whole = [-100, 0, 110, 224], [50, 60, 70, 90]
    outside = [-37, 0, -5, 100]
    truth = [torch.tensor([large_cut, small_whole]), torch.tensor([outside])]
    assert predict("oracle", truth=truth).tolist() == [small_whole, [0, 0, 0, 100]]


def test_oracle_without_boxes_predicts_none():
    truth = [torch.zeros(0, 4, dtype=torch.int64), torch.tensor([[-10, -20, 30, 300]])]
    assert predict("oracle", truth=truth).tolist() == [[0, 0, 0, 0], [0, 0, 30, 224]]


def test_oracle_says_when_it_was_not_given_the_truth():
    with pytest.raises(WorkError, match="true boxes"):
        predict("oracle")


def best_iou(box, boxes_N4):
    """Of one predicted box with unclipped true boxes, by counting pixels."""
    inside = np.zeros((224, 224), dtype=bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    best = 0.0
    for x0, y0, x1, y1 in boxes_N4:
        overlap = inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)].sum()
        union = inside.sum() + (x1 - x0) * (y1 - y0) - overlap
        best = max(best, overlap / union if union else 0.0)
    return best


BOX = st.tuples(
    st.integers(-150, 300), st.integers(-150, 300), st.integers(1, 200), st.integers(1, 200)
).map(lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]))


@given(st.lists(BOX, min_size=1, max_size=4))
def test_no_visible_part_of_a_true_box_beats_the_oracle(boxes):
    truth = [torch.tensor(boxes)] * 2
    reached = best_iou(predict("oracle", truth=truth)[0].tolist(), boxes)
    visible = [np.clip(box, 0, 224).tolist() for box in boxes]
    assert reached >= max(best_iou(box, [own]) for box, own in zip(visible, boxes, strict=True))


def test_random_is_a_fair_coin_on_a_quarter_of_the_grid():
    images_BCHW = torch.rand(4, 3, 224, 224)
    maps_BHW = registry.get("random")(None).maps(images_BCHW, torch.zeros(4, dtype=torch.int64))
    assert maps_BHW.shape == (4, 56, 56)
    assert set(maps_BHW.unique().tolist()) == {0.0, 1.0}
    assert maps_BHW.mean(dim=(1, 2)).tolist() == pytest.approx([0.5] * 4, abs=0.04)
    assert not torch.equal(maps_BHW[0], maps_BHW[1])


def test_random_depends_on_the_seed():
    images_BCHW, labels_B = torch.rand(1, 3, 32, 32), LABELS_B[:1]
    first, second = (
        registry.get("random")(None, seed=s).maps(images_BCHW, labels_B) for s in (0, 1)
    )
    assert not torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "error"), [("casm", 0.750), ("casm-clipped", 0.170), ("warp", 0.0)]
)
def test_oracle_on_all_of_ilsvrc(shared_data, protocol, error):
    """What is left is what the frame cuts away: an independent count over the same metadata."""
    dataset = load_ilsvrc_boxes(shared_data / "ilsvrc-val-boxes-50000.parquet").evaluated
    protocol = get_protocol(protocol)
    truth = [
        torch.from_numpy(truth_in_frame(boxes_N4, *size, protocol.input_frame, 224))
        for boxes_N4, size in zip(dataset.boxes, dataset.sizes_N2, strict=True)
    ]
    boxes_B4 = predict("oracle", truth=truth).numpy()
    summary = score_predicted_boxes(boxes_B4, dataset, protocol, 224).summary()
    assert summary["localization_error"] == pytest.approx(error, abs=0.0005)
