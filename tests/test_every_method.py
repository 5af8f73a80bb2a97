"""The contract of `casm_bench.api`, run over everything that is registered."""

import copy
import dataclasses
import functools
import io
from pathlib import Path

import pytest
import torch
from torch import nn

from casm_bench import registry
from casm_bench.api import BoxMethod, Facts, SaliencyMethod
from casm_bench.backbones.classifier import build_classifier
from casm_bench.data.shapes import load_shapes
from casm_bench.errors import UsageError
from casm_bench.protocols import BoxRule
from casm_bench.training import batches_for

SIZE, CLASSES, BATCH = 64, 8, 5
SHORT = {  # where a method has such a field
    "epochs": 1,
    "iterations": 5,
    "selector_steps": 2,
    "mask_steps": 3,
    "learning_rate": 0.05,  # few steps must be seen in whole pixels
    "lambda_r": 10.0,  # not searched for
    "masks": 12,
    "positions": 4,
    "channels": 8,
    "samples": 3,
    "steps": 4,
    "sigma": 5.0,
    "areas": (0.1,),
}
TABLE_1 = {None, "Baseline", "CASM", "ALN", "Mask", "Grad", "Masking model", "VGG (supervised)"}

NETWORKS = ("test_resnet", "test_vit")  # a CNN and a vision transformer


def a_classifier(network):
    """Always the same weights, but never the same object, so that no test disturbs another."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = build_classifier(network, CLASSES, input_size=SIZE)
        for layer in classifier.modules():
            if isinstance(layer, nn.Linear):  # timm starts them near zero, which sees nothing
                nn.init.xavier_normal_(layer.weight)
        nn.init.normal_(classifier.model.get_classifier().weight)
    return classifier.eval()


def make(name, classifier, seed=0):
    cls = registry.get(name)
    fields = {field.name for field in dataclasses.fields(cls)}
    short = {field: value for field, value in SHORT.items() if field in fields}
    return cls(classifier, seed=seed, **short)


def serves(name, network):
    """Whether the method says that it works with this network, all packages being there."""
    try:
        make(name, a_classifier(network)).check()
    except UsageError:
        return False
    return True


def cases():
    """Every method with every network that it serves; the transformer only where one pass over
    the images decides. What is learned or optimised there is nothing new, and takes its time."""
    for facts in registry.all_facts():
        fields = {field.name for field in dataclasses.fields(registry.get(facts.name))}
        alike = facts.trained or facts.family == "control" or "iterations" in fields
        for network in NETWORKS[:1] if alike else NETWORKS:
            if serves(facts.name, network):
                yield facts, network


CASES = list(cases())


def every(wanted):
    """Parametrises a test over those cases whose facts are `wanted`."""
    chosen = [(facts.name, network) for facts, network in CASES if wanted(facts)]
    return pytest.mark.parametrize(("name", "network"), chosen, ids=map("-".join, chosen))


every_method = pytest.mark.parametrize("name", registry.names())
every_case = every(lambda facts: True)
every_case_without_the_class = every(lambda facts: not facts.knows_class)
every_box_control = every(
    lambda facts: facts.family == "control" and issubclass(registry.get(facts.name), BoxMethod)
)


@pytest.fixture(scope="module")
def splits():
    return load_shapes(train=24, held_out=1, evaluated=BATCH, size=SIZE, classes=CLASSES)


@pytest.fixture
def classifier(network):
    return a_classifier(network)


@pytest.fixture
def batch(classifier, splits):
    """Normalised images_BCHW, labels_B and the true boxes."""
    pictures = [torch.from_numpy(splits.evaluated.image(i)) for i in range(BATCH)]
    images_BCHW = classifier.normalize(torch.stack(pictures).permute(0, 3, 1, 2))
    truth = [torch.from_numpy(boxes_N4).long() for boxes_N4 in splits.evaluated.boxes]
    return images_BCHW.contiguous(), torch.from_numpy(splits.evaluated.labels_N.copy()), truth


@pytest.fixture(scope="module")
def fitted_with(splits):
    """fitted_with(network, name): the method after fit, always the same one, with a classifier of
    its own."""

    @functools.cache
    def get(network, name):
        classifier = a_classifier(network)
        return fit(make(name, classifier), classifier, splits)

    return get


@pytest.fixture
def fitted(fitted_with, network):
    return functools.partial(fitted_with, network)


def fit(method, classifier, splits):
    method.fit(batches_for(method.facts)(splits.train, classifier, batch_size=8))
    return method


def predict(method, images_BCHW, labels_B, truth):
    """The method's maps or boxes, asked for as the harness does."""
    with torch.no_grad():
        if isinstance(method, BoxMethod):
            given = truth if method.facts.boxes == "test" else None
            return method.boxes(images_BCHW, labels_B, given)
        return method.maps(images_BCHW, labels_B)


def assert_same(predicted, expected):
    """Equal to 1e-5 of the largest value; boxes exactly."""
    if not expected.is_floating_point():
        assert torch.equal(predicted, expected)
    else:
        torch.testing.assert_close(
            predicted, expected, rtol=0, atol=1e-5 * expected.abs().max().item()
        )


def everything_in(classifier):
    """Weights, buffers, modes, gradient flags and gradients, as plain comparable values."""
    return (
        {name: value.numpy().tobytes() for name, value in classifier.state_dict().items()},
        [module.training for module in classifier.modules()],
        [(weight.requires_grad, weight.grad) for weight in classifier.parameters()],
    )


@every_method
def test_facts_are_complete(name):
    cls = registry.get(name)
    facts = cls.facts
    assert isinstance(facts, Facts)
    assert facts.name == name
    for text in (facts.title, facts.paper, facts.summary, facts.cost, cls.__doc__):
        assert text.strip()
    assert facts.summary.endswith(".")
    assert facts.published in TABLE_1
    assert isinstance(facts.rule, BoxRule)
    assert Path(facts.source_file).is_file()


@every_method
def test_some_network_is_served(name):
    if not any(facts.name == name for facts, _ in CASES):
        extra = registry.get(name).facts.extra
        assert extra, "check() refuses both networks"
        pytest.skip(f"needs the extra {extra!r}")


@every_method
def test_fit_is_there_if_facts_say_so(name):
    cls = registry.get(name)
    assert cls.facts.trained == (cls.fit is not SaliencyMethod.fit)


@every_case
def test_predictions_are_well_formed(name, fitted, batch):
    predicted = predict(fitted(name), *batch)
    if isinstance(fitted(name), BoxMethod):
        assert (predicted.shape, predicted.dtype) == ((BATCH, 4), torch.int64)
        assert predicted.min() >= 0
        assert predicted.max() <= SIZE
        assert (predicted[:, :2] <= predicted[:, 2:]).all()
    else:
        assert (predicted.shape[0], predicted.ndim) == (BATCH, 3)
        assert predicted.dtype == torch.float32
        assert predicted.isfinite().all()
        assert predicted.min() >= 0
        # Cut off below zero, a map may be empty where nothing speaks for the class.
        assert (predicted.amax(dim=(1, 2)) > 0).any()
    assert not predicted.requires_grad


@every_case
def test_an_image_alone_gives_what_it_gives_in_a_batch(name, fitted, batch):
    together = predict(fitted(name), *batch)
    for i in range(BATCH):
        alone = predict(fitted(name), *(part[i : i + 1] for part in batch))
        assert_same(alone, together[i : i + 1])


@every_case
def test_order_in_the_batch_changes_nothing(name, fitted, batch):
    images_BCHW, labels_B, truth = batch
    order = [3, 0, 4, 2, 1]
    shuffled = (images_BCHW[order], labels_B[order], [truth[i] for i in order])
    assert_same(predict(fitted(name), *shuffled), predict(fitted(name), *batch)[order])


@every_case
def test_the_memory_layout_of_images_changes_nothing(name, fitted, batch):
    images_BCHW, *rest = batch
    channels_last = images_BCHW.contiguous(memory_format=torch.channels_last)
    assert_same(predict(fitted(name), channels_last, *rest), predict(fitted(name), *batch))


@every_case
def test_inputs_stay_as_they_are(name, fitted, batch):
    images_BCHW, labels_B, truth = copy.deepcopy(batch)
    predict(fitted(name), images_BCHW, labels_B, truth)
    assert torch.equal(images_BCHW, batch[0])
    assert torch.equal(labels_B, batch[1])
    assert all(torch.equal(*pair) for pair in zip(truth, batch[2], strict=True))
    assert not images_BCHW.requires_grad


@every_case
@pytest.mark.parametrize("frozen", [False, True])
def test_the_shared_classifier_stays_as_it_is(name, frozen, classifier, splits, batch):
    classifier.requires_grad_(not frozen)
    before = everything_in(classifier)
    predict(fit(make(name, classifier), classifier, splits), *batch)
    assert everything_in(classifier) == before


@every_case
def test_seed_alone_decides(name, fitted, classifier, splits, batch):
    """A second method, fitted and asked while the global generator stands elsewhere."""
    expected = predict(fitted(name), *batch)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        again = predict(fit(make(name, classifier), classifier, splits), *batch)
    if fitted(name).facts.deterministic:
        assert torch.equal(again, expected)


@every_case
def test_the_global_generator_stays_where_it_was(name, classifier, splits, batch):
    before = torch.get_rng_state()
    predict(fit(make(name, classifier), classifier, splits), *batch)
    assert torch.equal(torch.get_rng_state(), before)


@every_case_without_the_class
def test_whoever_does_not_know_the_class_does_not_use_it(name, fitted, batch):
    images_BCHW, labels_B, truth = batch
    other = predict(fitted(name), images_BCHW, (labels_B + 1) % CLASSES, truth)
    assert torch.equal(other, predict(fitted(name), *batch))


@every_case
def test_what_was_learned_survives_saving(name, fitted, classifier, batch):
    file = io.BytesIO()
    torch.save(fitted(name).state_dict(), file)
    file.seek(0)
    restored = make(name, classifier, seed=0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(predict(restored, *batch), predict(fitted(name), *batch))


@every_case
def test_only_trained_methods_learn(name, fitted, classifier, batch):
    untouched = predict(make(name, classifier), *batch)
    learned = not torch.equal(untouched, predict(fitted(name), *batch))
    assert learned == fitted(name).facts.trained
    assert bool(fitted(name).state_dict()) == fitted(name).facts.trained


@every_box_control
def test_controls_need_no_pixels(name, fitted, batch):
    images_BCHW, labels_B, truth = batch
    without_pixels = predict(fitted(name), images_BCHW.to("meta"), labels_B, truth)
    assert torch.equal(without_pixels, predict(fitted(name), *batch))
