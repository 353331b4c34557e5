"""``qMRMLTableView``: a table node in a table."""

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
        self._fill()

    def _chosen(self) -> tuple[list[int], list[int]]:
        """Rows and columns of the chosen cells, from the last to the first."""
        cells = self.selectionModel().selectedIndexes()
        rows, columns = {cell.row() for cell in cells}, {cell.column() for cell in cells}
        return sorted(rows, reverse=True), sorted(columns, reverse=True)

    def insertRow(self) -> None:  # noqa: N802
        """Add an empty row at the end."""
        if self._table is not None:
            self._table.AddEmptyRow()

    def insertColumn(self) -> None:  # noqa: N802
        """Add an empty column at the end."""
        if self._table is not None:
            self._table.AddColumn()

    def deleteRow(self) -> None:  # noqa: N802
        """Remove the rows of the chosen cells."""
        for row in self._chosen()[0]:
            self._table.RemoveRow(row)

    def deleteColumn(self) -> None:  # noqa: N802
        """Remove the columns of the chosen cells."""
        for column in self._chosen()[1]:
            self._table.RemoveColumn(column)

    def copySelection(self) -> None:  # noqa: N802
        """Put the chosen cells on the clipboard, as text with tabs."""
        rows, columns = map(sorted, self._chosen())
        lines = [
            "\t".join(self._model.index(row, column).data() or "" for column in columns)
            for row in rows
        ]
        if lines:
            QtGui.QGuiApplication.clipboard().setText("\n".join(lines))

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
