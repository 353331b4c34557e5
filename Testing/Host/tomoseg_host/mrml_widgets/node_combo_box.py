"""``qMRMLNodeComboBox`` and its kin: choosing nodes of a scene."""

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import find, implements
from ..qtproperty import stored, stored_enum
from .observers import Observers

_NODE_ROLE = QtCore.Qt.ItemDataRole.UserRole


@implements("qMRMLNodeComboBox")
class NodeComboBox(QtWidgets.QWidget):
    """A combo box of the scene's nodes, with entries to make, rename and delete them."""

    currentNodeChanged = QtCore.Signal(object)
    currentNodeChangedBool = QtCore.Signal(bool)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAddedByUserAction = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)
    currentNodeRenamed = QtCore.Signal(str)
    nodeAboutToBeEdited = QtCore.Signal(object)

    facade_signals = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeChangedBool",
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setPlaceholderText("Select a node")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        policy = QtWidgets.QSizePolicy.Policy
        self._combo.setSizePolicy(policy.Expanding, policy.Fixed)
        self.setSizePolicy(policy.Expanding, policy.Fixed)
        self.setFocusProxy(self._combo)
        self._combo.activated.connect(self._activated)
        self._scene: object = None
        self._observers = Observers(self)
        self._node_observers = Observers(self)
        self._nodes: list = []
        self._current: object = None
        self._requested: object = None
        self._attributes: dict[str, dict[str, object]] = {}
        self._labels: dict[str, str] = {}
        self._actions: list[QtGui.QAction] = []
        self._proxy: QtCore.QSortFilterProxyModel | None = None
        # Without a scene there is nothing to choose.
        self.setEnabled(False)

    # -- the scene ---------------------------------------------------------------------------------

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene, or None."""
        return self._scene

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Set the scene; with nodes in it, the requested one or (without "None") the first is
        chosen."""
        if scene is self._scene:
            return
        had_nodes, before = bool(self._nodes), self._current
        self._observers.clear()
        self._scene = scene
        self._list()
        if scene is not None:
            events = slicer.vtkMRMLScene
            self._observers.add(scene, events.NodeAddedEvent, "_node_added", data=True)
            self._observers.add(scene, events.NodeAboutToBeRemovedEvent, "_node_leaves", data=True)
            self._observers.add(scene, events.NodeRemovedEvent, "_node_removed", data=True)
            for event in (
                events.EndBatchProcessEvent,
                events.EndImportEvent,
                events.EndCloseEvent,
                events.EndRestoreEvent,
            ):
                self._observers.add(scene, event, "_scene_settled")
        if had_nodes:
            wanted = before
        elif self._requested is not None:
            wanted = (
                scene.GetNodeByID(self._requested)
                if isinstance(self._requested, str) and scene
                else self._requested
            )
        else:
            wanted = self._nodes[0] if self._nodes and not self.noneEnabled else None
        self._requested = None
        self._choose(wanted if wanted in self._nodes else None)
        self.setEnabled(scene is not None)

    def _accepts(self, node: object) -> bool:
        """Whether a node belongs into the list."""
        types = self.nodeTypes
        if node is None or (types and not any(self._is_of_type(node, each) for each in types)):
            return False
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(each) for each in self.hideChildNodeTypes):
            return False
        for type_, wanted in self._attributes.items():
            if not node.IsA(type_):
                continue
            for name, value in wanted.items():
                found = node.GetAttribute(name)
                if found is None or (value is not None and found != str(value)):
                    return False
        return True

    def _is_of_type(self, node: object, type_: str) -> bool:
        return node.IsA(type_) if self.showChildNodeTypes else node.GetClassName() == type_

    def _candidates(self) -> list:
        """All nodes of the scene that have one of the types, hidden or not."""
        scene = self._scene
        if scene is None:
            return []
        nodes = (scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes()))
        types = self.nodeTypes
        return [node for node in nodes if not types or any(node.IsA(each) for each in types)]

    def _list(self) -> None:
        """Read the nodes from the scene and show them; the choice stays where it can."""
        candidates = self._candidates()
        self._nodes = [node for node in candidates if self._accepts(node)]
        self._node_observers.clear()
        for node in candidates:
            self._node_observers.add(node, "ModifiedEvent", "_node_modified")
        self._fill()

    def _node_modified(self) -> None:
        """A node has another name, or shows or hides itself."""
        if [node for node in self._candidates() if self._accepts(node)] != self._nodes:
            self._refresh()
            return
        shown = [self._combo.itemText(self._row(node)) for node in self._nodes]
        if shown != [node.GetName() or "" for node in self._nodes]:
            self._fill()

    def _row(self, node: object) -> int:
        """The row of a node in the combo box."""
        return self._nodes.index(node) + bool(self.noneEnabled) if node in self._nodes else -1

    def _fill(self) -> None:
        before = self._combo.blockSignals(True)
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay)
        for node in self._nodes:
            self._combo.addItem(node.GetName() or "", node.GetID())
        entries = self._entries() if self._scene is not None else []
        if entries:
            self._combo.insertSeparator(self._combo.count())
        for text, _ in entries:
            self._combo.addItem(text)
        self._show_current()
        self._combo.blockSignals(before)

    def _show_current(self) -> None:
        row = self._row(self._current) if self._current is not None else -1
        if row < 0:
            row = 0 if self.noneEnabled else -1
        before = self._combo.blockSignals(True)
        self._combo.setCurrentIndex(row)
        self._combo.blockSignals(before)

    def _entries(self) -> list[tuple[str, object]]:
        """The entries below the nodes, and what they do."""
        label = self.nodeTypeLabel(self.nodeTypes[0] if len(self.nodeTypes) == 1 else "")
        entries: list[tuple[str, object]] = []
        if self.renameEnabled:
            entries.append((f"Rename current {label}", self.renameCurrentNode))
        if self.editEnabled:
            entries.append((f"Edit current {label}", self.editCurrentNode))
        if self.addEnabled:
            for type_ in self.nodeTypes:
                entries.append(
                    (
                        f"Create new {self.nodeTypeLabel(type_)}",
                        lambda type_=type_: self._add_by_action(type_),
                    )
                )
        if self.removeEnabled:
            entries.append((f"Delete current {label}", self.removeCurrentNode))
        return entries + [(action.text(), action.trigger) for action in self._actions]

    def _activated(self, row: int) -> None:
        """The user chose a row: none, a node, or something to do."""
        first = bool(self.noneEnabled)
        if row < first:
            self._choose(None)
        elif row < first + len(self._nodes):
            self._choose(self._nodes[row - first])
        else:
            action = row - first - len(self._nodes) - 1
            self._show_current()
            entries = self._entries()
            if 0 <= action < len(entries):
                entries[action][1]()
            return
        self.nodeActivated.emit(self._current)

    # -- events of the scene -----------------------------------------------------------------------

    def _busy(self) -> bool:
        return self._scene.IsBatchProcessing()

    def _node_added(self, node: object) -> None:
        if self._busy() or not self._accepts(node):
            return
        first = not self._nodes
        self._list()
        # With nothing but nodes in the list, Qt chooses the first one that comes.
        if first and self._current is None and not self.noneEnabled and not self._entries():
            self._choose(node)
        self.nodeAdded.emit(node)

    def _node_leaves(self, node: object) -> None:
        if node in self._nodes:
            self._leaving = self._nodes.index(node)
            self.nodeAboutToBeRemoved.emit(node)

    def _node_removed(self, node: object) -> None:
        if self._busy() or node not in self._nodes:
            return
        self._list()
        if node is self._current:
            self._replace_current(getattr(self, "_leaving", 0))

    def _replace_current(self, row: int) -> None:
        """The chosen node is gone: the next one, or the last, or none takes its place."""
        if not self._nodes:
            self._choose(None)
        else:
            self._choose(self._nodes[min(row, len(self._nodes) - 1)])

    def _scene_settled(self) -> None:
        if self._busy():
            return
        self._list()
        if self._current is not None and self._current not in self._nodes:
            self._replace_current(0)
        elif self._current is None and self._nodes and not self.noneEnabled and not self._entries():
            self._choose(self._nodes[0])

    # -- the choice --------------------------------------------------------------------------------

    def _choose(self, node: object) -> None:
        changed = node is not self._current
        self._current = node
        self._show_current()
        if changed:
            self.currentNodeChanged.emit(node)
            self.currentNodeChangedBool.emit(node is not None)
            self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def currentNode(self) -> object:  # noqa: N802
        """The chosen node, or None."""
        return self._current

    def setCurrentNode(self, node: object) -> None:  # noqa: N802
        """Choose a node (or one by its ID); one that is not in the list chooses none."""
        if isinstance(node, str):
            self.setCurrentNodeID(node)
            return
        if self._scene is None:
            self._requested = node
            return
        self._choose(node if node in self._nodes else None)

    def setCurrentNodeID(self, identifier: str) -> None:  # noqa: N802
        """Choose a node by its ID."""
        if self._scene is None:
            self._requested = identifier
            return
        self.setCurrentNode(self._scene.GetNodeByID(identifier) if identifier else None)

    def setCurrentNodeIndex(self, index: int) -> None:  # noqa: N802
        """Choose the node at a position."""
        self._choose(self.nodeFromIndex(index))

    def _get_id(self) -> str:
        return self._current.GetID() or "" if self._current is not None else ""

    def nodeCount(self) -> int:  # noqa: N802
        """How many nodes are in the list."""
        return len(self._nodes)

    def nodeFromIndex(self, index: int) -> object:  # noqa: N802
        """The node at a position, or None."""
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    # -- making and changing nodes -----------------------------------------------------------------

    def addNode(self, type_: str = "") -> object:  # noqa: N802
        """Make a node of a type of the list (the first one by default)."""
        type_ = type_ or (self.nodeTypes[0] if self.nodeTypes else "")
        if type_ not in self.nodeTypes or self._scene is None:
            return None
        name = self.baseName or self._scene.GetTypeDisplayNameByClassName(type_) or type_
        node = self._scene.CreateNodeByClass(type_)
        if node is None:
            return None
        node.UnRegister(None)
        node.SetName(self._scene.GetUniqueNameByString(name))
        for each, wanted in self._attributes.items():
            if node.IsA(each):
                for key, value in wanted.items():
                    node.SetAttribute(key, "" if value is None else str(value))
        self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def _add_by_action(self, type_: str) -> None:
        self.nodeAddedByUserAction.emit(self.addNode(type_))

    def removeCurrentNode(self) -> None:  # noqa: N802
        """Remove the chosen node from the scene."""
        if self._current is not None:
            self._scene.RemoveNode(self._current)

    def editCurrentNode(self) -> None:  # noqa: N802
        """Ask whoever listens to edit the chosen node."""
        if self._current is not None:
            self.nodeAboutToBeEdited.emit(self._current)

    def renameCurrentNode(self) -> None:  # noqa: N802
        """Ask for a new name."""
        if self._current is None:
            return
        title = f"Rename {self.nodeTypeLabel(self._current.GetClassName())}"
        text, accepted = QtWidgets.QInputDialog.getText(
            self,
            title,
            "New name:",
            QtWidgets.QLineEdit.EchoMode.Normal,
            self._current.GetName() or "",
        )
        if accepted and text:
            self._current.SetName(text)
            self.currentNodeRenamed.emit(text)

    def addAttribute(self, type_: str, name: str, value: object = None) -> None:  # noqa: N802
        """List only nodes of a type that have an attribute (with that value)."""
        self._attributes.setdefault(type_, {})[name] = value
        self._refresh()

    def removeAttribute(self, type_: str, name: str) -> None:  # noqa: N802
        """Undo `addAttribute`."""
        self._attributes.get(type_, {}).pop(name, None)
        self._refresh()

    def setNodeTypeLabel(self, label: str, type_: str) -> None:  # noqa: N802
        """Set how a type is called in the entries."""
        self._labels[type_] = label
        self._refresh()

    def nodeTypeLabel(self, type_: str) -> str:  # noqa: N802
        """How a type is called."""
        if type_ in self._labels:
            return self._labels[type_]
        if self._scene is not None and type_:
            label = self._scene.GetTypeDisplayNameByClassName(type_)
            if label:
                return label
        return "node"

    def addMenuAction(self, action: QtGui.QAction) -> None:  # noqa: N802
        """Add an entry."""
        self._actions.append(action)
        self._refresh()

    def sortFilterProxyModel(self) -> QtCore.QSortFilterProxyModel:  # noqa: N802
        """The filter, for its properties."""
        if self._proxy is None:
            self._proxy = find("qMRMLSortFilterProxyModel")(self)
            self._proxy.nodeTypes = self.nodeTypes
        return self._proxy

    def combo_box(self) -> QtWidgets.QComboBox:
        """The inner combo box, for the host and its tests."""
        return self._combo

    def _refresh(self) -> None:
        """A property changed what belongs into the list."""
        self._list()
        if self._current is not None and self._current not in self._nodes:
            self._choose(None)
        self._combo.setPlaceholderText(
            f"Select a {self.nodeTypeLabel(self.nodeTypes[0] if self.nodeTypes else '')}"
        )

    currentNodeID = QtCore.Property(str, _get_id, setCurrentNodeID, notify=currentNodeIDChanged)
    currentNodeId = QtCore.Property(str, _get_id, setCurrentNodeID)
    nodeTypes = stored("QStringList", list, "_refresh")
    showHidden = stored(bool, False, "_refresh")
    showChildNodeTypes = stored(bool, True, "_refresh")
    hideChildNodeTypes = stored("QStringList", list, "_refresh")
    baseName = stored(str, "")
    noneEnabled = stored(bool, False, "_refresh")
    addEnabled = stored(bool, True, "_refresh")
    removeEnabled = stored(bool, True, "_refresh")
    editEnabled = stored(bool, False, "_refresh")
    renameEnabled = stored(bool, False, "_refresh")
    interactionNodeSingletonTag = stored(str, "Singleton")
    selectNodeUponCreation = stored(bool, True)
    noneDisplay = stored(str, "None", "_refresh")
    sizeAdjustPolicy = stored_enum(
        QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToContentsOnFirstShow.value
    )


@implements("qMRMLCheckableNodeComboBox")
class CheckableNodeComboBox(NodeComboBox):
    """A node list with check boxes."""

    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._checked: list = []

    def checkedNodes(self) -> list:  # noqa: N802
        """The checked nodes."""
        return [node for node in self._nodes if node in self._checked]

    def uncheckedNodes(self) -> list:  # noqa: N802
        """The others."""
        return [node for node in self._nodes if node not in self._checked]

    def allChecked(self) -> bool:  # noqa: N802
        """Whether no node is unchecked."""
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:  # noqa: N802
        """Whether no node is checked."""
        return not self.checkedNodes()

    def checkState(self, node: object) -> QtCore.Qt.CheckState:  # noqa: N802
        """The state of a node."""
        state = QtCore.Qt.CheckState
        return state.Checked if node in self._checked else state.Unchecked

    def setCheckState(self, node: object, state: object) -> None:  # noqa: N802
        """Check or uncheck a node."""
        checked = state == QtCore.Qt.CheckState.Checked
        if checked == (node in self._checked):
            return
        (self._checked.append if checked else self._checked.remove)(node)
        self.checkedNodesChanged.emit()

    def check(self, node: object) -> None:
        """Check a node."""
        self.setCheckState(node, QtCore.Qt.CheckState.Checked)

    def uncheck(self, node: object) -> None:
        """Uncheck a node."""
        self.setCheckState(node, QtCore.Qt.CheckState.Unchecked)


@implements("qMRMLColorTableComboBox")
class ColorTableComboBox(NodeComboBox):
    """The colour tables of the scene, hidden ones too."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.showHidden = True
        self.nodeTypes = ["vtkMRMLColorTableNode", "vtkMRMLProceduralColorNode"]
        self.addEnabled = self.removeEnabled = False
