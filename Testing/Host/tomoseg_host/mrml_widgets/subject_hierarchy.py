"""``qMRMLSubjectHierarchyTreeView``: the tree of the scene's data."""

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored
from .observers import Observers

_ROLE = QtCore.Qt.ItemDataRole.UserRole


@implements("qMRMLSubjectHierarchyTreeView")
class SubjectHierarchyTreeView(QtWidgets.QTreeView):
    """The subject hierarchy, read from its node."""

    currentItemChanged = QtCore.Signal("qlonglong")
    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene: object = None
        self._observers = Observers(self)
        self._model = QtGui.QStandardItemModel(self)
        self.setModel(self._model)
        self.selectionModel().currentChanged.connect(self._current_changed)

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene."""
        return self._scene

    def subjectHierarchyNode(self) -> object:  # noqa: N802
        """The node of the hierarchy, or None."""
        if self._scene is None:
            return None
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Show the hierarchy of a scene."""
        self._observers.clear()
        self._scene = scene
        node = self.subjectHierarchyNode()
        if node is not None:
            kinds = slicer.vtkMRMLSubjectHierarchyNode
            for event in (
                kinds.SubjectHierarchyItemAddedEvent,
                kinds.SubjectHierarchyItemRemovedEvent,
                kinds.SubjectHierarchyItemModifiedEvent,
                kinds.SubjectHierarchyItemReparentedEvent,
            ):
                self._observers.add(node, event, "_fill")
        self._fill()

    def _fill(self) -> None:
        current = self.currentItem()
        self._model.clear()
        self._model.setHorizontalHeaderLabels(["Node"])
        node = self.subjectHierarchyNode()
        if node is not None:
            self._add(node, node.GetSceneItemID(), self._model.invisibleRootItem())
        self.expandAll()
        if current:
            self.setCurrentItem(current)

    def _add(self, node: object, identifier: int, parent: QtGui.QStandardItem) -> None:
        import vtk

        children = vtk.vtkIdList()
        node.GetItemChildren(identifier, children, False)
        for index in range(children.GetNumberOfIds()):
            child = children.GetId(index)
            data = node.GetItemDataNode(child)
            if (
                data is not None
                and self.nodeTypes
                and not any(data.IsA(each) for each in self.nodeTypes)
            ):
                continue
            item = QtGui.QStandardItem(node.GetItemName(child))
            item.setData(child, _ROLE)
            item.setEditable(False)
            parent.appendRow(item)
            self._add(node, child, item)

    def _current_changed(self, *_: object) -> None:
        self.currentItemChanged.emit(self.currentItem())
        self.currentNodeChanged.emit(self.currentNode())

    def currentItem(self) -> int:  # noqa: N802
        """The ID of the chosen item, 0 for none."""
        index = self.currentIndex()
        return int(index.data(_ROLE)) if index.isValid() else 0

    def currentNode(self) -> object:  # noqa: N802
        """The node of the chosen item."""
        node, item = self.subjectHierarchyNode(), self.currentItem()
        return node.GetItemDataNode(item) if node is not None and item else None

    def setCurrentItem(self, identifier: int) -> None:  # noqa: N802
        """Choose an item."""
        found = self._model.match(
            self._model.index(0, 0), _ROLE, identifier, 1, QtCore.Qt.MatchFlag.MatchRecursive
        )
        if found:
            self.setCurrentIndex(found[0])

    def setCurrentNode(self, node: object) -> None:  # noqa: N802
        """Choose the item of a node."""
        hierarchy = self.subjectHierarchyNode()
        if hierarchy is not None and node is not None:
            self.setCurrentItem(hierarchy.GetItemByDataNode(node))

    def displayedItemCount(self) -> int:  # noqa: N802
        """How many items are shown."""
        return (
            len(
                self._model.match(
                    self._model.index(0, 0), _ROLE, None, -1, QtCore.Qt.MatchFlag.MatchRecursive
                )
            )
            or self._model.rowCount()
        )

    nodeTypes = stored("QStringList", list, "_fill")
    contextMenuEnabled = stored(bool, True)
    editMenuActionVisible = stored(bool, True)
