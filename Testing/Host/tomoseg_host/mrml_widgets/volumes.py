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
        """Set the volume; without one, or without its display, the widget is disabled."""
        if volume is not None and not volume.IsA("vtkMRMLScalarVolumeNode"):
            volume = None
        self._observers.clear()
        self._volume = volume
        self.setEnabled(self._display() is not None)
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
        self.setEnabled(self._display() is not None)

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
        self._range = RangeWidget(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._mode)
        layout.addWidget(self._range, 1)
        self._mode.activated.connect(self.setAutoThreshold)
        self._range.valuesChanged.connect(self.setThreshold)

    def _from_volume(self) -> None:
        super()._from_volume()
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
        """Set the mode; nothing happens without a volume that is shown, as for all setters."""
        display = self._display()
        if display is None:
            return
        before = display.GetApplyThreshold(), display.GetAutoThreshold()
        modifying = display.StartModify()
        display.SetApplyThreshold(mode != _OFF)
        if mode != _OFF:
            display.SetAutoThreshold(mode == _AUTO)
        display.EndModify(modifying)
        if before != (display.GetApplyThreshold(), display.GetAutoThreshold()):
            self.autoThresholdValueChanged.emit(mode)

    def setThreshold(self, low: float, high: float) -> None:  # noqa: N802
        """Set both values; the mode is manual then."""
        display = self._display()
        if display is None:
            return
        before = display.GetLowerThreshold(), display.GetUpperThreshold()
        modifying = display.StartModify()
        display.SetLowerThreshold(low)
        display.SetUpperThreshold(high)
        if before != (display.GetLowerThreshold(), display.GetUpperThreshold()):
            self.setAutoThreshold(_MANUAL)
            self.thresholdValuesChanged.emit(low, high)
        display.EndModify(modifying)

    def setLowerThreshold(self, value: float) -> None:  # noqa: N802
        """Set the lower value."""
        if self._display() is not None:
            self.setThreshold(value, self._display().GetUpperThreshold())

    def setUpperThreshold(self, value: float) -> None:  # noqa: N802
        """Set the upper value."""
        if self._display() is not None:
            self.setThreshold(self._display().GetLowerThreshold(), value)

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
        self._range.valuesChanged.connect(self.setMinMaxRangeValue)

    def _from_volume(self) -> None:
        super()._from_volume()
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
        if display.GetAutoWindowLevel():
            self._mode.setCurrentIndex(_AUTO)
        elif self._mode.currentIndex() == _AUTO:
            self._mode.setCurrentIndex(_MANUAL)

    def setAutoWindowLevel(self, mode: object) -> None:  # noqa: N802
        """Set the mode; nothing happens without a volume that is shown, as for all setters."""
        mode, display = number(mode), self._display()
        if display is None:
            return
        before = display.GetAutoWindowLevel()
        display.SetAutoWindowLevel(mode == _AUTO)
        if bool(before) is not (mode == _AUTO):
            self.autoWindowLevelValueChanged.emit(_AUTO if mode == _AUTO else _MANUAL)

    def setMinMaxRangeValue(self, low: float, high: float) -> None:  # noqa: N802
        """Set both values."""
        self.setWindowLevel(high - low, 0.5 * (low + high))

    def setWindowLevel(self, window: float, level: float) -> None:  # noqa: N802
        """Set window and level; the mode is manual then."""
        display = self._display()
        if display is None:
            return
        before = display.GetWindow(), display.GetLevel()
        modifying = display.StartModify()
        display.SetWindowLevel(window, level)
        if before != (display.GetWindow(), display.GetLevel()):
            self.setAutoWindowLevel(_MANUAL)
            self.windowLevelValuesChanged.emit(window, level)
        display.EndModify(modifying)

    def setWindow(self, window: float) -> None:  # noqa: N802
        """Set the window."""
        if self._display() is not None:
            self.setWindowLevel(window, self._display().GetLevel())

    def setLevel(self, level: float) -> None:  # noqa: N802
        """Set the level."""
        if self._display() is not None:
            self.setWindowLevel(self._display().GetWindow(), level)

    def setMinimumValue(self, value: float) -> None:  # noqa: N802
        """Set the lower end of the window."""
        self.setMinMaxRangeValue(value, self._range.maximumValue)

    def setMaximumValue(self, value: float) -> None:  # noqa: N802
        """Set the upper end of the window."""
        self.setMinMaxRangeValue(self._range.minimumValue, value)

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
    window = QtCore.Property(float, _get_window, setWindow)
    level = QtCore.Property(float, _get_level, setLevel)
    minimumValue = QtCore.Property(float, lambda self: self._range.minimumValue, setMinimumValue)
    maximumValue = QtCore.Property(float, lambda self: self._range.maximumValue, setMaximumValue)
    minimumBound = QtCore.Property(
        float, lambda self: self._range.minimum, lambda self, v: setattr(self._range, "minimum", v)
    )
    maximumBound = QtCore.Property(
        float, lambda self: self._range.maximum, lambda self, v: setattr(self._range, "maximum", v)
    )
