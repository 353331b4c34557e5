"""A 2D encoder that looks at every slice of a stack, and one answer for the stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from TomoSegLib.networks.imagenet import build_unet2d
from TomoSegLib.networks.unet2d import FEATURES

_SLICES = 16  # of one pass without gradients: a stack may have hundreds


class StackClassifier(nn.Module):
    """Logits of classes from the mean, over slices, of a 2D encoder's features.

    The features of a slice are those of the deepest level, averaged over its pixels. What the
    encoder is called by in a pre-training's weights, it is called by in `encoder`.

    Args:
        in_channels: Channels of the input.
        classes: Number of classes.
        encoder: ``unet`` (that of a 2D U-Net), a ResNet's name or ``efficientnet-lite0``.
        features: Channels of the U-Net's levels; the others have their own.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        encoder: str = "unet",
        features: Sequence[int] = FEATURES,
    ) -> None:
        super().__init__()
        self.encoder = build_unet2d(encoder, in_channels, 1, features)
        for name in [name for name, _ in self.encoder.named_children() if _decodes(name)]:
            delattr(self.encoder, name)
        self.head = nn.Linear(self.encoder.level_channels[-1], classes)

    def describe(self, slices: Tensor) -> Tensor:
        """``(N, C, J, I)`` slices to ``(N, F)`` features."""
        return self.encoder.encode(slices)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, K, J, I)`` stacks to ``(B, classes)`` logits.

        Sides J and I are multiples of 16, or of 32 with another encoder than ``unet``.
        """
        slices = x.transpose(1, 2).flatten(0, 1)
        if self.training or torch.is_grad_enabled():
            found = self.describe(slices)
        else:
            found = torch.cat([self.describe(part) for part in slices.split(_SLICES)])
        return self.head(found.view(len(x), -1, found.shape[1]).mean(dim=1))


def is_new_weight(name: str) -> bool:
    """Whether a name of the state dict belongs to the layer that every task has anew."""
    return name.split(".", 1)[0] == "head"


def _decodes(name: str) -> bool:
    """Whether a part of an encoder-decoder comes after its deepest level."""
    return name.startswith("upcat_") or name in ("final_conv", "decoder", "segmentation_head")
