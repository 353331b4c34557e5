"""``qMRMLSliderWidget``, ``qMRMLSpinBox``, ``qMRMLRangeWidget``: numbers with the scene's units."""

from PySide6 import QtCore, QtGui

from ..bridge.pyside import implements
from ..ctk_widgets.ranges import RangeWidget
from ..ctk_widgets.sliders import SliderWidget
from ..ctk_widgets.spin_box import DoubleSpinBox
from ..qtproperty import stored, stored_enum
from .scene_widget import HasScene

_PREFIX, _SUFFIX, _PRECISION, _MINIMUM, _MAXIMUM, _SCALING = 1, 2, 4, 8, 16, 32


class _UnitAware(HasScene):
    """Takes prefix, suffix and decimals from the unit of its quantity."""

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Set the scene that knows the units."""
        super().setMRMLScene(scene)
        self._take_unit()

    def setQuantity(self, quantity: str) -> None:  # noqa: N802
        """Set what is measured ("length")."""
        self.quantity = quantity

    def setUnitAwareProperties(self, properties: object) -> None:  # noqa: N802
        """Set what is taken from the unit."""
        self.unitAwareProperties = properties

    def _unit(self) -> object:
        """The unit node of the quantity, or None."""
        if self._scene is None or not self.quantity:
            return None
        selection = self._scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        identifier = selection.GetUnitNodeID(self.quantity) if selection is not None else None
        return self._scene.GetNodeByID(identifier) if identifier else None

    def _take_unit(self) -> None:
        unit, taken = self._unit(), self.unitAwareProperties
        if unit is None:
            return
        if taken & _PREFIX:
            self.prefix = unit.GetPrefix() or ""
        if taken & _SUFFIX:
            self.suffix = unit.GetSuffix() or ""
        if taken & _PRECISION:
            self.setDecimals(unit.GetPrecision())
        if taken & _MINIMUM:
            self.minimum = unit.GetMinimumValue()
        if taken & _MAXIMUM:
            self.maximum = unit.GetMaximumValue()


@implements("qMRMLSliderWidget")
class MRMLSliderWidget(_UnitAware, SliderWidget):
    """A slider with a unit."""

    quantity = stored(str, "", "_take_unit")
    unitAwareProperties = stored_enum(_PREFIX | _SUFFIX | _PRECISION | _SCALING, "_take_unit")

    def setOrientation(self, orientation: object) -> None:  # noqa: N802
        """Lay the slider along an axis."""
        self._slider.setOrientation(orientation)

    orientation = QtCore.Property(
        int,
        lambda self: self._slider.orientation,
        lambda self, value: setattr(self._slider, "orientation", value),
    )


@implements("qMRMLSpinBox")
class MRMLSpinBox(_UnitAware, DoubleSpinBox):
    """A spin box with a unit."""

    quantity = stored(str, "", "_take_unit")
    unitAwareProperties = stored_enum(
        _PREFIX | _SUFFIX | _PRECISION | _MINIMUM | _MAXIMUM, "_take_unit"
    )


@implements("qMRMLRangeWidget")
class MRMLRangeWidget(HasScene, RangeWidget):
    """A range with a unit."""

    quantity = stored(str, "")
    minimumHandlePalette = stored(QtGui.QPalette, QtGui.QPalette)
    maximumHandlePalette = stored(QtGui.QPalette, QtGui.QPalette)

    def setQuantity(self, quantity: str) -> None:  # noqa: N802
        """Set what is measured."""
        self.quantity = quantity
