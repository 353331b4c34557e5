"""What the user has drawn to say where a mask belongs: segments named inside and outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from TomoSegPanel.display import matrixOf
from TomoSegPanel.provenance import readSegmentRecord
from TomoSegPanel.segments import LABELMAP, matrixBetween


@dataclass(frozen=True)
class Stroke:
    """A segment that was drawn.

    Attributes:
        kind: ``inside`` or ``outside``.
        segmentId: The segment.
        version: When it was last changed.
    """

    kind: str
    segmentId: str
    version: int


def strokesOf(segmentation: Any) -> tuple[Stroke, ...]:
    """The strokes in a segmentation (or None); segments that were made here are none."""
    if segmentation is None:
        return ()
    kinds = {"inside": "inside", "outside": "outside"}
    kinds |= {_("inside").casefold(): "inside", _("outside").casefold(): "outside"}
    segments, found = segmentation.GetSegmentation(), []
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        kind = kinds.get((segment.GetName() or "").strip().casefold())
        image = segment.GetRepresentation(LABELMAP)
        if kind is None or image is None or image.GetPointData().GetScalars() is None:
            continue
        if readSegmentRecord(segmentation, segmentId) is None:
            found.append(Stroke(kind, segmentId, image.GetMTime()))
    return tuple(found)


def drawn(segmentation: Any, stroke: Stroke, heatmap: Any) -> Callable[[np.ndarray], None]:
    """A function for a thread that sets the voxels of a stroke to 1.

    Args:
        segmentation: The stroke's segmentation, on any grid.
        stroke: The stroke.
        heatmap: The volume on whose grid, ``[k, j, i]``, the voxels are set.

    Raises:
        ValueError: A warp lies between the two.
    """
    between = matrixBetween(segmentation, heatmap)
    if between is None:
        raise ValueError(_("the strokes and the heatmap are under different warps"))
    segment = segmentation.GetSegmentation().GetSegment(stroke.segmentId)
    image = segment.GetRepresentation(LABELMAP)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    toHeatmap = np.linalg.inv(matrixOf(heatmap)) @ between
    toHeatmap = toHeatmap @ slicer.util.arrayFromVTKMatrix(matrix)
    corner = np.array(image.GetExtent()[0::2])[:, None]
    labels = vtk_to_numpy(image.GetPointData().GetScalars())
    labels = labels.reshape(tuple(reversed(image.GetDimensions()))).copy()  # it is drawn on
    value = segment.GetLabelValue()

    def draw(array: np.ndarray) -> None:
        places = np.stack(np.nonzero(labels == value)[::-1]) + corner
        index = np.rint(toHeatmap[:3, :3] @ places + toHeatmap[:3, 3:]).astype(np.int64)
        limits = np.array(array.shape[::-1])[:, None]
        i, j, k = index[:, ((index >= 0) & (index < limits)).all(axis=0)]
        array[k, j, i] = 1

    return draw
