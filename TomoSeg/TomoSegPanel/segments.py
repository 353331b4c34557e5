"""Segments made of masks: into the scene, with where they come from, and out of it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from TomoSegPanel.display import MAP, matrixOf, showArray
from TomoSegPanel.mask import Mask, measure
from TomoSegPanel.provenance import readSegmentRecord, writeSegmentRecord
from TomoSegPanel.runData import LabelData

# As the engine writes it for labels whose card names none: a lesion that is not specified further.
DEFAULT_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^52988006^Lesion~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
_STATISTICS = "TomoSeg.Statistics"
LABELMAP = "Binary labelmap"
SURFACE = "Closed surface"


def newSegmentation(name: str, volume: Any, like: Any, result: bool = False) -> Any:
    """A new segmentation node.

    Args:
        name: Its name, made unique.
        volume: The scan, whose grid is the reference (exports to DICOM ask for it).
        like: The node whose transform it comes under.
        result: Whether it is the result of a segmenter, which the section Result lists.
    """
    scene = slicer.mrmlScene
    node = scene.CreateNodeByClass("vtkMRMLSegmentationNode")
    node.UnRegister(None)
    node.SetName(scene.GenerateUniqueName(name))
    if result:
        node.SetAttribute(MAP, "segmentation")  # selectors choose by it when the node comes
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetAndObserveTransformNodeID(like.GetTransformNodeID())
    return node


def addSegment(mask: Mask, heatmap: Any, segmentation: Any, label: Mapping[str, Any]) -> str:
    """Add a mask to a segmentation as a new segment.

    Args:
        mask: A mask of the heatmap, not empty.
        heatmap: The heatmap; it may be under another transform than the segmentation.
        segmentation: The segmentation node.
        label: Name, colour and terminology, as on a model's card.

    Returns:
        The segment's ID.
    """
    segments = segmentation.GetSegmentation()
    name = str(label.get("name", "lesion"))
    segmentId = segments.AddEmptySegment("", name, _color(label))
    segment = segments.GetSegment(segmentId)
    segment.SetTerminology(str(label.get("terminology") or DEFAULT_TERMINOLOGY))
    labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "__tomoseg__")
    try:
        showArray(labelmap, mask.array, heatmap)
        ijkToRas = mask.ijkToRas(matrixOf(heatmap))
        between = matrixBetween(heatmap, segmentation)
        if between is not None:
            # Under the segmentation's own transform, or Slicer would apply it twice.
            ijkToRas = between @ ijkToRas
            labelmap.SetAndObserveTransformNodeID(segmentation.GetTransformNodeID())
        labelmap.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRas))
        ids = vtk.vtkStringArray()
        ids.InsertNextValue(segmentId)
        logic = slicer.modules.segmentations.logic()
        if not logic.ImportLabelmapToSegmentationNode(labelmap, segmentation, ids):
            segments.RemoveSegment(segmentId)
            raise RuntimeError("the mask could not be put into the segmentation")
    finally:
        slicer.mrmlScene.RemoveNode(labelmap)
    return segmentId


def _color(label: Mapping[str, Any]) -> list[float]:
    """The colour of a label; red where it has none that can be used."""
    color = label.get("color")
    good = isinstance(color, list) and len(color) == 3
    if not good or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in color):
        return [0.9, 0.3, 0.2]
    return [float(value) for value in color]


def orientedImage(array: np.ndarray, start: Sequence[int], ijkToRas: np.ndarray) -> Any:
    """A label map as segments have it, without a copy.

    Args:
        array: ``[k, j, i]``: a part of a volume.
        start: The voxel ``(i, j, k)`` of the volume at which the part begins.
        ijkToRas: 4 x 4 matrix of the volume.
    """
    image = slicer.vtkOrientedImageData()
    ends = np.array(start) + array.shape[::-1] - 1
    image.SetExtent(*[int(v) for pair in zip(start, ends, strict=True) for v in pair])
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijkToRas))
    if array.size:
        kind = get_vtk_array_type(array.dtype)
        scalars = numpy_to_vtk(array.ravel(), deep=False, array_type=kind)
        scalars.SetName("ImageScalars")
        image.GetPointData().SetScalars(scalars)
    return image


def addLabels(segmentation: Any, volume: Any, labels: LabelData, record: Mapping[str, Any]) -> None:
    """Add a segment for each label of a segmenter, and a table of their statistics."""
    fillLabels(segmentation, volume, labels, record)
    showStatistics(segmentation)


def fillLabels(
    segmentation: Any, volume: Any, labels: LabelData, record: Mapping[str, Any]
) -> None:
    """Add a segment for each label; they share one label map, as Slicer's do.

    Args:
        segmentation: A segmentation node under the volume's transform.
        volume: The volume on whose grid the labels are.
        labels: The label map.
        record: The record of the run; its model's labels have names, colours and terminology.
    """
    image = orientedImage(labels.array, labels.start, matrixOf(volume))
    voxelMl = math.prod(volume.GetSpacing()) / 1000
    for label in record["model"]["labels"]:
        segment = slicer.vtkSegment()
        segment.SetName(str(label["name"]))
        segment.SetColor(*_color(label))
        segment.SetTerminology(str(label.get("terminology") or DEFAULT_TERMINOLOGY))
        segment.SetLabelValue(int(label["value"]))
        if labels.array.size:
            segment.AddRepresentation(LABELMAP, image)
        segmentId = f"Segment_{label['value']}"
        segmentation.GetSegmentation().AddSegment(segment, segmentId)
        figures = {"volume_ml": labels.voxels.get(int(label["value"]), 0) * voxelMl}
        writeSegmentRecord(segmentation, segmentId, {"figures": figures, "run": record})


@dataclass
class _Made:
    """A segment that was made here; ``segment`` keeps it while it is undone."""

    nodeId: str
    segmentId: str
    segment: Any = None
    record: Mapping[str, Any] | None = None


class SegmentHistory:
    """Undoes and redoes the making of segments, and nothing else that was done to them."""

    def __init__(self) -> None:
        self._done: list[_Made] = []
        self._undone: list[_Made] = []

    def prepare(self, segmentation: Any) -> None:
        """Before a segment is made: let Slicer's own undo know of it too."""
        slicer.mrmlScene.SaveStateForUndo()  # does nothing unless the user has turned it on
        editor = getattr(getattr(slicer.modules, "SegmentEditorWidget", None), "editor", None)
        if editor is not None and editor.segmentationNode() is segmentation:
            editor.saveStateForUndo()

    def add(self, segmentation: Any, segmentId: str) -> None:
        """A segment was made."""
        self._done.append(_Made(segmentation.GetID(), segmentId))
        self._undone.clear()

    def canUndo(self) -> bool:
        """Whether there is a segment to take away."""
        while self._done and self._segment(self._done[-1]) is None:
            self._done.pop()  # the user has deleted it
        return bool(self._done)

    def canRedo(self) -> bool:
        """Whether there is a segment to bring back, and a segmentation to bring it into."""
        while self._undone and self._node(self._undone[-1]) is None:
            self._undone.pop()
        return bool(self._undone)

    def undo(self) -> Any:
        """Take the last segment away; returns its segmentation."""
        made = self._done.pop()
        node = self._node(made)
        made.segment = self._segment(made)
        made.record = readSegmentRecord(node, made.segmentId)
        writeSegmentRecord(node, made.segmentId, None)
        node.GetSegmentation().RemoveSegment(made.segmentId)
        self._undone.append(made)
        return node

    def redo(self) -> Any:
        """Bring the segment that was taken away last back; returns its segmentation."""
        made = self._undone.pop()
        node = self._node(made)
        node.GetSegmentation().AddSegment(made.segment, made.segmentId)
        writeSegmentRecord(node, made.segmentId, made.record)
        made.segment = made.record = None
        self._done.append(made)
        return node

    def last(self, segmentation: Any) -> str:
        """The segment of a segmentation that was made last, or ""."""
        ids = [each.segmentId for each in self._done if each.nodeId == segmentation.GetID()]
        return ids[-1] if ids else ""

    def clear(self) -> None:
        """The scene was closed."""
        self._done.clear()
        self._undone.clear()

    @staticmethod
    def _node(made: _Made) -> Any:
        return slicer.mrmlScene.GetNodeByID(made.nodeId)

    def _segment(self, made: _Made) -> Any:
        node = self._node(made)
        return node.GetSegmentation().GetSegment(made.segmentId) if node is not None else None


def matrixBetween(source: Any, target: Any) -> np.ndarray | None:
    """The 4 x 4 matrix from one node's own space to another's; None where it is a warp."""
    matrix = vtk.vtkMatrix4x4()
    parents = source.GetParentTransformNode(), target.GetParentTransformNode()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*parents, matrix):
        return None
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


# -- figures -------------------------------------------------------------------------------------


def measurements(segmentation: Any, heatmap: Any) -> list[tuple[str, Any]]:
    """What it takes to measure the segments as they are now.

    Args:
        segmentation: The segmentation node.
        heatmap: The heatmap whose values are measured, or None. Where a warp lies between the two,
            only volumes are measured.

    Returns:
        For each segment that has a label map: its ID, and a function for a thread that gives its
        figures (`TomoSegPanel.mask.measure`).
    """
    values, toHeatmap = None, np.eye(4)
    between = matrixBetween(segmentation, heatmap) if heatmap is not None else None
    if between is not None:
        values = slicer.util.arrayFromVolume(heatmap)
        toHeatmap = np.linalg.inv(matrixOf(heatmap)) @ between
    segments, found = segmentation.GetSegmentation(), []
    for segmentId in segments.GetSegmentIDs():
        segment = segments.GetSegment(segmentId)
        image = segment.GetRepresentation(LABELMAP)
        if image is None or image.GetPointData().GetScalars() is None:
            continue
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        toWorld = slicer.util.arrayFromVTKMatrix(matrix)
        extent = image.GetExtent()
        shift = np.eye(4)
        shift[:3, 3] = extent[0::2]
        labels = vtk_to_numpy(image.GetPointData().GetScalars())
        labels = labels.reshape(tuple(reversed(image.GetDimensions())))
        found.append(
            (
                segmentId,
                _measurement(labels, segment.GetLabelValue(), toWorld @ shift, toHeatmap, values),
            )
        )
    return found


def _measurement(
    labels: np.ndarray,
    value: int,
    ijkToWorld: np.ndarray,
    worldToHeatmap: np.ndarray,
    heatmap: np.ndarray | None,
) -> Any:
    voxelMl = abs(float(np.linalg.det(ijkToWorld[:3, :3]))) / 1000
    return lambda: measure(labels == value, worldToHeatmap @ ijkToWorld, voxelMl, heatmap)


def showStatistics(segmentation: Any) -> Any:
    """Write the figures of all recorded segments into the segmentation's table.

    Returns:
        The table node; None where there is nothing to tell, and then there is no table either.
    """
    segments = segmentation.GetSegmentation()
    rows = []
    for segmentId in segments.GetSegmentIDs():
        record = readSegmentRecord(segmentation, segmentId)
        if record is not None:
            name = segments.GetSegment(segmentId).GetName()
            rows.append((name, record.get("heatmap_name", ""), record.get("figures", {})))
    table = segmentation.GetNodeReference(_STATISTICS)
    if not rows:
        if table is not None:
            slicer.mrmlScene.RemoveNode(table)
        return None
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLTableNode", _("{name} figures").format(name=segmentation.GetName())
        )
        segmentation.SetNodeReferenceID(_STATISTICS, table.GetID())
    _fillTable(table, rows)
    return table


def _fillTable(table: Any, rows: Sequence[tuple[str, str, Mapping[str, float]]]) -> None:
    was = table.StartModify()
    table.RemoveAllColumns()
    for title, place in ((_("Segment"), 0), (_("Heatmap"), 1)):
        texts = vtk.vtkStringArray()
        texts.SetName(title)
        for row in rows:
            texts.InsertNextValue(row[place])
        table.AddColumn(texts)
    titles = {"volume_ml": _("Volume [ml]"), "peak": _("Peak"), "mean": _("Mean")}
    for key, title in titles.items():
        column = vtk.vtkDoubleArray()
        column.SetName(title)
        for *_names, figures in rows:
            value = figures.get(key)
            column.InsertNextValue(math.nan if value is None else value)
        table.AddColumn(column)
    table.Modified()
    table.EndModify(was)


def figuresText(name: str, figures: Mapping[str, float]) -> str:
    """The figures of a segment for people."""
    text = _("{name}: {volume} ml").format(name=name, volume=f"{figures['volume_ml']:.3g}")
    if figures.get("peak") is not None:
        text += _(", peak {peak}, mean {mean}").format(
            peak=f"{figures['peak']:.4g}", mean=f"{figures['mean']:.4g}"
        )
    return text
