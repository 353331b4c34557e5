"""``slicer.app``."""

import os
from pathlib import Path

from PySide6 import QtCore, QtWidgets

from ..bridge.pyside import find, implements


@implements("qSlicerApplication")
class Application(QtCore.QObject):
    """The application object; what QApplication offers is passed on to Qt's own."""

    startupCompleted = QtCore.Signal()
    renderPaused = QtCore.Signal(bool)
    mrmlSceneChanged = QtCore.Signal(object)
    aboutToQuit = QtCore.Signal()
    lastWindowClosed = QtCore.Signal()
    paletteChanged = QtCore.Signal(object)

    #: Whether message boxes answer themselves; set by `host.start`.
    testing = True

    #: Whether there is a main window; set by `host.start`.
    has_main_window = True

    #: What `exit` was told; None before it is called.
    exit_status: int | None = None

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        qt = QtWidgets.QApplication.instance()
        qt.aboutToQuit.connect(self.aboutToQuit)
        qt.lastWindowClosed.connect(self.lastWindowClosed)
        self._startup_environment = QtCore.QProcessEnvironment.systemEnvironment()

    def __getattr__(self, name: str) -> object:
        # Only what QObject does not have comes here.
        return getattr(QtWidgets.QApplication.instance(), name)

    def start(self, context: object, home: Path) -> None:
        """Make the parts of the application around a scene."""
        self._context, self._home = context, home
        self._settings = QtCore.QSettings(
            str(home / "Slicer.ini"), QtCore.QSettings.Format.IniFormat, self
        )
        self._io = find("qSlicerCoreIOManager")(self)
        self._io.start(context)
        self._modules = find("qSlicerModuleManager")(self)
        self._layout = find("qSlicerLayoutManager")(self)
        self._options = find("qSlicerCommandOptions")(self)
        self._options.testingEnabled = self.testing

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene."""
        return self._context.scene

    def applicationLogic(self) -> object:  # noqa: N802
        """The application's logic."""
        return self._context.application_logic

    def moduleLogic(self, name: str) -> object:  # noqa: N802
        """The logic of a module."""
        return self._context.module_logics.get(name)

    def layoutManager(self) -> object:  # noqa: N802
        """The views; None where there is no main window to hold them."""
        return self._layout if self.has_main_window else None

    def coreIOManager(self) -> object:  # noqa: N802
        """Reading and writing."""
        return self._io

    ioManager = coreIOManager

    def moduleManager(self) -> object:  # noqa: N802
        """The modules."""
        return self._modules

    def commandOptions(self) -> QtCore.QObject:  # noqa: N802
        """With what the application was started, as far as it is known here."""
        return self._options

    coreCommandOptions = commandOptions

    def settings(self) -> QtCore.QSettings:
        """The settings of this run."""
        return self._settings

    userSettings = settings
    revisionUserSettings = settings
    defaultSettings = settings

    def pythonConsole(self) -> None:  # noqa: N802
        """There is none."""
        return None

    def errorLogModel(self) -> None:  # noqa: N802
        """There is none."""
        return None

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:  # noqa: N802
        """The environment before the application changed it."""
        return QtCore.QProcessEnvironment(self._startup_environment)

    def environment(self) -> QtCore.QProcessEnvironment:
        """The environment now."""
        return QtCore.QProcessEnvironment.systemEnvironment()

    def setEnvironmentVariable(self, key: str, value: str) -> None:  # noqa: N802
        """Set a variable of the environment."""
        os.environ[key] = value

    @classmethod
    def testingEnabled(cls) -> bool:  # noqa: N802
        """Whether message boxes answer themselves."""
        return cls.testing

    def processEvents(self) -> None:  # noqa: N802
        """Let the application breathe."""
        QtCore.QCoreApplication.processEvents()

    def sendEvent(self, target: QtCore.QObject, event: QtCore.QEvent) -> None:  # noqa: N802
        """Send an event."""
        QtCore.QCoreApplication.sendEvent(target, event)

    def setRenderPaused(self, paused: bool) -> None:  # noqa: N802
        """Pause or resume all views."""
        if self.has_main_window:
            self._layout.setRenderPaused(paused)
        self.renderPaused.emit(paused)

    def pauseRender(self) -> None:  # noqa: N802
        """Pause all views."""
        self.setRenderPaused(True)

    def resumeRender(self) -> None:  # noqa: N802
        """Resume all views."""
        self.setRenderPaused(False)

    def moduleDocumentationUrl(self, name: str) -> str:  # noqa: N802
        """Where a module's documentation is."""
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def openNodeModule(self, node: object, role: str = "", context: str = "") -> None:  # noqa: N802
        """Show the module of a node."""

    @classmethod
    def exit(cls, status: int = 0) -> None:
        """End the application's loop, if it runs; who has started it ends with this status."""
        cls.exit_status = status
        QtCore.QCoreApplication.exit(status)

    def restart(self) -> None:
        """The host does not restart; it only ends."""
        QtCore.QCoreApplication.quit()

    slicerHome = QtCore.Property(str, lambda self: str(self._home))
    slicerSharePath = QtCore.Property(str, lambda self: str(self._home / "share"))
    temporaryPath = QtCore.Property(
        str,
        lambda self: self._context.application_logic.GetTemporaryPath(),
        lambda self, path: self._context.application_logic.SetTemporaryPath(path),
    )
    cachePath = QtCore.Property(str, lambda self: str(self._home / "cache"))
    extensionsInstallPath = QtCore.Property(str, lambda self: str(self._home / "extensions"))
    slicerUserSettingsFilePath = QtCore.Property(str, lambda self: self._settings.fileName())
    startupWorkingPath = QtCore.Property(str, lambda self: os.getcwd())
    documentationBaseUrl = QtCore.Property(
        str, lambda self: "https://slicer.readthedocs.io/en/latest/"
    )
    majorVersion = QtCore.Property(int, lambda self: 5)
    minorVersion = QtCore.Property(int, lambda self: 13)
    revision = QtCore.Property(str, lambda self: "host")
    repositoryRevision = QtCore.Property(str, lambda self: "host")
    mainApplicationName = QtCore.Property(str, lambda self: "Slicer")
    mainApplicationDisplayName = QtCore.Property(str, lambda self: "3D Slicer")
    mainApplicationMajorVersion = QtCore.Property(int, lambda self: 5)
    mainApplicationMinorVersion = QtCore.Property(int, lambda self: 13)
    isInstalled = QtCore.Property(bool, lambda self: True)
    os = QtCore.Property(str, lambda self: "linux")
    arch = QtCore.Property(str, lambda self: "amd64")
    platform = QtCore.Property(str, lambda self: "linux-amd64")
