"""From a heatmap to a mask: the computing, for a thread; nothing here touches the scene."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MaskSettings:
    """How a heatmap becomes a mask.

    Attributes:
        threshold: The mask is where the heatmap is above it.
        components: ``all``, ``largest`` (of most voxels) or ``peak`` (with the highest value).
        minimumSizeMl: Smaller components are dropped.
        smoothingMm: Standard deviation of the Gaussian that rounds the mask's surface, or 0.
    """

    threshold: float
    components: str = "all"
    minimumSizeMl: float = 0.0
    smoothingMm: float = 0.0

    def record(self) -> dict[str, Any]:
        """The settings as they are written on a segment, under the engine's names."""
        values = asdict(self)
        values["minimum_size_ml"] = values.pop("minimumSizeMl")
        values["smoothing_mm"] = values.pop("smoothingMm")
        return values


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask, cut to its bounding box, with its figures.

    Attributes:
        array: ``[k, j, i]`` uint8, 0 and 1; without voxels where the mask is empty.
        start: The voxel ``(i, j, k)`` of the heatmap's grid at which the box begins.
        figures: ``volume_ml``, and ``peak`` and ``mean`` of the heatmap in the mask.
    """

    array: np.ndarray
    start: tuple[int, int, int]
    figures: Mapping[str, float]

    @property
    def isEmpty(self) -> bool:
        """Whether it has no voxel."""
        return self.array.size == 0

    def ijkToRas(self, ofHeatmap: np.ndarray) -> np.ndarray:
        """The 4 x 4 matrix of the box, from that of the heatmap's grid."""
        shift = np.eye(4)
        shift[:3, 3] = self.start
        return ofHeatmap @ shift


def cutMask(heatmap: np.ndarray, spacing: Sequence[float], settings: MaskSettings) -> Mask:
    """The mask of a heatmap, cut to its bounding box.

    Args:
        heatmap: ``[k, j, i]``.
        spacing: Voxel size in mm, along ``(i, j, k)``.
        settings: How.
    """
    return maskOf(makeMask(heatmap, spacing, settings), heatmap, spacing)


def maskOf(mask: np.ndarray, heatmap: np.ndarray, spacing: Sequence[float]) -> Mask:
    """A mask ``[k, j, i]`` cut to its bounding box, with its figures of a heatmap on its grid."""
    box = boundingBox(mask)
    if box is None:
        none = {"volume_ml": 0.0, "peak": 0.0, "mean": 0.0}
        return Mask(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), none)
    inside = (mask[box] != 0).astype(np.uint8)
    values = heatmap[box][inside != 0]
    figures = {
        "volume_ml": values.size * math.prod(spacing) / 1000,
        "peak": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
    }
    k, j, i = (part.start for part in box)
    return Mask(inside, (i, j, k), figures)


def makeMask(heatmap: np.ndarray, spacing: Sequence[float], settings: MaskSettings) -> np.ndarray:
    """The mask ``[k, j, i]`` (uint8, 0 and 1) of a heatmap.

    Without smoothing it is the engine's mask: outside the foreground a heatmap is exactly 0, and
    such voxels never belong to it; components are 26-connected.

    Args:
        heatmap: ``[k, j, i]``.
        spacing: Voxel size in mm, along ``(i, j, k)``.
        settings: How.
    """
    mask = (heatmap > settings.threshold) & (heatmap != 0)
    box = boundingBox(mask.view(np.uint8))
    if box is None:
        return mask.view(np.uint8)
    if settings.smoothingMm > 0:
        from scipy import ndimage  # takes its time to load, so not at the top

        sigma = [settings.smoothingMm / mm for mm in reversed(spacing)]
        margin = [math.ceil(4 * s) + 1 for s in sigma]
        box = tuple(
            slice(max(0, part.start - m), part.stop + m)
            for part, m in zip(box, margin, strict=True)
        )
        smooth = ndimage.gaussian_filter(mask[box].astype(np.float32), sigma) > 0.5
        mask[box] = smooth & (heatmap[box] != 0)
    smallest = max(1, math.ceil(settings.minimumSizeMl * 1000 / math.prod(spacing) - 1e-9))
    if settings.components == "all" and smallest == 1:
        return mask.view(np.uint8)
    from scipy import ndimage

    inside = mask[box]
    labels, count = ndimage.label(inside, structure=np.ones((3, 3, 3), bool))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= smallest
    kept[0] = False
    if kept.any() and settings.components != "all":
        if settings.components == "largest":
            best = int(np.argmax(np.where(kept, sizes, 0)))
        else:
            best = int(labels.flat[np.argmax(np.where(kept[labels], heatmap[box], -np.inf))])
        kept = np.arange(count + 1) == best
    np.copyto(inside, kept[labels])
    return mask.view(np.uint8)


def measure(
    mask: np.ndarray, maskToHeatmap: np.ndarray, voxelMl: float, heatmap: np.ndarray | None
) -> dict[str, float]:
    """The figures of a mask on a grid of its own, as it is after it was edited.

    The heatmap is read at the nearest voxel; where the mask reaches beyond it, it counts for the
    volume only.

    Args:
        mask: ``[k, j, i]`` bool.
        maskToHeatmap: 4 x 4, from the mask's voxels ``(i, j, k)`` to the heatmap's.
        voxelMl: Volume of a voxel of the mask.
        heatmap: ``[k, j, i]``, or None: only the volume is measured.

    Returns:
        As `Mask.figures`, without ``peak`` and ``mean`` where there is nothing to measure.
    """
    figures = {"volume_ml": int(mask.sum()) * voxelMl}
    if heatmap is None:
        return figures
    found = []
    for k in np.flatnonzero(mask.any(axis=(1, 2))):  # slice by slice: little memory
        j, i = np.nonzero(mask[k])
        places = np.stack([i, j, np.full_like(i, k), np.ones_like(i)]).astype(np.float64)
        index = np.rint((maskToHeatmap @ places)[:3]).astype(np.int64)
        limits = np.array(heatmap.shape[::-1])[:, None]
        i, j, k = index[:, ((index >= 0) & (index < limits)).all(axis=0)]
        found.append(heatmap[k, j, i])
    values = np.concatenate(found) if found else np.zeros(0)
    if values.size:
        figures["peak"] = float(values.max())
        figures["mean"] = float(values.mean(dtype=np.float64))
    return figures


def boundingBox(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The bounding box of what is not 0 in an array ``[k, j, i]``, or None."""
    occupied = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not occupied[0].size:
        return None
    return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in occupied)
