"""The pytorch-grad-cam adapter: its Grad-CAM is ours, and Grad-CAM++ by hand."""

import sys
from dataclasses import dataclass

import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import nn

from casm_bench import registry
from casm_bench.backbones.classifier import Classifier, build_classifier
from casm_bench.errors import UsageError
from casm_bench.methods._pytorch_grad_cam import PytorchGradCamMethod

SIZE = 128


@dataclass
class GradCAM(PytorchGradCamMethod):
    def cam_class(self):
        return pytorch_grad_cam.GradCAM


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, SIZE, SIZE, generator=generator), torch.tensor([1, 5, 4, 0])


def a_network(name):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        classifier = build_classifier(name, 6, SIZE).eval()
        nn.init.normal_(classifier.model.get_classifier().weight)  # timm starts it near zero
    return classifier


def hooks_of(classifier):
    return [list(module._forward_hooks) for module in classifier.modules()]


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        *(("test_resnet", 3), ("test_resnet", 16), ("test_vit", 3), ("test_vit", 16)),
        *(("test_vit2", 16), ("test_mambaout", 16)),  # the last one's channels come last
        *(("test_efficientnet", 16), ("hrnet_w18_small", 16)),  # convolutions after the last stage
    ],
)
def test_its_grad_cam_is_ours(name, chunk, batch):
    classifier = a_network(name)
    hooks = hooks_of(classifier)
    ours_Bhw = registry.get("grad-cam")(classifier).maps(*batch)
    enlarged_BHW = scale_cam_image(scale_cam_image(ours_Bhw.numpy(), (SIZE, SIZE)))
    with torch.no_grad():
        theirs_BHW = GradCAM(classifier, chunk=chunk).maps(*batch)
    torch.testing.assert_close(theirs_BHW, torch.from_numpy(enlarged_BHW), rtol=0, atol=1e-5)
    assert all(weight.grad is None and weight.requires_grad for weight in classifier.parameters())
    assert hooks_of(classifier) == hooks


class Squares(nn.Module):
    """Features are the image; the only logit is Σ_places Σ_channels w_c f², so that ∂z/∂f differs
    from place to place."""

    def __init__(self, weight_C):
        super().__init__()
        self.features = nn.Identity()
        self.weight_C = nn.Parameter(torch.tensor(weight_C))

    def forward_features(self, images_BCHW):
        return self.features(images_BCHW * 1)

    def forward(self, images_BCHW):
        features_BCHW = self.forward_features(images_BCHW)
        return torch.einsum("bchw,c->b", features_BCHW**2, self.weight_C)[:, None]


def test_grad_cam_plus_plus_by_hand():
    """g = 2 w f. Of channel 0, w = ½, f = (2, 1): g = f, Σf = 3, α = 4/(8+24), 1/(2+3), so the
    weight is 1/8·2 + 1/5·1 = 0.45. Of channel 1, w = -½: no positive gradient. The map 0.45 · f
    is stretched to [0, 1]."""
    network = Classifier(Squares([0.5, -0.5]), "squares", 2, (0.0, 0.0), (1.0, 1.0))
    image_1C12 = torch.tensor([[[[2.0, 1.0]], [[1.0, 3.0]]]])
    method = registry.get("grad-cam-plus-plus")(network)
    cam = method.cam_class()(network.model, [network.model.features])
    weights = cam.get_cam_weights(
        None,
        None,
        None,
        image_1C12.numpy(),
        2 * torch.tensor([[[[1.0, 0.5]], [[-0.5, -1.5]]]]).numpy(),
    )
    assert weights.tolist() == [pytest.approx([0.45, 0.0], abs=1e-6)]
    map_1HW = method.maps(image_1C12, torch.tensor([0]))
    torch.testing.assert_close(map_1HW, torch.tensor([[[1.0, 0.0]]]), rtol=0, atol=1e-6)


def test_another_layer_may_be_read(batch):
    classifier = a_network("test_resnet")
    earlier_BHW = GradCAM(classifier, layer="layer3").maps(*batch)
    assert not torch.equal(earlier_BHW, GradCAM(classifier).maps(*batch))
    with pytest.raises(UsageError, match="no layer 'layer9'.*layer4"):
        GradCAM(classifier, layer="layer9").check()


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("cait_xxs24_224", None, {"depth": 1, "embed_dim": 32, "num_heads": 2}),
        ("hrnet_w18_small", "stage4", {}),  # gives a list
        ("test_resnet", "fc", {}),
        ("test_vit", "head", {}),
    ],
)
def test_layers_without_a_map_are_refused(name, layer, options):
    classifier = build_classifier(name, 4, None if "224" in name else 64, options).eval()
    with pytest.raises(UsageError, match="gives no single feature map"):
        GradCAM(classifier, layer=layer).check()


def test_layers_before_the_class_token_joins_may_be_read(batch):
    """The class token joins behind the patch embedding, where patches are all there is."""
    assert GradCAM(a_network("test_vit"), layer="patch_embed").maps(*batch).shape[1:] == (
        SIZE,
        SIZE,
    )


def test_without_the_library_the_pip_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UsageError, match=r"pip install 'casm-bench\[grad-cam\]'"):
        registry.get("grad-cam-plus-plus")(a_network("test_resnet")).check()
