"""``slicer.app.layoutManager()``: which views are shown, and where."""

import slicer
from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import implements
from ..mrml_widgets.observers import Observers
from .slice_view import SliceWidget
from .three_d_view import ThreeDWidget

_PRESETS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


@implements("qSlicerLayoutManager")
class LayoutManager(QtCore.QObject):
    """Three slice views and a 3D view in Slicer's usual layouts, and what modules describe in XML.

    As in Slicer, the views of a described layout are made when it is first shown, stay when it no
    longer is, and the layout node leads: whoever changes its arrangement changes the views.
    """

    layoutChanged = QtCore.Signal(int)
    selectModule = QtCore.Signal(str)
    activeMRMLThreeDViewNodeChanged = QtCore.Signal(object)

    facade_signals = {"layoutChanged(int)": "layoutChanged"}

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._viewport = QtWidgets.QWidget()
        self._viewport.setObjectName("CentralWidgetLayoutFrame")
        self._slices: dict[str, SliceWidget] = {}
        self._three_d: ThreeDWidget | None = None
        self._layout = 0
        self._context: object = None
        self._node: object = None

    def start(self, context: object) -> None:
        """Make the views of a scene (`scene.SceneContext`)."""
        self._context = context
        for name, preset in _PRESETS.items():
            widget = SliceWidget(self._viewport)
            widget.start(context.application_logic, context.scene, name, preset)
            self._slices[name] = widget
        self._three_d = ThreeDWidget(self._viewport)
        self._three_d.start(context.application_logic, context.scene, "1")
        # Only now: it would make nodes of its own for views that are not there yet.
        self._layout_logic = slicer.vtkMRMLLayoutLogic()
        self._layout_logic.SetMRMLScene(context.scene)
        self._node = self._layout_logic.GetLayoutNode()
        self._observers = Observers(self)
        self._observers.add(self._node, "ModifiedEvent", "_follow_node")
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def _arrangement(self, layout: int) -> list[tuple[QtWidgets.QWidget, int, int, int, int]]:
        """Widget, row, column, row span, column span of a layout's views."""
        nodes = slicer.vtkMRMLLayoutNode
        red, yellow, green = (self._slices[name] for name in ("Red", "Yellow", "Green"))
        single = {
            nodes.SlicerLayoutOneUpRedSliceView: red,
            nodes.SlicerLayoutOneUpYellowSliceView: yellow,
            nodes.SlicerLayoutOneUpGreenSliceView: green,
            nodes.SlicerLayoutOneUp3DView: self._three_d,
        }
        if layout in single:
            return [(single[layout], 0, 0, 1, 1)]
        if layout == nodes.SlicerLayoutConventionalView:
            return [(self._three_d, 0, 0, 1, 3), (red, 1, 0, 1, 1),
                    (green, 1, 1, 1, 1), (yellow, 1, 2, 1, 1)]  # fmt: skip
        return [(red, 0, 0, 1, 1), (self._three_d, 0, 1, 1, 1),
                (green, 1, 0, 1, 1), (yellow, 1, 1, 1, 1)]  # fmt: skip

    def setLayout(self, layout: int) -> None:  # noqa: N802
        """Arrange the views; of Slicer's own layouts, those that the host lacks are four up."""
        if layout == self._layout or self._three_d is None:
            return
        self._layout = layout
        own = layout >= slicer.vtkMRMLLayoutNode.SlicerLayoutUserView
        if own and not self._node.IsLayoutDescription(layout):
            raise ValueError(f"layout {layout} has not been described")
        self._node.SetViewArrangement(layout)  # the layout's logic makes its view nodes
        grid = self._viewport.layout()
        if grid is None:
            grid = QtWidgets.QGridLayout(self._viewport)
            grid.setContentsMargins(0, 0, 0, 0)
            grid.setSpacing(2)
        places = self._described() if own else self._arrangement(layout)
        for widget in self.viewWidgets():
            grid.removeWidget(widget)
            shown = any(widget is each[0] for each in places)
            widget.setVisible(shown)
            widget.mrmlAbstractViewNode().SetMappedInLayout(shown)
        for widget, *place in places:
            grid.addWidget(widget, *place)
        self.layoutChanged.emit(layout)

    def _follow_node(self) -> None:
        if self._node.GetViewArrangement() != self._layout:
            self.setLayout(self._node.GetViewArrangement())

    def _described(self) -> list[tuple[QtWidgets.QWidget, int, int, int, int]]:
        """The views of the node's layout; rows and columns may be nested once, in either order."""
        root = self._node.GetLayoutRootElement()
        places = []
        down = root.GetAttribute("type") == "vertical"
        for line, item in enumerate(_children(root)):
            content = item.GetNestedElement(0)
            views = [content]
            if content.GetName() == "layout":
                views = [each.GetNestedElement(0) for each in _children(content)]
            for place, view in enumerate(views):
                row, column = (line, place) if down else (place, line)
                places.append((self._described_view(view), row, column, 1, 1))
        return places

    def _described_view(self, view: object) -> QtWidgets.QWidget:
        kind, tag = view.GetAttribute("class"), view.GetAttribute("singletontag")
        if kind == "vtkMRMLViewNode" and tag == "1":
            return self._three_d
        if kind != "vtkMRMLSliceNode":
            raise ValueError(f"the host cannot show {kind} {tag} in a layout")
        if tag not in self._slices:
            widget = SliceWidget(self._viewport)
            node = self._context.scene.GetSingletonNode(tag, kind)
            widget.start(self._context.application_logic, self._context.scene, tag, node=node)
            self._slices[tag] = widget
        return self._slices[tag]

    layout = QtCore.Property(int, lambda self: self._layout, setLayout, notify=layoutChanged)
    threeDViewCount = QtCore.Property(int, lambda self: int(self._three_d is not None))

    def viewport(self, *_: str) -> QtWidgets.QWidget:
        """The widget that holds the views."""
        return self._viewport

    def sliceViewNames(self) -> list[str]:  # noqa: N802
        """The names of the slice views."""
        return list(self._slices)

    def sliceWidget(self, name: str) -> SliceWidget | None:  # noqa: N802
        """A slice view by its name."""
        return self._slices.get(name)

    def threeDWidget(self, which: object) -> ThreeDWidget | None:  # noqa: N802
        """A 3D view by its number or name."""
        return self._three_d if which in (0, "1", "View1") else None

    def viewWidgets(self) -> list[QtWidgets.QWidget]:  # noqa: N802
        """All views."""
        return [*self._slices.values(), self._three_d]

    def viewWidget(self, node: object) -> QtWidgets.QWidget | None:  # noqa: N802
        """The view of a view node."""
        for widget in self.viewWidgets():
            if widget.mrmlAbstractViewNode() is node:
                return widget
        return None

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene."""
        return self._context.scene

    def mrmlSliceLogics(self) -> object:  # noqa: N802
        """The logics of the slice views."""
        return self._context.application_logic.GetSliceLogics()

    def mrmlViewLogics(self) -> object:  # noqa: N802
        """The logics of the 3D views."""
        return self._context.application_logic.GetViewLogics()

    def layoutLogic(self) -> object:  # noqa: N802
        """The logic of the layout node."""
        return self._layout_logic

    def activeMRMLThreeDViewNode(self) -> object:  # noqa: N802
        """The node of the 3D view."""
        return self._three_d.mrmlViewNode()

    def activeThreeDRenderer(self) -> object:  # noqa: N802
        """The renderer of the 3D view."""
        return self._three_d.threeDView().renderWindow().GetRenderers().GetFirstRenderer()

    def resetThreeDViews(self) -> None:  # noqa: N802
        """Look at the middle of everything."""
        # The displayable manager of the box listens to this as the view does.
        node = self._three_d.mrmlViewNode()
        node.InvokeEvent(slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent)
        self._three_d.threeDView().resetCamera()

    def resetSliceViews(self) -> None:  # noqa: N802
        """Show the whole of the volumes."""
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def render_all(self) -> None:
        """Render all views now (for screenshots)."""
        for widget in self.viewWidgets():
            if widget.isVisible():
                widget.viewWidget().forceRender()

    def setRenderPaused(self, paused: bool) -> None:  # noqa: N802
        """Pause or resume all views."""
        for widget in self.viewWidgets():
            widget.viewWidget().setRenderPaused(paused)

    def pauseRender(self) -> None:  # noqa: N802
        """Pause all views."""
        self.setRenderPaused(True)

    def resumeRender(self) -> None:  # noqa: N802
        """Resume all views."""
        self.setRenderPaused(False)


def _children(element: object) -> list:
    """The nested elements of an XML element."""
    return [element.GetNestedElement(i) for i in range(element.GetNumberOfNestedElements())]
