"""The modality-invariant adversary: features from which CT cannot be told from MR.

Section 2.3 of scale-aware restoration (X. Zhang et al.). The discriminator wants to tell the
modality from the encoder's levels, the encoder wants it to fail. The min-max game is played in one
of two ways: in turns, each with its own loss (`Game` ``alternating``), or at once, through a layer
that reverses the gradient (Ganin & Lempitsky 2015, ``gradient-reversal``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Game = Literal["alternating", "gradient-reversal"]
Objective = Literal["minimax", "uniform"]


class ModalityDiscriminator(nn.Module):
    """Three convolutions, global average pooling and two fully connected layers.

    It sees the encoder densely: each convolution takes what the one before gives together with the
    encoder's level of the same size, and the pooled vector holds the deepest level too. The paper
    does not say which levels; here they are the deepest four, as the first still is the image.

    Args:
        level_channels: Channels of the encoder's levels, from the finest to the deepest.
        width: Channels of the convolutions and of the hidden layer.
    """

    def __init__(self, level_channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        *seen, deepest = level_channels[1:]
        inputs = [channels + (width if n else 0) for n, channels in enumerate(seen)]
        self.convolutions = nn.ModuleList(
            nn.Conv3d(count, width, 3, stride=2, padding=1) for count in inputs
        )
        self.hidden = nn.Linear(width + deepest, width)
        self.output = nn.Linear(width, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """``(B,)`` logits, positive for MR, from the encoder's levels."""
        *seen, deepest = levels[1:]
        x: Tensor | None = None
        for convolution, level in zip(self.convolutions, seen, strict=True):
            joined = level if x is None else torch.cat([x, level], dim=1)
            x = F.leaky_relu(convolution(joined), 0.2)
        assert x is not None
        pooled = torch.cat([x, deepest], dim=1).mean(dim=(2, 3, 4))
        logits: Tensor = self.output(F.leaky_relu(self.hidden(pooled), 0.2))
        return logits[:, 0]


class _Reverse(torch.autograd.Function):
    """The identity, with the gradient's sign turned and its size scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def reverse_gradient(x: Tensor, scale: float = 1.0) -> Tensor:
    """``x``, whose gradient comes back times ``-scale``."""
    return _Reverse.apply(x, scale)


def modality_weights(modalities: npt.NDArray[np.integer]) -> Tensor:
    """``(2,)`` weights with which CT (0) and MR (1) count alike, 1 in the mean over all cubes.

    The paper's sets are of nearly the same size. Where they are not, a discriminator that always
    says the same is nearly always right, and an encoder has nothing to learn from it.

    Args:
        modalities: ``(n,)``, of each cube.
    """
    counts = np.maximum(np.bincount(modalities, minlength=2), 1)
    return torch.from_numpy(counts.sum() / (2 * counts)).float()


def discriminator_loss(logits: Tensor, modality: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the modality; the paper's ``-L_adv``.

    Args:
        logits: ``(B,)``.
        modality: ``(B,)``, 0 for CT and 1 for MR.
        weights: ``(2,)``, how much each counts; see `modality_weights`.
    """
    return _cross_entropy(logits, modality.float(), modality, weights)


def confusion_loss(
    logits: Tensor, modality: Tensor, objective: Objective, weights: Tensor | None = None
) -> Tensor:
    """What the encoder minimises when the game is played in turns.

    * ``minimax``: equation 3 itself, the negative of the discriminator's loss. It has no lower
      bound: an encoder that learns much faster can win more and more by larger and larger features.
    * ``uniform``: cross-entropy against one half for each modality (Tzeng et al. 2015), least where
      the discriminator cannot decide.
    """
    if objective == "minimax":
        return -discriminator_loss(logits, modality, weights)
    undecided = torch.full_like(logits.float(), 0.5)
    return _cross_entropy(logits, undecided, modality, weights)


def _cross_entropy(
    logits: Tensor, wanted: Tensor, modality: Tensor, weights: Tensor | None
) -> Tensor:
    weight = None if weights is None else weights[modality.long()]
    return F.binary_cross_entropy_with_logits(logits.float(), wanted, weight)
