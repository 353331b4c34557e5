"""Boxes of voxels with a margin in mm."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from TomoSegLib.imaging.foreground import bounding_box
from TomoSegLib.imaging.volume import Geometry

Box = tuple[slice, slice, slice]


def box_around(mask: npt.NDArray[np.bool_], geometry: Geometry, margin_mm: float) -> Box | None:
    """The box ``[k, j, i]`` of a mask and a margin, within the grid; None if the mask is empty."""
    box = bounding_box(mask)
    if box is None:
        return None
    margin = np.ceil(margin_mm / geometry.spacing[::-1]).astype(int).tolist()
    k, j, i = (
        slice(max(part.start - m, 0), min(part.stop + m, size))
        for part, m, size in zip(box, margin, mask.shape, strict=True)
    )
    return k, j, i
