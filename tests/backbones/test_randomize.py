"""Layer groups, and networks whose weights are drawn anew group by group."""

from __future__ import annotations

import pytest
import torch

from casm_bench.backbones.classifier import build_classifier
from casm_bench.backbones.randomize import layer_groups, randomized

CLASSES = 3


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("test_resnet", ["logits", "layer4", "layer3", "layer2", "layer1", "stem"]),
        (
            "tf_efficientnet_lite0",
            ["logits", "head", "blocks.6", "blocks.4", "blocks.2", "blocks.1", "stem"],
        ),
        ("convnext_atto", ["logits", "head", "stages.3", "stages.2", "stages.1", "stem"]),
    ],
)
def test_groups_part_all_tensors_from_the_logits_down(name, groups):
    classifier = build_classifier(name, CLASSES)
    found = layer_groups(classifier)
    assert list(found) == groups
    keys = [key for of_group in found.values() for key in of_group]
    assert sorted(keys) == sorted(set(classifier.state_dict()) - {"mean", "std"})
    assert all(classifier.state_dict()[key].shape[:1] == (CLASSES,) for key in found["logits"])


def test_only_the_named_group_is_drawn_anew():
    torch.manual_seed(0)
    classifier, fresh = (build_classifier("test_resnet", CLASSES).eval() for _ in range(2))
    groups = layer_groups(classifier)
    changed = randomized(classifier, fresh.state_dict(), groups["layer2"])
    for group, keys in groups.items():
        source = fresh if group == "layer2" else classifier
        for key in keys:
            assert torch.equal(changed.state_dict()[key], source.state_dict()[key])
    images_BCHW = torch.randn(1, 3, 32, 32)
    assert not torch.equal(changed(images_BCHW), classifier(images_BCHW))
    everything = [key for keys in groups.values() for key in keys]
    replaced = randomized(classifier, fresh.state_dict(), everything)
    assert torch.equal(replaced(images_BCHW), fresh(images_BCHW))
