"""``qMRMLTransformSliders``: three sliders that move a linear transform."""

import vtk
from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..ctk_widgets.sliders import SliderWidget
from ..qtproperty import number, passed
from .observers import Observers
from .scene_widget import MRMLWidget

_ROTATION, _TRANSLATION = 0, 1
_LOCAL = 1


@implements("qMRMLTransformSliders")
class TransformSliders(MRMLWidget):
    """Translation or rotation along the patient's axes: left-right, posterior-anterior,
    inferior-superior."""

    valuesChanged = QtCore.Signal()
    rangeChanged = QtCore.Signal(float, float)
    decimalsChanged = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node: object = None
        self._kind, self._reference = _TRANSLATION, 0
        self._observers = Observers(self)
        self._last = [0.0, 0.0, 0.0]
        self._group = QtWidgets.QGroupBox("Translation", self)
        self._limits = QtWidgets.QWidget(self._group)
        form = QtWidgets.QFormLayout(self._group)
        self._labels, self._sliders = [], []
        for axis, text in enumerate(("LR", "PA", "IS")):
            label, slider = QtWidgets.QLabel(text, self._group), SliderWidget(self._group)
            slider.minimum, slider.maximum = -200.0, 200.0
            slider.valueChanged.connect(lambda value, axis=axis: self._move(axis, value))
            form.addRow(label, slider)
            self._labels.append(label)
            self._sliders.append(slider)
        form.addRow(self._limits)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.addWidget(self._group)
        self.setEnabled(False)

    def mrmlTransformNode(self) -> object:  # noqa: N802
        """The transform, or None."""
        return self._node

    def setMRMLTransformNode(self, node: object) -> None:  # noqa: N802
        """Set the transform; without one, the sliders are disabled."""
        if node is not None and not node.IsA("vtkMRMLTransformNode"):
            node = None
        self._observers.clear()
        self._node = node
        if node is not None:
            self._observers.add(node, node.TransformModifiedEvent, "_from_node")
            self._from_node()
        self.setEnabled(node is not None)

    def _from_node(self) -> None:
        """Translations are shown as they are; rotations cannot be read from a matrix."""
        if self._kind == _TRANSLATION and self._reference != _LOCAL:
            matrix = vtk.vtkMatrix4x4()
            self._node.GetMatrixTransformToParent(matrix)
            for axis, slider in enumerate(self._sliders):
                blocked = slider.blockSignals(True)
                slider.setValue(matrix.GetElement(axis, 3))
                slider.blockSignals(blocked)
                self._last[axis] = slider.value

    def _move(self, axis: int, value: float) -> None:
        """Apply what a slider has moved by."""
        if self._kind == _ROTATION:  # the other axes start anew
            self.resetUnactiveSliders(active=axis)
        shift, self._last[axis] = value - self._last[axis], value
        if self._node is not None:
            transform = vtk.vtkTransform()
            matrix = vtk.vtkMatrix4x4()
            self._node.GetMatrixTransformToParent(matrix)
            transform.SetMatrix(matrix)
            if self._reference == _LOCAL:
                transform.PreMultiply()
            else:
                transform.PostMultiply()
            along = [0.0, 0.0, 0.0]
            along[axis] = 1.0
            if self._kind == _ROTATION:
                transform.RotateWXYZ(shift, along)
            else:
                transform.Translate([shift * each for each in along])
            self._node.SetMatrixTransformToParent(transform.GetMatrix())
        self.valuesChanged.emit()

    def reset(self) -> None:
        """Put all sliders at 0."""
        for slider in self._sliders:
            slider.setValue(0.0)

    def resetUnactiveSliders(self, active: int | None = None) -> None:  # noqa: N802
        """Put the sliders that are not being moved at 0, without a word."""
        for axis, slider in enumerate(self._sliders):
            if axis != active:
                blocked = slider.blockSignals(True)
                slider.setValue(0.0)
                slider.blockSignals(blocked)
                self._last[axis] = 0.0

    def setRange(self, low: float, high: float) -> None:  # noqa: N802
        """Set both ends of the sliders."""
        for slider in self._sliders:
            slider.minimum, slider.maximum = low, high
        self.rangeChanged.emit(low, high)

    def setDecimals(self, decimals: int) -> None:  # noqa: N802
        """Set how many decimals are shown."""
        changed = decimals != self._sliders[0].decimals
        for slider in self._sliders:
            slider.setDecimals(decimals)
        if changed:
            self.decimalsChanged.emit(decimals)

    def _set_kind(self, kind: object) -> None:
        self._kind = number(kind)
        self._last = [0.0, 0.0, 0.0]

    def _set_reference(self, reference: object) -> None:
        self._reference = number(reference)

    def _set_step(self, step: float) -> None:
        for slider in self._sliders:
            slider.singleStep = step

    def _label(axis: int) -> QtCore.Property:  # noqa: N805 - used while the class is made
        return QtCore.Property(
            str,
            lambda self: self._labels[axis].text(),
            lambda self, text: self._labels[axis].setText(text),
        )

    Title = passed(str, "_group", "title", "setTitle")
    LRLabel, PALabel, ISLabel = map(_label, range(3))
    TypeOfTransform = QtCore.Property(int, lambda self: self._kind, _set_kind)
    CoordinateReference = QtCore.Property(int, lambda self: self._reference, _set_reference)
    SingleStep = QtCore.Property(float, lambda self: self._sliders[1].singleStep, _set_step)
    decimals = QtCore.Property(int, lambda self: self._sliders[0].decimals, setDecimals)
    minimum = QtCore.Property(
        float,
        lambda self: self._sliders[0].minimum,
        lambda self, low: self.setRange(low, self._sliders[0].maximum),
    )
    maximum = QtCore.Property(
        float,
        lambda self: self._sliders[0].maximum,
        lambda self, high: self.setRange(self._sliders[0].minimum, high),
    )
    minMaxVisible = QtCore.Property(
        bool,
        lambda self: self._limits.isVisibleTo(self),
        lambda self, on: self._limits.setVisible(on),
    )
