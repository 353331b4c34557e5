"""``ctkDoubleSpinBox``: a spin box in a widget, with fewer functions than Qt's."""

from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import passed, stored, stored_enum

_SET_IF_DIFFERENT = 1


@implements("ctkDoubleSpinBox")
class DoubleSpinBox(QtWidgets.QWidget):
    """A QDoubleSpinBox that Python reaches through properties only."""

    valueChanged = QtCore.Signal(float)
    valueTextChanged = QtCore.Signal(str)
    editingFinished = QtCore.Signal()
    decimalsChanged = QtCore.Signal(int)

    facade_signals = {
        "valueChanged(double)": "valueChanged",
        "valueChanged(QString)": "valueTextChanged",
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._spin = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._spin)
        self.setFocusProxy(self._spin)
        policy = QtWidgets.QSizePolicy
        self.setSizePolicy(policy.Policy.Minimum, policy.Policy.Fixed)
        self._spin.valueChanged.connect(self._tell)
        self._spin.editingFinished.connect(self.editingFinished)

    def _tell(self, value: float) -> None:
        self.valueChanged.emit(value)
        self.valueTextChanged.emit(self._spin.text())

    def _get_decimals(self) -> int:
        return self._spin.decimals()

    def setDecimals(self, decimals: int) -> None:  # noqa: N802
        """Set the number of decimals."""
        if decimals != self._spin.decimals():
            self._spin.setDecimals(decimals)
            self.decimalsChanged.emit(self._spin.decimals())

    def _get_value(self) -> float:
        return self._spin.value()

    def setValue(self, value: float) -> None:  # noqa: N802
        """Set the value, by default only where it differs."""
        if self.setMode == _SET_IF_DIFFERENT:
            self.setValueIfDifferent(value)
        else:
            self.setValueAlways(value)

    def setValueIfDifferent(self, value: float) -> None:  # noqa: N802
        """Set the value where it differs."""
        self._spin.setValue(value)

    def setValueAlways(self, value: float) -> None:  # noqa: N802
        """Set the value and tell of it in any case."""
        same = self._spin.value() == value
        self._spin.setValue(value)
        if same:
            self._tell(value)

    def setReadOnly(self, read_only: bool) -> None:  # noqa: N802
        """Forbid or allow typing."""
        self._spin.setReadOnly(read_only)

    def stepUp(self) -> None:  # noqa: N802
        """One step up."""
        self._spin.stepUp()

    def stepDown(self) -> None:  # noqa: N802
        """One step down."""
        self._spin.stepDown()

    def spin_box(self) -> QtWidgets.QDoubleSpinBox:
        """The inner spin box, for the host's own widgets."""
        return self._spin

    alignment = passed(int, "_spin", "alignment", "setAlignment", QtCore.Qt.AlignmentFlag)
    frame = passed(bool, "_spin", "hasFrame", "setFrame")
    readOnly = passed(bool, "_spin", "isReadOnly", "setReadOnly")
    prefix = passed(str, "_spin", "prefix", "setPrefix")
    suffix = passed(str, "_spin", "suffix", "setSuffix")
    cleanText = passed(str, "_spin", "cleanText")
    decimals = QtCore.Property(int, _get_decimals, setDecimals, notify=decimalsChanged)
    decimalsOption = stored_enum(0x01 | 0x08)
    minimum = passed(float, "_spin", "minimum", "setMinimum")
    maximum = passed(float, "_spin", "maximum", "setMaximum")
    singleStep = passed(float, "_spin", "singleStep", "setSingleStep")
    value = QtCore.Property(float, _get_value, setValue, notify=valueChanged)
    setMode = stored_enum(_SET_IF_DIFFERENT)
    invertedControls = stored(bool, False)
    sizeHintPolicy = stored_enum(0)
    isSettingValue = QtCore.Property(bool, lambda self: False)
