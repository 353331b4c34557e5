"""MONAI's U-Net with batch norm and open levels, in 2D and 3D alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor

STRIDE = 16
"""Sides of its input are multiples of this, or skip connections would be padded."""

ENCODER = ("conv_0", "down_1", "down_2", "down_3", "down_4")
"""The encoder's levels, from the first one on."""


def is_output_weight(name: str) -> bool:
    """Whether a name of a state dict belongs to the last layer, which every task has anew."""
    return name.split(".", 1)[0] in ("final_conv", "segmentation_head")


class UNet(BasicUNet):  # type: ignore[misc]
    """U-Net whose encoder can be used by itself; `UNet2D` and `UNet3D` say in how many dimensions.

    Weights have the names and shapes of `monai.networks.nets.BasicUNet` with the same arguments.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; nothing is applied to them.
        features: Channels of the five levels and of the last convolutions.
    """

    dimensions: ClassVar[int]

    def __init__(self, in_channels: int, out_channels: int, features: Sequence[int]) -> None:
        super().__init__(
            spatial_dims=self.dimensions,
            in_channels=in_channels,
            out_channels=out_channels,
            features=tuple(features),
            act=("relu", {"inplace": True}),
            norm="batch",
        )
        self.level_channels = tuple(features[:5])

    def encode(self, x: Tensor) -> list[Tensor]:
        """The five levels of the encoder.

        Args:
            x: ``(B, C, ...)`` with sides that are multiples of `STRIDE`.

        Returns:
            Level n, n = 0 .. 4, has F_n channels and sides that are 2^n times shorter.
        """
        levels: list[Tensor] = []
        for name in ENCODER:
            x = getattr(self, name)(x)
            levels.append(x)
        return levels

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        """``(B, out_channels, ...)`` from the five levels that `encode` gives."""
        x = levels[4]
        for n in (4, 3, 2, 1):
            x = getattr(self, f"upcat_{n}")(x, levels[n - 1])
        return cast(Tensor, self.final_conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
