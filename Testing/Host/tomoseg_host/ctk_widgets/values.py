"""``ctkMatrixWidget``, ``ctkCoordinatesWidget``, ``ctkAxesWidget``, ``ctkPathListWidget``: several
values in one widget."""

import math
import os
import sys

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import number, stored
from .spin_box import DoubleSpinBox

_DISPLAY = QtCore.Qt.ItemDataRole.DisplayRole


@implements("ctkMatrixWidget")
class MatrixWidget(QtWidgets.QWidget):
    """A matrix; it begins as the identity."""

    matrixChanged = QtCore.Signal()
    decimalsChanged = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._low, self._high, self._decimals = -100.0, 100.0, 2
        self._table = QtWidgets.QTableWidget(4, 4, self)
        self._table.horizontalHeader().hide()
        self._table.verticalHeader().hide()
        self._table.setFrameStyle(QtWidgets.QFrame.Shape.NoFrame)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.cellChanged.connect(lambda *_: self.matrixChanged.emit())
        self._complete()
        self._set_editable(True)

    def _places(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.rowCount) for j in range(self.columnCount)]

    def _complete(self) -> None:
        """Make items that are missing, and bring the others into the range."""
        for i, j in self._places():
            if self._table.item(i, j) is None:
                self._table.setItem(i, j, QtWidgets.QTableWidgetItem())
                self.setValue(i, j, float(i == j))
            else:
                self.setValue(i, j, self.value(i, j))

    def identity(self) -> None:
        """Ones on the diagonal."""
        for i, j in self._places():
            self.setValue(i, j, float(i == j))

    def value(self, i: int, j: int) -> float:
        """The value in row ``i`` and column ``j``."""
        return float(self._table.item(i, j).data(_DISPLAY) or 0.0)

    def setValue(self, i: int, j: int, value: float) -> None:  # noqa: N802
        """Set one value, as near as the range allows."""
        item, value = self._table.item(i, j), max(self._low, min(value, self._high))
        if item.data(_DISPLAY) != value:
            item.setData(_DISPLAY, value)

    def widgetItem(self, i: int, j: int) -> QtWidgets.QTableWidgetItem:  # noqa: N802
        """The item of one value."""
        return self._table.item(i, j)

    def setDecimals(self, decimals: int) -> None:  # noqa: N802
        """Set how many decimals are shown."""
        if decimals != self._decimals:
            self._decimals = max(0, decimals)
            self.decimalsChanged.emit(self._decimals)

    def _set_values(self, values: list) -> None:
        before, blocked = self._values(), self.blockSignals(True)
        for (i, j), value in zip(self._places(), values, strict=False):
            self.setValue(i, j, value)
        self.blockSignals(blocked)
        if self._values() != before:
            self.matrixChanged.emit()

    def _values(self) -> list[float]:
        return [self.value(i, j) for i, j in self._places()]

    def _set_count(self, rows: int, columns: int) -> None:
        self._table.setRowCount(rows)
        self._table.setColumnCount(columns)
        self._complete()

    def _set_range(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._complete()

    def _set_editable(self, on: bool) -> None:
        triggers = QtWidgets.QAbstractItemView.EditTrigger
        self._table.setEditTriggers(triggers.DoubleClicked if on else triggers.NoEditTriggers)

    rowCount = QtCore.Property(
        int,
        lambda self: self._table.rowCount(),
        lambda self, count: self._set_count(count, self.columnCount),
    )
    columnCount = QtCore.Property(
        int,
        lambda self: self._table.columnCount(),
        lambda self, count: self._set_count(self.rowCount, count),
    )
    editable = QtCore.Property(bool, lambda self: bool(self._table.editTriggers()), _set_editable)
    minimum = QtCore.Property(
        float,
        lambda self: self._low,
        lambda self, low: self._set_range(low, max(low, self._high)),
    )
    maximum = QtCore.Property(
        float,
        lambda self: self._high,
        lambda self, high: self._set_range(min(self._low, high), high),
    )
    decimals = QtCore.Property(int, lambda self: self._decimals, setDecimals)
    singleStep = stored(float, 0.01)
    values = QtCore.Property("QVariantList", _values, _set_values)


@implements("ctkCoordinatesWidget")
class CoordinatesWidget(QtWidgets.QWidget):
    """The coordinates of a point, each in a spin box."""

    coordinatesChanged = QtCore.Signal(object)
    coordinatesChangedFour = QtCore.Signal(float, float, float, float)

    facade_signals = {
        "coordinatesChanged(double*)": "coordinatesChanged",
        "coordinatesChanged(double,double,double,double)": "coordinatesChangedFour",
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._boxes: list[DoubleSpinBox] = []
        self._values: list[float] = []
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._set_dimension(3)

    def _set_dimension(self, dimension: int) -> None:
        if dimension < 1:
            return
        while len(self._boxes) > dimension:
            self._boxes.pop().deleteLater()
        while len(self._boxes) < dimension:
            box = DoubleSpinBox(self)
            box.valueChanged.connect(self._edited)
            self.layout().addWidget(box, 1)
            self._boxes.append(box)
        self._values = (self._values + [0.0] * dimension)[:dimension]
        self._fit_boxes()
        self._tell()

    def _fit_boxes(self) -> None:
        for box in self._boxes:
            box.decimals, box.singleStep = self.decimals, self.singleStep
            box.minimum, box.maximum = self.minimum, self.maximum

    def _edited(self, *_: float) -> None:
        self._values = [box.value for box in self._boxes]
        self._tell()

    def _tell(self) -> None:
        self.coordinatesChanged.emit(None)
        self.coordinatesChangedFour.emit(*(self._values + [0.0] * 4)[:4])

    def _set(self, values: list[float]) -> None:
        if self.normalized:
            norm = math.sqrt(sum(value * value for value in values))
            values = [value / norm for value in values] if norm else values
        changed, self._values = values != self._values, values
        for box, value in zip(self._boxes, values, strict=True):
            blocked = box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(blocked)
        if changed:
            self._tell()

    def setCoordinates(self, *values: float) -> None:  # noqa: N802
        """Set the first coordinates; those that are not given are 0, from the fifth on kept."""
        four = [*map(float, values), 0.0, 0.0, 0.0][:4]
        self._set([*four, *self._values[4:]][: len(self._boxes)])

    def getCoordinate(self, index: int) -> float:  # noqa: N802
        """One coordinate."""
        return self._values[index]

    def normalize(self) -> None:
        """Give the vector the length 1."""
        norm = math.sqrt(sum(value * value for value in self._values))
        if norm:
            self._set([value / norm for value in self._values])

    def setDecimals(self, decimals: int) -> None:  # noqa: N802
        """Set how many decimals are shown."""
        self.decimals = decimals

    def _set_text(self, text: str) -> None:
        parts = text.split(",")
        if len(parts) == len(self._boxes):
            self._set([QtCore.QLocale.c().toDouble(part.strip())[0] for part in parts])

    def _normalized_changed(self) -> None:
        if self.normalized:
            self.minimum, self.maximum = -1.0, 1.0
            self.normalize()

    decimals = stored(int, 3, "_fit_boxes")
    singleStep = stored(float, 1.0, "_fit_boxes")
    minimum = stored(float, -sys.float_info.max, "_fit_boxes")
    maximum = stored(float, sys.float_info.max, "_fit_boxes")
    normalized = stored(bool, False, "_normalized_changed")
    dimension = QtCore.Property(int, lambda self: len(self._boxes), _set_dimension)
    coordinates = QtCore.Property(
        str, lambda self: ",".join(f"{value:g}" for value in self._values), _set_text
    )


@implements("ctkAxesWidget")
class AxesWidget(QtWidgets.QWidget):
    """Chooses an axis of the patient (nothing is drawn)."""

    currentAxisChanged = QtCore.Signal(object)

    def setCurrentAxis(self, axis: object) -> None:  # noqa: N802
        """Set the axis by its number."""
        if number(axis) != self._axis:
            self._axis = number(axis)
            self.currentAxisChanged.emit(self._axis)
            if self.autoReset and self._axis:
                QtCore.QTimer.singleShot(0, self, self.setCurrentAxisToNone)

    def setCurrentAxisToNone(self) -> None:  # noqa: N802
        """Choose no axis."""
        self.setCurrentAxis(0)

    def setAxesLabels(self, labels: list[str]) -> bool:  # noqa: N802
        """Set the six labels; whether there are six."""
        if len(labels) == 6:
            self._labels = list(labels)
        return len(labels) == 6

    _axis = 0
    _labels = ("R", "L", "S", "I", "A", "P")
    currentAxis = QtCore.Property(int, lambda self: self._axis, setCurrentAxis)
    autoReset = stored(bool, False)
    axesLabels = QtCore.Property("QStringList", lambda self: list(self._labels), setAxesLabels)


@implements("ctkPathListWidget")
class PathListWidget(QtWidgets.QListView):
    """A list of files and folders, each once."""

    pathsChanged = QtCore.Signal(list, list)
    pathClicked = QtCore.Signal(str)
    pathDoubleClicked = QtCore.Signal(str)
    pathActivated = QtCore.Signal(str)
    currentPathChanged = QtCore.Signal(str, str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._model = QtGui.QStandardItemModel(self)
        self.setModel(self._model)
        for signal, told in (
            (self.clicked, self.pathClicked),
            (self.doubleClicked, self.pathDoubleClicked),
            (self.activated, self.pathActivated),
        ):
            signal.connect(lambda index, told=told: told.emit(index.data()))
        self.selectionModel().currentChanged.connect(
            lambda now, before: self.currentPathChanged.emit(now.data() or "", before.data() or "")
        )

    def _fits(self, path: str) -> bool:
        wanted = {1: os.path.isfile, 2: os.path.isdir}.get(self.mode, os.path.exists)
        return wanted(path)

    def addPaths(self, paths: list[str]) -> list[str]:  # noqa: N802
        """Add paths that exist and are not there yet; those that were added."""
        added = []
        for path in paths:
            if self._fits(path) and path not in self._paths() + added:
                added.append(path)
        for path in added:
            self._model.appendRow(QtGui.QStandardItem(path))
        if added:
            self.pathsChanged.emit(added, [])
        return added

    def addPath(self, path: str) -> bool:  # noqa: N802
        """Add a path; whether it was added."""
        return bool(self.addPaths([path]))

    def removePaths(self, paths: list[str]) -> list[str]:  # noqa: N802
        """Remove paths; those that were there."""
        removed = [path for path in self._paths() if path in paths]
        for path in removed:
            self._model.removeRow(self._paths().index(path))
        if removed:
            self.pathsChanged.emit([], removed)
        return removed

    def removePath(self, path: str) -> bool:  # noqa: N802
        """Remove a path; whether it was there."""
        return bool(self.removePaths([path]))

    def removeSelectedPaths(self) -> None:  # noqa: N802
        """Remove what is chosen."""
        self.removePaths([index.data() for index in self.selectedIndexes()])

    def clear(self) -> None:
        """Remove all."""
        self.removePaths(self._paths())

    def setPaths(self, paths: list[str]) -> None:  # noqa: N802
        """Have these paths and no other."""
        self.removePaths([path for path in self._paths() if path not in paths])
        self.addPaths(paths)

    def _paths(self) -> list[str]:
        return [self._model.item(row).text() for row in range(self._model.rowCount())]

    paths = QtCore.Property("QStringList", _paths, setPaths)
