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
from TomoSegPanel.segments import LABELMAP, SURFACE, orientedImage

_ID = "preview"
_COLOR = (0.2, 0.9, 1.0)
_OPACITY = 0.5
_MOST_TRIANGLES = 150_000


class MaskPreview:
    """Shows the mask's outline in the slice views and its surface in the 3D views.

    It is a segmentation of its own that is not saved with the scene, so that nothing of the user's
    is touched until a segment is made. Both its representations are made in the background; Slicer
    would convert one into the other in the main thread.
    """

    def __init__(self) -> None:
        self._background = Background()
        self._nodeId: str | None = None
        self._next: tuple[Any, MaskSettings, Mask | None] | None = None
        self._shown: tuple[Any, ...] | None = None
        self.isBusy = False

    def update(self, heatmap: Any, settings: MaskSettings, made: Mask | None = None) -> None:
        """Show the mask of a heatmap; a newer wish replaces one that has not begun.

        Args:
            heatmap: The heatmap.
            settings: How its mask is made.
            made: A mask that has been made of it already.
        """
        wish = (heatmap.GetID(), heatmap.GetImageData().GetMTime(), settings, made)
        if wish == self._shown:
            self._follow(heatmap)
            return
        self._shown = wish
        self._next = (heatmap, settings, made)
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
        (heatmap, settings, made), self._next = self._next, None
        if heatmap is None or heatmap.GetImageData() is None:
            return
        array, spacing = slicer.util.arrayFromVolume(heatmap), heatmap.GetSpacing()
        matrix = vtk.vtkMatrix4x4()
        heatmap.GetIJKToRASMatrix(matrix)
        ijkToRas = slicer.util.arrayFromVTKMatrix(matrix)
        heatmapId = heatmap.GetID()
        self.isBusy = True

        def show(segment: Any) -> None:
            self.isBusy = False
            node = slicer.mrmlScene.GetNodeByID(heatmapId)
            if node is not None and self._next is None:
                self._show(segment, node)
            self._advance()

        def failed(error: Exception) -> None:
            self.isBusy, self._shown = False, None
            raise error

        self._background.run(
            lambda: _segment(made or cutMask(array, spacing, settings), ijkToRas), show, failed
        )

    def _show(self, segment: Any, heatmap: Any) -> None:
        node = self._node()
        if node is None:
            name = _("Mask preview")
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetOpacity2DFill(0.0)
            display.SetOpacity3D(_OPACITY)
            display.SetSliceIntersectionThickness(2)
            display.SetPreferredDisplayRepresentationName2D(LABELMAP)
            display.SetPreferredDisplayRepresentationName3D(SURFACE)
            self._nodeId = node.GetID()
        self._follow(heatmap)
        segmentation = node.GetSegmentation()
        if segmentation.GetSegment(_ID) is not None:
            segmentation.RemoveSegment(_ID)
        if segment is not None:
            segmentation.AddSegment(segment, _ID)

    def _follow(self, heatmap: Any) -> None:
        """The mask is where the heatmap is, whatever moves it."""
        node = self._node()
        if node is not None:
            node.SetAndObserveTransformNodeID(heatmap.GetTransformNodeID())

    def _node(self) -> Any:
        return slicer.mrmlScene.GetNodeByID(self._nodeId) if self._nodeId else None


def _segment(mask: Mask, ijkToRas: np.ndarray) -> Any:
    """A segment of a mask with both representations, None of an empty one; for a thread."""
    if mask.isEmpty:
        return None
    segment = slicer.vtkSegment()
    segment.SetName(_("Mask preview"))
    segment.SetColor(*_COLOR)
    segment.AddRepresentation(LABELMAP, orientedImage(mask.array, mask.start, ijkToRas))
    segment.AddRepresentation(SURFACE, surface(mask, ijkToRas))
    return segment


def surface(mask: Mask, ijkToRas: np.ndarray) -> Any:
    """The surface of a mask, not empty, as polygons in RAS mm; for a thread.

    A surface that would have very many triangles is made of every second, third, ... voxel.

    Args:
        mask: The mask.
        ijkToRas: 4 x 4 matrix of the heatmap that it was made from.
    """
    step = 1
    while True:
        mesh = _surface(mask.array[::step, ::step, ::step], step)
        if mesh.GetNumberOfCells() <= _MOST_TRIANGLES or min(mask.array.shape) <= 2 * step:
            break
        step += 1
    transform = vtk.vtkTransform()
    transform.SetMatrix(mask.ijkToRas(ijkToRas).ravel().tolist())
    toRas = vtk.vtkTransformPolyDataFilter()
    toRas.SetTransform(transform)
    toRas.SetInputData(mesh)
    toRas.Update()
    return toRas.GetOutput()


def _surface(array: np.ndarray, step: int) -> Any:
    """The surface of an array's voxels, ``step`` apart, in voxels of the mask."""
    padded = np.pad(array, 1)  # so that the surface is closed at the edge of the volume
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(padded.shape))
    image.SetOrigin(-step, -step, -step)
    image.SetSpacing(step, step, step)
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(), deep=False))
    edges = vtk.vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.5)
    edges.ComputeScalarsOff()
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.Update()
    return edges.GetOutput()
