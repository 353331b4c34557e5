"""``ctkComboBox``, ``ctkCheckableComboBox``, ``ctkMenuComboBox``, ``ctkTreeComboBox``."""

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum

_CHECKED = QtCore.Qt.CheckState.Checked
_ROLE = QtCore.Qt.ItemDataRole.CheckStateRole


@implements("ctkComboBox")
class ComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    returnRelease = QtCore.Signal()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        """Draw the default text where nothing is chosen (or always, where forced)."""
        if not self.defaultText or not (self.forceDefault or self.currentIndex() < 0):
            super().paintEvent(event)
            return
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        option.currentText, option.currentIcon = self.defaultText, self.defaultIcon
        painter.drawComplexControl(QtWidgets.QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_ComboBoxLabel, option)

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:  # noqa: N802
        """Scroll only where the effect says so."""
        if self.scrollWheelEffect == 1 or (self.scrollWheelEffect == 2 and self.hasFocus()):
            super().wheelEvent(event)
        else:
            event.ignore()

    def setCurrentUserDataAsString(self, text: str) -> None:  # noqa: N802
        """Choose the item whose data is that text."""
        found = [i for i in range(self.count()) if str(self.itemData(i) or "") == text]
        self.setCurrentIndex(found[0] if found else -1)

    defaultText = stored(str, "", "update")
    defaultIcon = stored(QtGui.QIcon, QtGui.QIcon, "update")
    forceDefault = stored(bool, False, "update")
    elideMode = stored_enum(QtCore.Qt.TextElideMode.ElideNone.value, "update")
    scrollWheelEffect = stored_enum(1)
    currentUserDataAsString = QtCore.Property(
        str, lambda self: str(self.currentData() or ""), setCurrentUserDataAsString
    )


@implements("ctkCheckableComboBox")
class CheckableComboBox(QtWidgets.QComboBox):
    """A combo box whose items have check boxes."""

    checkedIndexesChanged = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.model().rowsInserted.connect(self._make_checkable)
        self.model().dataChanged.connect(self._changed)
        self.view().viewport().installEventFilter(self)

    def _make_checkable(self, _: QtCore.QModelIndex, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            item.setCheckState(QtCore.Qt.CheckState.Unchecked)

    def _changed(self, *_: object) -> None:
        self.checkedIndexesChanged.emit()
        self.update()

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:  # noqa: N802
        """A click in the popup checks the item and leaves the popup open."""
        if event.type() == QtCore.QEvent.Type.MouseButtonRelease:
            index = self.view().indexAt(event.position().toPoint())
            if index.isValid():
                item = self.model().itemFromIndex(index)
                checked = item.checkState() == _CHECKED
                item.setCheckState(QtCore.Qt.CheckState.Unchecked if checked else _CHECKED)
                return True
        return super().eventFilter(watched, event)

    def checkedIndexes(self) -> list[QtCore.QModelIndex]:  # noqa: N802
        """The checked items."""
        rows = (self.model().index(row, 0) for row in range(self.count()))
        return [index for index in rows if self.checkState(index) == _CHECKED]

    def checkableModel(self) -> QtCore.QAbstractItemModel:  # noqa: N802
        """The model."""
        return self.model()

    def allChecked(self) -> bool:  # noqa: N802
        """Whether there are items and all are checked."""
        return 0 < self.count() == len(self.checkedIndexes())

    def noneChecked(self) -> bool:  # noqa: N802
        """Whether no item is checked."""
        return not self.checkedIndexes()

    def checkState(self, index: QtCore.QModelIndex) -> QtCore.Qt.CheckState:  # noqa: N802
        """The state of an item."""
        return QtCore.Qt.CheckState(self.model().data(index, _ROLE) or 0)

    def setCheckState(self, index: QtCore.QModelIndex, state: object) -> None:  # noqa: N802
        """Check or uncheck an item."""
        self.model().setData(index, state, _ROLE)


@implements("ctkMenuComboBox")
class MenuComboBox(QtWidgets.QWidget):
    """A search field that offers the actions of a menu."""

    actionChanged = QtCore.Signal(QtGui.QAction)
    popupShown = QtCore.Signal()

    def setMenu(self, menu: QtWidgets.QMenu) -> None:  # noqa: N802
        """Offer the actions of a menu."""
        self._menu = menu
        self._combo.clear()
        self._combo.addItems([action.text() for action in menu.actions()])

    def menu(self) -> QtWidgets.QMenu | None:
        """The menu."""
        return self._menu

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._menu: QtWidgets.QMenu | None = None
        self._combo = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)

    defaultText = stored(str, "")
    defaultIcon = stored(QtGui.QIcon, QtGui.QIcon)
    editBehavior = stored_enum(0)


@implements("ctkTreeComboBox")
class TreeComboBox(QtWidgets.QComboBox):
    """A combo box over a tree."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        view = QtWidgets.QTreeView(self)
        view.setHeaderHidden(True)
        self.setView(view)

    visibleModelColumn = stored(int, -1)
    fitPopupToContents = stored(bool, False)
