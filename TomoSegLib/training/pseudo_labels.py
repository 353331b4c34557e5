"""Pseudo-labels: what a heatmap or a segmenter is sure of, as label maps to learn from.

No voxel label goes in, only a volume's yes or no and the answer of a model that knew no more. What
the answer leaves open is `UNSURE` and counts neither way, so that a segmenter is not taught the
soft border of a heatmap as if it were the lesion's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.imaging.volume import Geometry

UNSURE = 255
"""Value of voxels that are neither known to be inside nor outside."""

Labelmap = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Certainty:
    """What counts as certain; this project's choice.

    Attributes:
        margin_mm: Voxels so near the border of a heatmap's mask are unsure, on either side.
        cool: Heat, in units of the mask's threshold, from which a voxel outside of the mask is
            unsure.
        inside: Probability from which a segmenter's voxel is inside.
        outside: Probability up to which it is outside.
    """

    margin_mm: float = 1.5
    cool: float = 0.6
    inside: float = 0.7
    outside: float = 0.3


def from_heatmap(
    mask: BoolArray, heat: Float32Array, geometry: Geometry, certainty: Certainty
) -> Labelmap | None:
    """The pseudo-label of a positive volume.

    Args:
        mask: ``(k, j, i)``, of the heatmap, refined or not.
        heat: ``(k, j, i)`` heatmap in units of the mask's threshold.
        geometry: Their grid.
        certainty: What counts as certain.

    Returns:
        ``(k, j, i)`` uint8: 1 inside, 0 outside, else `UNSURE`; None if the mask is empty, which
        teaches nothing: there is a lesion somewhere.
    """
    if not mask.any():
        return None
    sampling = geometry.spacing[::-1]
    near = ndimage.distance_transform_edt(~mask, sampling=sampling) <= certainty.margin_mm
    deep = ndimage.distance_transform_edt(mask, sampling=sampling) > certainty.margin_mm
    labels = np.zeros(mask.shape, np.uint8)
    labels[near | (heat >= certainty.cool)] = UNSURE
    # A thin lesion has no voxel so deep: then its mask is all that is known.
    labels[deep if deep.any() else mask] = 1
    return labels


def from_probability(probability: Float32Array, certainty: Certainty) -> Labelmap | None:
    """The same from a segmenter's probability ``(k, j, i)`` of the lesion; see `from_heatmap`."""
    inside = probability >= certainty.inside
    if not inside.any():
        return None
    labels = np.where(probability <= certainty.outside, 0, UNSURE).astype(np.uint8)
    labels[inside] = 1
    return labels


def of_negative(geometry: Geometry) -> Labelmap:
    """The label map of a volume without a lesion: nothing is inside, and that is certain."""
    return np.zeros(geometry.shape, np.uint8)
