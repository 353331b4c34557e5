"""The directions of a run around the volume in 3D, and one of its planes in the slice views."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

_DIRECTIONS_COLOR = (1.0, 0.65, 0.1)
_PLANE_COLOR = (0.2, 0.9, 1.0)


class DirectionsDisplay:
    """Shows directions as points on a sphere around a volume, and a plane across one of them.

    The models are not saved with the scene.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._directions = np.zeros((0, 3))
        self._center = np.zeros(3)
        self._reach = np.zeros(0)
        self._radius = 1.0

    @property
    def count(self) -> int:
        """How many directions are shown."""
        return len(self._directions)

    def reachMm(self, index: int) -> float:
        """How far the volume reaches along a direction from its middle, mm."""
        return float(self._reach[index]) if 0 <= index < self.count else 0.0

    def show(self, volume: Any, directions: np.ndarray) -> None:
        """Show the directions.

        Args:
            volume: The volume that they go through; its parent transform moves them along.
            directions: ``(A, 3)`` unit vectors in RAS, in the order in which a run takes them.
        """
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        ijkToRas = slicer.util.arrayFromVTKMatrix(matrix)
        dimensions = np.array(volume.GetImageData().GetDimensions())
        self._center = (ijkToRas @ [*(dimensions - 1) / 2, 1.0])[:3]
        edges = ijkToRas[:3, :3] * dimensions
        self._radius = float(np.linalg.norm(edges, axis=0).max()) * 0.75
        self._directions = directions
        self._reach = np.abs(directions @ edges).sum(axis=1) / 2
        # A direction and its opposite are the same: both ends are shown.
        ends = np.concatenate([directions, -directions]) * self._radius + self._center
        model = self._model("directions", _("TomoSeg directions"), _DIRECTIONS_COLOR, volume)
        model.SetAndObservePolyData(_dots(ends, self._radius * 0.02))

    def showPlane(self, volume: Any, index: int, offsetMm: float) -> None:
        """Show one plane of a stack.

        Args:
            volume: As for `show`.
            index: Which direction.
            offsetMm: How far along it the plane lies from the middle of the volume.
        """
        if not 0 <= index < self.count:
            return
        source = vtk.vtkPlaneSource()
        side = 2 * self._radius
        source.SetOrigin(-side / 2, -side / 2, 0)
        source.SetPoint1(side / 2, -side / 2, 0)
        source.SetPoint2(-side / 2, side / 2, 0)
        normal = self._directions[index]
        source.SetNormal(*normal)
        source.SetCenter(*(self._center + normal * offsetMm))
        source.Update()
        model = self._model("plane", _("TomoSeg plane"), _PLANE_COLOR, volume)
        model.SetAndObservePolyData(source.GetOutput())
        display = model.GetDisplayNode()
        display.SetOpacity(0.35)
        display.SetVisibility2D(True)
        display.SetSliceIntersectionThickness(2)

    def hide(self) -> None:
        """Take everything away."""
        for nodeId in self._ids.values():
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)
        self._ids.clear()
        self._directions = np.zeros((0, 3))

    def forget(self) -> None:
        """The scene was closed, and the models with it."""
        self._ids.clear()
        self._directions = np.zeros((0, 3))

    def _model(self, key: str, name: str, color: tuple[float, float, float], volume: Any) -> Any:
        node = slicer.mrmlScene.GetNodeByID(self._ids[key]) if key in self._ids else None
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetColor(*color)
            self._ids[key] = node.GetID()
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        return node


def _dots(points: np.ndarray, radius: float) -> Any:
    """Small balls."""
    vtkPoints = vtk.vtkPoints()
    vtkPoints.SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    places = vtk.vtkPolyData()
    places.SetPoints(vtkPoints)
    ball = vtk.vtkSphereSource()
    ball.SetRadius(radius)
    ball.SetThetaResolution(10)
    ball.SetPhiResolution(8)
    glyphs = vtk.vtkGlyph3D()
    glyphs.SetInputData(places)
    glyphs.SetSourceConnection(ball.GetOutputPort())
    glyphs.ScalingOff()
    glyphs.Update()
    return glyphs.GetOutput()
