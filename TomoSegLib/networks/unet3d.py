"""The 3D U-Net that is pre-trained and fine-tuned: MONAI's, with batch norm and open levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from TomoSegLib.networks.unet import ENCODER, UNet, is_output_weight

FEATURES = (32, 64, 128, 256, 512, 32)
"""Channels of the five levels and of the last convolutions, as large as Models Genesis' network."""

# The first convolution of a U-Net, a ResNet and an EfficientNet.
_FIRST = ("conv_0.conv_0.conv.weight", "encoder.conv1.weight", "encoder._conv_stem.weight")


class UNet3D(UNet):
    """3D U-Net (Cicek et al. 2016), see `UNet`; images are ``(B, C, K, J, I)``."""

    dimensions = 3

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, features: Sequence[int] = FEATURES
    ) -> None:
        super().__init__(in_channels, out_channels, features)


def is_encoder_weight(name: str) -> bool:
    """Whether a name of the state dict belongs to the encoder."""
    return name.split(".", 1)[0] in ENCODER


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
            and name in _FIRST
            and value.ndim == target.ndim
            and value.shape[1] == 1
            and value.shape[:1] + value.shape[2:] == target.shape[:1] + target.shape[2:]
        ):
            channels = target.shape[1]
            value = value.expand(-1, channels, *value.shape[2:]) / channels
        yield name, value
