"""Widgets of a volume: threshold, window and level."""

from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..ctk_widgets.ranges import RangeWidget
from ..qtproperty import number
from .observers import Observers

_AUTO, _MANUAL, _OFF = 0, 1, 2


@implements("qMRMLVolumeWidget")
class VolumeWidget(QtWidgets.QWidget):
    """A widget that shows and changes the display of one volume."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._volume: object = None
        self._observers = Observers(self)
        self.setEnabled(False)

    def mrmlVolumeNode(self) -> object:  # noqa: N802
        """The volume, or None."""
        return self._volume

    def setMRMLVolumeNode(self, volume: object) -> None:  # noqa: N802
        """Set the volume; None (or another kind of node) disables the widget."""
        if volume is not None and not volume.IsA("vtkMRMLScalarVolumeNode"):
            volume = None
        self._observers.clear()
        self._volume = volume
        self.setEnabled(volume is not None)
        if volume is not None:
            display = volume.GetDisplayNode()
            if display is not None:
                self._observers.add(display, "ModifiedEvent", "_from_display")
            self._observers.add(volume, "ModifiedEvent", "_from_volume")
            self._from_volume()
            self._from_display()

    def _display(self) -> object:
        return self._volume.GetDisplayNode() if self._volume is not None else None

    def _scalar_range(self) -> tuple[float, float] | None:
        image = self._volume.GetImageData() if self._volume is not None else None
        return image.GetScalarRange() if image is not None else None

    def _from_volume(self) -> None:
        """The volume changed."""

    def _from_display(self) -> None:
        """The display changed."""


@implements("qMRMLVolumeThresholdWidget")
class VolumeThresholdWidget(VolumeWidget):
    """The display threshold of a volume: off, manual or automatic."""

    thresholdValuesChanged = QtCore.Signal(float, float)
    autoThresholdValueChanged = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._mode = QtWidgets.QComboBox(self)
        self._mode.addItems(["Auto", "Manual", "Off"])
        self._mode.setCurrentIndex(_OFF)
        self._range = RangeWidget(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._mode)
        layout.addWidget(self._range, 1)
        self._mode.activated.connect(self.setAutoThreshold)
        self._range.valuesChanged.connect(self._to_display)

    def _to_display(self, low: float, high: float) -> None:
        display = self._display()
        if display is not None:
            display.SetThreshold(low, high)
        self.thresholdValuesChanged.emit(low, high)

    def _from_volume(self) -> None:
        limits = self._scalar_range()
        if limits:
            before = self._range.blockSignals(True)
            self._range.setRange(*limits)
            self._range.blockSignals(before)

    def _from_display(self) -> None:
        display = self._display()
        if display is None or not hasattr(display, "GetApplyThreshold"):
            return
        mode = (
            _OFF
            if not display.GetApplyThreshold()
            else (_AUTO if display.GetAutoThreshold() else _MANUAL)
        )
        self._mode.setCurrentIndex(mode)
        before = self._range.blockSignals(True)
        self._range.setValues(display.GetLowerThreshold(), display.GetUpperThreshold())
        self._range.blockSignals(before)

    def setAutoThreshold(self, mode: int) -> None:  # noqa: N802
        """Set the mode."""
        changed = mode != self._mode.currentIndex()
        self._mode.setCurrentIndex(mode)
        display = self._display()
        if display is not None:
            display.SetApplyThreshold(mode != _OFF)
            display.SetAutoThreshold(mode == _AUTO)
        if changed:
            self.autoThresholdValueChanged.emit(mode)

    def setThreshold(self, low: float, high: float) -> None:  # noqa: N802
        """Set both values."""
        self._range.setValues(low, high)

    def setLowerThreshold(self, value: float) -> None:  # noqa: N802
        """Set the lower value."""
        self._range.setMinimumValue(value)

    def setUpperThreshold(self, value: float) -> None:  # noqa: N802
        """Set the upper value."""
        self._range.setMaximumValue(value)

    def setThresholdBounds(self, low: float, high: float) -> None:  # noqa: N802
        """Set the ends."""
        self._range.setRange(low, high)

    def setLowerThresholdBound(self, value: float) -> None:  # noqa: N802
        """Set the lower end."""
        self._range.minimum = value

    def setUpperThresholdBound(self, value: float) -> None:  # noqa: N802
        """Set the upper end."""
        self._range.maximum = value

    autoThreshold = QtCore.Property(int, lambda self: self._mode.currentIndex(), setAutoThreshold)
    lowerThreshold = QtCore.Property(
        float, lambda self: self._range.minimumValue, setLowerThreshold
    )
    upperThreshold = QtCore.Property(
        float, lambda self: self._range.maximumValue, setUpperThreshold
    )
    lowerThresholdBound = QtCore.Property(
        float, lambda self: self._range.minimum, setLowerThresholdBound
    )
    upperThresholdBound = QtCore.Property(
        float, lambda self: self._range.maximum, setUpperThresholdBound
    )


@implements("qMRMLWindowLevelWidget")
class WindowLevelWidget(VolumeWidget):
    """Window and level of a volume."""

    windowLevelValuesChanged = QtCore.Signal(float, float)
    autoWindowLevelValueChanged = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._mode = QtWidgets.QComboBox(self)
        self._mode.addItems(["Auto W/L", "Manual W/L", "Manual Min/Max"])
        self._range = RangeWidget(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._mode)
        layout.addWidget(self._range, 1)
        self._mode.activated.connect(self.setAutoWindowLevel)
        self._range.valuesChanged.connect(self._to_display)

    def _to_display(self, low: float, high: float) -> None:
        display = self._display()
        if display is not None:
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(low, high)
        self.windowLevelValuesChanged.emit(high - low, (low + high) / 2)

    def _from_volume(self) -> None:
        limits = self._scalar_range()
        if limits:
            before = self._range.blockSignals(True)
            self._range.setRange(*limits)
            self._range.blockSignals(before)

    def _from_display(self) -> None:
        display = self._display()
        if display is None:
            return
        window, level = display.GetWindow(), display.GetLevel()
        before = self._range.blockSignals(True)
        self._range.setRange(
            min(self._range.minimum, level - window / 2),
            max(self._range.maximum, level + window / 2),
        )
        self._range.setValues(level - window / 2, level + window / 2)
        self._range.blockSignals(before)
        self._mode.setCurrentIndex(_AUTO if display.GetAutoWindowLevel() else _MANUAL)

    def setAutoWindowLevel(self, mode: object) -> None:  # noqa: N802
        """Set the mode."""
        mode = number(mode)
        changed = mode != self._mode.currentIndex()
        self._mode.setCurrentIndex(mode)
        display = self._display()
        if display is not None:
            display.SetAutoWindowLevel(mode == _AUTO)
        if changed:
            self.autoWindowLevelValueChanged.emit(mode)

    def setMinMaxRangeValue(self, low: float, high: float) -> None:  # noqa: N802
        """Set both values."""
        self._range.setValues(low, high)

    def setWindowLevel(self, window: float, level: float) -> None:  # noqa: N802
        """Set window and level."""
        self.setMinMaxRangeValue(level - window / 2, level + window / 2)

    def setMinMaxBounds(self, low: float, high: float) -> None:  # noqa: N802
        """Set the ends."""
        self._range.setRange(low, high)

    def _get_window(self) -> float:
        return self._range.maximumValue - self._range.minimumValue

    def _get_level(self) -> float:
        return 0.5 * (self._range.maximumValue + self._range.minimumValue)

    autoWindowLevel = QtCore.Property(
        int, lambda self: self._mode.currentIndex(), setAutoWindowLevel
    )
    window = QtCore.Property(
        float, _get_window, lambda self, v: self.setWindowLevel(v, self._get_level())
    )
    level = QtCore.Property(
        float, _get_level, lambda self, v: self.setWindowLevel(self._get_window(), v)
    )
    minimumValue = QtCore.Property(
        float, lambda self: self._range.minimumValue, lambda self, v: self._range.setMinimumValue(v)
    )
    maximumValue = QtCore.Property(
        float, lambda self: self._range.maximumValue, lambda self, v: self._range.setMaximumValue(v)
    )
    minimumBound = QtCore.Property(
        float, lambda self: self._range.minimum, lambda self, v: setattr(self._range, "minimum", v)
    )
    maximumBound = QtCore.Property(
        float, lambda self: self._range.maximum, lambda self, v: setattr(self._range, "maximum", v)
    )
