"""An encoder without anything learnt: its logit is the bright area of the slice.

Its response is known in closed form, which is what a test of tomography, of CAMs or of the whole
chain needs: the sum of a soft indicator of brightness over the plane is a true plane integral, so
ToNNO with filter order 2 gives the indicator itself back, in absolute scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch's own documentation uses)
from torch import Tensor, nn


class BrightArea(nn.Module):
    """Logit = pixel area times the sum of ``clip(x - threshold, 0, 1)``, minus an offset.

    The ramp is the difference of two rectified features, so features and head are those of an
    ordinary convolutional network with a linear head after sum pooling. Only the first channel
    is looked at.

    Args:
        channels: Number of input channels.
        threshold: Intensity at which a pixel begins to count; at ``threshold + 1`` it counts in
            full.
        pixel_area: What one pixel adds to the logit, e.g. its area in mm^2.
        offset: Subtracted from the logit: the area that makes it positive.
        stride: Side of the blocks of pixels over which features are averaged.
    """

    def __init__(
        self,
        channels: int = 1,
        threshold: float = 2.5,
        pixel_area: float = 1.0,
        offset: float = 0.0,
        stride: int = 4,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.ramps = nn.Conv2d(channels, 2, kernel_size=1)
        self.classifier = nn.Linear(2, 1)
        assert self.ramps.bias is not None
        with torch.no_grad():
            self.ramps.weight.zero_()
            self.ramps.weight[:, 0] = 1.0
            self.ramps.bias.copy_(torch.tensor([-threshold, -threshold - 1.0]))
            # Numbers rather than a product of tensors: on the device "meta", where the size of a
            # network is looked at first, a product would import torch's compiler (1 s).
            block_area = pixel_area * stride**2
            self.classifier.weight.copy_(torch.tensor([[block_area, -block_area]]))
            self.classifier.bias.fill_(-offset)

    def features(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` slices to ``(B, 2, H / stride, W / stride)`` features, rounded up."""
        return F.avg_pool2d(
            F.pad(
                F.relu(self.ramps(x)), (0, -x.shape[3] % self.stride, 0, -x.shape[2] % self.stride)
            ),
            self.stride,
        )

    def head(self, features: Tensor) -> Tensor:
        """``(B, 2, h, w)`` features to ``(B,)`` logits."""
        logits: Tensor = self.classifier(features.sum(dim=(2, 3)))
        return logits[:, 0]

    def class_activation_map(self, features: Tensor) -> Tensor:
        """``(B, 2, h, w)`` features to ``(B, h, w)`` maps; sum and bias make the logit."""
        return torch.einsum("bfhw,f->bhw", features, self.classifier.weight[0])

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` slices to ``(B,)`` logits."""
        return self.head(self.features(x))
