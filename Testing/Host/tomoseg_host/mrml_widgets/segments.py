"""Widgets of segmentations: choosing a segment, listing segments, the editor's settings."""

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum
from .node_combo_box import NodeComboBox
from .observers import Observers
from .scene_widget import MRMLWidget


def _segment_ids(segmentation_node: object) -> list[str]:
    if segmentation_node is None or segmentation_node.GetSegmentation() is None:
        return []
    return list(segmentation_node.GetSegmentation().GetSegmentIDs())


@implements("qMRMLSegmentSelectorWidget")
class SegmentSelectorWidget(MRMLWidget):
    """A segmentation and one of its segments."""

    currentNodeChanged = QtCore.Signal(object)
    currentNodeChangedBool = QtCore.Signal(bool)
    currentSegmentChanged = QtCore.Signal(str)
    segmentSelectionChanged = QtCore.Signal("QStringList")
    nodeAboutToBeEdited = QtCore.Signal(object)

    facade_signals = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeChangedBool",
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._nodes, self._segments = NodeComboBox(self), QtWidgets.QComboBox(self)
        self._nodes.addEnabled = self._nodes.removeEnabled = False
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)
        self._observers = Observers(self)
        self._nodes.currentNodeChanged.connect(self._node_changed)
        self._segments.currentIndexChanged.connect(self._segment_changed)

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Set the scene."""
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    def _node_changed(self, node: object) -> None:
        self._observers.clear()
        if node is not None:
            self._observers.add(node.GetSegmentation(), "ModifiedEvent", "_list_segments")
            for event in (
                slicer.vtkSegmentation.SegmentAdded,
                slicer.vtkSegmentation.SegmentRemoved,
                slicer.vtkSegmentation.SegmentModified,
            ):
                self._observers.add(node.GetSegmentation(), event, "_list_segments")
        self._list_segments()
        self.currentNodeChanged.emit(node)
        self.currentNodeChangedBool.emit(node is not None)

    def _list_segments(self) -> None:
        node, before = self._nodes.currentNode(), self.currentSegmentID()
        blocked = self._segments.blockSignals(True)
        self._segments.clear()
        if self.noneEnabled:
            self._segments.addItem("None", "")
        for identifier in _segment_ids(node):
            segment = node.GetSegmentation().GetSegment(identifier)
            self._segments.addItem(segment.GetName() or identifier, identifier)
        self._segments.setCurrentIndex(
            max(self._segments.findData(before), 0) if self._segments.count() else -1
        )
        self._segments.blockSignals(blocked)
        if self.currentSegmentID() != before:
            self._segment_changed()

    def _segment_changed(self, *_: object) -> None:
        self.currentSegmentChanged.emit(self.currentSegmentID())
        self.segmentSelectionChanged.emit(self.selectedSegmentIDs())

    def currentNode(self) -> object:  # noqa: N802
        """The segmentation, or None."""
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:  # noqa: N802
        """The ID of the segmentation."""
        return self._nodes.currentNodeID

    def currentSegmentID(self) -> str:  # noqa: N802
        """The ID of the segment, "" where there is none."""
        return self._segments.currentData() or ""

    def selectedSegmentIDs(self) -> list[str]:  # noqa: N802
        """The chosen segments (here one at most)."""
        return [self.currentSegmentID()] if self.currentSegmentID() else []

    def segmentIDs(self) -> list[str]:  # noqa: N802
        """All segments."""
        return _segment_ids(self.currentNode())

    def setCurrentNode(self, node: object) -> None:  # noqa: N802
        """Choose a segmentation."""
        self._nodes.setCurrentNode(node)

    def setCurrentNodeID(self, identifier: str) -> None:  # noqa: N802
        """Choose a segmentation by its ID."""
        self._nodes.setCurrentNodeID(identifier)

    def setCurrentSegmentID(self, identifier: str) -> None:  # noqa: N802
        """Choose a segment."""
        self._segments.setCurrentIndex(self._segments.findData(identifier))

    def setSelectedSegmentIDs(self, identifiers: list[str]) -> None:  # noqa: N802
        """Choose the first of some segments."""
        if identifiers:
            self.setCurrentSegmentID(identifiers[0])

    def _set_none(self, on: bool) -> None:
        self._nodes.noneEnabled = on
        self._list_segments()

    noneEnabled = QtCore.Property(bool, lambda self: self._nodes.noneEnabled, _set_none)
    editEnabled = QtCore.Property(
        bool,
        lambda self: self._nodes.editEnabled,
        lambda self, on: setattr(self._nodes, "editEnabled", on),
    )
    segmentationNodeSelectorVisible = QtCore.Property(
        bool, lambda self: not self._nodes.isHidden(), lambda self, on: self._nodes.setVisible(on)
    )
    multiSelection = stored(bool, False)
    horizontalLayout = stored(bool, False)
    selectNodeUponCreation = stored(bool, True)


@implements("qMRMLSegmentsTableView")
class SegmentsTableView(MRMLWidget):
    """The segments of a segmentation with colour, opacity and visibility."""

    selectionChanged = QtCore.Signal(QtCore.QItemSelection, QtCore.QItemSelection)
    segmentAboutToBeModified = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node: object = None
        self._table = QtWidgets.QTableWidget(0, 3, self)
        self._table.setHorizontalHeaderLabels(["", "Name", "Opacity"])
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().setStretchLastSection(True)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._observers = Observers(self)
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged)

    def segmentationNode(self) -> object:  # noqa: N802
        """The segmentation."""
        return self._node

    def setSegmentationNode(self, node: object) -> None:  # noqa: N802
        """Show a segmentation."""
        self._observers.clear()
        self._node = node
        if node is not None:
            events = slicer.vtkSegmentation
            for event in (events.SegmentAdded, events.SegmentRemoved, events.SegmentModified):
                self._observers.add(node.GetSegmentation(), event, "_fill")
        self._fill()

    def _fill(self) -> None:
        identifiers = _segment_ids(self._node)
        self._table.setRowCount(len(identifiers))
        for row, identifier in enumerate(identifiers):
            segment = self._node.GetSegmentation().GetSegment(identifier)
            color = QtWidgets.QTableWidgetItem()
            color.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            name = QtWidgets.QTableWidgetItem(segment.GetName() or identifier)
            name.setData(QtCore.Qt.ItemDataRole.UserRole, identifier)
            for column, item in enumerate((color, name)):
                self._table.setItem(row, column, item)

    def tableWidget(self) -> QtWidgets.QTableView:  # noqa: N802
        """The table."""
        return self._table

    def selectedSegmentIDs(self) -> list[str]:  # noqa: N802
        """The chosen segments."""
        rows = sorted({index.row() for index in self._table.selectedIndexes()})
        return [self.segmentIDForRow(row) for row in rows]

    def setSelectedSegmentIDs(self, identifiers: list[str]) -> None:  # noqa: N802
        """Choose segments."""
        self._table.clearSelection()
        for identifier in identifiers:
            self._table.selectRow(self.rowForSegmentID(identifier))

    def clearSelection(self) -> None:  # noqa: N802
        """Choose none."""
        self._table.clearSelection()

    def displayedSegmentIDs(self) -> list[str]:  # noqa: N802
        """The segments that are listed."""
        return _segment_ids(self._node)

    def rowForSegmentID(self, identifier: str) -> int:  # noqa: N802
        """The row of a segment, or -1."""
        identifiers = _segment_ids(self._node)
        return identifiers.index(identifier) if identifier in identifiers else -1

    def segmentIDForRow(self, row: int) -> str:  # noqa: N802
        """The segment of a row."""
        return self._table.item(row, 1).data(QtCore.Qt.ItemDataRole.UserRole)

    segmentCount = QtCore.Property(int, lambda self: len(_segment_ids(self._node)))
    selectionMode = stored_enum(3)
    headerVisible = stored(bool, True)
    visibilityColumnVisible = stored(bool, True)
    colorColumnVisible = stored(bool, True)
    opacityColumnVisible = stored(bool, True)
    statusColumnVisible = stored(bool, True)


@implements("qMRMLSegmentEditorWidget")
class SegmentEditorWidget(MRMLWidget):
    """What a module hands over to the segment editor: nodes, segment and effect (no painting)."""

    currentSegmentIDChanged = QtCore.Signal(str)
    sourceVolumeNodeChanged = QtCore.Signal(object)
    segmentationNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._editor: object = None
        layout = QtWidgets.QVBoxLayout(self)
        self._text = QtWidgets.QLabel(self)
        self._text.setWordWrap(True)
        self._table = SegmentsTableView(self)
        layout.addWidget(self._text)
        layout.addWidget(self._table)

    def mrmlSegmentEditorNode(self) -> object:  # noqa: N802
        """The node that keeps the editor's settings."""
        return self._editor

    def setMRMLSegmentEditorNode(self, node: object) -> None:  # noqa: N802
        """Set the node that keeps the editor's settings."""
        self._editor = node
        self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:  # noqa: N802
        """Show what the node says."""
        segmentation, volume = self.segmentationNode(), self.sourceVolumeNode()
        names = [each.GetName() if each is not None else "none" for each in (segmentation, volume)]
        self._text.setText(f"Segmentation: {names[0]}\nSource volume: {names[1]}")
        self._table.setSegmentationNode(segmentation)

    def _set(self, setter: str, value: object, signal: object, told: object) -> None:
        if self._editor is not None:
            getattr(self._editor, setter)(value)
            self.updateWidgetFromMRML()
            signal.emit(told)

    def segmentationNode(self) -> object:  # noqa: N802
        """The edited segmentation."""
        return self._editor.GetSegmentationNode() if self._editor is not None else None

    def setSegmentationNode(self, node: object) -> None:  # noqa: N802
        """Edit a segmentation."""
        self._set("SetAndObserveSegmentationNode", node, self.segmentationNodeChanged, node)

    def sourceVolumeNode(self) -> object:  # noqa: N802
        """The volume whose intensities effects use."""
        return self._editor.GetSourceVolumeNode() if self._editor is not None else None

    def setSourceVolumeNode(self, node: object) -> None:  # noqa: N802
        """Set the volume; it becomes the segmentation's reference geometry."""
        segmentation = self.segmentationNode()
        if segmentation is not None and node is not None:
            segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
        self._set("SetAndObserveSourceVolumeNode", node, self.sourceVolumeNodeChanged, node)

    def currentSegmentID(self) -> str:  # noqa: N802
        """The edited segment."""
        return (self._editor.GetSelectedSegmentID() or "") if self._editor is not None else ""

    def setCurrentSegmentID(self, identifier: str) -> None:  # noqa: N802
        """Edit a segment."""
        self._set("SetSelectedSegmentID", identifier, self.currentSegmentIDChanged, identifier)

    def setActiveEffectByName(self, name: str) -> None:  # noqa: N802
        """Choose an effect (its name is kept, nothing is painted)."""
        if self._editor is not None:
            self._editor.SetActiveEffectName(name)

    def availableEffectNames(self) -> list[str]:  # noqa: N802
        """The effects of a plain Slicer."""
        return [
            "Draw",
            "Erase",
            "Fill between slices",
            "Grow from seeds",
            "Hollow",
            "Islands",
            "Level tracing",
            "Logical operators",
            "Margin",
            "Mask volume",
            "Paint",
            "Scissors",
            "Smoothing",
            "Threshold",
        ]

    def saveStateForUndo(self) -> None:  # noqa: N802
        """Nothing to keep here."""
