"""The 3D U-Net that is pre-trained and fine-tuned: MONAI's, with batch norm and open levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn

FEATURES = (32, 64, 128, 256, 512, 32)
"""Channels of the five levels and of the last convolutions, as large as Models Genesis' network."""

STRIDE = 16
"""Sides of its input are multiples of this, or skip connections would be padded."""

_ENCODER = ("conv_0", "down_1", "down_2", "down_3", "down_4")


class UNet3D(BasicUNet):  # type: ignore[misc]
    """3D U-Net (Cicek et al. 2016) with batch norm whose encoder can be used by itself.

    Weights have the names and shapes of `monai.networks.nets.BasicUNet` with the same arguments.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; nothing is applied to them.
        features: Channels of the five levels and of the last convolutions.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, features: Sequence[int] = FEATURES
    ) -> None:
        super().__init__(
            spatial_dims=3,
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
            x: ``(B, C, K, J, I)`` with sides that are multiples of `STRIDE`.

        Returns:
            Level n is ``(B, F_n, K / 2^n, J / 2^n, I / 2^n)``, n = 0 .. 4.
        """
        levels: list[Tensor] = []
        for name in _ENCODER:
            x = getattr(self, name)(x)
            levels.append(x)
        return levels

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        """``(B, out_channels, K, J, I)`` from the five levels that `encode` gives."""
        x = levels[4]
        for n in (4, 3, 2, 1):
            x = getattr(self, f"upcat_{n}")(x, levels[n - 1])
        output: Tensor = self.final_conv(x)
        return output

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def is_encoder_weight(name: str) -> bool:
    """Whether a name of the state dict belongs to the encoder."""
    return name.split(".", 1)[0] in _ENCODER


def is_output_weight(name: str) -> bool:
    """Whether a name of the state dict belongs to the last layer, which every task has anew."""
    return name.split(".", 1)[0] == "final_conv"


def adapted_weights(
    weights: Mapping[str, Tensor], network: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """Weights as a network with another number of input channels and another output needs them.

    The first convolution's weights are repeated and divided by the number of channels, so that
    identical channels give the response of a single one. The last layer is left out.

    Args:
        weights: State dict of a U-Net or of its encoder.
        network: The network that shall begin with them.
    """
    wanted = network.state_dict()
    for name, value in weights.items():
        if is_output_weight(name):
            continue
        target = wanted.get(name)
        if (
            target is not None
            and name.startswith("conv_0.conv_0.conv.weight")
            and value.ndim == 5
            and value.shape[1] == 1
            and value.shape[:1] + value.shape[2:] == target.shape[:1] + target.shape[2:]
        ):
            channels = target.shape[1]
            value = value.expand(-1, channels, -1, -1, -1) / channels
        yield name, value
