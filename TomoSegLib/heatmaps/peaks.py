"""The highest places of a heatmap: where a reader should look first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.imaging.volume import Geometry


class Peak(NamedTuple):
    """A local maximum.

    Attributes:
        ijk: Voxel index ``(i, j, k)``.
        lps: Centre of that voxel, LPS mm.
        value: The heatmap there.
    """

    ijk: tuple[int, int, int]
    lps: tuple[float, float, float]
    value: float


def find_peaks(
    heatmap: npt.NDArray[np.float32],
    foreground: npt.NDArray[np.bool_],
    geometry: Geometry,
    *,
    distance_mm: float = 10.0,
    fraction: float = 0.25,
    limit: int = 10,
) -> list[Peak]:
    """Local maxima inside the foreground, highest first.

    Args:
        heatmap: ``(k, j, i)``.
        foreground: ``(k, j, i)``, on the same grid.
        geometry: That grid.
        distance_mm: Peaks are at least so far apart, mm.
        fraction: Peaks lower than this fraction of the highest are not worth a look.
        limit: The most peaks that are returned.

    Returns:
        At most `limit` peaks; none where the heatmap is nowhere positive in the foreground.
    """
    if not foreground.any():
        return []
    highest = float(heatmap.max(where=foreground, initial=-np.inf))
    if not highest > 0:
        return []
    candidates = (heatmap >= fraction * highest) & foreground
    box = ndimage.find_objects(candidates.view(np.uint8))[0]  # most of a volume is of no interest
    inside = np.where(candidates[box], heatmap[box], -np.inf)
    radius = np.floor(distance_mm / geometry.spacing[::-1] / np.sqrt(3)).astype(int)
    maxima = (inside == ndimage.maximum_filter(inside, size=tuple(2 * radius + 1))) & candidates[
        box
    ]
    corner = np.array([s.start for s in box])
    found = np.argwhere(maxima) + corner
    # Stable order: by value, then by place, so that equal heights do not depend on the library.
    values = heatmap[tuple(found.T)]
    peaks: list[Peak] = []
    for place in np.argsort(-values, kind="stable"):
        ijk = found[place][::-1]
        lps = geometry.index_to_lps(ijk)
        if all(np.linalg.norm(lps - np.array(other.lps)) >= distance_mm for other in peaks):
            peaks.append(
                Peak(
                    (int(ijk[0]), int(ijk[1]), int(ijk[2])),
                    (float(lps[0]), float(lps[1]), float(lps[2])),
                    float(values[place]),
                )
            )
        if len(peaks) == limit:
            break
    return peaks
