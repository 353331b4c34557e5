"""A VTK render window shown in a Qt widget, drawn offscreen so that no display is needed."""

import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtkmodules.util import numpy_support

from ..bridge.pyside import implements

_BUTTONS = {
    QtCore.Qt.MouseButton.LeftButton: "LeftButton",
    QtCore.Qt.MouseButton.MiddleButton: "MiddleButton",
    QtCore.Qt.MouseButton.RightButton: "RightButton",
}


@implements("ctkVTKAbstractView")
class RenderWidget(QtWidgets.QWidget):
    """Renders when asked (at most once for each turn of the event loop), and passes events on."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        self._corner = vtk.vtkCornerAnnotation()
        self._renderer.AddViewProp(self._corner)
        self._grabber = vtk.vtkWindowToImageFilter()
        self._grabber.SetInput(self._window)
        self._grabber.ReadFrontBufferOff()
        self._image = QtGui.QImage()
        self._paused = 0
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.forceRender)
        self.setMouseTracking(True)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setMinimumSize(80, 80)
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_OpaquePaintEvent)

    # -- rendering -----------------------------------------------------------------------------

    def scheduleRender(self) -> None:  # noqa: N802
        """Render soon, once for all requests until then."""
        if not self._paused and not self._timer.isActive():
            self._timer.start(0)

    def forceRender(self) -> None:  # noqa: N802
        """Render now."""
        if self._paused or self.width() < 2 or self.height() < 2:
            return
        self._timer.stop()
        self._window.SetSize(self.width(), self.height())
        self._window.Render()
        self._grabber.Modified()
        self._grabber.Update()
        data = self._grabber.GetOutput()
        width, height, _ = data.GetDimensions()
        pixels = numpy_support.vtk_to_numpy(data.GetPointData().GetScalars())
        pixels = pixels.reshape(height, width, -1)[::-1, :, :3].copy()
        image = QtGui.QImage(
            pixels.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888
        )
        self._image = image.copy()
        self.update()

    def setRenderPaused(self, paused: bool) -> int:  # noqa: N802
        """Pause or resume; pauses nest."""
        return self.pauseRender() if paused else self.resumeRender()

    def pauseRender(self) -> int:  # noqa: N802
        """Render no more until resumed as often."""
        self._paused += 1
        return self._paused

    def resumeRender(self) -> int:  # noqa: N802
        """Undo one pause."""
        self._paused = max(self._paused - 1, 0)
        if not self._paused:
            self.scheduleRender()
        return self._paused

    def renderWindow(self) -> vtk.vtkRenderWindow:  # noqa: N802
        """The render window."""
        return self._window

    def interactor(self) -> vtk.vtkRenderWindowInteractor:
        """The interactor."""
        return self._interactor

    def interactorStyle(self) -> object:  # noqa: N802
        """What handles the events."""
        return self._interactor.GetInteractorStyle()

    def cornerAnnotation(self) -> vtk.vtkCornerAnnotation:  # noqa: N802
        """The texts in the corners."""
        return self._corner

    def setCornerAnnotationText(self, text: str) -> None:  # noqa: N802
        """Set the text in the upper right corner."""
        self._corner.SetText(2, text)
        self.scheduleRender()

    cornerAnnotationText = QtCore.Property(
        str, lambda self: self._corner.GetText(2) or "", setCornerAnnotationText
    )

    # -- Qt's events -----------------------------------------------------------------------------

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        """Show the last image; render first where there is none."""
        if self._image.isNull() or self._image.size() != self.size():
            self.forceRender()
        painter = QtGui.QPainter(self)
        if self._image.isNull():
            painter.fillRect(self.rect(), QtCore.Qt.GlobalColor.black)
        else:
            painter.drawImage(self.rect(), self._image)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:  # noqa: N802
        """Fit the window."""
        self._window.SetSize(self.width(), self.height())
        self._interactor.SetSize(self.width(), self.height())
        self.on_resized()
        self.scheduleRender()

    def on_resized(self) -> None:
        """For views that have to tell their node."""

    def _send(self, event: QtGui.QSinglePointEvent, name: str, repeat: int = 0) -> None:
        modifiers, keys = event.modifiers(), QtCore.Qt.KeyboardModifier
        position = event.position()
        self._interactor.SetEventInformationFlipY(
            int(position.x()),
            int(position.y()),
            int(bool(modifiers & keys.ControlModifier)),
            int(bool(modifiers & keys.ShiftModifier)),
            chr(0),
            repeat,
            None,
        )
        self._interactor.SetAltKey(int(bool(modifiers & keys.AltModifier)))
        self._interactor.InvokeEvent(name)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Pass it on."""
        if event.button() in _BUTTONS:
            self._send(event, f"{_BUTTONS[event.button()]}PressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Pass it on."""
        if event.button() in _BUTTONS:
            self._send(event, f"{_BUTTONS[event.button()]}ReleaseEvent")

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Pass it on."""
        self._send(event, "MouseMoveEvent")

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:  # noqa: N802
        """Pass it on."""
        forward = event.angleDelta().y() > 0
        self._send(event, "MouseWheelForwardEvent" if forward else "MouseWheelBackwardEvent")

    def enterEvent(self, event: QtGui.QEnterEvent) -> None:  # noqa: N802
        """Pass it on."""
        self._send(event, "EnterEvent")

    def leaveEvent(self, event: QtCore.QEvent) -> None:  # noqa: N802
        """Pass it on."""
        self._interactor.InvokeEvent("LeaveEvent")
