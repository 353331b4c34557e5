"""The region of interest: a markups box in the scene, and the voxels that it stands for."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk


@dataclass(frozen=True)
class Box:
    """Voxels of a volume along ``(i, j, k)``, half-open like a Python slice."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along ``(i, j, k)``."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))


def boxOf(roi: Any, volume: Any) -> Box | None:
    """The voxels of a volume whose centres lie in a region of interest.

    Where the region is turned against the volume it is the smallest box of voxels around it.

    Args:
        roi: A markups ROI node, or None.
        volume: The volume; both may be under transforms.

    Returns:
        The box, cut to the volume, or None where there is no region or it misses the volume.
    """
    if roi is None or volume is None or volume.GetImageData() is None:
        return None
    toWorld = roi.GetObjectToWorldMatrix()
    rasToIjk = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(rasToIjk)
    half = np.array(roi.GetSize()) / 2
    corners = []
    for signs in itertools.product((-1, 1), repeat=3):
        world = toWorld.MultiplyPoint([*(half * signs), 1.0])[:3]
        local = [0.0, 0.0, 0.0]
        volume.TransformPointFromWorld(list(world), local)
        corners.append(rasToIjk.MultiplyPoint([*local, 1.0])[:3])
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    dimensions = volume.GetImageData().GetDimensions()
    # A face that goes through the centres of voxels takes them in, however it was rounded.
    start = tuple(max(0, math.ceil(a - 1e-6)) for a in low)
    stop = tuple(min(n, math.floor(b + 1e-6) + 1) for b, n in zip(high, dimensions, strict=True))
    if any(a >= b for a, b in zip(start, stop, strict=True)):
        return None
    return Box(start, stop)


def isTurned(roi: Any, volume: Any) -> bool:
    """Whether a region's axes are not those of a volume, so that its box of voxels is larger."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    toLocal = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        None, volume.GetParentTransformNode(), toLocal
    )
    vtk.vtkMatrix4x4.Multiply4x4(toLocal, roi.GetObjectToWorldMatrix(), toLocal)
    matrix.Invert()
    vtk.vtkMatrix4x4.Multiply4x4(matrix, toLocal, matrix)
    ijk = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    shares = np.abs(ijk) / np.linalg.norm(ijk, axis=0)
    return bool(np.any(shares.max(axis=0) < 0.9999))


def fitAround(roi: Any, volume: Any) -> None:
    """Put a region around a volume, along its axes and under its transform."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    ijkToRas = slicer.util.arrayFromVTKMatrix(matrix)
    dimensions = np.array(volume.GetImageData().GetDimensions())
    edges = ijkToRas[:3, :3] * dimensions
    size = np.linalg.norm(edges, axis=0)
    axes = edges / size
    if np.linalg.det(axes) < 0:  # a region's axes are right-handed; opposite edges are alike
        axes[:, 2] = -axes[:, 2]
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):  # sheared: take the world's axes
        size = np.abs(edges).sum(axis=1)
        axes = np.eye(3)
    pose = np.eye(4)
    pose[:3, :3] = axes
    pose[:3, 3] = (ijkToRas @ [*(dimensions - 1) / 2, 1.0])[:3]
    roi.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    roi.SetSize(*map(float, size))
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(pose))
    roi.CreateDefaultDisplayNodes()
    roi.GetDisplayNode().SetFillOpacity(0.1)  # the scan is what is looked at
