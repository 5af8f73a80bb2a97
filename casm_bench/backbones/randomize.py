"""Networks whose weights are drawn anew, layer group by layer group (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

from torch import Tensor

from .classifier import Classifier, feature_modules

LOGITS, HEAD, STEM = "logits", "head", "stem"


def layer_groups(classifier: Classifier) -> dict[str, list[str]]:
    """Names of the classifier's tensors by layer group, from the logits down.

    `logits` is the last layer, `head` what lies between it and the deepest feature map. The other
    groups are called after the module whose output is a feature map (`layer4`, `blocks.6`), and
    the first of them `stem`; each reaches down to the next feature map.
    """
    model = classifier.model
    place = {name: i for i, (name, _) in enumerate(model.named_modules())}
    features = [name for name in feature_modules(model) if name in place]
    ends = {name: max(i for other, i in place.items() if _within(other, name)) for name in features}
    last = next(name for name, module in model.named_modules() if module is model.get_classifier())
    groups: dict[str, list[str]] = {LOGITS: [], HEAD: [], **{name: [] for name in reversed(ends)}}
    for key in model.state_dict():
        owner = key.rpartition(".")[0]
        reached = (name for name, end in ends.items() if place[owner] <= end)
        group = LOGITS if _within(owner, last) else next(reached, HEAD)
        groups[group].append(f"model.{key}")
    found = [(name, keys) for name, keys in groups.items() if keys]
    return dict(found[:-1]) | {STEM: found[-1][1]}


def _within(module: str, ancestor: str) -> bool:
    return f"{module}.".startswith(f"{ancestor}.")


def with_fresh(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor], keys: Collection[str]
) -> dict[str, Tensor]:
    """A state with the tensors called `keys` from `fresh`, running statistics included."""
    chosen = set(keys)
    return {name: (fresh if name in chosen else trained)[name] for name in trained}


def randomized(
    classifier: Classifier, fresh: Mapping[str, Tensor], keys: Collection[str]
) -> Classifier:
    """A copy of the classifier with the tensors called `keys` from `fresh`."""
    copied = copy.deepcopy(classifier)
    copied.load_state_dict(with_fresh(classifier.state_dict(), fresh, keys))
    return copied
