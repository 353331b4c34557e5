"""``qMRMLThreeDWidget``: a real 3D view."""

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..mrml_widgets.observers import Observers
from ..mrml_widgets.scene_widget import MRMLWidget
from .render_widget import RenderWidget


@implements("qMRMLThreeDView")
class ThreeDView(RenderWidget):
    """The displayable managers of one 3D view node."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node: object = None
        self._style: object = None
        self._observers = Observers(self)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()

    def start(self, node: object) -> None:
        """Show a view node."""
        self._node = node
        self._renderer.SetBackground(node.GetBackgroundColor())
        self._renderer.SetBackground2(node.GetBackgroundColor2())
        self._renderer.GradientBackgroundOn()
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        self._style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self._style.SetInteractor(self._interactor)
        self._group.Initialize(factory, self._renderer)
        self._style.SetDisplayableManagers(self._group)
        self._group.SetMRMLDisplayableNode(node)
        self._observers.add(self._group, "UpdateEvent", "scheduleRender")
        self._observers.add(
            node, slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent, "resetFocalPoint"
        )

    def resetFocalPoint(self) -> None:  # noqa: N802
        """Look at the middle of everything that is shown; the box does not count."""
        node = self._node
        shown = node.GetBoxVisible(), node.GetAxisLabelsVisible()
        modifying = node.StartModify()
        node.SetBoxVisible(0)
        node.SetAxisLabelsVisible(0)
        node.EndModify(modifying)
        bounds = [0.0] * 6
        self._renderer.ComputeVisiblePropBounds(bounds)
        if vtk.vtkMath.AreBoundsInitialized(bounds):
            self._look_at([(bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)])
        modifying = node.StartModify()
        node.SetBoxVisible(shown[0])
        node.SetAxisLabelsVisible(shown[1])
        node.EndModify(modifying)
        self.scheduleRender()

    def _look_at(self, center: list[float]) -> None:
        """Move the camera so that it looks at a point from the same side."""
        camera = self._renderer.GetActiveCamera()
        shift = [c - f for c, f in zip(center, camera.GetFocalPoint(), strict=True)]
        position = [p + s for p, s in zip(camera.GetPosition(), shift, strict=True)]
        camera.SetFocalPoint(center)
        camera.SetPosition(position)
        self._renderer.ResetCameraClippingRange()

    def resetCamera(self, *_: bool) -> None:  # noqa: N802
        """Show everything."""
        self._renderer.ResetCamera()
        self.scheduleRender()

    def cameraNode(self) -> object:  # noqa: N802
        """The camera of this view."""
        if self._node is None:
            return None
        logic = slicer.app.applicationLogic().GetModuleLogic("Cameras")
        return logic.GetViewActiveCameraNode(self._node)

    def rotateToViewAxis(self, axis: object) -> None:  # noqa: N802
        """Look along an axis of the patient."""
        if self.cameraNode() is not None and isinstance(axis, int):
            self.cameraNode().RotateTo(axis)
            self.scheduleRender()

    def lookFromAxis(self, axis: object, _: float = 10.0) -> None:  # noqa: N802
        """Look from a side of the patient (right, left, superior, inferior, anterior,
        posterior)."""
        number = int(getattr(axis, "value", axis))
        # The camera's directions stand in another order than the axes of the widget.
        directions = {1: 0, 2: 1, 3: 5, 4: 4, 5: 3, 6: 2}
        if number in directions and self.cameraNode() is not None:
            self.cameraNode().RotateTo(directions[number])
            self.scheduleRender()

    lookFromViewAxis = lookFromAxis

    def mrmlViewNode(self) -> object:  # noqa: N802
        """The view node."""
        return self._node

    def interactorObserver(self) -> object:  # noqa: N802
        """What handles the events."""
        return self._style

    def getDisplayableManagers(self, collection: vtk.vtkCollection) -> None:  # noqa: N802
        """Collect the displayable managers."""
        for index in range(self._group.GetDisplayableManagerCount()):
            collection.AddItem(self._group.GetNthDisplayableManager(index))

    def displayableManagerByClassName(self, name: object) -> object:  # noqa: N802
        """A displayable manager."""
        text = name.decode() if isinstance(name, bytes) else name
        return self._group.GetDisplayableManagerByClassName(text)


@implements("qMRMLThreeDWidget")
class ThreeDWidget(MRMLWidget):
    """A 3D view with its name."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._logic: object = None
        self._label, self._view = QtWidgets.QLabel("1", self), ThreeDView(self)
        self._label.setStyleSheet(
            "background: #b8b8e6; color: black; padding: 0 6px; font-weight: bold"
        )
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._label)
        layout.addWidget(self._view, 1)

    def start(self, application_logic: object, scene: object, name: str) -> None:
        """Make the view node called ``name`` and show it."""
        logic = self._logic = slicer.vtkMRMLViewLogic()
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.GetViewLogics().AddItem(logic)
        logic.SetMRMLScene(scene)
        node = logic.AddViewNode(name)
        node.SetMappedInLayout(1)
        self.setObjectName(f"ThreeDWidget{name}")
        self.setMRMLScene(scene)
        self._view.start(node)

    def threeDView(self) -> ThreeDView:  # noqa: N802
        """The view."""
        return self._view

    viewWidget = threeDView

    def viewLogic(self) -> object:  # noqa: N802
        """The logic."""
        return self._logic

    logic = viewLogic

    def mrmlViewNode(self) -> object:  # noqa: N802
        """The view node."""
        return self._view.mrmlViewNode()

    mrmlAbstractViewNode = mrmlViewNode


@implements("qMRMLThreeDViewControllerWidget")
class ThreeDController(MRMLWidget):
    """The bar of a 3D view (empty here)."""

    barReset = QtCore.Signal()
