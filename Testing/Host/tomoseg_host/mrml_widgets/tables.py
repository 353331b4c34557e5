"""``qMRMLTableView``: a table node in a table."""

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored
from .observers import Observers


@implements("qMRMLTableView")
class TableView(QtWidgets.QTableView):
    """The rows and columns of a table node."""

    mrmlSceneChanged = QtCore.Signal(object)
    selectionChangedSignal = QtCore.Signal()

    facade_signals = {"selectionChanged()": "selectionChangedSignal"}

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene = self._table = None
        self._observers = Observers(self)
        self._model = QtGui.QStandardItemModel(self)
        self.setModel(self._model)
        self.selectionModel().selectionChanged.connect(
            lambda *_: self.selectionChangedSignal.emit()
        )

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Set the scene."""
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlTableNode(self) -> object:  # noqa: N802
        """The table node."""
        return self._table

    def setMRMLTableNode(self, node: object) -> None:  # noqa: N802
        """Show a table node."""
        self._observers.clear()
        self._table = node
        if node is not None:
            self._observers.add(node, "ModifiedEvent", "_fill")
            self._observers.add(node, slicer.vtkMRMLTableNode.TableModifiedEvent, "_fill")
        self._fill()

    def _fill(self) -> None:
        self._model.clear()
        node = self._table
        if node is None:
            return
        columns = range(node.GetNumberOfColumns())
        self._model.setHorizontalHeaderLabels([node.GetColumnName(i) or "" for i in columns])
        for row in range(node.GetNumberOfRows()):
            self._model.appendRow(
                [QtGui.QStandardItem(node.GetCellText(row, i) or "") for i in columns]
            )

    transposed = stored(bool, False)
    firstRowLocked = stored(bool, False)
    firstColumnLocked = stored(bool, False)
