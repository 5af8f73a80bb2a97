"""Supervised box regression: targets and loss by hand, what is trained, and its schedule."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from casm_bench import training
from casm_bench.backbones.arithmetic import Arithmetic
from casm_bench.backbones.classifier import build_classifier
from casm_bench.backbones.regressor import Regressor
from casm_bench.backbones.weights import weights_digest
from casm_bench.data.frames import boxes_to_original, resized_boxes
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError, WorkError
from casm_bench.methods.vgg_loc import Regression, VggLoc, corners, targets
from casm_bench.pipeline.method_run import MethodRun
from casm_bench.training import BoxedBatches, TrainBatches


@pytest.fixture(scope="module")
def shapes():
    return load_shapes(train=24, held_out=1, evaluated=8).train


@pytest.fixture(scope="module")
def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_classifier("test_resnet", 8, input_size=64).eval().requires_grad_(False)


def a_method(classifier, **options):
    return VggLoc(classifier, **({"hidden": 16, "batch_size": 8, "epochs": 1} | options))


def a_regression(method):
    regression = Regression(method, Arithmetic())
    regression.start_epoch(0, 1)
    return regression


@pytest.fixture(scope="module")
def batch(shapes, classifier):
    return next(iter(BoxedBatches(shapes, classifier, 8).epoch(0)))


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    after = module.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


# --- targets -----------------------------------------------------------------------------------


def test_the_target_is_the_visible_part_of_the_most_visible_box():
    boxes = [
        torch.tensor([[-50.0, 0, 50, 100]]),  # half outside
        torch.tensor([[0.0, 0, 10, 10], [20, 40, 60, 60], [90, 90, 200, 200]]),
        torch.tensor([[120.0, 10, 130, 20]]),  # nothing of it is visible
    ]
    target_B4, seen_B = targets(boxes, 100)
    assert target_B4[:2].flatten().tolist() == pytest.approx(
        [0.25, 0.5, 0.5, 1.0, 0.4, 0.5, 0.4, 0.2]
    )
    assert seen_B.tolist() == [1, 1, 0]


def test_corners_undo_targets():
    boxes = torch.tensor([[10.0, 20, 30, 80], [0, 0, 100, 100]])
    target_B4, _ = targets(list(boxes[:, None]), 100)
    torch.testing.assert_close(corners(target_B4) * 100, boxes)
    assert corners(torch.tensor([[0.5, 0.5, -0.2, 0.1]])).tolist() == [
        pytest.approx([0.5, 0.45, 0.5, 0.55])
    ]


def with_constant_output(method, numbers):
    """Whatever the picture, the network predicts `numbers`."""
    nn.init.zeros_(method.network.final.weight)
    method.network.final.bias.data = torch.tensor(numbers)
    return method


def test_boxes_are_rounded_half_up_and_clipped(classifier, batch):
    images_BCHW, labels_B, _ = batch
    method = a_method(classifier, regression="single")
    for numbers, expected in (
        ([0.5, 0.5, 0.25, 0.5], [24, 16, 40, 48]),
        ([32.5 / 64, 0.5, 0.5, 0.5], [17, 16, 49, 48]),  # 16.5 and 48.5
        ([0.0, 1.0, 0.5, 0.5], [0, 48, 16, 64]),
        ([0.5, 0.5, -1.0, 0.5], [32, 16, 32, 48]),
        ([3.0, 3.0, 0.5, 0.5], [64, 64, 64, 64]),
    ):
        boxes_B4 = with_constant_output(method, numbers).boxes(images_BCHW, labels_B)
        assert boxes_B4.tolist() == [expected] * 8


@pytest.mark.parametrize(
    ("scale", "numbers", "expected"),
    [
        # At 256 pixels 224 begin at 16; half of them, centred, are 16 + [56, 168].
        (256, [0.5, 0.5, 0.5, 0.25], [72, 100, 184, 156]),
        (384, [0.5, 0.5, 0.5, 0.25], [136, 164, 248, 220]),  # 80 + [56, 168], 80 + [84, 140]
        (384, [0.5, 0.5, 1.5, 9.0], [24, 0, 360, 384]),  # more than what is seen, but in the frame
    ],
)
def test_what_is_seen_is_the_centre_at_the_scale_by_hand(scale, numbers, expected):
    classifier = build_classifier("test_resnet", 8, input_size=224).eval()
    method = a_method(classifier, regression="single", scale=scale)
    assert method.frame_side == scale
    images_BCHW, seen = torch.zeros(1, 3, scale, scale), []
    first = (scale - 224) // 2
    images_BCHW[..., first : first + 224, first : first + 224] = 1
    with_constant_output(method, numbers)
    method.network.register_forward_pre_hook(lambda network, args: seen.append(args[0]))
    assert method.boxes(images_BCHW, torch.tensor([0])).tolist() == [expected]
    assert seen[0].shape == (1, 3, 224, 224) and bool((seen[0] == 1).all())


def test_boxes_at_a_scale_come_into_the_protocols_frame_by_hand():
    """A picture of 500×375: where it is seen at 384, original = (frame · 384/224 + 64) / 1.024."""
    in_frame = resized_boxes([[136, 164, 248, 220]], 384, 224)
    assert in_frame.tolist() == [[79, 96, 145, 128]]  # 79.33, 95.67, 144.67, 128.33
    in_original = boxes_to_original([[136, 164, 248, 220]], 500, 375, "crop", 384)
    assert in_original.tolist() == [[195, 160, 305, 215]]
    again = boxes_to_original(in_frame, 500, 375, "crop", 224)
    assert abs(again - in_original).max() <= 1  # of a pixel that is 1.67 original ones
    assert resized_boxes([[72, 100, 184, 156]], 256, 224).tolist() == [[63, 88, 161, 137]]


@pytest.fixture
def method_run(classifier, shapes):
    """As much of a run as predicts boxes: always the centre, seen at 96 pixels."""
    method_run = object.__new__(MethodRun)
    method_run.facts, method_run.dataset, method_run.size = VggLoc.facts, shapes, 64
    method_run.bench = SimpleNamespace(
        recipe=SimpleNamespace(evaluation_batch_size=16),
        classifier=classifier,
        device=torch.device("cpu"),
    )
    method = a_method(classifier, regression="single", scale=96)
    method_run.method = with_constant_output(method, [0.5, 0.5, 0.5, 0.5])
    return method_run


@pytest.mark.parametrize("wrong", [torch.zeros(16, 3), torch.full((16, 4), float("nan"))])
def test_boxes_that_are_none_are_refused(method_run, monkeypatch, wrong):
    monkeypatch.setattr(method_run.method, "boxes", lambda *batch: wrong)
    with pytest.raises(WorkError, match=r"'vgg-loc' .* gave boxes of shape .* B×4 finite"):
        method_run.boxes_in("crop")


def test_the_harness_shows_the_frame_at_the_methods_scale(method_run, shapes):
    boxes_N4, skipped = method_run.boxes_in("crop")
    assert not skipped  # 16 + [16, 48] at 96 pixels is [21.3, 42.7] at 64
    assert boxes_N4.tolist() == [[21, 21, 43, 43]] * len(shapes)


def test_a_scale_below_the_networks_input_is_refused(classifier):
    with pytest.raises(UsageError, match="vgg-loc.scale=63"):
        a_method(classifier, scale=63)


def test_at_a_scale_the_target_is_the_whole_object(classifier, shapes):
    boxes = [
        torch.tensor([[0.0, 0, 10, 10], [-50, 0, 50, 100]]),
        torch.tensor([[120.0, 1, 130, 2]]),
    ]
    target_B4, seen_B = targets(boxes, 100, whole=True)
    assert target_B4[0].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert seen_B.tolist() == [1, 0]
    method = a_method(classifier, scale=96, epochs=1)
    method.fit(BoxedBatches(shapes, classifier, 8))
    assert 0 < method.history[0]["loss"] < float("inf")


def test_per_class_boxes_are_the_given_classes(classifier, batch):
    images_BCHW, labels_B, _ = batch
    numbers = [[0.5, 0.5, 0.1 * k, 0.5] for k in range(8)]
    method = with_constant_output(a_method(classifier), sum(numbers, []))
    expected = torch.tensor(numbers)[labels_B]
    torch.testing.assert_close(method.predict(images_BCHW, labels_B), expected)
    few_B4 = method.predict(images_BCHW[:3], labels_B[:3])  # not as many as there are classes
    torch.testing.assert_close(few_B4, expected[:3])
    assert a_method(classifier, regression="single").network.final.out_features == 4
    assert method.network.final.out_features == 4 * 8


# --- training ----------------------------------------------------------------------------------


def test_the_loss_by_hand(classifier, batch):
    images_BCHW, labels_B, _ = batch
    boxes = [torch.tensor([[16.0, 0, 48, 64]])] * 7 + [torch.tensor([[70.0, 0, 80, 9]])]
    method = with_constant_output(a_method(classifier, regression="single"), [0.5, 0.25, 0.5, 0.0])
    statistics = a_regression(method).step(images_BCHW, labels_B, boxes)
    # The target is (0.5, 0.5, 0.5, 1): (0.25² + 1²) / 2; the last picture shows nothing.
    assert statistics["loss"].item() == pytest.approx(0.53125)
    assert statistics["seen"].item() == pytest.approx(7 / 8)


@pytest.mark.parametrize(
    ("scale", "loss"),
    [
        (None, 0.0),  # the visible part, 0 to 32 of 64 pixels: centre 0.25, width 0.5
        (96, 0.15625),  # all of it, -32 to 32: centre 0, width 1; (0.25² + 0.5²) / 2
    ],
)
def test_at_a_scale_the_loss_is_that_of_the_whole_object(classifier, batch, scale, loss):
    images_BCHW, labels_B, _ = batch
    method = a_method(classifier, regression="single", scale=scale)
    with_constant_output(method, [0.25, 0.5, 0.5, 1.0])
    boxes = [torch.tensor([[-32.0, 0, 32, 64]])] * 8
    statistics = a_regression(method).step(images_BCHW, labels_B, boxes)
    assert statistics["loss"].item() == pytest.approx(loss, abs=1e-6)


def test_an_epochs_mean_loss_is_that_of_its_steps(classifier, batch):
    regression = a_regression(a_method(classifier))
    losses = [regression.step(*batch)["loss"].item() for _ in range(2)]
    assert (regression.loss_sum.item(), regression.steps) == (pytest.approx(sum(losses)), 2)
    regression.start_epoch(1, 2)
    assert (regression.loss_sum.item(), regression.steps) == (0, 0)
    assert regression.best == pytest.approx(sum(losses) / 2)


@pytest.mark.parametrize("fine_tune", ["connected", "all"])
def test_batchnorm_learns_with_its_layers_alone(classifier, fine_tune):
    method = a_method(classifier, fine_tune=fine_tune)
    regression = a_regression(method)
    regression.load_state_dict(regression.state_dict())
    assert method.network.training
    assert method.network.trunk.training is (fine_tune == "all")


def test_boxes_are_those_of_a_network_that_does_not_learn(classifier, batch):
    images_BCHW, labels_B, _ = batch
    method = a_method(classifier)
    expected = method.boxes(images_BCHW, labels_B)
    method.network.train()
    assert torch.equal(method.boxes(images_BCHW, labels_B), expected)
    assert not method.network.training


def test_it_learns_from_batches_of_its_own(classifier, shapes, monkeypatch):
    runs = []
    monkeypatch.setattr(training, "run", lambda game, *rest: runs.append(rest) or [])
    method = a_method(classifier, scale=96, batch_size=5, epochs=7)
    method.network.train()
    method.fit(BoxedBatches(shapes, classifier, 8))
    ((batches, epochs),) = runs
    assert (batches.batch_size, batches.scale, epochs) == (5, 96, 7)
    assert not method.network.training


@pytest.mark.parametrize(
    ("fine_tune", "learns"),
    [("connected", {"connected", "final"}), ("all", {"trunk", "connected", "final"})],
)
def test_what_is_fine_tuned(classifier, batch, fine_tune, learns):
    method = a_method(classifier, fine_tune=fine_tune)
    before, shared = snapshot(method.network), snapshot(classifier)
    a_regression(method).step(*batch)
    assert changed(before, method.network) == learns
    assert changed(shared, classifier) == set()


def test_the_rate_falls_where_the_loss_does_not(classifier):
    regression = a_regression(a_method(classifier))
    rates = []
    for mean_loss in (1.0, 0.5, 0.499, 0.3, 0.3, 0.3, 0.3, 0.3):
        regression.loss_sum.fill_(4 * mean_loss)
        regression.steps = 4
        regression.start_epoch(1, 9)
        rates.append(regression.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6, 1e-6])


def test_it_refuses_to_learn_without_boxes(classifier, shapes):
    with pytest.raises(WorkError, match="not given the true boxes"):
        a_method(classifier).fit(TrainBatches(shapes, classifier, 8))


def test_it_learns(classifier, shapes):
    options = {"fine_tune": "all", "learning_rate": 0.05, "epochs": 8, "regression": "single"}
    method = a_method(classifier, **options)
    method.fit(BoxedBatches(shapes, classifier, 8))
    assert method.history[-1]["loss"] < method.history[0]["loss"] / 3


class Stopped(Exception):
    pass


def test_it_resumes_to_the_same_bits(classifier, shapes, tmp_path, monkeypatch):
    def batches(folder=None):
        return BoxedBatches(shapes, classifier, 8, workspace=folder, checkpoint_every_s=0.0)

    options = {"epochs": 3, "fine_tune": "all", "learning_rate": 1.0}  # which soon falls
    whole = a_method(classifier, **options)
    whole.fit(batches())
    original, calls = Regression.step, []

    def step(self, *batch):
        calls.append(1)
        if len(calls) in (3, 6):
            raise Stopped
        return original(self, *batch)

    monkeypatch.setattr(Regression, "step", step)
    for _ in range(2):
        with pytest.raises(Stopped):
            a_method(classifier, **options).fit(batches(tmp_path))
    resumed = a_method(classifier, **options)
    resumed.fit(batches(tmp_path))
    assert len(calls) == 3 * 3 + 2
    assert changed(snapshot(whole.network), resumed.network) == set()


# --- networks ----------------------------------------------------------------------------------


def test_vgg_keeps_its_own_fully_connected_layers():
    vgg = build_classifier("vgg11", 8, 32, {"mlp_ratio": 0.005})
    network = Regressor(vgg, outputs=4, hidden=7)
    connected = network.connected[0]
    assert torch.equal(connected.fc1.weight, vgg.model.pre_logits.fc1.weight)
    assert network.final.in_features == 4096
    assert connected.drop.p == 0.5
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {
        *("trunk", "connected", "final")
    }


def test_another_backbone_sees_pictures_as_it_wants_them(classifier, batch, monkeypatch):
    images_BCHW, labels_B, _ = batch
    other = build_classifier("test_resnet", 5, 64)
    other.mean.fill_(0.25)
    other.std.fill_(0.5)
    monkeypatch.setattr(
        "casm_bench.backbones.weights.load_classifier", lambda *args, **options: other.eval()
    )
    method = a_method(classifier, backbone="another", regression="single")
    seen = []
    monkeypatch.setattr(
        method.network, "forward", lambda images: seen.append(images) or torch.zeros(8, 4)
    )
    method.predict(images_BCHW, labels_B)
    pixels_BCHW = images_BCHW * classifier.std + classifier.mean
    torch.testing.assert_close(seen[0] * 0.5 + 0.25, pixels_BCHW)


def test_the_record_tells_whose_weights_another_backbone_had(classifier, shapes, monkeypatch):
    other = build_classifier("test_resnet", 5, 64).eval()
    monkeypatch.setattr(
        "casm_bench.backbones.weights.load_classifier", lambda *args, **options: other
    )
    method, usual = a_method(classifier, backbone="another"), a_method(classifier)
    for fitted in (method, usual):
        fitted.fit(BoxedBatches(shapes, classifier, 8))
    assert method.findings == {"backbone_sha256": weights_digest(other)}
    assert usual.findings == {}
