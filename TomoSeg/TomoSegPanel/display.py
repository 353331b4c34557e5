"""Heatmaps in the slice views: an overlay that leaves the user's own settings alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk

from TomoSegPanel.comparison import isComparisonView
from TomoSegPanel.provenance import AGREEMENT_ROLE, PARTIAL, RECORD, readRecord

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
"""Attribute of results: ``heatmap``, ``agreement`` or, of a segmenter's, ``segmentation``."""


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


def matrixOf(volume: Any) -> np.ndarray:
    """The 4 x 4 matrix of a volume from voxel ``(i, j, k)`` to RAS, before its transform."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


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


def isVolume(node: Any) -> bool:
    """Whether a result is a volume: a segmenter's is a segmentation."""
    return node is not None and bool(node.IsA("vtkMRMLScalarVolumeNode"))


def isHeatmap(node: Any) -> bool:
    """Whether a volume is a heatmap of ours, finished or not."""
    return isVolume(node) and bool(node.GetAttribute(RECORD) or node.GetAttribute(PARTIAL))


def maximum(heatmap: Any) -> float:
    """The heatmap's greatest value, as its colours end there; above 0."""
    node = heatmap.GetDisplayNode()
    high = node.GetWindowLevelMax() if node is not None and isHeatmap(heatmap) else 0.0
    if not high > 0:
        high = heatmap.GetImageData().GetScalarRange()[1]
    return high if high > 0 else 1.0


def placeBeside(node: Any, others: Sequence[Any]) -> None:
    """Put nodes where another is in the subject hierarchy."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None and node else 0
    if not item:
        return
    for other in others:
        own = hierarchy.GetItemByDataNode(other)
        if own:
            hierarchy.SetItemParent(own, hierarchy.GetItemParent(item))


class Overlay:
    """Shows one map as the foreground of all slice views, and gives back what was there.

    Background, window/level, layout and fields of view are never touched.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[str | None, float]] = {}
        self._legendIds: list[str] = []
        self._views = 0
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
        self.showLegends([], "")

    def showLegends(self, nodes: Sequence[Any], title: str) -> None:
        """Show what the colours of maps mean, in every view that shows them, and no other's."""
        views = len(slicer.util.getNodesByClass("vtkMRMLSliceNode"))
        if views != self._views:
            # Views that are younger than a legend do not know it: it is made anew.
            for legend in self._legends():
                slicer.mrmlScene.RemoveNode(legend)
            self._legendIds.clear()
            self._views = views
        shown = []
        for node in nodes:
            legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
            legend.SetTitleText(title)
            legend.GetTitleTextProperty().SetFontSize(_LEGEND_FONT)
            legend.GetLabelTextProperty().SetFontSize(_LEGEND_FONT)
            legend.SetLabelFormat("%.2g")  # with one decimal, a small heatmap is 0.0 everywhere
            legend.SetSize(0.08, 0.35)
            legend.SetVisibility(True)
            shown.append(legend.GetID())
        for legend in self._legends():
            if legend.GetID() not in shown:
                legend.SetVisibility(False)
        self._legendIds = shown

    def _legends(self) -> list[Any]:
        found = (slicer.mrmlScene.GetNodeByID(legendId) for legendId in self._legendIds)
        return [legend for legend in found if legend is not None]

    def forget(self) -> None:
        """The scene was closed: there is nothing to give back."""
        self._before.clear()
        self._legendIds.clear()
        self._shown = None


def toWorld(node: Any, ras: Sequence[float]) -> list[float]:
    """A point of a volume's own space (before its parent transform) in the world's."""
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld([float(value) for value in ras], world)
    return world


def jumpTo(node: Any, ras: Sequence[float], comparisonOnly: bool = False) -> None:
    """Let slice views show a point of a volume's own space (before its parent transform).

    Args:
        node: The volume.
        ras: The point.
        comparisonOnly: Leave the user's own views where they are.
    """
    world = toWorld(node, ras)
    for sliceNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if not comparisonOnly or isComparisonView(sliceNode):
            # Not centred: the scan stays where it is, and in view.
            sliceNode.JumpSliceByOffsetting(*world)


def places(result: Any) -> list[tuple[np.ndarray, str]]:
    """What a run has found, the highest peaks of a heatmap or the largest parts of each segment.

    Returns:
        Place (RAS mm, before the parent transform) and what to say of it.
    """
    record = readRecord(result)
    found = []
    if record is not None:
        for peak in record.get("heatmap", {}).get("peaks", []):
            found.append((peak["lps_mm"], f"{float(peak['value']):.4g}"))
        try:
            for segment in record.get("segments", []):
                for part in segment["parts"]:
                    text = f"{segment['name']}, {float(part['volume_ml']):.3g} ml"
                    found.append(([float(x) for x in part["lps_mm"]], text))
        except (KeyError, TypeError, ValueError):
            return []  # not written by the engine
    return [(np.array(lps) * [-1.0, -1.0, 1.0], text) for lps, text in found if len(lps) == 3]


def _compositeNodes() -> list[Any]:
    """Those of the user's own slice views."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [node for node in nodes if not isComparisonView(node)]
