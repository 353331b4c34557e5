"""Views as volumes: the slices of a stack on one regular grid, where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.study import Float32Array, Problem, View

TOLERANCE_MM = 0.1
"""So far a slice may lie from its place on the grid: headers are rounded."""

_PLANE_THICKNESS_MM = 1.0
"""A single image says nothing of its thickness; a volume has one all the same."""


@dataclass(frozen=True, eq=False)
class ViewVolume:
    """The first phase of a view on a regular grid.

    Attributes:
        volume: ``[slice, row, column]``; slices whose pixels are damaged are 0.
        first: Index of the view's slice that is the volume's first.
        problem: What of the view is not on the grid, or None.
    """

    volume: Volume
    first: int
    problem: Problem | None = None


def view_volume(view: View, images: Sequence[Float32Array | None]) -> ViewVolume:
    """A view's images as a volume.

    A stack whose slices are not evenly spaced has no regular grid: of it the volume holds the
    longest evenly spaced part with the middle slice, so that each slice is where it was taken.

    Args:
        view: The view.
        images: Its slices' pixels ``(rows, columns)``, None where they are damaged.
    """
    first, last = _even_part(view.planes, view.middle)
    planes = view.planes[first : last + 1]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = planes[0].column_step, planes[0].row_step
    affine[:3, 2] = (
        (planes[-1].origin - planes[0].origin) / (len(planes) - 1)
        if len(planes) > 1
        else planes[0].normal * _PLANE_THICKNESS_MM
    )
    affine[:3, 3] = planes[0].origin
    array = np.zeros((len(planes), *planes[0].shape), np.float32)
    for target, image in zip(array, images[first : last + 1], strict=True):
        if image is not None:
            target[:] = image
    problem = None
    if len(planes) < len(view.planes):
        problem = Problem(
            "uneven-stack",
            f"the stack '{view.name}' is not evenly spaced: its volume has slices {first + 1} to "
            f"{last + 1} of {len(view.planes)}; the lines are right all the same",
            (view.sources[0][0].path.name,),
        )
    return ViewVolume(Volume(array, Geometry(array.shape, affine), view.name), first, problem)


def _even_part(planes: Sequence[ImagePlane], middle: int) -> tuple[int, int]:
    """First and last slice of the longest evenly spaced part that has the middle slice."""
    origins = np.array([plane.origin for plane in planes])
    for count in range(len(planes), 1, -1):
        for first in range(max(0, middle - count + 1), min(middle, len(planes) - count) + 1):
            part = origins[first : first + count]
            grid = np.linspace(part[0], part[-1], count)
            there = np.ptp(part @ planes[0].normal) > TOLERANCE_MM
            if there and np.abs(part - grid).max() <= TOLERANCE_MM:
                return first, first + count - 1
    return middle, middle
