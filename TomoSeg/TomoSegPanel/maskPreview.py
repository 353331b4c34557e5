"""The mask of the current settings in all views, while the settings change."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from TomoSegPanel.background import Background
from TomoSegPanel.mask import Mask, MaskSettings, cutMask

_COLOR = (0.2, 0.9, 1.0)
_OPACITY = 0.5


class MaskPreview:
    """Shows the mask's surface in the 3D views, and where slices cut it.

    It is a model that is not saved with the scene, so that nothing of the user's is touched until
    a segment is made, and so that all of it but the drawing can be done in the background.
    """

    def __init__(self) -> None:
        self._background = Background()
        self._nodeId: str | None = None
        self._next: tuple[Any, MaskSettings] | None = None
        self._shown: tuple[Any, ...] | None = None
        self.isBusy = False

    def update(self, heatmap: Any, settings: MaskSettings) -> None:
        """Show the mask of a heatmap; a newer wish replaces one that has not begun."""
        wish = (heatmap.GetID(), heatmap.GetImageData().GetMTime(), settings)
        if wish == self._shown:
            self._follow(heatmap)
            return
        self._shown = wish
        self._next = (heatmap, settings)
        if not self.isBusy:
            self._advance()

    def hide(self) -> None:
        """Take the preview away."""
        self._background.forget()
        self.isBusy, self._next, self._shown = False, None, None
        node = self._node()
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)
        self._nodeId = None

    def _advance(self) -> None:
        if self._next is None:
            return
        (heatmap, settings), self._next = self._next, None
        if heatmap is None or heatmap.GetImageData() is None:
            return
        array, spacing = slicer.util.arrayFromVolume(heatmap), heatmap.GetSpacing()
        matrix = vtk.vtkMatrix4x4()
        heatmap.GetIJKToRASMatrix(matrix)
        ijkToRas = slicer.util.arrayFromVTKMatrix(matrix)
        heatmapId = heatmap.GetID()
        self.isBusy = True

        def show(mesh: Any) -> None:
            self.isBusy = False
            node = slicer.mrmlScene.GetNodeByID(heatmapId)
            if node is not None and self._next is None:
                self._show(mesh, node)
            self._advance()

        def failed(error: Exception) -> None:
            self.isBusy, self._shown = False, None
            raise error

        self._background.run(
            lambda: surface(cutMask(array, spacing, settings), ijkToRas), show, failed
        )

    def _show(self, mesh: Any, heatmap: Any) -> None:
        node = self._node()
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", _("Mask preview"))
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetColor(*_COLOR)
            display.SetOpacity(_OPACITY)
            display.SetVisibility2D(True)
            display.SetSliceIntersectionThickness(2)
            display.SetSliceIntersectionOpacity(1.0)
            self._nodeId = node.GetID()
        self._follow(heatmap)
        node.SetAndObservePolyData(mesh)

    def _follow(self, heatmap: Any) -> None:
        """The mask is where the heatmap is, whatever moves it."""
        node = self._node()
        if node is not None:
            node.SetAndObserveTransformNodeID(heatmap.GetTransformNodeID())

    def _node(self) -> Any:
        return slicer.mrmlScene.GetNodeByID(self._nodeId) if self._nodeId else None


def surface(mask: Mask, ijkToRas: np.ndarray) -> Any:
    """The surface of a mask as polygons in RAS mm; for a thread.

    Args:
        mask: The mask.
        ijkToRas: 4 x 4 matrix of the heatmap that it was made from.
    """
    if mask.isEmpty:
        return vtk.vtkPolyData()
    padded = np.pad(mask.array, 1)  # so that the surface is closed at the edge of the volume
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(padded.shape))
    image.SetOrigin(-1.0, -1.0, -1.0)
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(), deep=False))
    edges = vtk.vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.5)
    edges.ComputeScalarsOff()
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    transform = vtk.vtkTransform()
    transform.SetMatrix(mask.ijkToRas(ijkToRas).ravel().tolist())
    toRas = vtk.vtkTransformPolyDataFilter()
    toRas.SetTransform(transform)
    toRas.SetInputConnection(edges.GetOutputPort())
    toRas.Update()
    return toRas.GetOutput()
