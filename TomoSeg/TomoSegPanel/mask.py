"""From a heatmap to a segment: a threshold that is seen as it moves, and a segment to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from TomoSegPanel.background import Background
from TomoSegPanel.display import showArray

_PREVIEW_NAME = "TomoSeg mask preview"
_PREVIEW_COLOR = (0.2, 0.9, 1.0)


@dataclass(frozen=True)
class MaskSettings:
    """How a heatmap becomes a mask.

    Attributes:
        threshold: The mask is where the heatmap is above it.
        components: ``all``, ``largest`` (of most voxels) or ``peak`` (with the highest value).
        minimumSizeMl: Smaller components are dropped.
        smoothingMm: Standard deviation of the Gaussian that rounds the mask's surface, or 0.
    """

    threshold: float
    components: str = "all"
    minimumSizeMl: float = 0.0
    smoothingMm: float = 0.0


def makeMask(heatmap: np.ndarray, spacing: Sequence[float], settings: MaskSettings) -> np.ndarray:
    """The mask ``[k, j, i]`` (uint8, 0 and 1) of a heatmap.

    Without smoothing it is the engine's mask: outside the foreground a heatmap is exactly 0, and
    such voxels never belong to it; components are 26-connected.

    Args:
        heatmap: ``[k, j, i]``.
        spacing: Voxel size in mm, along ``(i, j, k)``.
        settings: How.
    """
    mask = (heatmap > settings.threshold) & (heatmap != 0)
    if not mask.any():
        return mask.view(np.uint8)
    from scipy import ndimage  # takes its time to load, so not at the top

    box = ndimage.find_objects(mask.view(np.uint8))[0]
    if settings.smoothingMm > 0:
        sigma = [settings.smoothingMm / mm for mm in reversed(spacing)]
        margin = [math.ceil(4 * s) + 1 for s in sigma]
        box = tuple(
            slice(max(0, part.start - m), part.stop + m)
            for part, m in zip(box, margin, strict=True)
        )
        smooth = ndimage.gaussian_filter(mask[box].astype(np.float32), sigma) > 0.5
        mask[box] = smooth & (heatmap[box] != 0)
    smallest = max(1, math.ceil(settings.minimumSizeMl * 1000 / math.prod(spacing) - 1e-9))
    if settings.components == "all" and smallest == 1:
        return mask.view(np.uint8)
    inside = mask[box]
    labels, count = ndimage.label(inside, structure=np.ones((3, 3, 3), bool))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= smallest
    kept[0] = False
    if kept.any() and settings.components != "all":
        if settings.components == "largest":
            best = int(np.argmax(np.where(kept, sizes, 0)))
        else:
            best = int(labels.flat[np.argmax(np.where(kept[labels], heatmap[box], -np.inf))])
        kept = np.arange(count + 1) == best
    np.copyto(inside, kept[labels])
    return mask.view(np.uint8)


def cardThreshold(record: Mapping[str, Any]) -> float:
    """The threshold that the run's own mask has used."""
    return float(record["mask"]["threshold"])


class MaskPreview:
    """Shows the mask of the current settings in all views, computed in the background.

    The preview is a segmentation of its own that is not saved with the scene, so that nothing of
    the user's is touched until a segment is made.
    """

    def __init__(self) -> None:
        self._background = Background()
        self._nodeId: str | None = None
        self._busy = False
        self._next: tuple[Any, MaskSettings] | None = None

    def update(self, heatmap: Any, settings: MaskSettings) -> None:
        """Show the mask of a heatmap; a newer wish replaces one that has not begun."""
        self._next = (heatmap, settings)
        if not self._busy:
            self._advance()

    def hide(self) -> None:
        """Take the preview away."""
        self._background.forget()
        self._busy, self._next = False, None
        node = slicer.mrmlScene.GetNodeByID(self._nodeId) if self._nodeId else None
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
        heatmapId = heatmap.GetID()
        self._busy = True

        def show(mask: np.ndarray) -> None:
            self._busy = False
            node = slicer.mrmlScene.GetNodeByID(heatmapId)
            if node is not None and self._next is None:
                self._show(mask, node)
            self._advance()

        def failed(error: Exception) -> None:
            self._busy = False
            raise error

        self._background.run(lambda: makeMask(array, spacing, settings), show, failed)

    def _show(self, mask: np.ndarray, heatmap: Any) -> None:
        node = slicer.mrmlScene.GetNodeByID(self._nodeId) if self._nodeId else None
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _PREVIEW_NAME)
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetOpacity2DFill(0.0)
            display.SetSliceIntersectionThickness(2)
            self._nodeId = node.GetID()
        segmentation = node.GetSegmentation()
        if segmentation.GetNumberOfSegments() == 0:
            segmentation.AddEmptySegment("preview", _("Mask preview"), _PREVIEW_COLOR)
        _setSegment(node, "preview", mask, heatmap)


def makeSegment(mask: np.ndarray, heatmap: Any, segmentation: Any, label: Mapping[str, Any]) -> str:
    """Add a mask to a segmentation as a new segment.

    Args:
        mask: ``[k, j, i]``, on the heatmap's grid.
        heatmap: The heatmap that it comes from.
        segmentation: The segmentation node; it is put under the heatmap's parent transform if it
            is empty.
        label: Name, colour and terminology, as on a model's card.

    Returns:
        The segment's ID.
    """
    segments = segmentation.GetSegmentation()
    if segments.GetNumberOfSegments() == 0:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(heatmap)
        segmentation.SetAndObserveTransformNodeID(heatmap.GetTransformNodeID())
    name = str(label.get("name", "lesion"))
    color = [float(value) for value in label.get("color", (0.9, 0.3, 0.2))]
    segmentId = segments.AddEmptySegment("", name, color)
    segment = segments.GetSegment(segmentId)
    if label.get("terminology"):
        segment.SetTerminology(str(label["terminology"]))
    _setSegment(segmentation, segmentId, mask, heatmap)
    return segmentId


def segmentStatistics(mask: np.ndarray, heatmap: Any) -> dict[str, float]:
    """Volume in ml, and greatest and mean value of the heatmap, of a mask on its grid."""
    values = slicer.util.arrayFromVolume(heatmap)[mask != 0]
    millilitres = math.prod(heatmap.GetSpacing()) / 1000
    return {
        "volume_ml": float(values.size * millilitres),
        "peak": float(values.max()) if values.size else 0.0,
        "mean": float(values.mean(dtype=np.float64)) if values.size else 0.0,
    }


def writeStatistics(table: Any, rows: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Fill a table node with the statistics of segments."""
    table.RemoveAllColumns()
    names = vtk.vtkStringArray()
    names.SetName(_("Segment"))
    columns: list[Any] = [names]
    titles = {"volume_ml": _("Volume [ml]"), "peak": _("Peak"), "mean": _("Mean")}
    for title in titles.values():
        column = vtk.vtkDoubleArray()
        column.SetName(title)
        columns.append(column)
    for name, figures in rows:
        names.InsertNextValue(name)
        for column, key in zip(columns[1:], titles, strict=True):
            column.InsertNextValue(figures[key])
    for column in columns:
        table.AddColumn(column)
    table.Modified()


def _setSegment(segmentation: Any, segmentId: str, mask: np.ndarray, heatmap: Any) -> None:
    """Fill a segment; like `slicer.util.updateSegmentBinaryLabelmapFromArray`, without a copy."""
    labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "__tomoseg__")
    try:
        showArray(labelmap, mask, heatmap)
        ids = vtk.vtkStringArray()
        ids.InsertNextValue(segmentId)
        logic = slicer.modules.segmentations.logic()
        if not logic.ImportLabelmapToSegmentationNode(labelmap, segmentation, ids):
            raise RuntimeError("the mask could not be put into the segmentation")
    finally:
        slicer.mrmlScene.RemoveNode(labelmap)
