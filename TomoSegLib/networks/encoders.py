"""2D encoders whose logit a tomographic inversion can use.

The plane Radon transform sums over a plane. An encoder can stand in its place as far as its logit
is a sum over the slice of what lies there: it should grow with the area of the finding, and the
evidence should sit where the finding is. `EvidenceEncoder` is built that way. It is this project's
own choice; the ToNNO paper does not name its encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm and a shortcut (He et al. 2016).

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Of the first convolution and of the shortcut.
        kernel: Side of the kernels; 1 leaves the receptive field as it is. A strided first
            convolution is 3x3 all the same, since 1x1 would skip pixels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        first = 3 if stride > 1 else kernel
        self.first = nn.Conv2d(inputs, outputs, first, stride, first // 2, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + self.shortcut(x))


class EvidenceEncoder(nn.Module):
    r"""A residual encoder with a small receptive field whose logit is a sum of local evidence.

    .. math:: \text{logit}(x) = b + \frac{t^2}{A} \sum_{r,c} e_{rc}(x)

    with the evidence map :math:`e` a function of the features at each position (linear, unless
    bounded), :math:`t`
    the stride and :math:`A` a fixed reference area. Unlike mean pooling over a slice, the sum does
    not depend on how much empty margin the slice has, and it grows with the area of a finding as
    long as the evidence inside it does not saturate.

    Args:
        channels: Input channels.
        widths: Channels of each stage.
        strides: Stride at the entrance of each stage.
        blocks: Residual blocks of each stage.
        kernels: Kernel side of each stage; 1 deepens without enlarging the receptive field.
        reference_area: Area A in pixels.
        evidence_dropout: Probability with which each position's evidence is dropped in training,
            so that no part of a finding is left to others: it makes evidence dense inside.
        evidence_bound: Largest evidence of a position, either way, by a hyperbolic tangent. A
            finding's rim, which is the easiest to tell, then cannot outshine its inside.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (24, 48, 96),
        strides: Sequence[int] = (1, 2, 2),
        blocks: Sequence[int] = (1, 1, 1),
        kernels: Sequence[int] = (3, 3, 3),
        reference_area: float = 256.0,
        evidence_dropout: float = 0.0,
        evidence_bound: float | None = None,
    ) -> None:
        super().__init__()
        if not len(widths) == len(strides) == len(blocks) == len(kernels) or not widths:
            raise ValueError("widths, strides, blocks and kernels must have one entry per stage")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        width = widths[0]
        for outputs, stride, count, kernel in zip(widths, strides, blocks, kernels, strict=True):
            for index in range(count):
                stages.append(ResidualBlock(width, outputs, stride if index == 0 else 1, kernel))
                width = outputs
        self.stages = nn.Sequential(*stages)
        self.evidence = nn.Conv2d(width, 1, 1, bias=False)
        # A sum over a whole slice of evidence of order 1 would start far in saturation.
        nn.init.normal_(self.evidence.weight, std=0.01)
        self.bias = nn.Parameter(torch.zeros(()))
        self.stride = 1
        for stride in strides:
            self.stride *= stride
        self.scale = self.stride**2 / reference_area
        self.evidence_dropout = evidence_dropout
        self.evidence_bound = evidence_bound

    def features(self, x: Tensor) -> Tensor:
        """``(B, F, h, w)`` features of ``(B, C, H, W)`` slices, ``h = H / stride``."""
        y: Tensor = self.stages(self.stem(x))
        return y

    def class_activation_map(self, features: Tensor) -> Tensor:
        """``(B, h, w)`` evidence; its sum over a slice plus the bias is the logit."""
        evidence: Tensor = self.evidence(features)
        if self.evidence_bound is not None:
            evidence = self.evidence_bound * torch.tanh(evidence / self.evidence_bound)
        evidence = F.dropout(evidence, self.evidence_dropout, self.training)
        return evidence[:, 0] * self.scale

    def head(self, features: Tensor) -> Tensor:
        """``(B,)`` logits of features."""
        return self.class_activation_map(features).sum(dim=(-2, -1)) + self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
