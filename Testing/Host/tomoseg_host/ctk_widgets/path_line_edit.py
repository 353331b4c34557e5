"""``ctkPathLineEdit`` and ``ctkDirectoryButton``: choosing files and folders."""

import os

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import passed, stored, stored_enum

_FILES, _WRITABLE, _DIRS = 0x02, 0x20, 0x01
#: Dirs, Files, Drives, NoDot, NoDotDot, Readable, Executable: what a new one accepts.
_ALL = 0x01 | 0x02 | 0x04 | 0x2000 | 0x4000 | 0x10 | 0x40
_HISTORY = 5


@implements("ctkPathLineEdit")
class PathLineEdit(QtWidgets.QWidget):
    """An editable list of paths with a browse button; what is typed counts where it exists."""

    validInputChanged = QtCore.Signal(bool)
    currentPathChanged = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(QtWidgets.QComboBox.InsertPolicy.NoInsert)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("...")
        self._button.setToolTip("Open a dialog")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._combo, 1)
        layout.addWidget(self._button)
        policy = QtWidgets.QSizePolicy.Policy
        self._combo.setSizePolicy(policy.Expanding, policy.Fixed)
        self.setSizePolicy(policy.Expanding, policy.Fixed)
        self.setFocusProxy(self._combo)
        self._valid = False
        self._button.clicked.connect(self.browse)
        self._combo.lineEdit().textChanged.connect(self._text_changed)

    def _text_changed(self, path: str) -> None:
        before, self._valid = self._valid, self._acceptable(path)
        if self._valid:
            self.currentPathChanged.emit(path)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)

    def _acceptable(self, path: str) -> bool:
        """Whether a path fits the name filters (an empty list takes all)."""
        patterns = [
            pattern
            for text in self.nameFilters
            for pattern in text.partition("(")[2].rstrip(") ").split() or text.split()
        ]
        name = os.path.basename(path)
        return not patterns or not name or QtCore.QDir.match(patterns, name)

    def comboBox(self) -> QtWidgets.QComboBox:  # noqa: N802
        """The combo box."""
        return self._combo

    def setCurrentPath(self, path: str) -> None:  # noqa: N802
        """Show a path."""
        self._combo.lineEdit().setText(path)

    def browse(self) -> None:
        """Ask for a file or folder, as the filters say, and show it."""
        dialog, filters = QtWidgets.QFileDialog, ";;".join(self.nameFilters)
        start = self.currentPath
        if not self.filters & _FILES:
            path = dialog.getExistingDirectory(self, "Select a directory...", start)
        elif self.filters & _WRITABLE:
            path = dialog.getSaveFileName(self, "Select a file to save", start, filters)[0]
        else:
            path = dialog.getOpenFileName(self, "Open a file", start, filters)[0]
        if path:
            self.setCurrentPath(path)

    def _key(self) -> str:
        return f"ctkPathLineEdit/{self.settingKey}" if self.settingKey else "ctkPathLineEdit"

    def retrieveHistory(self) -> None:  # noqa: N802
        """Offer the paths of the settings."""
        history = QtCore.QSettings().value(self._key()) or []
        history = [history] if isinstance(history, str) else list(history)
        before = self._combo.blockSignals(True)
        self._combo.clear()
        self._combo.addItems([path for path in history if os.path.exists(path)][:_HISTORY])
        self._combo.blockSignals(before)

    def addCurrentPathToHistory(self) -> None:  # noqa: N802
        """Put the path on top of the list, and in the settings."""
        path = self.currentPath
        if not path:
            return
        history = [self._combo.itemText(i) for i in range(self._combo.count())]
        history = [path, *[each for each in history if each != path]][:_HISTORY]
        QtCore.QSettings().setValue(self._key(), history)
        before = self._combo.blockSignals(True)
        self._combo.clear()
        self._combo.addItems(history)
        self._combo.blockSignals(before)

    def _set_setting_key(self, key: str) -> None:
        self._setting_key = key
        self.retrieveHistory()

    def _show_browse(self, on: bool) -> None:
        self._button.setVisible(on)

    label = stored(str, "")
    filters = stored_enum(_ALL)
    currentPath = QtCore.Property(
        str, lambda self: self._combo.lineEdit().text(), setCurrentPath, notify=currentPathChanged
    )
    options = stored_enum(0)
    settingKey = QtCore.Property(
        str, lambda self: getattr(self, "_setting_key", ""), _set_setting_key
    )
    showBrowseButton = QtCore.Property(
        bool, lambda self: self._button.isVisibleTo(self), _show_browse
    )
    showHistoryButton = stored(bool, True)
    sizeAdjustPolicy = stored_enum(2)
    minimumContentsLength = passed(
        int, "_combo", "minimumContentsLength", "setMinimumContentsLength"
    )
    nameFilters = stored("QStringList", list)


@implements("ctkDirectoryButton")
class DirectoryButton(QtWidgets.QWidget):
    """A button that shows a folder and asks for another."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._directory = "."  # what an empty QDir says
        self._button = QtWidgets.QPushButton(self)
        icon = QtWidgets.QStyle.StandardPixmap.SP_DirIcon
        self._button.setIcon(self.style().standardIcon(icon))
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(self.browse)
        self._show()

    def _show(self) -> None:
        self._button.setText(self.text or self._directory)

    def setDirectory(self, path: str) -> None:  # noqa: N802
        """Set the folder."""
        path = QtCore.QDir(path).path()
        if path != self._directory:
            self._directory = path
            self._show()
            self.directoryChanged.emit(path)

    def browse(self) -> str:
        """Ask for a folder."""
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption, self._directory)
        if path:
            self.setDirectory(path)
            self.directorySelected.emit(path)
        return path

    directory = QtCore.Property(
        str, lambda self: self._directory, setDirectory, notify=directoryChanged
    )
    caption = stored(str, "")
    text = stored(str, "", "_show")
    icon = passed(QtGui.QIcon, "_button", "icon", "setIcon")
    elideMode = stored_enum(QtCore.Qt.TextElideMode.ElideNone.value)
    options = stored_enum(0x01)
    acceptMode = stored_enum(0)
