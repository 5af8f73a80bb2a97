"""Checkpoints of the official CASM code (github.com/kondiz/casme), in this program's names."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import UsageError
from .classifier import build_classifier
from .masker import Decoder
from .weights import IMAGENET_CLASSES, as_state, fill, read_content

ENCODER = "resnet50"  # the only one of the official code; timm and torchvision name it alike
PARTS = ("state_dict_classifier", "state_dict_decoder")
WHICH_FILE = "The official train.py writes such a file for every epoch, NAME.chk in casms_path."
PLACES = ("data", "casms_path", "log_path")  # options that say only where files lay


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What a checkpoint holds that maps depend on, and how it was trained."""

    classifier: dict[str, Tensor]
    decoder: dict[str, Tensor]
    epoch: int | None
    options: dict[str, object]  # of the official train.py, plain values only


def read_official(path: Path) -> OfficialCheckpoint:
    """Read a `.chk` file written by the official train.py, on one GPU or through DataParallel.

    No code in the file runs. Raises UsageError naming the file when it is missing or damaged,
    holds anything but tensors, plain values and an argparse.Namespace, or does not fit the
    official networks.
    """
    if not path.is_file():
        raise UsageError(f"The checkpoint {path} does not exist.")
    content = read_content(path, WHICH_FILE)
    if not isinstance(content, dict) or not all(part in content for part in PARTS):
        raise UsageError(
            f"{path} is no checkpoint of the official CASM code: it must hold {' and '.join(PARTS)}"
            f"{_what_there_is(content)}."
        )
    theirs, decoder_theirs = (as_state(content[part], path) for part in PARTS)
    epoch = content.get("epoch")
    classes = theirs["fc.bias"].numel() if "fc.bias" in theirs else IMAGENET_CLASSES
    classifier = build_classifier(ENCODER, classes)
    decoder = Decoder(classifier.feature_channels)
    misfit = f"{path} does not fit the official {ENCODER}"
    fill(classifier.model, theirs, misfit, "Only its architecture can be imported.")
    renamed = {_our_name(name): value for name, value in decoder_theirs.items()}
    fill(decoder, renamed, f"{path} does not fit the official decoder", "Forks may differ in it.")
    return OfficialCheckpoint(
        classifier=classifier.state_dict(),
        decoder=decoder.state_dict(),
        epoch=epoch if isinstance(epoch, int) else None,
        options=_plain_options(content.get("args")),
    )


def _our_name(name: str) -> str:
    """`conv1x1_2.1.bias` is `narrow.1.1.bias` here, and `final.0.bias` is `final.bias`."""
    first, _, rest = name.partition(".")
    if first == "final":
        return f"final.{rest.removeprefix('0.')}"
    number = first.removeprefix("conv1x1_")
    return f"narrow.{int(number) - 1}.{rest}" if number.isdecimal() else name


def _plain_options(arguments: object) -> dict[str, object]:
    """The options of a Namespace, or of a dict as forks keep them, but for paths."""
    options = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    if not isinstance(options, dict):
        return {}
    return {
        str(name): value
        for name, value in sorted(options.items())
        if isinstance(value, str | int | float | None) and name not in PLACES
    }


def _what_there_is(content: object) -> str:
    if not isinstance(content, dict):
        return f", but is a {type(content).__name__}"
    return f", but holds {', '.join(map(str, list(content)[:5])) or 'nothing'}"
