"""Heatmaps in the slice views: an overlay that leaves the user's own settings alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk

from TomoSegPanel.provenance import AGREEMENT_ROLE, readRecord

# Inferno and viridis (matplotlib, CC0), nine steps each: their lightness grows evenly, so they
# read alike in grey and with any colour vision.
_COLORS = {
    "heatmap": (
        (0.001, 0.000, 0.014),
        (0.122, 0.047, 0.283),
        (0.335, 0.060, 0.429),
        (0.536, 0.135, 0.415),
        (0.736, 0.216, 0.330),
        (0.891, 0.351, 0.196),
        (0.978, 0.557, 0.035),
        (0.974, 0.798, 0.228),
        (0.988, 1.000, 0.645),
    ),
    "agreement": (
        (0.267, 0.005, 0.329),
        (0.279, 0.175, 0.483),
        (0.230, 0.322, 0.546),
        (0.173, 0.449, 0.558),
        (0.128, 0.567, 0.551),
        (0.158, 0.684, 0.502),
        (0.370, 0.789, 0.383),
        (0.678, 0.864, 0.190),
        (0.993, 0.906, 0.144),
    ),
}
_TABLE_SIZE = 256
_LEGEND_FONT = 8
_COLOR_TAG = "TomoSeg.Colors"
MAP = "TomoSeg.Map"
"""Attribute of the volumes that are maps: ``heatmap`` or ``agreement``."""


def showArray(node: Any, array: np.ndarray, like: Any) -> None:
    """Make an array a volume's voxels, without a copy, on the grid of another volume.

    Args:
        node: The volume that is changed.
        array: ``[k, j, i]``; it now belongs to the volume.
        like: A volume of the same grid; the parent transform is taken over too.
    """
    array = np.ascontiguousarray(array)
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(array.shape))
    # VTK keeps the array alive as long as it refers to it.
    scalars = numpy_to_vtk(array.ravel(), deep=False, array_type=get_vtk_array_type(array.dtype))
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    like.GetIJKToRASMatrix(matrix)
    was = node.StartModify()
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(like.GetTransformNodeID())
    node.SetAndObserveImageData(image)
    node.EndModify(was)


def newMapNode(name: str, kind: str) -> Any:
    """A new volume with the display of a map.

    Args:
        name: Its name.
        kind: ``heatmap`` or ``agreement``.
    """
    scene = slicer.mrmlScene
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(scene.GenerateUniqueName(name))
    node.SetAttribute(MAP, kind)  # selectors choose by it when the node comes into the scene
    scene.AddNode(node)
    # Made by hand: the default would measure the window anew at each preview.
    display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    display.AutoWindowLevelOff()
    display.SetAndObserveColorNodeID(colorNode(kind).GetID())
    display.SetInterpolate(True)
    node.SetAndObserveDisplayNodeID(display.GetID())
    return node


def colorNode(kind: str) -> Any:
    """TomoSeg's own colours for heatmaps or agreement maps, made when they are first needed."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetAttribute(_COLOR_TAG) == kind:
            return node
    titles = {"heatmap": _("TomoSeg heatmap"), "agreement": _("TomoSeg agreement")}
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", titles[kind])
    node.SetTypeToUser()
    node.SetNumberOfColors(_TABLE_SIZE)
    steps = np.array(_COLORS[kind])
    places = np.linspace(0, len(steps) - 1, _TABLE_SIZE)
    for index, place in enumerate(places):
        rgb = (np.interp(place, np.arange(len(steps)), steps[:, channel]) for channel in range(3))
        node.SetColor(index, f"{index / (_TABLE_SIZE - 1):.2f}", *map(float, rgb), 1.0)
    node.SetAttribute(_COLOR_TAG, kind)
    node.SetAttribute("Category", "TomoSeg")
    return node


def setRange(node: Any, low: float, high: float, threshold: float | None = None) -> None:
    """Spread the colours over a range of values.

    Args:
        node: The map.
        low: Value of the first colour.
        high: Value of the last colour.
        threshold: Values below it are transparent; None: those up to ``low`` are.
    """
    display = node.GetDisplayNode()
    if not low < high:
        high = low + 1.0
    below = low if threshold is None else threshold
    was = display.StartModify()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    display.AutoThresholdOff()
    # Slicer shows lower <= value; nothing that is exactly at the low end (0, outside the
    # foreground) is a finding.
    display.SetThreshold(float(np.nextafter(np.float32(below), np.float32(np.inf))), 3e38)
    display.ApplyThresholdOn()
    display.EndModify(was)


def agreementOf(heatmap: Any) -> Any:
    """The agreement map that belongs to a heatmap, or None."""
    return heatmap.GetNodeReference(AGREEMENT_ROLE) if heatmap is not None else None


def isHeatmap(node: Any) -> bool:
    """Whether a volume is a heatmap of ours."""
    return node is not None and readRecord(node) is not None


class Overlay:
    """Shows one map as the foreground of all slice views, and gives back what was there.

    Background, window/level, layout and fields of view are never touched.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[str | None, float]] = {}
        self._legendId: str | None = None
        self._shown: tuple[str, float] | None = None

    def show(self, node: Any, opacity: float) -> None:
        """Show a map over whatever volume the slice views show.

        What is shown already is left alone, for the user may have chosen another foreground since.
        """
        if self._shown == (node.GetID(), opacity):
            return
        self._shown = (node.GetID(), opacity)
        for composite in _compositeNodes():
            self._before.setdefault(
                composite.GetID(),
                (composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()),
            )
            was = composite.StartModify()
            composite.SetForegroundVolumeID(node.GetID())
            composite.SetForegroundOpacity(opacity)
            composite.EndModify(was)

    def hide(self) -> None:
        """Show again what was the foreground before."""
        for composite in _compositeNodes():
            if composite.GetID() in self._before:
                volume, opacity = self._before[composite.GetID()]
                if volume and slicer.mrmlScene.GetNodeByID(volume) is None:
                    volume, opacity = None, 0.0
                composite.SetForegroundVolumeID(volume)
                composite.SetForegroundOpacity(opacity)
        self._before.clear()
        self._shown = None
        self.hideLegend()

    def showLegend(self, node: Any, title: str) -> None:
        """Show what the colours mean, in every view that shows the map."""
        legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
        self.hideLegend(but=legend.GetID())
        legend.SetTitleText(title)
        legend.GetTitleTextProperty().SetFontSize(_LEGEND_FONT)
        legend.GetLabelTextProperty().SetFontSize(_LEGEND_FONT)
        legend.SetLabelFormat("%.2g")  # the default has one decimal, and heatmaps may be small
        legend.SetSize(0.08, 0.35)
        legend.SetVisibility(True)
        self._legendId = legend.GetID()

    def hideLegend(self, but: str | None = None) -> None:
        """Hide the legend that was shown last."""
        if self._legendId is not None and self._legendId != but:
            legend = slicer.mrmlScene.GetNodeByID(self._legendId)
            if legend is not None:
                legend.SetVisibility(False)
            self._legendId = None

    def forget(self) -> None:
        """The scene was closed: there is nothing to give back."""
        self._before.clear()
        self._legendId = self._shown = None


def jumpTo(node: Any, ras: np.ndarray) -> None:
    """Move all slice views to a point of a volume's own space (before its parent transform).

    Their fields of view stay where they are.
    """
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld([float(value) for value in ras], world)
    for sliceNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        sliceNode.JumpSliceByOffsetting(*world)


def peaks(heatmap: Any) -> list[tuple[np.ndarray, float]]:
    """The peaks that the run has found: place (RAS mm, before the parent transform) and value."""
    record = readRecord(heatmap)
    found = record.get("heatmap", {}).get("peaks", []) if record is not None else []
    return [(np.array(p["lps_mm"]) * [-1.0, -1.0, 1.0], float(p["value"])) for p in found]


def _compositeNodes() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))
