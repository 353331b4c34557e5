"""Slice and 3D views that are turned to a study's planes, and turned back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from TomoSegPanel.comparison import isComparisonView
from TomoSegPanel.studyScene import toRas, volumeOf

_MARGIN = 1.1
"""The view is so much larger than the image, so that the lines' ends are in it."""


@dataclass(frozen=True)
class _Before:
    """What a slice view was before."""

    sliceToRas: Any
    fieldOfView: tuple[float, ...]
    origin: tuple[float, ...]
    isVisible: bool
    background: str | None


class StudyViews:
    """Shows a study's views in slice and 3D views, and remembers what was there.

    Attributes:
        shown: Name of the view that each slice node shows, by the node's ID.
    """

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self._before: dict[str, _Before] = {}
        self._cameras: dict[str, tuple[Any, ...]] = {}

    @property
    def canRestore(self) -> bool:
        """Whether a slice view shows a study's view."""
        return bool(self._before)

    def showing(self, name: str) -> list[str]:
        """IDs of the slice nodes that show a view."""
        return [nodeId for nodeId, shown in self.shown.items() if shown == name]

    def show(self, view: dict[str, Any], sliceNode: Any) -> None:
        """Turn a slice view to a view's middle slice, and show the slice in the 3D views.

        The volume moves to the background, and the field of view fits the image.
        """
        composite, volume = compositeOf(sliceNode), volumeOf(view["name"])
        if composite is None or volume is None:
            return
        if sliceNode.GetID() not in self._before:
            matrix = vtk.vtkMatrix4x4()
            matrix.DeepCopy(sliceNode.GetSliceToRAS())
            self._before[sliceNode.GetID()] = _Before(
                matrix,
                tuple(sliceNode.GetFieldOfView()),
                tuple(sliceNode.GetXYZOrigin()),
                bool(sliceNode.GetSliceVisible()),
                composite.GetBackgroundVolumeID(),
            )
        self.shown[sliceNode.GetID()] = view["name"]
        composite.SetBackgroundVolumeID(volume.GetID())
        corners = toRas(view["corners_mm"])
        right, down = (toRas(direction) for direction in view["read_along"])
        matrix = np.eye(4)
        matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = right, -down, np.cross(right, -down)
        matrix[:3, 3] = corners.mean(axis=0)
        width, height = (float(np.ptp(corners @ axis)) for axis in (right, down))
        across, up = (max(1, size) for size in sliceNode.GetDimensions()[:2])
        scale = _MARGIN * max(width / across, height / up, 1e-3)  # mm of a pixel of the screen
        was = sliceNode.StartModify()
        sliceNode.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
        sliceNode.SetXYZOrigin(0.0, 0.0, 0.0)
        sliceNode.SetFieldOfView(scale * across, scale * up, sliceNode.GetFieldOfView()[2])
        sliceNode.SetSliceVisible(True)
        sliceNode.UpdateMatrices()
        sliceNode.EndModify(was)

    def lookAt(self, views: Sequence[dict[str, Any]]) -> None:
        """Let the 3D views look at the planes of a study."""
        corners = toRas([view["corners_mm"] for view in views])
        across, down = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
        normals = np.cross(across, down)
        towards = _sight(normals / np.linalg.norm(normals, axis=1, keepdims=True))
        points = corners.reshape(-1, 3)
        center = (points.min(axis=0) + points.max(axis=0)) / 2
        radius = float(np.linalg.norm(points - center, axis=1).max())
        for camera in _cameras():
            place = (camera.GetPosition(), camera.GetFocalPoint(), camera.GetViewUp())
            self._cameras.setdefault(camera.GetID(), place)
            distance = radius / np.sin(np.radians(camera.GetViewAngle()) / 2)
            _place(camera, center + distance * towards, center, (0.0, 0.0, 1.0))

    def restore(self) -> None:
        """Give the slice and 3D views back as they were."""
        for nodeId, place in self._cameras.items():
            camera = slicer.mrmlScene.GetNodeByID(nodeId)
            if camera is not None:
                _place(camera, *place)
        for nodeId, before in self._before.items():
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is None:
                continue
            was = node.StartModify()
            node.GetSliceToRAS().DeepCopy(before.sliceToRas)
            node.SetXYZOrigin(*before.origin)
            node.SetFieldOfView(*before.fieldOfView)
            node.SetSliceVisible(before.isVisible)
            node.UpdateMatrices()
            node.EndModify(was)
            composite = compositeOf(node)
            if composite is not None:
                gone = slicer.mrmlScene.GetNodeByID(before.background or "") is None
                composite.SetBackgroundVolumeID(None if gone else before.background)
        self.forget()

    def forget(self) -> None:
        """The scene was closed: there is nothing to give back."""
        self.shown.clear()
        self._before.clear()
        self._cameras.clear()


def sliceNodes() -> Sequence[Any]:
    """The user's own slice views, Red, Green and Yellow first."""
    order = {"Red": 0, "Green": 1, "Yellow": 2}
    nodes = [n for n in slicer.util.getNodesByClass("vtkMRMLSliceNode") if not isComparisonView(n)]
    return sorted(nodes, key=lambda node: order.get(node.GetLayoutName(), len(order)))


def compositeOf(sliceNode: Any) -> Any:
    """The node that says which volumes a slice view shows."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if node.GetLayoutName() == sliceNode.GetLayoutName():
            return node
    return None


def _place(camera: Any, position: Any, focalPoint: Any, viewUp: Any) -> None:
    camera.SetPosition(*map(float, position))
    camera.SetFocalPoint(*map(float, focalPoint))
    camera.SetViewUp(*map(float, viewUp))
    camera.ResetClippingRange()


def _cameras() -> list[Any]:
    """The cameras of the 3D views."""
    manager = slicer.app.layoutManager()
    count = manager.threeDViewCount if manager is not None else 0
    return [manager.threeDWidget(index).threeDView().cameraNode() for index in range(count)]


def _sight(normals: np.ndarray) -> np.ndarray:
    """The direction to look from, RAS: from the front, and no plane edge-on."""
    turns, heights = np.meshgrid(np.radians(np.arange(-70, 71, 10)), np.radians((10, 20, 30, 40)))
    towards = np.stack(
        [np.sin(turns) * np.cos(heights), np.cos(turns) * np.cos(heights), np.sin(heights)], axis=-1
    ).reshape(-1, 3)
    return towards[np.argmax(np.abs(towards @ normals.T).min(axis=1))]
