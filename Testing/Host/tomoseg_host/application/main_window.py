"""``slicer.util.mainWindow()``: module panel on the left, views in the middle."""

import slicer
from PySide6 import QtCore, QtWidgets

from ..bridge import lifetime
from ..bridge.pyside import find, implements


@implements("qSlicerModuleSelectorToolBar")
class ModuleSelector(QtWidgets.QToolBar):
    """Chooses the module whose panel is shown."""

    moduleSelected = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.setObjectName("ModuleSelectorToolBar")
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setMinimumWidth(200)
        self.addWidget(QtWidgets.QLabel("Modules: ", self))
        self.addWidget(self._combo)
        self._selected = ""
        self._combo.activated.connect(lambda row: self.selectModule(self._combo.itemData(row)))

    def list_module(self, name: str, title: str) -> None:
        """Offer a module."""
        self._combo.addItem(title, name)

    def selectModule(self, name: str) -> None:  # noqa: N802
        """Show a module's panel."""
        if slicer.app.moduleManager().module(name) is None:
            return
        self._combo.setCurrentIndex(self._combo.findData(name))
        self._selected = name
        self.moduleSelected.emit(name)

    selectedModule = QtCore.Property(str, lambda self: self._selected, selectModule)


@implements("qSlicerMainWindow")
class MainWindow(QtWidgets.QMainWindow):
    """The main window."""

    initialWindowShown = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("3D Slicer (stand-in)")
        self._selector = find("qSlicerModuleSelectorToolBar")(self)
        self.addToolBar(self._selector)
        self._dock = QtWidgets.QDockWidget("", self)
        self._dock.setObjectName("PanelDockWidget")
        self._scroll = QtWidgets.QScrollArea(self._dock)
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._dock.setWidget(self._scroll)
        self._dock.setMinimumWidth(440)
        self.addDockWidget(QtCore.Qt.DockWidgetArea.LeftDockWidgetArea, self._dock)
        self._panel: QtWidgets.QWidget | None = None
        self._selector.moduleSelected.connect(self._show_module)

    def start(self, layout_manager: object, module_manager: object) -> None:
        """Show the views, and offer the modules."""
        self.setCentralWidget(layout_manager.viewport())
        for name in module_manager.modulesNames():
            self._selector.list_module(name, module_manager.module(name).title or name)
        module_manager.moduleLoaded.connect(
            lambda name: self._selector.list_module(name, module_manager.module(name).title or name)
        )
        module_manager.moduleAboutToBeUnloaded.connect(lambda _: self._leave())
        self.resize(1500, 950)

    def moduleSelector(self) -> ModuleSelector:  # noqa: N802
        """The tool bar that chooses the module."""
        return self._selector

    def scroll_area(self) -> QtWidgets.QScrollArea:
        """What holds the panel, for screenshots of its parts."""
        return self._scroll

    def _leave(self) -> None:
        if self._panel is not None:
            if hasattr(self._panel, "exit"):
                self._panel.exit()
            self._scroll.takeWidget()
            self._panel.setParent(None)
            lifetime.hold(self._panel)
            self._panel = None

    def _show_module(self, name: str) -> None:
        module = slicer.app.moduleManager().module(name)
        panel = module._peer_.widgetRepresentation()
        if panel is self._panel:
            return
        self._leave()
        self._panel = panel
        self._dock.setWindowTitle(module.title or name)
        self._scroll.setWidget(panel)
        panel.show()
        if hasattr(panel, "enter"):
            panel.enter()
