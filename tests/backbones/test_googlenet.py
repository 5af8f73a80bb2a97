"""GoogLeNet: torchvision's values, timm's parts, and files with the side classifiers."""

import pytest
import torch
from torchvision.models import googlenet as torchvisions

from casm_bench.backbones.classifier import build_classifier
from casm_bench.backbones.weights import load_classifier
from casm_bench.registry import get

SIZE = 64


@pytest.fixture(scope="module")
def reference():
    """torchvision's, as its weights are used: ImageNet's normalisation, turned inside."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvisions(
            weights=None, num_classes=7, aux_logits=True, transform_input=True, init_weights=False
        ).eval()


@pytest.fixture(scope="module")
def classifier(reference, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    torch.save(reference.state_dict(), file)
    return load_classifier("googlenet", str(file), classes=None, input_size=SIZE)


def test_pixels_get_torchvisions_logits(reference, classifier):
    pixels_BCHW = torch.randint(256, (2, 3, SIZE, SIZE)).to(torch.uint8)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        expected_BK = reference((pixels_BCHW / 255 - mean) / std)
        logits_BK = classifier(classifier.normalize(pixels_BCHW))
    torch.testing.assert_close(logits_BK, expected_BK, rtol=0, atol=1e-5)


def test_features_and_head_are_the_network(classifier):
    images_BCHW = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        logits_BK, features = classifier.with_features(images_BCHW)
        torch.testing.assert_close(logits_BK, classifier(images_BCHW), rtol=0, atol=0)
    assert [feature.shape[-1] for feature in features] == [16, 16, 8, 4, 2]
    assert classifier.feature_channels == (64, 192, 480, 832, 1024)
    assert [feature.shape[1] for feature in features] == list(classifier.feature_channels)


def test_its_size_is_the_published_one():
    """6,624,904 parameters without the side classifiers (torchvision's documentation)."""
    classifier = build_classifier("googlenet", 1000)
    assert sum(weight.numel() for weight in classifier.parameters()) == 6_624_904
    assert classifier.input_size == 224


@pytest.mark.parametrize("name", ["mask", "cam", "grad"])
def test_methods_work_with_it(name, classifier):
    method = get(name)(classifier, **({"iterations": 2} if name == "mask" else {}))
    method.check()
    map_Bhw = method.maps(torch.randn(2, 3, SIZE, SIZE), torch.tensor([1, 5]))
    assert map_Bhw.isfinite().all()
    assert map_Bhw.max() > 0
