"""What the image itself says of each voxel: its intensity, and how strong an edge it lies at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.intp]

LARGEST_LOG_ODDS = 3.0
"""A single voxel's intensity never counts for more: noise has tails that no model knows."""

_MAD_PER_SIGMA = 0.6745
_LEAST_LIKENESS = np.float32(1e-30)


def smooth_inside(
    image: Float32Array, foreground: BoolArray, sigma: tuple[float, float, float]
) -> Float32Array:
    """A Gaussian that takes nothing from outside the foreground (normalised convolution).

    Args:
        image: ``(k, j, i)``.
        foreground: Likewise; outside of it the result is 0.
        sigma: Along ``(k, j, i)``, voxels.
    """
    values = np.where(foreground, image, np.float32(0))
    if max(sigma) < 0.2:  # changes nothing
        return values
    weight = ndimage.gaussian_filter(foreground.astype(np.float32), sigma, mode="constant")
    smooth = ndimage.gaussian_filter(values, sigma, mode="constant")
    result: Float32Array = np.divide(smooth, weight, out=np.zeros_like(smooth), where=foreground)
    return result


def intensity_log_odds(
    values: Float32Array, inside: Float32Array, outside: Float32Array, level: float
) -> Float32Array:
    """How much more likely a voxel is inside than outside, by its intensity.

    Linear discriminant of two classes with one spread: ``(a - b) (x - c) / s^2`` with the medians
    a inside and b outside, s^2 the mean of their squared spreads (median absolute deviations),
    and ``c = b + level (a - b)``. Half way (level 1/2) is the discriminant's own border; less
    allows for seeds that are the most conspicuous part of what they stand for. Where the two
    sides do not differ, it says next to nothing. (Histograms of both sides did worse: a narrow
    outside makes everything unusual look like a lesion.)

    Args:
        values: Intensities to judge, of any shape.
        inside: ``(N,)`` intensities of voxels known to be inside.
        outside: ``(M,)`` those of voxels known to be outside.
        level: Place of the border between the medians.

    Returns:
        As ``values``, within +- `LARGEST_LOG_ODDS`; 0 where a side is empty or nothing differs.
    """
    if inside.size == 0 or outside.size == 0:
        return np.zeros_like(values)
    a, b = float(np.median(inside)), float(np.median(outside))
    spreads = [float(np.median(np.abs(side - m))) for side, m in ((inside, a), (outside, b))]
    variance = float(np.mean(np.square(spreads))) / _MAD_PER_SIGMA**2
    if a == b:
        return np.zeros_like(values)
    # Without any spread (synthetic images) the border alone decides.
    slope = (a - b) / max(variance, 1e-6 * (a - b) ** 2)
    odds = slope * (values.astype(np.float64) - (b + level * (a - b)))
    return np.clip(odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of neighbouring voxels along one axis, and how alike they are.

    Attributes:
        first: ``(E,)`` flat indices of the first voxels.
        second: ``(E,)`` those of the second.
        likeness: ``(E,)`` ``exp(-(x - y)^2 / (2 s^2))`` of their intensities, with ``s^2`` the
            mean squared difference along the axis: thick slices differ more, and are no edges
            for that. Never zero.
        step_mm: The distance of their centres.
    """

    first: IntArray
    second: IntArray
    likeness: Float32Array
    step_mm: float


def neighbours(
    image: Float32Array, nodes: BoolArray, spacing: npt.NDArray[np.float64]
) -> Iterator[Pairs]:
    """Pairs of neighbouring voxels, axis by axis.

    Args:
        image: ``(k, j, i)``.
        nodes: ``(k, j, i)``: only pairs with at least one voxel of these are wanted.
        spacing: Along ``(i, j, k)``, mm.
    """
    flat = np.arange(image.size).reshape(image.shape)
    for axis in range(3):
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        wanted = nodes[first] | nodes[second]
        squared = np.square(image[first][wanted] - image[second][wanted])
        if squared.size == 0:
            continue
        spread = 2 * float(squared.mean(dtype=np.float64))
        likeness = np.exp(-squared / spread) if spread > 0 else np.ones_like(squared)
        yield Pairs(
            flat[first][wanted],
            flat[second][wanted],
            np.maximum(likeness, _LEAST_LIKENESS),
            float(spacing[2 - axis]),
        )
