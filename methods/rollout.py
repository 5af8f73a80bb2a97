"""Attention rollout: how much each patch's token flows into what a vision transformer reads.

Shapes: B images, C channels, H rows, W columns; N tokens, the patches behind the class token and
others of its kind; A attention heads; h×w the grid of patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from casm_bench.api import SaliencyMethod, fong_rule, lazy, register
from casm_bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = lazy("torch")


@register(
    "rollout",
    title="Attention rollout",
    family="other",
    paper="Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers (ACL)",
    summary="Product over a vision transformer's layers of the mean attention plus the identity; "
    "what it says of the class token.",
    knows_class=False,
    trained=False,
    cost="1 forward, with every attention matrix written out",
    rule=fong_rule("value", 0.35),
    upsample="bilinear",
    scale_free=True,
    deviations="The paper is about text; patches take the place of words. Box by the rule "
    "published for Grad-CAM, for lack of one of its own. Networks whose head does not read a class "
    "token are read as the mean over patches.",
)
@dataclass
class Rollout(SaliencyMethod):
    """R = Π_l (A_l + I) / 2, later layers to the left, A_l the layer's attention averaged over
    its heads (section 3); saliency = R[class token, patches], or the mean over the rows of
    R[patches, patches] where the head does not read the class token but averages."""

    heads: Literal["mean", "max", "min"] = "mean"  # how a layer's heads are joined

    def check(self) -> None:
        """Raises UsageError for networks other than vision transformers with plain attention."""
        if not (self.classifier.is_vision_transformer and _is_plain(self.classifier.model.blocks)):
            raise UsageError(
                "Attention rollout needs a vision transformer with plain attention, such as "
                f"vit_small_patch16_224, which {self.classifier.name!r} is not."
            )

    def maps(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        model = self.classifier.model
        with torch.no_grad(), written_out(model) as attentions:
            self.classifier(images_BCHW)
        rollout_BNN = self._rolled_out(attentions)
        prefix = model.num_prefix_tokens
        reads_class_token = model.global_pool == "token"
        reader_BN = rollout_BNN[:, 0] if reads_class_token else rollout_BNN[:, prefix:].mean(dim=1)
        return reader_BN[:, prefix:].unflatten(1, self.classifier.token_grid(images_BCHW))

    def _rolled_out(self, attentions: list[Tensor]) -> Tensor:
        """rollout_BNN of attentions_BANN in the order of layers; its rows add up to one."""
        join = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[self.heads]
        rollout_BNN = torch.eye(attentions[0].shape[-1]).to(attentions[0])
        for attention_BANN in attentions:
            joined_BNN = join(attention_BANN, dim=1)
            mixed_BNN = joined_BNN + torch.eye(joined_BNN.shape[-1]).to(joined_BNN)
            rollout_BNN = mixed_BNN / mixed_BNN.sum(dim=2, keepdim=True) @ rollout_BNN
        return rollout_BNN


def _is_plain(blocks: nn.Module) -> bool:
    """Whether every block has one attention that can be written out and is all that it applies;
    differential attention (`lambda_init`) applies the difference of two."""
    layers = [getattr(block, "attn", None) for block in blocks]
    parts = ("attn_drop", "fused_attn")
    return bool(layers) and all(
        all(hasattr(layer, part) for part in parts) and not hasattr(layer, "lambda_init")
        for layer in layers
    )


@contextmanager
def written_out(model: nn.Module) -> Iterator[list[Tensor]]:
    """While it lasts, a forward pass leaves each block's attention_BANN in the list.

    timm's fused attention never forms it, so it is switched off for the time.
    """
    attentions: list[Tensor] = []
    layers = [block.attn for block in model.blocks]
    fused = [layer.fused_attn for layer in layers]
    hooks = [
        layer.attn_drop.register_forward_hook(lambda _, inputs, __: attentions.append(inputs[0]))
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield attentions
    finally:
        for layer, hook, was_fused in zip(layers, hooks, fused, strict=True):
            layer.fused_attn = was_fused
            hook.remove()
