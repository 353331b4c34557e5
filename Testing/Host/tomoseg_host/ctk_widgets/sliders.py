"""``ctkDoubleSlider`` and ``ctkSliderWidget``."""

from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import passed, stored, stored_enum
from .spin_box import DoubleSpinBox

_ORIENTATION = QtCore.Qt.Orientation
_TICKS = QtWidgets.QSlider.TickPosition


@implements("ctkDoubleSlider")
class DoubleSlider(QtWidgets.QWidget):
    """A slider whose positions are doubles: an integer slider in steps of ``singleStep``."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    sliderMoved = QtCore.Signal(float)
    sliderPressed = QtCore.Signal()
    sliderReleased = QtCore.Signal()
    rangeChanged = QtCore.Signal(float, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        # Python's only constructor has no orientation; Qt's default for it is vertical.
        self._slider = QtWidgets.QSlider(_ORIENTATION.Vertical, self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        self._minimum, self._maximum, self._value, self._step = 0.0, 99.0, 0.0, 1.0
        self.setSizePolicy(self._slider.sizePolicy())
        self.setFocusProxy(self._slider)
        self._slider.valueChanged.connect(self._moved)
        self._slider.sliderMoved.connect(
            lambda position: self.sliderMoved.emit(self._from_int(position))
        )
        self._slider.sliderPressed.connect(self.sliderPressed)
        self._slider.sliderReleased.connect(self.sliderReleased)

    def _to_int(self, value: float) -> int:
        return round((value - self._minimum) / self._step) if self._step else 0

    def _from_int(self, position: int) -> float:
        return min(max(self._minimum + position * self._step, self._minimum), self._maximum)

    def _moved(self, position: int) -> None:
        """The user (or a new range) moved the integer slider."""
        value = self._from_int(position)
        if abs(value - self._value) > 0.5 * self._step:
            self._value = value
            self.valueChanged.emit(value)

    def _fit(self) -> None:
        """Give the integer slider the range and position of the doubles, without signals."""
        before = self._slider.blockSignals(True)
        self._slider.setRange(0, min(self._to_int(self._maximum), 2**31 - 1))
        self._slider.setValue(self._to_int(self._value))
        self._slider.blockSignals(before)

    def setValue(self, value: float) -> None:  # noqa: N802
        """Set the value within the range."""
        value = min(max(value, self._minimum), self._maximum)
        if value == self._value:
            return
        self._value = value
        self._fit()
        self.valueChanged.emit(value)

    def setRange(self, minimum: float, maximum: float) -> None:  # noqa: N802
        """Set both ends; the value is kept inside."""
        maximum = max(minimum, maximum)
        changed = (minimum, maximum) != (self._minimum, self._maximum)
        self._minimum, self._maximum = minimum, maximum
        self._fit()
        if changed:
            self.rangeChanged.emit(minimum, maximum)
        self.setValue(self._value)

    def _set_minimum(self, value: float) -> None:
        self.setRange(value, max(value, self._maximum))

    def _set_maximum(self, value: float) -> None:
        self.setRange(min(value, self._minimum), value)

    def _set_step(self, step: float) -> None:
        if step > 0:
            self._step = step
            self._fit()

    def setOrientation(self, orientation: object) -> None:  # noqa: N802
        """Lay the slider along an axis."""
        self._slider.setOrientation(orientation)
        self.setSizePolicy(self._slider.sizePolicy())

    value = QtCore.Property(float, lambda self: self._value, setValue, notify=valueChanged)
    sliderPosition = QtCore.Property(float, lambda self: self._value, setValue)
    singleStep = QtCore.Property(float, lambda self: self._step, _set_step)
    pageStep = stored(float, 10.0)
    minimum = QtCore.Property(float, lambda self: self._minimum, _set_minimum)
    maximum = QtCore.Property(float, lambda self: self._maximum, _set_maximum)
    tickInterval = stored(float, 0.0)
    tickPosition = passed(int, "_slider", "tickPosition", "setTickPosition", _TICKS)
    tracking = passed(bool, "_slider", "hasTracking", "setTracking")
    orientation = QtCore.Property(
        int,
        lambda self: self._slider.orientation().value,
        lambda self, value: self.setOrientation(_ORIENTATION(getattr(value, "value", value))),
    )
    invertedAppearance = passed(bool, "_slider", "invertedAppearance", "setInvertedAppearance")
    invertedControls = passed(bool, "_slider", "invertedControls", "setInvertedControls")
    handleToolTip = stored(str, "")


@implements("ctkSliderWidget")
class SliderWidget(QtWidgets.QWidget):
    """A slider and a spin box that show one value."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._slider, self._spin = DoubleSlider(self), DoubleSpinBox(self)
        self._slider.setOrientation(_ORIENTATION.Horizontal)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        policy = QtWidgets.QSizePolicy
        self.setSizePolicy(policy.Policy.Expanding, policy.Policy.Fixed)
        self.setFocusProxy(self._spin)
        self._slider.setRange(self._spin.minimum, self._spin.maximum)
        self._dragging = False
        self._value_before = 0.0
        self._spin.valueChanged.connect(self._slider.setValue)
        self._slider.valueChanged.connect(self._slider_changed)
        self._slider.sliderPressed.connect(self._start)
        self._slider.sliderReleased.connect(self._stop)

    def _start(self) -> None:
        if not self.tracking:
            self._dragging, self._value_before = True, self._slider.value

    def _stop(self) -> None:
        if self._dragging:
            self._dragging = False
            if self._slider.value != self._value_before:
                self.valueChanged.emit(self._slider.value)

    def _slider_changed(self, value: float) -> None:
        before = self._spin.spin_box().blockSignals(True)
        self._spin.setValueIfDifferent(value)
        self._spin.spin_box().blockSignals(before)
        if not self.tracking:
            self.valueIsChanging.emit(value)
        if not self._dragging:
            self.valueChanged.emit(value)

    def setValue(self, value: float) -> None:  # noqa: N802
        """Set the value, rounded to the decimals and kept in the range."""
        self._spin.setValueIfDifferent(value)

    def _get_value(self) -> float:
        return self._value_before if self._dragging else self._slider.value

    def reset(self) -> None:
        """Back to zero."""
        self.setValue(0.0)

    def setDecimals(self, decimals: int) -> None:  # noqa: N802
        """Set the number of decimals; range and value are rounded to it."""
        self._spin.setDecimals(decimals)
        self._slider.setRange(self._spin.minimum, self._spin.maximum)
        self._slider_changed(self._slider.value)
        self.decimalsChanged.emit(decimals)

    def setSpinBoxVisible(self, visible: bool) -> None:  # noqa: N802
        """Show or hide the spin box."""
        self._spin.setVisible(visible)

    def _set_limit(self, name: str, value: float) -> None:
        before = self._spin.spin_box().blockSignals(True)
        setattr(self._spin, name, value)
        self._spin.spin_box().blockSignals(before)
        # The spin box rounds the limit, so the slider takes it from there.
        self._slider.setRange(self._spin.minimum, self._spin.maximum)

    def _set_step(self, step: float) -> None:
        self._spin.singleStep = step
        self._slider.singleStep = step

    decimals = QtCore.Property(int, lambda self: self._spin.decimals, setDecimals)
    singleStep = QtCore.Property(float, lambda self: self._slider.singleStep, _set_step)
    pageStep = QtCore.Property(
        float,
        lambda self: self._slider.pageStep,
        lambda self, value: setattr(self._slider, "pageStep", value),
    )
    minimum = QtCore.Property(
        float,
        lambda self: self._slider.minimum,
        lambda self, value: self._set_limit("minimum", value),
    )
    maximum = QtCore.Property(
        float,
        lambda self: self._slider.maximum,
        lambda self, value: self._set_limit("maximum", value),
    )
    value = QtCore.Property(float, _get_value, setValue, notify=valueChanged)
    prefix = QtCore.Property(
        str, lambda self: self._spin.prefix, lambda self, text: setattr(self._spin, "prefix", text)
    )
    suffix = QtCore.Property(
        str, lambda self: self._spin.suffix, lambda self, text: setattr(self._spin, "suffix", text)
    )
    tickInterval = QtCore.Property(
        float,
        lambda self: self._slider.tickInterval,
        lambda self, v: setattr(self._slider, "tickInterval", v),
    )
    tickPosition = QtCore.Property(
        int,
        lambda self: self._slider.tickPosition,
        lambda self, v: setattr(self._slider, "tickPosition", v),
    )
    synchronizeSiblings = stored_enum(1)
    spinBoxAlignment = QtCore.Property(
        int, lambda self: self._spin.alignment, lambda self, v: setattr(self._spin, "alignment", v)
    )
    tracking = stored(bool, True)
    spinBoxVisible = QtCore.Property(
        bool, lambda self: self._spin.isVisibleTo(self), setSpinBoxVisible
    )
    popupSlider = stored(bool, False)
    invertedAppearance = QtCore.Property(
        bool,
        lambda self: self._slider.invertedAppearance,
        lambda self, value: setattr(self._slider, "invertedAppearance", value),
    )
    invertedControls = QtCore.Property(
        bool,
        lambda self: self._slider.invertedControls,
        lambda self, value: setattr(self._slider, "invertedControls", value),
    )
