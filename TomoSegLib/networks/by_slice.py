"""A 2D network on windows of one slice, which have the axes of volumes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def by_slice(network: nn.Module, x: Tensor) -> Any:
    """``(B, C, 1, J, I)`` windows to ``(B, K, 1, J, I)``, by a network that knows no axis K.

    What is no tensor comes back as it is, for the caller to refuse.
    """
    output = network(x.squeeze(2))
    return output.unsqueeze(2) if isinstance(output, Tensor) else output
