"""``qMRMLWidget``: a widget that passes a scene on to its children."""

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements


class HasScene:
    """Mixed into widgets with ``setMRMLScene`` and ``mrmlScene``."""

    _scene: object = None

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene, or None."""
        return self._scene

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Set the scene."""
        self._scene = scene


@implements("qMRMLWidget")
class MRMLWidget(QtWidgets.QWidget):
    """A widget with a scene; it tells its children of it through a signal."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene: object = None

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene, or None."""
        return self._scene

    def setMRMLScene(self, scene: object) -> None:  # noqa: N802
        """Set the scene and tell, where it is another."""
        if scene is self._scene:
            return
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def preInitializeApplication(self) -> None:  # noqa: N802
        """Nothing to do here."""

    def postInitializeApplication(self) -> None:  # noqa: N802
        """Nothing to do here."""

    def pixmapFromIcon(self, icon: QtGui.QIcon) -> QtGui.QPixmap:  # noqa: N802
        """A small picture of an icon."""
        return icon.pixmap(16, 16)


@implements("qSlicerWidget")
class SlicerWidget(MRMLWidget):
    """The same, under the name that the application's widgets have."""
