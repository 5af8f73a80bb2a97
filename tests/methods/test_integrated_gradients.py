"""Integrated gradients in closed form, and that they add up to the change in score."""

import pytest
import torch
from torch import nn

from casm_bench import registry


class Monotone(nn.Module):
    """Every pixel speaks for class 1 only, and in no simple way."""

    def __init__(self):
        super().__init__()
        self.weight_PH = nn.Parameter(torch.rand(12, 6, dtype=torch.float64))

    def forward(self, images_BCHW):
        hidden_BH = torch.tanh(images_BCHW.flatten(1) @ self.weight_PH)
        logit_B = hidden_BH.sum(dim=1) ** 2 / 4
        return torch.stack([torch.zeros_like(logit_B), logit_B], dim=1)

    def normalize(self, images_BCHW):
        return (images_BCHW - 0.4) / 2 + 0.3  # black becomes 0.1


class Squares(nn.Module):
    """Logit y is y · Σ x²."""

    def forward(self, images_BCHW):
        return images_BCHW.square().sum(dim=(1, 2, 3))[:, None] * torch.arange(3.0)


def make(classifier, **options):
    return registry.get("integrated-gradients")(classifier, **options)


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize(("baseline", "value"), [("black", 0.1), ("mean", 0.0)])
def test_a_map_adds_up_to_the_change_in_score(score, baseline, value):
    torch.manual_seed(0)
    classifier, images_BCHW = Monotone(), 0.1 + torch.rand(3, 3, 2, 2, dtype=torch.float64)
    ones_B = torch.ones(3, dtype=torch.int64)
    maps_BHW = make(classifier, score=score, baseline=baseline).maps(images_BCHW, ones_B)
    with torch.no_grad():
        logits = [classifier(x) for x in (images_BCHW, torch.full_like(images_BCHW, value))]
    scores = [z_BK.softmax(dim=1) if score == "probability" else z_BK for z_BK in logits]
    change_B = (scores[0] - scores[1])[:, 1]
    torch.testing.assert_close(maps_BHW.sum(dim=(1, 2)), change_B.float(), rtol=1e-5, atol=0)
    assert change_B.min() > 0.05


def test_closed_form_of_squares():
    """∂/∂x of y·x² is 2yx, whose integral from 0 to x adds y·x² for each channel."""
    images_BCHW, labels_B = torch.randn(2, 3, 4, 4), torch.tensor([1, 2])
    maps_BHW = make(Squares(), score="logit", baseline="mean").maps(images_BCHW, labels_B)
    expected_BHW = images_BCHW.square().sum(dim=1) * labels_B[:, None, None]
    torch.testing.assert_close(maps_BHW, expected_BHW)


def test_channels_that_contradict_each_other_cancel():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False))
    classifier[1].weight.data = torch.tensor([[3.0, -5.0]])
    method = make(classifier, score="logit", baseline="mean")
    map_1HW = method.maps(torch.ones(1, 2, 1, 1), torch.tensor([0]))
    assert map_1HW.item() == pytest.approx(2.0)
