"""Make this process a place where ``import qt, ctk, slicer`` work."""

import sys
import types

from .immortal import protect_constants

protect_constants()

from PySide6 import QtCore, QtWidgets  # noqa: E402 - the constants come first

_application: QtWidgets.QApplication | None = None


def start(name: str = "TomoSegHost") -> QtWidgets.QApplication:
    """Start Qt (once) and install the facade modules; returns PySide6's application."""
    from .bridge import modules as facade

    global _application
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([name])
    _application = application  # who calls this need not keep it alive
    if application.platformName() == "offscreen":
        QtCore.qInstallMessageHandler(_pass_on)
    application.setApplicationName(name)
    application.setQuitOnLastWindowClosed(False)
    # Importing these registers the classes; nothing of the application starts yet.
    from . import ctk_widgets, mrml_widgets  # noqa: F401
    from .application import (  # noqa: F401
        app,
        files,
        layout_manager,
        main_window,
        modules,
        slice_view,
        three_d_view,
        ui_loader,
    )
    from .bridge import qt5  # noqa: F401

    facade.install()
    slicer_package()
    return application


def _pass_on(_: object, __: object, message: str) -> None:
    """Print what Qt says, but not that no window manager is there."""
    if not message.startswith("This plugin does not support"):
        print(message, file=sys.__stderr__)


def slicer_package() -> types.ModuleType:
    """``slicer`` with the qMRML and qSlicer classes.

    The package of slicer-core copies every name of ``slicer.util`` into ``slicer``; Slicer's does
    not, so these names are taken out again.
    """
    import slicer
    import slicer.util

    from .bridge import instance, modules

    if getattr(slicer, "_tomoseg_host", False):
        return slicer
    for name, value in list(vars(slicer).items()):
        if name.startswith("_") or isinstance(value, types.ModuleType | type):
            continue
        if vars(slicer.util).get(name) is value:
            delattr(slicer, name)
    for name in modules.slicer_classes():
        setattr(slicer, name, instance.facade_class(name))
    slicer._tomoseg_host = True
    return sys.modules["slicer"]
