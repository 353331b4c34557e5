"""EfficientNet-Lite0 as an encoder of MONAI's FlexibleUNet."""

from __future__ import annotations

from typing import Any

from monai.networks.nets import FLEXUNET_BACKBONE, EfficientNet, EfficientNetEncoder
from torch import nn

NAME = "efficientnet-lite0"

CHANNELS = (16, 24, 40, 112, 320)
"""Channels of the encoder's five levels."""

# Repeats, kernel, stride, expansion and channels of each stage, which are those of B0.
_STAGES = (
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
)


class EfficientNetLite0Encoder(EfficientNetEncoder):  # type: ignore[misc]
    """The levels of an EfficientNet-Lite0 (Tan and Le 2019, and the Lite variants of 2020).

    It differs from B0, which MONAI has, in that it has no squeeze-and-excitation and ReLU6 for an
    activation. Its layers after the last stage, which classify, are left out. Stochastic depth is
    off: with it, a training that was stopped and goes on would not come out the same.

    Args:
        spatial_dims: 2; FlexibleUNet hands it over.
        in_channels: Channels of the input.
        pretrained: Not used: nothing is ever fetched. See `TomoSegLib.networks.imagenet`.
    """

    def __init__(
        self, spatial_dims: int = 2, in_channels: int = 1, pretrained: bool = False
    ) -> None:
        EfficientNet.__init__(
            self,
            blocks_args_str=list(_STAGES),
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            drop_connect_rate=0.0,
        )
        for unused in ("_conv_head", "_conv_head_padding", "_bn1", "_avg_pooling", "_fc"):
            delattr(self, unused)
        self._swish = nn.ReLU6(inplace=True)
        for stage in self._blocks:
            for block in stage:
                block._swish = nn.ReLU6(inplace=True)

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        return [{"spatial_dims": 2, "in_channels": 1, "pretrained": False}]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        return [CHANNELS]

    @classmethod
    def num_outputs(cls) -> list[int]:
        return [len(CHANNELS)]

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        return [NAME]


FLEXUNET_BACKBONE.register_class(EfficientNetLite0Encoder)
