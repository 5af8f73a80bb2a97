"""The CAM family: by hand, against captum, and against pytorch-grad-cam."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from casm_bench import registry
from casm_bench.backbones.classifier import Classifier, build_classifier
from casm_bench.errors import UsageError

SIZE, CLASSES = 128, 6
UPSAMPLE = {"mode": "bilinear", "align_corners": False}


class Pooled(nn.Module):
    """Features are the image; logits a linear layer on their means, as timm's networks go."""

    def __init__(self, weight_KC):
        super().__init__()
        self.fc = nn.Linear(*weight_KC.shape[::-1], bias=False)
        self.fc.weight = nn.Parameter(weight_KC)

    def forward_features(self, images_BCHW):
        return images_BCHW

    def forward_head(self, features_BCHW):
        return self.fc(features_BCHW.mean(dim=(2, 3)))

    def forward(self, images_BCHW):
        return self.forward_head(self.forward_features(images_BCHW))

    def get_classifier(self):
        return self.fc


@pytest.fixture(params=["test_resnet", "test_vit"])
def classifier(request):
    return a_network(request.param)


def a_network(name):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        classifier = build_classifier(name, CLASSES, SIZE).eval()
        nn.init.normal_(classifier.model.get_classifier().weight)  # timm starts it near zero
    return classifier


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, SIZE, SIZE, generator=generator), torch.tensor([1, 5, 4, 0])


def by_hand():
    """One image of two channels, two classes: w_0 = (1, -1), w_1 = (2, 0)."""
    network = Pooled(torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
    image_1CHW = torch.tensor([[[[4.0, 0.0], [1.0, -1.0]], [[1.0, 1.0], [0.0, 3.0]]]])
    return Classifier(network, "pooled", 2, (0.0, 0.0), (1.0, 1.0)), image_1CHW


@pytest.mark.parametrize(
    ("method", "label", "expected"),
    [
        # Σ w f = [[3, -1], [1, -4]], less its smallest value
        ("cam", 0, [[7.0, 3.0], [5.0, 0.0]]),
        # the same over 4 places, cut off below zero
        ("grad-cam", 0, [[0.75, 0.0], [0.25, 0.0]]),
        # only channel 0 has a positive gradient, 1/4
        ("layer-cam", 0, [[1.0, 0.0], [0.25, 0.0]]),
        ("cam", 1, [[10.0, 2.0], [4.0, 0.0]]),
        ("grad-cam", 1, [[2.0, 0.0], [0.5, 0.0]]),
    ],
)
def test_by_hand(method, label, expected):
    classifier, image_1CHW = by_hand()
    map_1HW = registry.get(method)(classifier).maps(image_1CHW, torch.tensor([label]))
    torch.testing.assert_close(map_1HW[0], torch.tensor(expected))


def test_score_cam_by_hand():
    """Channel 0 stretches to (f + 1) / 5, channel 1 to f / 3; the logit of class 1 is twice the
    mean of channel 0 seen through them."""
    classifier, image_1CHW = by_hand()
    seen_0 = (4 * 1 + 0 * 0.2 + 1 * 0.4 - 1 * 0) / 4 * 2
    seen_1 = (4 / 3 + 0 / 3 + 0 - 1) / 4 * 2
    alpha = np.exp([seen_0, seen_1]) / np.exp([seen_0, seen_1]).sum()
    expected_HW = alpha[0] * image_1CHW[0, 0] + alpha[1] * image_1CHW[0, 1]
    map_1HW = registry.get("score-cam")(classifier).maps(image_1CHW, torch.tensor([1]))
    torch.testing.assert_close(map_1HW[0], expected_HW.relu().float(), rtol=0, atol=1e-6)


def test_cam_is_grad_cam_where_that_is_positive(batch):
    """Behind a mean the gradient is the weight over the number of places (Selvaraju et al., 3.1);
    what is left of the difference is CAM's shift."""
    classifier = a_network("test_resnet")
    cam_Bhw, grad_cam_Bhw = (
        registry.get(name)(classifier).maps(*batch) for name in ("cam", "grad-cam")
    )
    places = cam_Bhw[0].numel()
    for cam_hw, grad_cam_hw in zip(cam_Bhw, grad_cam_Bhw, strict=True):
        shift_n = (cam_hw - places * grad_cam_hw)[grad_cam_hw > 0]
        assert len(shift_n)
        torch.testing.assert_close(shift_n, shift_n[:1].expand_as(shift_n), rtol=0, atol=1e-5)


def test_grad_cam_is_captums(batch):
    classifier = a_network("test_resnet")
    images_BCHW, labels_B = batch
    captums = LayerGradCam(classifier, classifier.model.layer4)
    expected_B1hw = captums.attribute(images_BCHW, labels_B, relu_attributions=True)
    map_Bhw = registry.get("grad-cam")(classifier).maps(images_BCHW, labels_B)
    torch.testing.assert_close(map_Bhw, expected_B1hw[:, 0].detach(), rtol=0, atol=1e-5)
    assert map_Bhw.max() > 1e-3


@pytest.mark.parametrize(
    ("method", "theirs"),
    [("grad-cam", GradCAM), ("layer-cam", LayerCAM), ("score-cam", ScoreCAM)],
)
def test_maps_are_pytorch_grad_cams(method, theirs, classifier, batch, monkeypatch):
    """It stretches each map to [0, 1] before and after enlarging it; ours go the same way here.

    Its Score-CAM enlarges masks by their corners, which here it does as maps are enlarged.
    """
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size, **UPSAMPLE))
    images_BCHW, labels_B = batch
    expected_BHW = reference(theirs, classifier)(
        images_BCHW, [ClassifierOutputTarget(int(label)) for label in labels_B]
    )
    map_Bhw = registry.get(method)(classifier).maps(images_BCHW, labels_B).numpy()
    assert np.ptp(map_Bhw, axis=(1, 2)).max() > 1e-3
    enlarged_BHW = scale_cam_image(scale_cam_image(map_Bhw, (SIZE, SIZE)))
    np.testing.assert_allclose(enlarged_BHW, expected_BHW, rtol=0, atol=1e-5)


def reference(theirs, classifier):
    model = classifier.model
    if not hasattr(model, "blocks"):
        return theirs(model, [model.layer4])

    def as_grid(tokens_BNC):
        return tokens_BNC[:, 1:].mT.unflatten(2, (8, 8))

    return theirs(model, [model.blocks[-1].norm1], as_grid)


@pytest.mark.parametrize("name", ["vgg11", "test_vit", "mobilenetv3_small_050"])
def test_cam_needs_a_linear_layer_behind_a_mean(name):
    with pytest.raises(UsageError, match=f"global average pool and one linear layer.*{name}"):
        registry.get("cam")(build_classifier(name, 4, SIZE).eval()).check()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_resnet"])
def test_cam_serves_networks_that_end_in_one(name):
    registry.get("cam")(build_classifier(name, 4, SIZE).eval()).check()


def test_score_cam_of_few_channels_leaves_the_others_out(batch):
    classifier = a_network("test_resnet")
    method = registry.get("score-cam")
    all_Bhw = method(classifier).maps(*batch)
    again_Bhw = method(classifier, channels=500, batch_size=7).maps(*batch)
    torch.testing.assert_close(again_Bhw, all_Bhw, rtol=0, atol=1e-5)
    few_Bhw = method(classifier, channels=5).maps(*batch)
    assert (few_Bhw - all_Bhw).abs().max() > 1e-2


def test_score_cam_of_few_channels_serves_features_of_one_place():
    classifier = build_classifier("test_resnet", 4, 32).eval()
    map_1hw = registry.get("score-cam")(classifier, channels=5).maps(*classifier.example())
    assert map_1hw.shape == (1, 1, 1)
    assert map_1hw.isfinite().all()
