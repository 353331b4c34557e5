"""ToNNO: the tomographic reconstruction of a neural network's output.

The encoder's logits along a stack of slices take the place of the volume's plane integrals, and
the inverse plane-Radon transform makes a heatmap of them. Everything counts from the response to
an empty slice, as an integral over nothing is zero; for filter orders above zero the constant
drops out anyway. Tomographic CAM does the same to every position of the class activation maps:
where they are constant in plane, it is ToNNO.
"""

from __future__ import annotations

import torch
from torch import Tensor

from TomoSegLib.heatmaps.responses import Evaluate
from TomoSegLib.models.card import MethodSettings
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.tomography.reconstruction import filter_responses


def logit_evaluator(encoder: LoadedEncoder) -> Evaluate:
    """The function from slices ``(B, C, H, W)`` to logits ``(B,)``, without maps."""

    def evaluate(x: Tensor) -> tuple[Tensor, None]:
        with torch.inference_mode():
            return encoder.logits(x), None

    return evaluate


def filtered(above_empty: Tensor, settings: MethodSettings, distance_mm: float) -> Tensor:
    """Responses of a stack, filtered for backprojection.

    Args:
        above_empty: ``(..., S)`` responses less the response to an empty slice, so that zero is
            what lies beyond the stack's ends.
        settings: Filter order, cutoff and window.
        distance_mm: Distance of neighbouring slices.

    Returns:
        ``(..., S)``.
    """
    return filter_responses(
        above_empty,
        distance_mm,
        settings.filter_order,
        settings.cutoff,
        settings.window,
        padding=0.0,
    )
