"""``qMRMLSubjectHierarchyTreeView``: the tree of the scene's data."""

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import find, implements
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
        self._root = 0
        self._observers = Observers(self)
        self._hierarchy_model = find("qMRMLSubjectHierarchyModel")(self)
        self._proxy_model = find("qMRMLSortFilterSubjectHierarchyProxyModel")(self)
        self._model = QtGui.QStandardItemModel(self)
        self.setModel(self._model)
        self.selectionModel().currentChanged.connect(self._current_changed)
        self.setIndentation(8)
        self.setDragDropMode(QtWidgets.QAbstractItemView.DragDropMode.InternalMove)
        self.setMultiSelection(True)
        self.setContextMenuPolicy(QtCore.Qt.ContextMenuPolicy.CustomContextMenu)

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
        self._root = node.GetSceneItemID() if node is not None else 0
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
            self._add(node, self._root, self._model.invisibleRootItem())
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

    def model(self) -> QtCore.QAbstractItemModel:
        """The model of the hierarchy (what is shown comes from one of the host's own)."""
        return self._hierarchy_model

    def sortFilterProxyModel(self) -> QtCore.QAbstractItemModel:  # noqa: N802
        """What sorts and filters it."""
        return self._proxy_model

    def rootItem(self) -> int:  # noqa: N802
        """The ID of the item whose children are shown, 0 without a scene."""
        return self._root

    def setRootItem(self, identifier: int) -> None:  # noqa: N802
        """Show the children of an item."""
        if self.subjectHierarchyNode() is not None:
            self._root = identifier or self.subjectHierarchyNode().GetSceneItemID()
            self._fill()

    def setMultiSelection(self, on: bool) -> None:  # noqa: N802
        """Whether several items can be chosen."""
        modes = QtWidgets.QAbstractItemView.SelectionMode
        self.setSelectionMode(modes.ExtendedSelection if on else modes.SingleSelection)

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
    multiSelection = QtCore.Property(
        bool,
        lambda self: self.selectionMode() is type(self.selectionMode()).ExtendedSelection,
        setMultiSelection,
    )
