"""Precision of a network's arithmetic in training."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch

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
