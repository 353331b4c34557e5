"""``ctkPushButton``, ``ctkCheckablePushButton``, ``ctkMenuButton``, ``ctkColorPickerButton``."""

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum

_ALIGN = QtCore.Qt.AlignmentFlag
_UNCHECKED = QtCore.Qt.CheckState.Unchecked


@implements("ctkPushButton")
class PushButton(QtWidgets.QPushButton):
    """A push button with an alignment of its text."""

    buttonTextAlignment = stored_enum((_ALIGN.AlignHCenter | _ALIGN.AlignVCenter).value)
    iconAlignment = stored_enum((_ALIGN.AlignLeft | _ALIGN.AlignVCenter).value)
    elideMode = stored_enum(QtCore.Qt.TextElideMode.ElideNone.value)


@implements("ctkCheckablePushButton")
class CheckablePushButton(PushButton):
    """A push button with a check box on it."""

    checkBoxToggled = QtCore.Signal(bool)
    checkStateChanged = QtCore.Signal(QtCore.Qt.CheckState)

    def setCheckState(self, state: object) -> None:  # noqa: N802
        """Set the check box, and the button where the box controls it."""
        state = QtCore.Qt.CheckState(getattr(state, "value", state))
        if state.value == self.checkState:
            return
        self._check_state = state
        if self.checkBoxControlsButton:
            self.setCheckable(state != _UNCHECKED)
        self.checkStateChanged.emit(state)
        self.checkBoxToggled.emit(state != _UNCHECKED)
        self.update()

    checkState = QtCore.Property(
        int, lambda self: getattr(self, "_check_state", _UNCHECKED).value, setCheckState
    )
    indicatorAlignment = stored_enum((_ALIGN.AlignLeft | _ALIGN.AlignVCenter).value)
    checkBoxControlsButton = stored(bool, True)
    checkBoxControlsButtonToggleState = stored(bool, False)
    checkBoxUserCheckable = stored(bool, True)


@implements("ctkMenuButton")
class MenuButton(QtWidgets.QPushButton):
    """A push button with a menu on its right."""


@implements("ctkColorPickerButton")
class ColorPickerButton(QtWidgets.QPushButton):
    """A button that shows a colour and asks for another."""

    colorChanged = QtCore.Signal(QtGui.QColor)
    colorNameChanged = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._color, self._color_name = QtGui.QColor("black"), ""
        self.setCheckable(True)
        self.toggled.connect(lambda on: self.changeColor() if on else None)
        self._show()

    def _show(self) -> None:
        pixmap = QtGui.QPixmap(16, 16)
        pixmap.fill(self._color)
        self.setIcon(QtGui.QIcon(pixmap))
        self.setText(self._color.name() if self.displayColorName else "")

    def setColor(self, color: QtGui.QColor) -> None:  # noqa: N802
        """Set the colour."""
        if color != self._color:
            self._color = QtGui.QColor(color)
            self._show()
            self.colorChanged.emit(self._color)

    def setColorName(self, name: str) -> None:  # noqa: N802
        """Set the name that a colour table gave."""
        if name != self._color_name:
            self._color_name = name
            self.colorNameChanged.emit(name)

    def setDisplayColorName(self, on: bool) -> None:  # noqa: N802
        """Show the colour's code as the text, or not."""
        self.displayColorName = on

    def changeColor(self) -> None:  # noqa: N802
        """Ask for a colour."""
        color = QtWidgets.QColorDialog.getColor(self._color, self)
        if color.isValid():
            self.setColor(color)
        before = self.blockSignals(True)
        self.setChecked(False)
        self.blockSignals(before)

    color = QtCore.Property(QtGui.QColor, lambda self: QtGui.QColor(self._color), setColor)
    colorName = QtCore.Property(str, lambda self: self._color_name, setColorName)
    displayColorName = stored(bool, True, "_show")
    dialogOptions = stored_enum(0)


@implements("ctkCheckBox")
class CheckBox(QtWidgets.QCheckBox):
    """A check box with an icon of its own."""

    indicatorIcon = stored(QtGui.QIcon, QtGui.QIcon)
    indicatorIconSize = stored(QtCore.QSize, QtCore.QSize)
