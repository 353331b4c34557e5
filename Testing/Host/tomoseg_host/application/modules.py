"""Modules: ``slicer.modules``, the module manager, and the loading of scripted modules."""

import importlib.util
import sys
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge import lifetime
from ..bridge.pyside import find, implements
from ..mrml_widgets.scene_widget import SlicerWidget
from ..qtproperty import stored


@implements("qSlicerLoadableModule")
class LoadableModule(QtCore.QObject):
    """A module of Slicer itself: its logic is real, its panel only says its name."""

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._logic: object = None
        self._widget: QtWidgets.QWidget | None = None

    def start(self, name: str, logic: object) -> None:
        """Stand for a module."""
        self.name_text = name
        self.title_text = name
        self._logic = logic

    def logic(self) -> object:
        """The module's logic."""
        return self._logic

    def mrmlScene(self) -> object:  # noqa: N802
        """The scene."""
        return slicer.mrmlScene

    def widgetRepresentation(self) -> QtWidgets.QWidget:  # noqa: N802
        """The panel, made when it is first asked for."""
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self) -> QtWidgets.QWidget:  # noqa: N802
        """A new panel."""
        widget = find("qSlicerAbstractModuleWidget")()
        layout = QtWidgets.QVBoxLayout(widget)
        layout.addWidget(QtWidgets.QLabel(f"{self.name_text}: a module of Slicer", widget))
        layout.addStretch()
        widget.setMRMLScene(slicer.mrmlScene)
        return widget

    name_text, title_text, path_text = "", "", ""
    name = QtCore.Property(str, lambda self: self.name_text)
    title = QtCore.Property(
        str, lambda self: self.title_text, lambda self, text: setattr(self, "title_text", text)
    )
    path = QtCore.Property(str, lambda self: self.path_text)
    isBuiltIn = QtCore.Property(bool, lambda self: True)


@implements("qSlicerScriptedLoadableModule")
class ScriptedModule(LoadableModule):
    """A module written in Python."""

    def load(self, path: Path) -> object:
        """Execute the module's file and make its module object; returns that."""
        self.name_text = path.stem
        self.path_text = str(path)
        folder = str(path.parent)
        if folder not in sys.path:
            # Slicer puts each module path in front, so that helpers beside the file are found.
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        self.python = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = self.python
        spec.loader.exec_module(self.python)
        cls = getattr(self.python, path.stem)
        wrapper = lifetime.wrapper_of(self)
        self.instance = cls(wrapper)
        self._logic = slicer.vtkSlicerScriptedLoadableModuleLogic()
        return self.instance

    def createNewWidgetRepresentation(self) -> QtWidgets.QWidget:  # noqa: N802
        """A new panel: the Python widget fills it, and ``setup`` runs now and not before."""
        widget = find("qSlicerScriptedLoadableModuleWidget")()
        widget.setObjectName(f"{self.name_text}ModuleWidget")
        lifetime.hold(widget)
        widget.fill(self)
        return widget

    title = QtCore.Property(
        str,
        lambda self: self.title_text or self.name_text,
        lambda self, text: setattr(self, "title_text", text),
    )
    path = QtCore.Property(str, lambda self: self.path_text)
    isBuiltIn = QtCore.Property(bool, lambda self: False)
    categories = stored("QStringList", list)
    contributors = stored("QStringList", list)
    dependencies = stored("QStringList", list)
    associatedNodeTypes = stored("QStringList", list)
    helpText = stored(str, "")
    acknowledgementText = stored(str, "")
    hidden = stored(bool, False)
    index = stored(int, -1)
    icon = stored(QtGui.QIcon, QtGui.QIcon)


@implements("qSlicerAbstractModuleWidget")
class ModuleWidget(SlicerWidget):
    """The panel of any module."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._entered = False

    def enter(self) -> None:
        """The panel is shown."""
        self._entered = True

    def exit(self) -> None:
        """Another panel is shown."""
        self._entered = False

    isEntered = QtCore.Property(bool, lambda self: self._entered)


@implements("qSlicerScriptedLoadableModuleWidget")
class ScriptedModuleWidget(ModuleWidget):
    """The panel of a scripted module."""

    def fill(self, module: ScriptedModule) -> None:
        """Make the Python widget in this one and run its ``setup``."""
        self._module = module
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        self.setMRMLScene(slicer.mrmlScene)
        self._make_python()

    def reload(self) -> None:
        """Make the Python widget anew, from the module as it was imported last."""
        self._module.python = sys.modules[self._module.name_text]
        self._make_python()

    def _make_python(self) -> None:
        module = self._module
        cls = getattr(module.python, f"{module.name_text}Widget")
        self._python = cls(lifetime.wrapper_of(self))
        setattr(slicer.modules, f"{module.name_text}Widget", self._python)
        self._python.setup()

    def self(this) -> object:  # noqa: N805 - the method is called so
        """The Python widget."""
        return this._python

    def enter(self) -> None:
        """The panel is shown."""
        super().enter()
        if hasattr(self._python, "enter"):
            self._python.enter()

    def exit(self) -> None:
        """Another panel is shown."""
        super().exit()
        if hasattr(self._python, "exit"):
            self._python.exit()

    def setEditedNode(self, node: object, role: str = "", context: str = "") -> bool:  # noqa: N802
        """Edit a node in this module."""
        function = getattr(self._python, "setEditedNode", None)
        return bool(function(node, role, context)) if function else False

    _module: ScriptedModule | None = None
    _python: object = None
    moduleName = QtCore.Property(
        str, lambda self: self._module.name_text if self._module is not None else ""
    )


@implements("qSlicerModuleFactoryManager")
class FactoryManager(QtCore.QObject):
    """Which modules are loaded."""

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self.modules: dict[str, LoadableModule] = {}

    def loadedModuleNames(self) -> list[str]:  # noqa: N802
        """The names of the modules."""
        return list(self.modules)

    def isLoaded(self, name: str) -> bool:  # noqa: N802
        """Whether a module is loaded."""
        return name in self.modules

    def loadedModule(self, name: str) -> LoadableModule | None:  # noqa: N802
        """A module by its name."""
        return self.modules.get(name)


@implements("qSlicerModuleManager")
class ModuleManager(QtCore.QObject):
    """Finds modules by their names."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._factory = find("qSlicerModuleFactoryManager")(self)

    def factoryManager(self) -> FactoryManager:  # noqa: N802
        """Which modules are loaded."""
        return self._factory

    def modulesNames(self) -> list[str]:  # noqa: N802
        """The names of all modules."""
        return self._factory.loadedModuleNames()

    def module(self, name: str) -> LoadableModule | None:
        """A module by its name."""
        return self._factory.modules.get(name)

    def add(self, module: LoadableModule) -> object:
        """Enter a module into ``slicer.modules``; returns its wrapper."""
        name = module.name_text
        self._factory.modules[name] = module
        wrapper = lifetime.wrapper_of(module)
        setattr(slicer.modules, name.lower(), wrapper)
        self.moduleLoaded.emit(name)
        return wrapper

    def load_scripted(self, path: Path) -> object:
        """Load a scripted module; returns its wrapper."""
        module = find("qSlicerScriptedLoadableModule")(self)
        module.load(path)
        setattr(slicer.modules, f"{path.stem}Instance", module.instance)
        return self.add(module)

    def unload(self, name: str) -> None:
        """Tell a module that it goes, and forget it."""
        if name not in self._factory.modules:
            return
        self.moduleAboutToBeUnloaded.emit(name)
        module = self._factory.modules.pop(name)
        for attribute in (name.lower(), f"{name}Widget", f"{name}Instance"):
            if hasattr(slicer.modules, attribute):
                delattr(slicer.modules, attribute)
        widget, module._widget = module._widget, None
        if widget is not None:
            widget.deleteLater()
        sys.modules.pop(name, None)
