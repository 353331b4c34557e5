"""``ctkRangeSlider``, ``ctkDoubleRangeSlider`` and ``ctkRangeWidget``: two handles on one bar."""

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum
from .spin_box import DoubleSpinBox

_HANDLE = 12


class _Bar(QtWidgets.QWidget):
    """The drawn bar: two handles between 0 and 1, moved with the mouse or the keyboard."""

    moved = QtCore.Signal(float, float)
    pressed = QtCore.Signal()
    released = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.low, self.high = 0.0, 1.0
        self.orientation = QtCore.Qt.Orientation.Horizontal
        self._grabbed = ""
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(60, _HANDLE + 8)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802
        """Long enough to drag on."""
        return QtCore.QSize(140, _HANDLE + 10)

    def _length(self) -> int:
        return max(self.width() - _HANDLE, 1)

    def _position(self, fraction: float) -> float:
        return _HANDLE / 2 + fraction * self._length()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        """Draw groove, range and handles in the palette's colours."""
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        palette, middle = self.palette(), self.height() / 2
        group = (
            QtGui.QPalette.ColorGroup.Normal
            if self.isEnabled()
            else QtGui.QPalette.ColorGroup.Disabled
        )
        role = QtGui.QPalette.ColorRole
        painter.setPen(palette.color(group, role.Mid))
        painter.setBrush(palette.color(group, role.Base))
        painter.drawRoundedRect(QtCore.QRectF(2, middle - 3, self.width() - 4, 6), 3, 3)
        low, high = self._position(self.low), self._position(self.high)
        painter.setBrush(palette.color(group, role.Highlight))
        painter.drawRect(QtCore.QRectF(low, middle - 3, high - low, 6))
        painter.setBrush(palette.color(group, role.Button))
        for center in (low, high):
            painter.drawRoundedRect(
                QtCore.QRectF(center - _HANDLE / 2, middle - _HANDLE / 2, _HANDLE, _HANDLE), 3, 3
            )

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Take the nearer handle."""
        x = event.position().x()
        near_low = abs(x - self._position(self.low)) < abs(x - self._position(self.high))
        self._grabbed = "low" if near_low else "high"
        self.pressed.emit()

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Move the taken handle, not past the other."""
        fraction = (event.position().x() - _HANDLE / 2) / self._length()
        fraction = min(max(fraction, 0.0), 1.0)
        if self._grabbed == "low":
            self.moved.emit(min(fraction, self.high), self.high)
        elif self._grabbed == "high":
            self.moved.emit(self.low, max(fraction, self.low))

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Let go."""
        self._grabbed = ""
        self.released.emit()


class _RangeSlider(QtWidgets.QWidget):
    """What both range sliders share; ``_kind`` is the type of their numbers."""

    _kind: type = float

    def _build(self, minimum: float, maximum: float) -> None:
        self._bar = _Bar(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._bar)
        self.setFocusProxy(self._bar)
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)
        self._minimum, self._maximum = minimum, maximum
        self._low, self._high = minimum, maximum
        self._bar.moved.connect(self._dragged)

    def _dragged(self, low: float, high: float) -> None:
        span = self._maximum - self._minimum
        self.setValues(self._minimum + low * span, self._minimum + high * span)

    def _show(self) -> None:
        span = (self._maximum - self._minimum) or 1
        self._bar.low = (self._low - self._minimum) / span
        self._bar.high = (self._high - self._minimum) / span
        self._bar.update()

    def setValues(self, low: float, high: float) -> None:  # noqa: N802
        """Set both values, in the range and in order."""
        low, high = sorted((self._kind(low), self._kind(high)))
        low, high = (min(max(each, self._minimum), self._maximum) for each in (low, high))
        changed_low, changed_high = low != self._low, high != self._high
        self._low, self._high = low, high
        self._show()
        if changed_low:
            self.minimumValueChanged.emit(low)
            self.minimumPositionChanged.emit(low)
        if changed_high:
            self.maximumValueChanged.emit(high)
            self.maximumPositionChanged.emit(high)
        if changed_low or changed_high:
            self.valuesChanged.emit(low, high)
            self.positionsChanged.emit(low, high)

    def setPositions(self, low: float, high: float) -> None:  # noqa: N802
        """Positions and values are one where tracking is on."""
        self.setValues(low, high)

    def setMinimumValue(self, value: float) -> None:  # noqa: N802
        """Set the lower value, not above the upper."""
        self.setValues(min(value, self._high), self._high)

    def setMaximumValue(self, value: float) -> None:  # noqa: N802
        """Set the upper value, not below the lower."""
        self.setValues(self._low, max(value, self._low))

    def setMinimumPosition(self, value: float) -> None:  # noqa: N802
        """As setMinimumValue."""
        self.setMinimumValue(value)

    def setMaximumPosition(self, value: float) -> None:  # noqa: N802
        """As setMaximumValue."""
        self.setMaximumValue(value)

    def setRange(self, minimum: float, maximum: float) -> None:  # noqa: N802
        """Set the ends of the bar."""
        self._minimum, self._maximum = self._kind(minimum), self._kind(max(minimum, maximum))
        self.rangeChanged.emit(self._minimum, self._maximum)
        self.setValues(self._low, self._high)
        self._show()

    def setOrientation(self, orientation: object) -> None:  # noqa: N802
        """Kept; the bar is drawn lying."""
        self._orientation = int(getattr(orientation, "value", orientation))

    def _set_minimum(self, value: float) -> None:
        self.setRange(value, max(value, self._maximum))

    def _set_maximum(self, value: float) -> None:
        self.setRange(min(self._minimum, value), value)


@implements("ctkDoubleRangeSlider")
class DoubleRangeSlider(_RangeSlider):
    """Two doubles on a bar."""

    minimumValueChanged = QtCore.Signal(float)
    maximumValueChanged = QtCore.Signal(float)
    valuesChanged = QtCore.Signal(float, float)
    minimumPositionChanged = QtCore.Signal(float)
    maximumPositionChanged = QtCore.Signal(float)
    positionsChanged = QtCore.Signal(float, float)
    rangeChanged = QtCore.Signal(float, float)
    sliderPressed = QtCore.Signal()
    sliderReleased = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._build(0.0, 99.0)
        self._orientation = 1
        self._bar.pressed.connect(self.sliderPressed)
        self._bar.released.connect(self.sliderReleased)

    minimum = QtCore.Property(float, lambda self: self._minimum, _RangeSlider._set_minimum)
    maximum = QtCore.Property(float, lambda self: self._maximum, _RangeSlider._set_maximum)
    minimumValue = QtCore.Property(float, lambda self: self._low, _RangeSlider.setMinimumValue)
    maximumValue = QtCore.Property(float, lambda self: self._high, _RangeSlider.setMaximumValue)
    minimumPosition = QtCore.Property(float, lambda self: self._low, _RangeSlider.setMinimumValue)
    maximumPosition = QtCore.Property(float, lambda self: self._high, _RangeSlider.setMaximumValue)
    singleStep = stored(float, 1.0)
    tickInterval = stored(float, 0.0)
    tickPosition = stored_enum(0)
    tracking = stored(bool, True)
    symmetricMoves = stored(bool, False)
    orientation = QtCore.Property(int, lambda self: self._orientation, _RangeSlider.setOrientation)


@implements("ctkRangeSlider")
class RangeSlider(QtWidgets.QSlider):
    """Two integers on a slider (drawn as a plain slider)."""

    minimumValueChanged = QtCore.Signal(int)
    maximumValueChanged = QtCore.Signal(int)
    valuesChanged = QtCore.Signal(int, int)
    minimumPositionChanged = QtCore.Signal(int)
    maximumPositionChanged = QtCore.Signal(int)
    positionsChanged = QtCore.Signal(int, int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._low, self._high = 0, 99
        self._minimum, self._maximum = self.minimum(), self.maximum()
        self.rangeChanged.connect(self._range_changed)

    def _range_changed(self, minimum: int, maximum: int) -> None:
        self._minimum, self._maximum = minimum, maximum
        self.setValues(self._low, self._high)

    _kind = int

    def _show(self) -> None:
        self.update()

    setValues = _RangeSlider.setValues
    setPositions = _RangeSlider.setPositions
    setMinimumValue = _RangeSlider.setMinimumValue
    setMaximumValue = _RangeSlider.setMaximumValue
    setMinimumPosition = _RangeSlider.setMinimumPosition
    setMaximumPosition = _RangeSlider.setMaximumPosition

    minimumValue = QtCore.Property(int, lambda self: self._low, _RangeSlider.setMinimumValue)
    maximumValue = QtCore.Property(int, lambda self: self._high, _RangeSlider.setMaximumValue)
    minimumPosition = QtCore.Property(int, lambda self: self._low, _RangeSlider.setMinimumValue)
    maximumPosition = QtCore.Property(int, lambda self: self._high, _RangeSlider.setMaximumValue)
    symmetricMoves = stored(bool, False)
    handleToolTip = stored(str, "")


@implements("ctkRangeWidget")
class RangeWidget(QtWidgets.QWidget):
    """A range slider between two spin boxes."""

    minimumValueChanged = QtCore.Signal(float)
    minimumValueIsChanging = QtCore.Signal(float)
    maximumValueChanged = QtCore.Signal(float)
    maximumValueIsChanging = QtCore.Signal(float)
    valuesChanged = QtCore.Signal(float, float)
    rangeChanged = QtCore.Signal(float, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._slider = DoubleRangeSlider(self)
        self._low, self._high = DoubleSpinBox(self), DoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget, stretch in ((self._low, 0), (self._slider, 1), (self._high, 0)):
            layout.addWidget(widget, stretch)
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)
        self._take_range()
        self._low.setValue(self._slider.minimumValue)
        self._high.setValue(self._slider.maximumValue)
        self._low.valueChanged.connect(lambda value: self._spun(value, self._high.value, "low"))
        self._high.valueChanged.connect(lambda value: self._spun(self._low.value, value, "high"))
        self._slider.valuesChanged.connect(self._slid)

    def _take_range(self) -> None:
        """Give the spin boxes the slider's range, without a signal."""
        for spin in (self._low, self._high):
            before = spin.spin_box().blockSignals(True)
            spin.minimum, spin.maximum = self._slider.minimum, self._slider.maximum
            spin.spin_box().blockSignals(before)

    def _spun(self, low: float, high: float, moved: str) -> None:
        """A spin box changed; the other gives way where they would cross."""
        if low > high:
            low, high = (low, low) if moved == "low" else (high, high)
        self._slider.setValues(low, high)

    def _slid(self, low: float, high: float) -> None:
        changed_low, changed_high = self._low.value != low, self._high.value != high
        for spin, value in ((self._low, low), (self._high, high)):
            before = spin.spin_box().blockSignals(True)
            spin.setValueIfDifferent(value)
            spin.spin_box().blockSignals(before)
        previous = self.__dict__.get("_told", (None, None))
        self._told = (low, high)
        if changed_low or previous[0] != low:
            self.minimumValueChanged.emit(low)
        if changed_high or previous[1] != high:
            self.maximumValueChanged.emit(high)
        self.valuesChanged.emit(low, high)

    def setValues(self, low: float, high: float) -> None:  # noqa: N802
        """Set both values, rounded to the decimals."""
        digits = self._low.decimals
        self._slider.setValues(round(low, digits), round(high, digits))

    def setMinimumValue(self, value: float) -> None:  # noqa: N802
        """Set the lower value."""
        self._low.setValueIfDifferent(value)

    def setMaximumValue(self, value: float) -> None:  # noqa: N802
        """Set the upper value."""
        self._high.setValueIfDifferent(value)

    def setRange(self, minimum: float, maximum: float) -> None:  # noqa: N802
        """Set the ends."""
        digits = self._low.decimals
        self._slider.setRange(round(minimum, digits), round(maximum, digits))
        self._take_range()
        self.rangeChanged.emit(self._slider.minimum, self._slider.maximum)

    def reset(self) -> None:
        """Back to the whole range."""
        self.setValues(self._slider.minimum, self._slider.maximum)

    def setDecimals(self, decimals: int) -> None:  # noqa: N802
        """Set the number of decimals of both spin boxes."""
        self._low.setDecimals(decimals)
        self._high.setDecimals(decimals)

    def _set_both(self, name: str, value: object) -> None:
        setattr(self._low, name, value)
        setattr(self._high, name, value)

    def _set_step(self, value: float) -> None:
        self._set_both("singleStep", value)
        self._slider.singleStep = value

    decimals = QtCore.Property(int, lambda self: self._low.decimals, setDecimals)
    singleStep = QtCore.Property(float, lambda self: self._slider.singleStep, _set_step)
    minimum = QtCore.Property(
        float,
        lambda self: self._slider.minimum,
        lambda self, v: self.setRange(v, max(v, self._slider.maximum)),
    )
    maximum = QtCore.Property(
        float,
        lambda self: self._slider.maximum,
        lambda self, v: self.setRange(min(v, self._slider.minimum), v),
    )
    minimumValue = QtCore.Property(float, lambda self: self._slider.minimumValue, setMinimumValue)
    maximumValue = QtCore.Property(float, lambda self: self._slider.maximumValue, setMaximumValue)
    prefix = QtCore.Property(
        str, lambda self: self._low.prefix, lambda self, text: self._set_both("prefix", text)
    )
    suffix = QtCore.Property(
        str, lambda self: self._low.suffix, lambda self, text: self._set_both("suffix", text)
    )
    tickInterval = stored(float, 0.0)
    autoSpinBoxWidth = stored(bool, True)
    spinBoxTextAlignment = QtCore.Property(
        int, lambda self: self._low.alignment, lambda self, v: self._set_both("alignment", v)
    )
    spinBoxAlignment = stored_enum(QtCore.Qt.AlignmentFlag.AlignVCenter.value)
    tracking = stored(bool, True)
    symmetricMoves = stored(bool, False)
    # Slicer gives the largest and the smallest double here while no limits were set.
    customSpinBoxesLimitsMin = QtCore.Property(float, lambda self: 1.7976931348623157e308)
    customSpinBoxesLimitsMax = QtCore.Property(float, lambda self: 2.2250738585072014e-308)
