"""``ctkPopupWidget`` and ``ctkFlowLayout``."""

from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum


@implements("ctkBasePopupWidget")
class BasePopupWidget(QtWidgets.QFrame):
    """A frame that pops up, here without an animation."""

    popupOpened = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent, QtCore.Qt.WindowType.ToolTip)

    def showPopup(self, show: bool = True) -> None:  # noqa: N802
        """Open it, or close it with False."""
        if show is not self.isVisible():
            self.setVisible(show)
            self.popupOpened.emit(show)

    def hidePopup(self) -> None:  # noqa: N802
        """Close it."""
        self.showPopup(False)


@implements("ctkPopupWidget")
class PopupWidget(BasePopupWidget):
    """A popup that opens when the mouse comes near (here only when it is told to)."""

    def pinPopup(self, pin: bool) -> None:  # noqa: N802
        """Keep it open; without a pin it hides by itself."""
        self.autoHide = not pin
        if pin:
            self.showPopup()

    autoHide = stored(bool, True)


@implements("ctkFlowLayout")
class FlowLayout(QtWidgets.QLayout):
    """Items in rows, as many in each as there is room for."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._items: list[QtWidgets.QLayoutItem] = []

    def addItem(self, item: QtWidgets.QLayoutItem) -> None:  # noqa: N802
        """Add an item at the end."""
        self._items.append(item)

    def count(self) -> int:
        """How many items there are."""
        return len(self._items)

    def itemAt(self, index: int) -> QtWidgets.QLayoutItem | None:  # noqa: N802
        """An item by its place."""
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QtWidgets.QLayoutItem | None:  # noqa: N802
        """Take an item out."""
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def _arrange(self, width: int, place: bool) -> int:
        """Lay the items out; the height that they take."""
        margins, gap = self.contentsMargins(), max(self.spacing(), 0)
        x = left = self.geometry().x() + margins.left() if place else margins.left()
        y = self.geometry().y() + margins.top() if place else margins.top()
        top, row = y - margins.top(), 0
        for item in self._items:
            size = item.sizeHint()
            if x > left and x + size.width() > left + width - margins.left() - margins.right():
                x, y, row = left, y + row + gap, 0
            if place:
                item.setGeometry(QtCore.QRect(QtCore.QPoint(x, y), size))
            x, row = x + size.width() + gap, max(row, size.height())
        return y + row + margins.bottom() - top

    def setGeometry(self, rect: QtCore.QRect) -> None:  # noqa: N802
        """Lay the items out in a rectangle."""
        super().setGeometry(rect)
        self._arrange(rect.width(), True)

    def hasHeightForWidth(self) -> bool:  # noqa: N802
        """The height depends on the width."""
        return True

    def heightForWidth(self, width: int) -> int:  # noqa: N802
        """The height at a width."""
        return self._arrange(width, False)

    def expandingDirections(self) -> QtCore.Qt.Orientation:  # noqa: N802
        """It takes all the room that there is."""
        return QtCore.Qt.Orientation.Horizontal | QtCore.Qt.Orientation.Vertical

    def minimumSize(self) -> QtCore.QSize:  # noqa: N802
        """Room for the largest item."""
        size, margins = QtCore.QSize(0, 0), self.contentsMargins()
        for item in self._items:
            size = size.expandedTo(item.minimumSize())
        return size.grownBy(margins)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802
        """Room for the largest item."""
        return self.minimumSize()

    alignItems = stored(bool, True)
    orientation = stored_enum(QtCore.Qt.Orientation.Horizontal.value)
