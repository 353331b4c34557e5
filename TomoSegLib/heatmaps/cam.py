r"""Class activation maps of 2D slices: where in a slice the evidence for its logit lies.

With features :math:`A_f` of a slice, its logit y and the gradients :math:`g_f = dy/dA_f`:

* ``cam`` (Zhou et al., CVPR 2016): the linear head applied at every position. Its sum over
  positions plus a constant is the logit.
* ``gradcam`` (Selvaraju et al., ICCV 2017): :math:`\sum_f \overline{g_f} A_f`.
* ``gradcam++`` (Chattopadhyay et al., WACV 2018): the mean replaced by a sum with the weights
  :math:`\alpha = 1 / (2 + |g| \sum A)`, which for positive gradients of rectified features is the
  published :math:`g^2 / (2 g^2 + g^3 \sum A)`; negative gradients are weighted alike in raw maps.
  The gradient is the logit's, not that of its exponential, which would scale every slice apart.
* ``layercam`` (Jiang et al., TIP 2021): :math:`\sum_f g_f A_f`, position by position.

``raw`` maps keep the sign and, as far as the head is linear, the linearity, which the tomographic
methods need. ``rectified`` maps are as published: clipped at zero, and LayerCAM and GradCAM++ use
positive gradients only. No map is scaled to [0, 1]: slices of a stack must stay comparable.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.responses import Evaluate
from TomoSegLib.models.card import CamKind
from TomoSegLib.models.loading import LoadedEncoder


def cam_evaluator(encoder: LoadedEncoder, kind: CamKind, rectified: bool) -> Evaluate:
    """The function from slices ``(B, C, H, W)`` to logits ``(B,)`` and maps ``(B, h, w)``.

    Raises:
        TomoSegError: ``method-not-supported`` if the encoder has no features, or for ``cam`` no
            linear head.
    """
    if not encoder.supports_cam and not (kind == "cam" and encoder.supports_linear_cam):
        raise TomoSegError(
            "method-not-supported",
            f"The model {encoder.card.name} gives logits only, no features for activation maps.",
            "Use the method tonno, or name the feature layer on the model's card.",
        )
    if kind == "cam" and not encoder.supports_linear_cam:
        raise TomoSegError(
            "method-not-supported",
            f"The model {encoder.card.name} has no linear head after its features, which plain "
            "CAM needs.",
            "Use gradcam, gradcam++ or layercam.",
        )

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = encoder.forward_with_features(x)
        if kind == "cam":
            with torch.no_grad():
                maps = encoder.class_activation_map(features.detach())
            return logits.detach(), maps.clamp(min=0) if rectified else maps
        # Slices do not depend on one another, so the gradient of the sum is each one's own.
        (gradients,) = torch.autograd.grad(logits.sum(), features)
        return logits.detach(), activation_maps(features.detach(), gradients, kind, rectified)

    return evaluate


def activation_maps(features: Tensor, gradients: Tensor, kind: CamKind, rectified: bool) -> Tensor:
    """Gradient-based maps from features and the logit's gradients by them.

    Args:
        features: ``(B, F, h, w)``.
        gradients: ``(B, F, h, w)``.
        kind: ``gradcam``, ``gradcam++`` or ``layercam``.
        rectified: Whether to clip as published.

    Returns:
        ``(B, h, w)``.
    """
    if kind == "gradcam":
        weights = gradients.mean(dim=(2, 3), keepdim=True)
    elif kind == "gradcam++":
        total = features.sum(dim=(2, 3), keepdim=True).clamp(min=0)
        used = gradients.clamp(min=0) if rectified else gradients
        weights = (used / (2 + gradients.abs() * total)).sum(dim=(2, 3), keepdim=True)
    elif kind == "layercam":
        weights = gradients.clamp(min=0) if rectified else gradients
    else:
        raise ValueError(f"{kind} is not a gradient-based map")
    maps = (weights * features).sum(dim=1)
    return maps.clamp(min=0) if rectified else maps


def map_stride(slice_pixels: int, map_pixels: int) -> float:
    """Slice pixels per map pixel along one axis.

    Networks of stride t make ``ceil(n / t)`` or ``floor(n / t)`` pixels of n, so the stride is the
    whole number that explains the sizes, if there is one, and their ratio if not (maps of a
    layer without strides but with unpadded convolutions, adaptive pooling).
    """
    ratio = slice_pixels / map_pixels
    for stride in sorted({round(ratio), int(np.ceil(ratio)), int(np.floor(ratio))}):
        if stride >= 1 and map_pixels in (-(-slice_pixels // stride), slice_pixels // stride):
            return float(stride)
    return ratio


_PATTERNS = 2
_STEPS = 8
_BATCH = 4


def map_origin(
    encoder: LoadedEncoder, shape: tuple[int, int], background: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the pixels of the features, and so of a map, lie in the slice: measured.

    It depends on the network. Where every strided layer averages blocks, map pixel r is centred
    on ``(r + 1/2) t - 1/2``; after strided convolutions with symmetric padding on ``r t``, up to
    half a stride away, which is more than a lesion's rim. So a patch of noise, with its mirror
    images, is moved over an empty slice by one stride in all, and the centroid of what changes in
    the features is compared with its place. Where the mean difference is
    not plausible, the block-centred place is returned.

    Args:
        encoder: The encoder; it needs features.
        shape: ``(H, W)`` of the slices.
        background: Value of an empty slice.

    Returns:
        Strides (row, column) and the place of map pixel (0, 0) in the slice, both in slice pixels.
    """
    device = encoder.device
    empty = torch.full((1, encoder.channels, *shape), background, device=device)
    blank = encoder.forward_with_features(empty)[1].detach()
    sides = blank.shape[2:]
    strides = (map_stride(shape[0], sides[0]), map_stride(shape[1], sides[1]))
    centred = ((strides[0] - 1) / 2, (strides[1] - 1) / 2)
    if min(sides) < 3 or min(shape) < 3 * max(strides):
        return strides, centred

    generator = torch.Generator().manual_seed(0)
    patches = []
    for _ in range(_PATTERNS):
        patch = 3.0 * torch.randn(encoder.channels, 3, 3, generator=generator)
        # With its mirror images: no preference of its own for any side.
        patches += [patch, patch.flip(1), patch.flip(2), patch.flip(1, 2)]
    found = []
    for axis in (0, 1):
        step = np.unique(np.linspace(0, strides[axis], _STEPS, endpoint=False).astype(int))
        places = shape[axis] // 2 - int(strides[axis]) // 2 + step
        across = shape[1 - axis] // 2
        slices, at = [], []
        for patch in patches:
            for place in places.tolist():
                row, column = (place, across) if axis == 0 else (across, place)
                x = empty[0].clone()
                x[:, row - 1 : row + 2, column - 1 : column + 2] += patch.to(device)
                slices.append(x)
                at.append(place)
        differences = []
        for begin in range(0, len(slices), _BATCH):
            batch = torch.stack(slices[begin : begin + _BATCH])
            features = encoder.forward_with_features(batch)[1].detach()
            change = (features - blank).abs().double().sum(dim=(1, 3 - axis)).cpu()
            for place, profile in zip(at[begin : begin + _BATCH], change, strict=True):
                if float(profile.sum()) > 0:
                    centroid = float(profile @ torch.arange(len(profile)).double() / profile.sum())
                    differences.append(place - strides[axis] * centroid)
        value = float(np.mean(differences)) if differences else centred[axis]
        # Further off than its block a map is not misaligned: the network looks elsewhere.
        plausible = abs(value - centred[axis]) <= strides[axis] / 2 + 0.5
        found.append(value if plausible else centred[axis])
    return strides, (found[0], found[1])
