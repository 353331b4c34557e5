"""2D encoder-decoders with open levels: MONAI's U-Net, and U-Nets with well-known encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from monai.networks.nets import FlexibleUNet
from torch import Tensor, nn

from TomoSegLib.networks.efficientnet import CHANNELS, NAME
from TomoSegLib.networks.unet import ENCODER, STRIDE, UNet

FEATURES = (64, 128, 256, 512, 1024, 64)
"""Channels of the U-Net's five levels and of its last convolutions."""

Backbone = Literal["resnet10", "resnet18", "resnet34", "resnet50"]


class UNet2D(UNet):
    """2D U-Net (Ronneberger et al. 2015), see `UNet`; images are ``(B, C, H, W)``."""

    dimensions = 2
    stride = STRIDE

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, features: Sequence[int] = FEATURES
    ) -> None:
        super().__init__(in_channels, out_channels, features)


class EncoderUNet2D(FlexibleUNet):  # type: ignore[misc]
    """2D U-Net with the encoder of a network for classification.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; nothing is applied to them.
        backbone: MONAI's name of the encoder.
        level_channels: Channels of its five levels.
    """

    stride = 32

    def __init__(
        self, in_channels: int, out_channels: int, backbone: str, level_channels: Sequence[int]
    ) -> None:
        super().__init__(in_channels, out_channels, backbone, spatial_dims=2)
        self.level_channels = tuple(level_channels)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The five levels of the encoder.

        Args:
            x: ``(B, C, H, W)`` with sides that are multiples of 32.

        Returns:
            Level n is ``(B, F_n, H / 2^(n+1), W / 2^(n+1))``, n = 0 .. 4.
        """
        return list(self.encoder(x))

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        """``(B, out_channels, H, W)`` from the levels that `encode` gives."""
        features = self.decoder(list(levels), self.skip_connect)
        return cast(Tensor, self.segmentation_head(features))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.decode(self.encode(inputs))


class ResNetUNet2D(EncoderUNet2D):
    """2D U-Net with a ResNet (He et al. 2016) as its encoder.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; nothing is applied to them.
        backbone: Which ResNet.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, backbone: Backbone = "resnet18"
    ) -> None:
        if backbone not in get_args(Backbone):
            raise ValueError(f"unknown backbone {backbone!r}")
        deep = 4 if backbone == "resnet50" else 1
        channels = (64, 64 * deep, 128 * deep, 256 * deep, 512 * deep)
        super().__init__(in_channels, out_channels, backbone, channels)


class EfficientNetUNet2D(EncoderUNet2D):
    """2D U-Net with an EfficientNet-Lite0 as its encoder, see `EfficientNetLite0Encoder`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; nothing is applied to them.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1) -> None:
        super().__init__(in_channels, out_channels, NAME, CHANNELS)


EncoderDecoder = UNet2D | ResNetUNet2D | EfficientNetUNet2D


def is_encoder_weight(name: str) -> bool:
    """Whether a name of a state dict belongs to the encoder."""
    return name.split(".", 1)[0] in (*ENCODER, "encoder")


class LocationNetwork(nn.Module):
    """An encoder-decoder with a second head for one number, on its bottleneck.

    The head: global average, fully connected to 128, ReLU, fully connected to 1.

    Args:
        network: The encoder-decoder.
        answers: Numbers that the head gives, where it is for classes; the first is the location.
    """

    def __init__(self, network: EncoderDecoder, answers: int = 1) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(network.level_channels[-1], 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, answers),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, out_channels, H, W)`` and numbers ``(B,)`` of images ``(B, C, H, W)``."""
        levels = self.network.encode(x)
        return self.network.decode(levels), self.head(levels[-1])[:, 0]

    def locate(self, x: Tensor) -> Tensor:
        """The numbers alone: the decoder does not run."""
        return self.answer(x)[:, 0]

    def answer(self, x: Tensor) -> Tensor:
        """``(B, answers)`` of the head alone."""
        return cast(Tensor, self.head(self.network.encode(x)[-1]))
