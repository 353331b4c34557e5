"""Bring the stand-in application up, and drive it from tests.

Example::

    host = start()
    host.load_module("TomoSeg/TomoSeg.py")
    host.select("TomoSeg")
    host.screenshot("panel.png")
"""

import atexit
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Iterable
from ctypes.util import find_library
from pathlib import Path
from typing import NoReturn

from .. import environment

_started: "Host | None" = None

#: What the names of temporary folders begin with.
_HOME = "tomoseg-host-"


class Host:
    """The running application.

    Attributes:
        errors: exceptions that handlers raised, as ``sys.excepthook`` got them; a test that uses
            the host should find this empty at its end.
        main_window: the main window (PySide6), or None.
    """

    def __init__(self, home: Path, main_window: bool, testing: bool, modules: Iterable[Path] = ()):
        self.home = home
        self.errors: list[BaseException] = []
        self.main_window = None
        self.application = environment.start("Slicer")
        self._use_own_settings()
        self._hook = sys.excepthook
        sys.excepthook = self._report
        self._bring_up(main_window, testing)
        for path in modules:
            self.load_module(path)
        self.app.startupCompleted.emit()

    def _use_own_settings(self) -> None:
        """Keep the user's settings out of it."""
        from PySide6 import QtCore

        self.application.setOrganizationName("NA-MIC")
        settings = QtCore.QSettings
        settings.setDefaultFormat(settings.Format.IniFormat)
        for scope in (settings.Scope.UserScope, settings.Scope.SystemScope):
            settings.setPath(settings.Format.IniFormat, scope, str(self.home / "settings"))

    def _bring_up(self, main_window: bool, testing: bool) -> None:
        import slicer

        from .. import slicer_python
        from ..bridge import lifetime
        from ..bridge.pyside import find
        from .scene import SceneContext

        _prefer_egl()
        self.context = SceneContext(self.home)
        slicer.mrmlScene = self.context.scene
        slicer.modules = types.ModuleType("modules", "The loaded modules by their names.")
        self.app = find("qSlicerApplication")()
        type(self.app).testing = testing
        type(self.app).has_main_window = main_window
        self.app.start(self.context, self.home)
        slicer.app = lifetime.wrapper_of(self.app)
        slicer_python.install(slicer)
        self._add_python_slicer()
        self.modules = self.app.moduleManager()
        for name, logic in self.context.module_logics.items():
            module = find("qSlicerLoadableModule")(self.modules)
            module.start(name, logic)
            self.modules.add(module)
        from . import builtin_scripts

        builtin_scripts.install(self.modules)
        self.layout = self.app.layoutManager()
        if main_window:
            self.layout.start(self.context)
            self.main_window = find("qSlicerMainWindow")()
            self.main_window.start(self.layout, self.modules)
            self.main_window.show()
            # Without this, nobody holds the window's wrapper and Python would own nothing of it.
            self._window_wrapper = lifetime.wrapper_of(self.main_window)
        self.process()

    def _add_python_slicer(self) -> None:
        """Put a ``PythonSlicer`` on the path: a launcher with the interpreter as its child, so
        that killing it leaves the child, as in Slicer."""
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        launcher = folder / "PythonSlicer"
        launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n', encoding="utf-8")
        launcher.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"

    def _report(self, kind: type, error: BaseException, trace: object) -> None:
        self.errors.append(error)
        self._hook(kind, error, trace)

    # -- what tests and scripts do -----------------------------------------------------------------

    def process(self, seconds: float = 0.0) -> None:
        """Let the application work for a while (once through its events by default)."""
        from PySide6 import QtCore

        end = time.monotonic() + seconds
        while True:
            self.application.processEvents()
            self.application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def wait_for(self, condition, seconds: float = 10.0) -> bool:
        """Work until a condition holds; whether it did in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.process(0.01)
        return True

    def load_module(self, path: str | Path) -> object:
        """Load a scripted module; returns what ``slicer.modules.<name>`` is.

        As in Slicer, a module that comes this late is not told of ``startupCompleted()``; `start`
        takes modules that are.
        """
        module = self.modules.load_scripted(Path(path).resolve())
        self.process()
        return module

    def select(self, name: str) -> object:
        """Show a module's panel; returns its Python widget (or the panel, for Slicer's own)."""
        import slicer

        if self.main_window is not None:
            self.main_window.moduleSelector().selectModule(name)
        self.process()
        return slicer.util.getModuleWidget(name)

    def close_scene(self) -> None:
        """Close the scene, as the menu does."""
        self.context.scene.Clear(False)
        self.process()

    def screenshot(self, path: str | Path, widget: object = None) -> Path:
        """Save a picture of the main window with its views, or of one widget."""
        target = getattr(widget, "_peer_", widget) or self.main_window
        self.process(0.05)
        self.layout.render_all()
        self.process()
        picture = target.grab()
        if not picture.save(str(path)):
            raise OSError(f"could not write {path}")
        return Path(path)

    def use_style(self, dark: bool) -> None:
        """Show everything in light or dark colours, as the styles of Slicer's settings do."""
        from PySide6 import QtGui

        role, group = QtGui.QPalette.ColorRole, QtGui.QPalette.ColorGroup
        self.application.setStyle("Fusion")
        base, text = ("#232629", "#eff0f1") if dark else ("#ffffff", "#000000")
        window, button = ("#31363b", "#3b4045") if dark else ("#efefef", "#e6e6e6")
        palette = QtGui.QPalette(QtGui.QColor(button), QtGui.QColor(window))
        for each, color in (
            (role.Base, base),
            (role.AlternateBase, window),
            (role.ToolTipBase, base),
            (role.Highlight, "#308cc6"),
            (role.HighlightedText, "#ffffff"),
            (role.Link, "#5cb3ff" if dark else "#0000ee"),
        ):
            palette.setColor(each, QtGui.QColor(color))
        for each in (role.Text, role.WindowText, role.ButtonText, role.ToolTipText):
            palette.setColor(each, QtGui.QColor(text))
            palette.setColor(group.Disabled, each, QtGui.QColor("#808488"))
        self.application.setPalette(palette)
        self.process()

    def stop(self) -> None:
        """Unload scripted modules and close the scene."""
        for name in list(self.modules.modulesNames()):
            if not self.modules.module(name).isBuiltIn:
                self.modules.unload(name)
        self.close_scene()
        sys.excepthook = self._hook
        _remove_home(self.home)


def _remove_home(folder: Path) -> None:
    """Remove the folder of a run, where it is one that `start` has made."""
    if folder.name.startswith(_HOME) and folder.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _prefer_egl() -> None:
    """Where there is no display, tell VTK to use EGL at once, before it complains about X."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and find_library("EGL"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def start(
    main_window: bool = True,
    testing: bool = True,
    home: str | Path | None = None,
    modules: Iterable[str | Path] = (),
) -> Host:
    """Start the application, once in a process; later calls return the running one.

    Args:
        main_window: whether there is a main window.
        testing: whether message boxes answer themselves, as with ``Slicer --testing``.
        home: a folder for settings, caches and temporary files; a new temporary one by default.
        modules: files of scripted modules to load while the application starts.
    """
    global _started
    if _started is None:
        folder = Path(home) if home is not None else Path(tempfile.mkdtemp(prefix=_HOME))
        if home is None:
            atexit.register(_remove_home, folder)
        _started = Host(folder, main_window, testing, map(Path, modules))
    return _started


def leave(status: int) -> NoReturn:
    """End the process at once, for scripts: Qt, VTK and Python take themselves down in an order
    that none of them can stand."""
    if _started is not None:
        _remove_home(_started.home)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
