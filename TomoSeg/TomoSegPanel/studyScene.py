"""A study's views in the scene: volumes, the planes' outlines, and the lines where they cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from TomoSegPanel.display import showArray
from TomoSegPanel.studyInspector import InspectedStudy
from TomoSegPanel.studyTable import tableRows

PART = "TomoSeg.StudyPart"
"""Attribute of all nodes of a study: ``volume``, ``plane`` or ``line``."""

VIEW = "TomoSeg.StudyView"
"""Attribute: the view's name; of a line, the view in whose plane it is drawn."""

OTHER = "TomoSeg.StudyOther"
"""Attribute of a line: the view that cuts."""

_RAS = np.array([-1.0, -1.0, 1.0])
_FOLDER = "TomoSeg.Study"
_NAME_ROOM = 0.2
"""Names of lines are so far from each other, as a part of the image's diagonal."""


def toRas(points: Any) -> np.ndarray:
    """RAS mm of points or directions ``(..., 3)`` in LPS mm, as the engine gives them."""
    return np.asarray(points, dtype=float) * _RAS


def addStudy(study: InspectedStudy) -> None:
    """Put a study into the scene, in a folder of the subject hierarchy."""
    views = {view["name"]: view for view in study.data["views"]}
    nodes: list[Any] = []
    named: dict[str, list[np.ndarray]] = {name: [] for name in views}
    for view, array in zip(study.data["views"], study.arrays, strict=True):
        nodes += [_addVolume(view, array), _addPlane(view)]
    for line in study.data["lines"]:
        # Of several views in one place (phases) one is drawn.
        if "endpoints_mm" in line and line["other"] in views[line["view"]]["others"]:
            view, other = views[line["view"]], views[line["other"]]
            nodes.append(_addLine(line, view, other, named[view["name"]]))
    title = _("Imaging planes of {study}").format(study=study.data["study"])
    _putInFolder(title, nodes)


def removeStudy() -> None:
    """Take all of it out of the scene; what the user has put into its folder stays."""
    scene = slicer.mrmlScene
    hierarchy = scene.GetSubjectHierarchyNode()
    for node in studyNodes():
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)
        displays = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
        storage = node.GetStorageNode()
        scene.RemoveNode(node)
        for other in [*displays, storage]:
            if other is not None and other.GetScene() is scene:
                scene.RemoveNode(other)
    for item in _items(hierarchy, hierarchy.GetSceneItemID(), recursive=True):
        if hierarchy.HasItemAttribute(item, _FOLDER) and not _items(hierarchy, item):
            hierarchy.RemoveItem(item, False, False)


def studyNodes(part: str = "") -> list[Any]:
    """The nodes of the study in the scene: all, or those of one part."""
    classes = ("vtkMRMLScalarVolumeNode", "vtkMRMLModelNode", "vtkMRMLMarkupsLineNode")
    found = [node for name in classes for node in slicer.util.getNodesByClass(name)]
    parts = (part,) if part else ("volume", "plane", "line")
    return [node for node in found if node.GetAttribute(PART) in parts]


def volumeOf(name: str) -> Any:
    """The volume of a view; None where the user has deleted it."""
    return next((n for n in studyNodes("volume") if n.GetAttribute(VIEW) == name), None)


def showLines(selected: str, sliceNodes: Callable[[str], Sequence[str]]) -> None:
    """Show each line in the slice views that show its view, and those of one view in 3D too.

    Args:
        selected: Name of that view.
        sliceNodes: IDs of the slice nodes that show a view.
    """
    spatial = [node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLViewNode")]
    for node in studyNodes("line"):
        display, name = node.GetDisplayNode(), node.GetAttribute(VIEW)
        wanted = [*sliceNodes(name), *(spatial if name == selected else ())]
        was = display.StartModify()
        display.SetViewNodeIDs(wanted)
        display.SetVisibility(bool(wanted))
        display.EndModify(was)
    for node in studyNodes("plane"):
        node.GetDisplayNode().SetLineWidth(5 if node.GetAttribute(VIEW) == selected else 2)


def readStudy(text: str) -> dict[str, Any] | None:
    """The study of a parameter node, as `studyText` has written it; None where there is none."""
    try:
        record = json.loads(text)
        data = record["data"]
        tableRows(data)
        texts = [record["folder"], record["table"]]
        for view in [*data["views"], *data["unused"]]:
            texts += [view["name"], view["description"], view["file"]]
            np.asarray([*view["spacing_mm"], view["slices"], view["phases"]], dtype=float)
        for view in data["views"]:
            texts += [view["color"], *view["others"]]
            shapes = np.shape(view["corners_mm"]), np.shape(view["read_along"])
            if shapes != ((4, 3), (2, 3)):
                return None
            toRas(view["corners_mm"]), toRas(view["read_along"])
        return record if all(isinstance(each, str) for each in texts) else None
    except (ValueError, KeyError, TypeError):
        return None  # not written by the panel


def studyText(folder: str, study: InspectedStudy) -> str:
    """All that the panel must know of a study, to be saved with the scene."""
    return json.dumps({"folder": folder, "table": study.table, "data": study.data})


def _addVolume(view: dict[str, Any], array: np.ndarray) -> Any:
    node = _newNode("vtkMRMLScalarVolumeNode", view["name"], "volume", view["name"])
    grid = slicer.vtkMRMLScalarVolumeNode()
    ijkToRas = np.diag([*_RAS, 1.0]) @ np.array(view["volume"]["ijk_to_lps"], dtype=float)
    grid.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRas))
    showArray(node, array, grid)
    node.CreateDefaultDisplayNodes()
    return node


def _addPlane(view: dict[str, Any]) -> Any:
    """The outline of a view's middle slice."""
    node = _newNode(
        "vtkMRMLModelNode", _("Plane {view}").format(view=view["name"]), "plane", view["name"]
    )
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(toRas(view["corners_mm"])), deep=True))
    corners = vtk.vtkCellArray()
    corners.InsertNextCell(5)
    for index in (0, 1, 2, 3, 0):
        corners.InsertCellPoint(index)
    outline = vtk.vtkPolyData()
    outline.SetPoints(points)
    outline.SetLines(corners)
    node.SetAndObservePolyData(outline)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*_rgb(view))
    display.SetLighting(False)
    display.SetVisibility2D(False)
    return node


def _addLine(
    line: dict[str, Any], view: dict[str, Any], other: dict[str, Any], named: list[np.ndarray]
) -> Any:
    """The line in which another view cuts a view, in the other's colour and with its name.

    Args:
        line: The line.
        view: The view in which it is drawn.
        other: The view that cuts.
        named: Where in the view names stand already; this one's place is added.
    """
    title = _("{other} in {view}").format(other=other["name"], view=view["name"])
    node = _newNode("vtkMRMLMarkupsLineNode", title, "line", view["name"])
    node.SetAttribute(OTHER, other["name"])
    ends = toRas(line["endpoints_mm"])
    # The name stands at the end that is further left in the view as it is read, if it is free.
    if np.diff(ends @ toRas(view["read_along"][0]))[0] < 0:
        ends = ends[::-1]
    corners = toRas(view["corners_mm"])
    room = _NAME_ROOM * float(np.linalg.norm(corners[0] - corners[2]))
    atLeft = all(np.linalg.norm(ends[0] - place) > room for place in named)
    if not atLeft:
        ends = ends[::-1]
    named.append(ends[0])
    for end in ends:
        node.AddControlPoint(vtk.vtkVector3d(*map(float, end)))
    node.SetNthControlPointLabel(0, other["name"])
    node.SetNthControlPointLabel(1, "")
    node.SetLocked(True)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*_rgb(other))
    display.SetSelectedColor(*_rgb(other))
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(True)
    display.SetTextScale(3.0)
    display.SetUseGlyphScale(True)  # as thick at any magnification
    display.SetGlyphScale(0.7)
    display.SetLineThickness(0.8)
    if not atLeft:
        display.GetTextProperty().SetJustificationToRight()
    return node


def _newNode(className: str, name: str, part: str, view: str) -> Any:
    """A node in the scene, marked as ours before anybody hears of it."""
    scene = slicer.mrmlScene
    node = scene.CreateNodeByClass(className)
    node.UnRegister(None)
    taken = scene.GetFirstNodeByName(name) is not None
    node.SetName(scene.GenerateUniqueName(name) if taken else name)
    node.SetAttribute(PART, part)
    node.SetAttribute(VIEW, view)
    scene.AddNode(node)
    return node


def _putInFolder(title: str, nodes: Sequence[Any]) -> None:
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), title)
    hierarchy.SetItemAttribute(folder, _FOLDER, "1")
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
        else:  # nothing has noticed the node yet
            hierarchy.CreateItem(folder, node)


def _items(hierarchy: Any, parent: int, recursive: bool = False) -> list[int]:
    found = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, found, recursive)
    return [found.GetId(index) for index in range(found.GetNumberOfIds())]


def _rgb(view: dict[str, Any]) -> list[float]:
    color = view["color"].lstrip("#")
    return [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]
