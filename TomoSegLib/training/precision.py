"""Precision of a network's arithmetic in training."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""``auto`` is bfloat16 on GPUs that have it, float16 with a scaled loss on others, else float32."""


def chosen_precision(precision: Precision, device: torch.device) -> str:
    """What ``auto`` means on a device; other names stay what they are."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def arithmetic(
    precision: Precision, device: torch.device
) -> tuple[partial[torch.autocast], torch.amp.GradScaler]:
    """What a forward pass runs under, and what scales the loss."""
    chosen = chosen_precision(precision, device)
    autocast = partial(
        torch.autocast, device.type, dtype=getattr(torch, chosen), enabled=chosen != "float32"
    )
    return autocast, torch.amp.GradScaler(device.type, enabled=chosen == "float16")


def place(
    network: nn.Module, device: torch.device | str, precision: Precision, dimensions: int
) -> None:
    """Move a network to a device, in the layout in which its convolutions are fastest there.

    With the channels last they take a third less time on a CPU. Not in reduced precision: there
    some processors' kernels (seen with AVX-512) give values that are no numbers, now and then.

    Args:
        network: Changed in place.
        device: Where it will train.
        precision: Of its arithmetic.
        dimensions: 2 or 3, of its convolutions.
    """
    device = torch.device(device)
    network.to(device)
    if device.type != "cpu" or chosen_precision(precision, device) == "float32":
        layout = torch.channels_last_3d if dimensions == 3 else torch.channels_last
        network.to(memory_format=layout)  # type: ignore[call-overload]
