"""Widgets that show and change parameters."""

import enum
import typing

import ctk
import qt
import slicer

from .annotations import (
    Choice,
    Decimals,
    FloatRange,
    Maximum,
    Minimum,
    RangeBounds,
    SingleStep,
    WithinRange,
    first,
    split,
)
from .serializers import _PATHS, UnionSerializer

_registered: list[type] = []


class GuiConnector:
    """Connects one widget with one value."""

    def __init__(self, widget=None, datatype=None):
        self._widget, self._callback = widget, None

    @staticmethod
    def canRepresent(widget, datatype) -> bool:  # noqa: N802
        """Whether it is for this widget and type."""
        return False

    @classmethod
    def create(cls, widget, datatype):
        """One for this widget and type."""
        return cls(widget, datatype)

    def onChanged(self, callback):  # noqa: N802
        """Call a function when the user changes the widget; None ends that."""
        if self._callback is not None:
            self._disconnect()
        self._callback = callback
        if callback is not None:
            self._connect()

    def changed(self):
        """The widget changed."""
        if self._callback is not None:
            self._callback()

    def widget(self):
        """The widget."""
        return self._widget

    def _connect(self):
        raise NotImplementedError

    def _disconnect(self):
        raise NotImplementedError

    def read(self):
        """The widget's value."""
        raise NotImplementedError

    def write(self, value):
        """Show a value."""
        raise NotImplementedError


def parameterNodeGuiConnector(classtype=None):  # noqa: N802
    """Class decorator: register a connector."""

    def wrap(cls):
        _registered.append(cls)
        return cls

    return wrap if classtype is None else wrap(classtype)


def createGuiConnector(widget, datatype):  # noqa: N802
    """The connector for a widget and a type; RuntimeError where there is none."""
    for cls in _registered:
        if cls.canRepresent(widget, datatype):
            return cls.create(widget, datatype)
    raise RuntimeError(
        f"Unable to create GUI connector from datatype '{datatype}' to widget '{type(widget)}'"
    )


class _SignalConnector(GuiConnector):
    """A connector whose widget has one signal and one property."""

    types: tuple = ()
    datatypes: tuple = ()
    signal = ""
    attribute = ""

    @classmethod
    def canRepresent(cls, widget, datatype):
        """By the exact classes of the widget and the value."""
        return type(widget) in cls.types and split(datatype)[0] in cls.datatypes

    def _connect(self):
        getattr(self._widget, self.signal).connect(self.changed)

    def _disconnect(self):
        getattr(self._widget, self.signal).disconnect(self.changed)

    def read(self):
        """The property."""
        return getattr(self._widget, self.attribute)

    def write(self, value):
        """Set the property."""
        setattr(self._widget, self.attribute, value)


@parameterNodeGuiConnector
class CheckBoxConnector(_SignalConnector):
    """Check boxes and checkable buttons."""

    types = (qt.QCheckBox, ctk.ctkCheckBox, qt.QPushButton)
    datatypes = (bool,)
    signal, attribute = "toggled", "checked"

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        if type(widget) is qt.QPushButton and not widget.checkable:
            raise RuntimeError("Cannot connect a bool with a button that is not checkable")


@parameterNodeGuiConnector
class CheckablePushButtonConnector(GuiConnector):
    """ctk's button with a check box."""

    @staticmethod
    def canRepresent(widget, datatype):
        """bool."""
        return type(widget) is ctk.ctkCheckablePushButton and split(datatype)[0] is bool

    def _connect(self):
        self._widget.checkBoxToggled.connect(self.changed)

    def _disconnect(self):
        self._widget.checkBoxToggled.disconnect(self.changed)

    def read(self):
        """Whether the box is checked."""
        return self._widget.checkState == qt.Qt.Checked

    def write(self, value):
        """Check the box."""
        self._widget.checkState = qt.Qt.Checked if value else qt.Qt.Unchecked


def _limits(annotations: list, lowest, highest) -> tuple:
    """The ends that the annotations give, and whether both are given."""
    within = first(annotations, WithinRange)
    if within is not None:
        return within.minimum, within.maximum, True
    low, high = first(annotations, Minimum), first(annotations, Maximum)
    return (
        low.minimum if low else lowest,
        high.maximum if high else highest,
        low is not None and high is not None,
    )


@parameterNodeGuiConnector
class IntConnector(_SignalConnector):
    """Integer sliders and spin boxes."""

    types = (qt.QSlider, qt.QSpinBox)
    datatypes = (int,)
    signal, attribute = "valueChanged", "value"

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        annotations = split(datatype)[1]
        low, high, _ = _limits(annotations, -(2**31), 2**31 - 1)
        widget.setMinimum(low)
        widget.setMaximum(high)
        step = first(annotations, SingleStep)
        if step is not None:
            widget.singleStep = step.value


@parameterNodeGuiConnector
class FloatConnector(_SignalConnector):
    """Sliders and spin boxes of doubles."""

    types = (
        qt.QDoubleSpinBox,
        ctk.ctkSliderWidget,
        slicer.qMRMLSliderWidget,
        ctk.ctkDoubleSlider,
        ctk.ctkDoubleSpinBox,
        slicer.qMRMLSpinBox,
    )
    datatypes = (float, int)
    signal, attribute = "valueChanged", "value"

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        bare, annotations = split(datatype)
        self._integer = bare is int
        decimals = first(annotations, Decimals)
        if type(widget) is not ctk.ctkDoubleSlider:
            if self._integer:
                widget.decimals = 0
            elif decimals is not None:
                widget.decimals = decimals.value
        step = first(annotations, SingleStep)
        if step is not None:
            widget.singleStep = step.value
        low, high, bounded = _limits(annotations, float("-inf"), float("inf"))
        if type(widget) in (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget) and not bounded:
            raise RuntimeError("Cannot connect a slider with a float that has no bounds")
        widget.minimum, widget.maximum = low, high

    def read(self):
        """A whole number for int."""
        return int(self._widget.value) if self._integer else self._widget.value

    def write(self, value):
        """A whole number for int."""
        self._widget.value = int(value) if self._integer else value


@parameterNodeGuiConnector
class ChoiceConnector(_SignalConnector):
    """Combo boxes of given choices."""

    types = (qt.QComboBox, ctk.ctkComboBox)
    datatypes = (int, float, str, bool)
    signal = "currentIndexChanged"

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        choice = first(split(datatype)[1], Choice)
        if choice is None:
            raise RuntimeError("A combo box needs the Choice annotation")
        self._choices = choice.choices
        widget.clear()
        for each in self._choices:
            widget.addItem(str(each))

    def read(self):
        """The choice at the index."""
        return self._choices[self._widget.currentIndex]

    def write(self, value):
        """The index of the choice."""
        if value in self._choices:
            self._widget.currentIndex = self._choices.index(value)


@parameterNodeGuiConnector
class EnumConnector(_SignalConnector):
    """Combo boxes of an enum's values."""

    signal = "currentIndexChanged"

    @classmethod
    def canRepresent(cls, widget, datatype):
        """An enum."""
        bare = split(datatype)[0]
        return (
            type(widget) in (qt.QComboBox, ctk.ctkComboBox)
            and isinstance(bare, type)
            and issubclass(bare, enum.Enum)
        )

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        self._values = list(split(datatype)[0])
        widget.clear()
        for each in self._values:
            # A value may say how it is to be shown.
            widget.addItem(each.label() if hasattr(each, "label") else each.name)

    def read(self):
        """The value at the index."""
        return self._values[self._widget.currentIndex]

    def write(self, value):
        """The index of the value."""
        self._widget.currentIndex = self._values.index(value)


@parameterNodeGuiConnector
class LineEditConnector(_SignalConnector):
    """Line edits."""

    types, datatypes = (qt.QLineEdit,), (str,)
    signal, attribute = "textChanged", "text"


@parameterNodeGuiConnector
class LabelConnector(GuiConnector):
    """Labels only show."""

    @staticmethod
    def canRepresent(widget, datatype):
        """str."""
        return type(widget) is qt.QLabel and split(datatype)[0] is str

    def _connect(self):
        pass

    def _disconnect(self):
        pass

    def read(self):
        """The text."""
        return self._widget.text

    def write(self, value):
        """The text."""
        self._widget.text = value


@parameterNodeGuiConnector
class TextEditConnector(_SignalConnector):
    """Text edits, as plain text."""

    types, datatypes = (qt.QTextEdit,), (str,)
    signal, attribute = "textChanged", "plainText"

    def write(self, value):
        """Only where it differs, so that the cursor stays."""
        if self._widget.plainText != value:
            self._widget.plainText = value


@parameterNodeGuiConnector
class RangeConnector(_SignalConnector):
    """Ranges."""

    types = (ctk.ctkRangeWidget, ctk.ctkDoubleRangeSlider, slicer.qMRMLRangeWidget)
    datatypes = (FloatRange,)
    signal = "valuesChanged"

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        annotations = split(datatype)[1]
        bounds = first(annotations, RangeBounds)
        if bounds is not None:
            widget.minimum, widget.maximum = bounds.minimum, bounds.maximum
        decimals = first(annotations, Decimals)
        if decimals is not None and type(widget) is not ctk.ctkDoubleRangeSlider:
            widget.decimals = decimals.value

    def read(self):
        """Both values."""
        return FloatRange(self._widget.minimumValue, self._widget.maximumValue)

    def write(self, value):
        """Both values."""
        self._widget.setValues(value.minimum, value.maximum)


@parameterNodeGuiConnector
class PathConnector(_SignalConnector):
    """Path line edits."""

    types, datatypes = (ctk.ctkPathLineEdit,), _PATHS
    signal, attribute = "currentPathChanged", "currentPath"

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        self._type = split(datatype)[0]

    def read(self):
        """As a path."""
        return self._type(self._widget.currentPath)

    def write(self, value):
        """As a text; the empty path is shown empty."""
        text = str(value)
        self._widget.currentPath = "" if text == "." else text


@parameterNodeGuiConnector
class DirectoryConnector(PathConnector):
    """Folder buttons."""

    types = (ctk.ctkDirectoryButton,)
    signal, attribute = "directoryChanged", "directory"

    def read(self):
        """As a path."""
        return self._type(self._widget.directory)

    def write(self, value):
        """As a text."""
        self._widget.directory = str(value)


def _is_node_type(datatype) -> bool:
    """A node class, or a union of node classes."""
    bare = split(datatype)[0]
    if UnionSerializer.canSerialize(bare):
        members = [each for each in typing.get_args(bare) if each is not type(None)]
        return all(_is_node_type(each) for each in members)
    return isinstance(bare, type) and issubclass(bare, slicer.vtkMRMLNode)


@parameterNodeGuiConnector
class NodeConnector(_SignalConnector):
    """Node selectors."""

    signal = "currentNodeChanged"

    @classmethod
    def canRepresent(cls, widget, datatype):
        """Exactly qMRMLNodeComboBox."""
        return type(widget) is slicer.qMRMLNodeComboBox and _is_node_type(datatype)

    def read(self):
        """The chosen node."""
        return self._widget.currentNode()

    def write(self, value):
        """Choose a node."""
        self._widget.setCurrentNode(value)


@parameterNodeGuiConnector
class ColorConnector(_SignalConnector):
    """Colour buttons."""

    types, datatypes = (ctk.ctkColorPickerButton,), (qt.QColor,)
    signal, attribute = "colorChanged", "color"
