"""``qMRMLSliceWidget``: a real slice view with its bar."""

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..ctk_widgets.sliders import SliderWidget
from ..mrml_widgets.observers import Observers
from ..mrml_widgets.scene_widget import MRMLWidget
from .render_widget import RenderWidget

_COLORS = {"Red": "#f34a33", "Yellow": "#edd54c", "Green": "#6eb04b"}


@implements("qMRMLSliceView")
class SliceView(RenderWidget):
    """Slice image and displayable managers of one slice node."""

    resized = QtCore.Signal(QtCore.QSize)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._logic: object = None
        self._observers = Observers(self)
        camera = self._renderer.GetActiveCamera()
        camera.ParallelProjectionOn()
        self._mapper = vtk.vtkImageMapper()
        # The slice logic has applied window and level already: its colours are shown as they are.
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self._actor.SetVisibility(False)
        # Before anything that a displayable manager draws, for what comes later is drawn over it.
        self._renderer.AddViewProp(self._actor)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._style: object = None

    def start(self, logic: object) -> None:
        """Show the slice of a logic."""
        self._logic = logic
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._group.Initialize(factory, self._renderer)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(logic)
        self._style.SetDisplayableManagers(self._group)
        self._style.SetInteractor(self._interactor)
        self._group.SetMRMLDisplayableNode(logic.GetSliceNode())
        self._observers.add(self._group, "UpdateEvent", "scheduleRender")
        self._observers.add(logic, "ModifiedEvent", "_image_changed")
        self._observers.add(logic.GetSliceNode(), "ModifiedEvent", "scheduleRender")
        self._image_changed()

    def _image_changed(self) -> None:
        connection = self._logic.GetImageDataConnection()
        if connection is not None:
            self._mapper.SetInputConnection(connection)
        self._actor.SetVisibility(connection is not None)
        self.scheduleRender()

    def on_resized(self) -> None:
        """Tell the slice node."""
        if self._logic is not None:
            self._logic.ResizeSliceNode(self.width(), self.height())
        self.resized.emit(self.size())

    def mrmlSliceNode(self) -> object:  # noqa: N802
        """The slice node."""
        return self._logic.GetSliceNode() if self._logic is not None else None

    def sliceViewInteractorStyle(self) -> object:  # noqa: N802
        """What handles the events."""
        return self._style

    interactorObserver = sliceViewInteractorStyle

    def getDisplayableManagers(self, collection: vtk.vtkCollection) -> None:  # noqa: N802
        """Collect the displayable managers."""
        for index in range(self._group.GetDisplayableManagerCount()):
            collection.AddItem(self._group.GetNthDisplayableManager(index))

    def displayableManagerByClassName(self, name: object) -> object:  # noqa: N802
        """A displayable manager."""
        text = name.decode() if isinstance(name, bytes) else name
        return self._group.GetDisplayableManagerByClassName(text)

    def convertRASToXYZ(self, ras: list) -> list:  # noqa: N802
        """From patient to view coordinates."""
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.mrmlSliceNode().GetXYToRAS(), matrix)
        return list(matrix.MultiplyPoint((*ras[:3], 1.0))[:3])

    def convertXYZToRAS(self, xyz: list) -> list:  # noqa: N802
        """From view to patient coordinates."""
        return list(self.mrmlSliceNode().GetXYToRAS().MultiplyPoint((*xyz[:3], 1.0))[:3])

    def convertDeviceToXYZ(self, position: list) -> list:  # noqa: N802
        """From widget to view coordinates."""
        return [float(position[0]), float(self.height() - position[1]), 0.0]


@implements("qMRMLSliceControllerWidget")
class SliceController(MRMLWidget):
    """The bar of a slice view: its name and the position of the slice."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._logic: object = None
        self._observers = Observers(self)
        self._label = QtWidgets.QLabel(self)
        self._slider = SliderWidget(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(2, 0, 2, 0)
        layout.addWidget(self._label)
        layout.addWidget(self._slider, 1)
        self._slider.valueChanged.connect(self.setSliceOffsetValue)

    def start(self, logic: object) -> None:
        """Show the position of a logic's slice."""
        self._logic = logic
        node = logic.GetSliceNode()
        color = QtGui.QColor.fromRgbF(*node.GetLayoutColor()).name()
        self._label.setText(node.GetLayoutLabel() or node.GetLayoutName()[:1])
        self._label.setStyleSheet(
            f"background: {color}; color: black; padding: 0 6px; font-weight: bold"
        )
        self._observers.add(node, "ModifiedEvent", "_from_node")
        self._observers.add(logic, "ModifiedEvent", "_from_node")
        self._from_node()

    def _from_node(self) -> None:
        bounds, blocked = [0.0] * 6, self._slider.blockSignals(True)
        self._logic.GetSliceBounds(bounds)
        limits = [bounds[4], bounds[5]] if bounds[4] < bounds[5] else [-100.0, 100.0]
        self._slider.minimum, self._slider.maximum = min(limits), max(limits)
        self._slider.setValue(self._logic.GetSliceOffset())
        self._slider.blockSignals(blocked)

    def setSliceOffsetValue(self, value: float) -> None:  # noqa: N802
        """Move the slice."""
        if self._logic is not None:
            self._logic.SetSliceOffset(value)

    trackSliceOffsetValue = setSliceOffsetValue

    def fitSliceToBackground(self) -> None:  # noqa: N802
        """Show the whole volume."""
        if self._logic is not None:
            self._logic.FitSliceToBackground()

    def mrmlSliceNode(self) -> object:  # noqa: N802
        """The slice node."""
        return self._logic.GetSliceNode() if self._logic is not None else None

    def mrmlSliceCompositeNode(self) -> object:  # noqa: N802
        """Which volumes the slice shows."""
        return self._logic.GetSliceCompositeNode() if self._logic is not None else None

    def sliceLogic(self) -> object:  # noqa: N802
        """The logic."""
        return self._logic

    def sliceOffsetSlider(self) -> QtWidgets.QWidget:  # noqa: N802
        """The slider."""
        return self._slider


@implements("qMRMLSliceWidget")
class SliceWidget(MRMLWidget):
    """Bar and view of a slice."""

    nodeAboutToBeEdited = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._logic: object = None
        self._controller, self._view = SliceController(self), SliceView(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._controller)
        layout.addWidget(self._view, 1)

    def start(
        self,
        application_logic: object,
        scene: object,
        name: str,
        preset: str = "",
        node: object = None,
    ) -> None:
        """Show a slice node, or make the one called ``name`` in an orientation and show it."""
        logic = self._logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(scene)
        if node is not None:
            logic.SetSliceNode(node)
        else:
            logic.AddSliceNode(name)
            node = logic.GetSliceNode()
            node.SetLayoutColor(*[c / 255 for c in QtGui.QColor(_COLORS.get(name)).toTuple()[:3]])
            node.SetOrientation(preset)
        node.SetMappedInLayout(1)
        self.setObjectName(f"qMRMLSliceWidget{name}")
        self.setMRMLScene(scene)
        self._view.start(logic)
        self._controller.start(logic)

    def sliceController(self) -> SliceController:  # noqa: N802
        """The bar."""
        return self._controller

    controllerWidget = sliceController

    def sliceView(self) -> SliceView:  # noqa: N802
        """The view."""
        return self._view

    viewWidget = sliceView

    def sliceLogic(self) -> object:  # noqa: N802
        """The logic."""
        return self._logic

    logic = sliceLogic

    def mrmlSliceNode(self) -> object:  # noqa: N802
        """The slice node."""
        return self._logic.GetSliceNode() if self._logic is not None else None

    mrmlAbstractViewNode = mrmlSliceNode

    def mrmlSliceCompositeNode(self) -> object:  # noqa: N802
        """Which volumes the slice shows."""
        return self._logic.GetSliceCompositeNode() if self._logic is not None else None

    def imageDataConnection(self) -> object:  # noqa: N802
        """The slice image."""
        return self._logic.GetImageDataConnection() if self._logic is not None else None

    def interactorStyle(self) -> object:  # noqa: N802
        """What handles the events."""
        return self._view.sliceViewInteractorStyle()

    def fitSliceToBackground(self) -> None:  # noqa: N802
        """Show the whole volume."""
        if self._logic is not None:
            self._logic.FitSliceToBackground()

    def setSliceOrientation(self, orientation: str) -> None:  # noqa: N802
        """Set the orientation by its name."""
        if self._logic is not None:
            self.mrmlSliceNode().SetOrientation(orientation)

    def _of_node(self, getter: str) -> str:
        """What the slice node says, "" without one."""
        return getattr(self.mrmlSliceNode(), getter)() if self._logic is not None else ""

    sliceOrientation = QtCore.Property(
        str, lambda self: self._of_node("GetOrientation"), setSliceOrientation
    )
    sliceViewName = QtCore.Property(
        str, lambda self: self._of_node("GetLayoutName"), lambda self, name: None
    )
