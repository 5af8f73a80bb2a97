"""Classifier f: a timm network that gives logits and feature maps in one forward pass.

Shapes: B images, C channels, H rows, W columns, K classes; h×w a feature map's own grid; N tokens
of a transformer, the patches after `prefix` others (class, distillation, registers).
"""

from __future__ import annotations

from functools import cached_property

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UsageError
from . import googlenet  # noqa: F401  (makes the name known to timm)

TAP_STRIDES = (4, 4, 8, 16, 32)


class Classifier(nn.Module):
    """A timm network with its own input size, mean and standard deviation.

    The five taps of `with_features` are those of the CASM paper's ResNet-50 (official archs.py):
    feature 0 after the stem's max-pool, features 1-4 after the stages with strides 4, 8, 16 and
    32. Families without a max-pool in the stem get the equivalent with stride 4: their stride-2
    feature, max-pooled the same way; and families that start with stride 4 (ConvNeXt) give their
    first stage twice.

    Asked for features that the network does not have, it raises UsageError: vision transformers,
    for one, have no taps, but a last feature map.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        input_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.input_size = input_size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_hook(_lay_out_gradient)

    @cached_property
    def tap_indices(self) -> tuple[int, ...]:
        """Which of timm's intermediate features the five taps are; raises UsageError as they do."""
        return _tap_indices(self.model, self.name)

    @cached_property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the five taps; UsageError where the network has no such feature maps."""
        channels = [int(info["num_chs"]) for info in _feature_info(self.model)]
        return tuple(channels[i] for i in self.tap_indices)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits_BK of normalised images."""
        return self.model(images_BCHW)

    def with_features(self, images_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits_BK, and the five feature maps, of normalised images."""
        final_BCHW, taps = self.model.forward_intermediates(
            images_BCHW, indices=sorted(set(self.tap_indices))
        )
        by_index = dict(zip(sorted(set(self.tap_indices)), taps, strict=True))
        features = [by_index[i] for i in self.tap_indices]
        if features[0].shape[-1] > features[1].shape[-1]:
            features[0] = F.max_pool2d(features[0], 3, stride=2, padding=1)
        return self.model.forward_head(final_BCHW), features

    def with_last_features(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits_BK and the last feature map features_BChw, of normalised images.

        Gradients are on, and the features are a leaf: the gradient of a logit by them passes
        through the network's end and nothing else. In a CNN they are what its head pools; in a
        vision transformer the patches where they enter the last block's attention, normed, as
        behind it only the class token may matter.
        Raises UsageError for a network that has no such map.
        """
        with torch.enable_grad():
            if self.is_vision_transformer:
                return self._with_last_tokens(images_BCHW)
            return self._with_last_map(images_BCHW)

    def _with_last_map(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            final = self.model.forward_features(images_BCHW)
        if final.ndim != 4:
            raise UsageError(
                f"Classifier {self.name!r} has no last feature map: it is neither a CNN nor a "
                "plain vision transformer. Choose, for instance, resnet50."
            )
        moved = self.channels_come_last
        leaf_BChw = (final.permute(0, 3, 1, 2) if moved else final).requires_grad_()
        again = leaf_BChw.permute(0, 2, 3, 1) if moved else leaf_BChw
        return self.model.forward_head(again), leaf_BChw

    def _with_last_tokens(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        prefix = self.model.num_prefix_tokens
        rows, columns = self.token_grid(images_BCHW)
        layer = self.model.get_submodule(self.last_layer)
        leaves = []

        def start_anew(layer: nn.Module, inputs: object, normed_BNC: Tensor) -> Tensor:
            patches_BNC = normed_BNC.detach()[:, prefix:]
            leaves.append(patches_BNC.mT.unflatten(2, (rows, columns)).requires_grad_())
            return torch.cat((normed_BNC.detach()[:, :prefix], leaves[0].flatten(2).mT), dim=1)

        hook = layer.register_forward_hook(start_anew)
        try:
            return self.model(images_BCHW), leaves[0]
        finally:
            hook.remove()

    @property
    def is_vision_transformer(self) -> bool:
        return is_vision_transformer(self.model)

    @property
    def channels_come_last(self) -> bool:
        """Whether the network's own layers pass on feature maps as B×h×w×C (Swin, for one)."""
        return getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    @cached_property
    def last_layer(self) -> str:
        """Name of the layer of `model` that gives the last feature map: the outermost of several.

        In a vision transformer it gives that map as tokens.
        Raises UsageError for a network of which no single layer gives it, and for vision
        transformers whose last block does not norm its tokens before it attends to them.
        """
        if self.is_vision_transformer:
            parts = [name for name, _ in self.model.blocks[-1].named_children()]
            if "norm1" not in parts or "attn" not in parts[parts.index("norm1") :]:
                raise UsageError(
                    f"The blocks of {self.name!r} do not norm their tokens before attention alone, "
                    "so that there is no last feature map as in other vision transformers. Choose "
                    "a plain one, for instance vit_small_patch16_224."
                )
            return f"blocks.{len(self.model.blocks) - 1}.norm1"
        return self._source_of_last_map()

    def _source_of_last_map(self) -> str:
        """timm's own name for it is of no use: in an EfficientNet a convolution comes after it."""
        outputs = []
        hooks = [
            module.register_forward_hook(lambda *call, name=name: outputs.append((name, call[2])))
            for name, module in self.model.named_modules()
            if name
        ]
        try:
            with torch.no_grad():
                final = self.model.forward_features(self.example()[0])
        finally:
            for hook in hooks:
                hook.remove()
        sources = [name for name, output in outputs if output is final]
        if not sources:
            raise UsageError(f"No layer of classifier {self.name!r} gives its last feature map.")
        return sources[-1]

    def token_grid(self, images_BCHW: Tensor) -> tuple[int, int]:
        """Rows and columns of a vision transformer's patches."""
        return self.model.patch_embed.dynamic_feat_size(images_BCHW.shape[-2:])

    def example(self) -> tuple[Tensor, Tensor]:
        """A normalised image of noise, always the same, and a label: for trying what works."""
        shape = (1, self.mean.shape[1], self.input_size, self.input_size)
        noise_1CHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return noise_1CHW.to(self.mean), torch.zeros(1, dtype=torch.int64, device=self.mean.device)

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """From uint8 pixels to what the network was trained on."""
        return (images_BCHW.to(self.mean.dtype) / 255 - self.mean) / self.std

    def denormalize(self, images_BCHW: Tensor) -> Tensor:
        """From normalised images back to [0, 1]."""
        return images_BCHW * self.std + self.mean


def _lay_out_gradient(norm: nn.Module, inputs: object, features_BCHW: Tensor) -> None:
    """Give a BatchNorm its gradient in the usual layout where torch would misread another.

    On a CPU, in eval mode, its backward pass takes the gradient of a batch of one for channels_last
    whatever the strides of the image are, as they are where tokens were made from a feature map
    (LeViT): the gradient by the image is then wrong, and nothing says so (torch 2.15).
    """
    if features_BCHW.requires_grad and len(features_BCHW) == 1 and not features_BCHW.is_cuda:
        features_BCHW.register_hook(Tensor.contiguous)


def build_classifier(
    name: str, classes: int, input_size: int | None = None, options: dict[str, object] | None = None
) -> Classifier:
    """An untrained classifier by its timm name.

    `options` go to timm's constructor (for instance slimmer `channels`). `input_size` in pixels;
    by default the network's own. Raises UsageError for an unknown name, and for options that the
    network does not take.
    """
    check_name(name)
    try:
        model = timm.create_model(name, pretrained=False, num_classes=classes, **(options or {}))
    except Exception as error:  # a constructor that is fed anything raises anything
        raise UsageError(
            f"Classifier {name!r} cannot be made with the options {options or 'that it has'} "
            f"({type(error).__name__}: {error}). Check --set recipe.classifier_options=…"
        ) from error
    config = model.pretrained_cfg
    size = input_size or int(config["input_size"][-1])
    set_input_size(model, size)
    return Classifier(model, name, size, tuple(config["mean"]), tuple(config["std"]))


def check_name(name: str) -> None:
    """Raise UsageError for what is no timm name, without building anything; hubs' pass."""
    base, _, tag = name.partition(".")
    reason = "" if ":" in name or timm.is_model(base) else "no such architecture"
    try:
        if tag and not reason:
            timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # it does not know the tag
        reason = str(error).rstrip(".")
    if not reason:
        return
    near = ", ".join(timm.list_models(f"*{base[:8]}*")[:5])
    raise UsageError(
        f"timm cannot make a classifier called {name!r} ({reason}). "
        f"Similar names: {near or 'none'}; `timm.list_models()` shows all."
    )


def is_vision_transformer(model: nn.Module) -> bool:
    """One of timm's whose blocks pass on patches, with other tokens before them or none."""
    return all(hasattr(model, part) for part in ("blocks", "num_prefix_tokens", "set_input_size"))


def set_input_size(model: nn.Module, size: int) -> None:
    """Fit a transformer, which was made for one size, to another one; a CNN takes any."""
    if hasattr(model, "set_input_size") and size != model.pretrained_cfg["input_size"][-1]:
        model.set_input_size(img_size=size)


def _feature_info(model: nn.Module) -> list[dict[str, object]]:
    info = getattr(model, "feature_info", None)
    return list(getattr(info, "info", info) or [])


def feature_modules(model: nn.Module) -> list[str]:
    """Names of the modules whose outputs are feature maps, from the stem up."""
    return [str(info["module"]) for info in _feature_info(model)]


def _tap_indices(model: nn.Module, name: str) -> tuple[int, ...]:
    """Which of timm's intermediate features are the taps, deepest first per stride."""
    by_stride = {int(info["reduction"]): i for i, info in enumerate(_feature_info(model))}
    wanted = (2 if 2 in by_stride else 4, *TAP_STRIDES[1:])
    if missing := sorted(set(wanted) - set(by_stride)):
        raise UsageError(
            f"Classifier {name!r} has no feature maps at stride {missing}; saliency maps are made "
            "from features at strides 4, 8, 16 and 32. Choose a CNN, for instance resnet50."
        )
    return tuple(by_stride[stride] for stride in wanted)
