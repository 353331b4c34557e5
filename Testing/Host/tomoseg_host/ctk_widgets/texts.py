"""``ctkFittedTextBrowser``, ``ctkMessageBox``, ``ctkSearchBox``, ``ctkExpandableWidget``."""

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum


@implements("ctkFittedTextBrowser")
class FittedTextBrowser(QtWidgets.QTextBrowser):
    """A text browser as high as its text; a long text folds behind "Show details..."."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._teaser = self._details = ""
        self.document().contentsChanged.connect(self.updateGeometry)
        self.setVerticalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def heightForWidth(self, width: int) -> int:  # noqa: N802
        """The height of the text at that width."""
        document = self.document().clone()
        document.setTextWidth(width)
        return int(document.size().height()) + 2 * self.frameWidth()

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802
        """As high as the text."""
        width = self.width() if self.isVisible() else 320
        return QtCore.QSize(width, self.heightForWidth(width))

    def minimumSizeHint(self) -> QtCore.QSize:  # noqa: N802
        """As high as the text."""
        return QtCore.QSize(60, self.sizeHint().height())

    def setCollapsibleText(self, text: str) -> None:  # noqa: N802
        """Set a text whose first paragraph stays when folded."""
        teaser, _, details = text.partition("<br>") if "<br>" in text else text.partition("\n")
        self._teaser, self._details = teaser, details
        self._show()

    setCollapsibleHtml = setCollapsibleText
    setCollapsiblePlainText = setCollapsibleText

    def collapsibleText(self) -> str:  # noqa: N802
        """The whole text."""
        return f"{self._teaser}<br>{self._details}" if self._details else self._teaser

    def _show(self) -> None:
        if not self._details:
            self.setHtml(self._teaser)
        elif self.collapsed:
            self.setHtml(f'{self._teaser}<a href="#"> {self.showDetailsText}</a>')
        else:
            self.setHtml(
                f'{self._teaser}<br>{self._details}<a href="#"> {self.hideDetailsText}</a>'
            )

    disableMouseScroll = stored(bool, False)
    collapsed = stored(bool, True, "_show")
    showDetailsText = stored(str, "Show details...")
    hideDetailsText = stored(str, "Hide details.")


@implements("ctkMessageBox")
class MessageBox(QtWidgets.QMessageBox):
    """A message box that can be told not to come again."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._dont_show = QtWidgets.QCheckBox("Don't show this message again", self)
        self._dont_show.hide()

    def _read(self) -> bool:
        if self.dontShowAgainSettingsKey:
            value = QtCore.QSettings().value(self.dontShowAgainSettingsKey)
            return value not in (None, "", "false", False, 0, "0")
        return self._dont_show.isChecked()

    def setDontShowAgain(self, on: bool) -> None:  # noqa: N802
        """Check the box (and the settings, where a key is set)."""
        self._dont_show.setChecked(on)
        if self.dontShowAgainSettingsKey:
            QtCore.QSettings().setValue(self.dontShowAgainSettingsKey, on)

    def setDontShowAgainVisible(self, on: bool) -> None:  # noqa: N802
        """Show the box."""
        self.setCheckBox(self._dont_show if on else None)

    dontShowAgainVisible = QtCore.Property(
        bool,
        lambda self: self.checkBox() is not None,
        lambda self, on: self.setDontShowAgainVisible(on),
    )
    dontShowAgain = QtCore.Property(bool, _read, setDontShowAgain)
    dontShowAgainSettingsKey = stored(str, "")


@implements("ctkSearchBox")
class SearchBox(QtWidgets.QLineEdit):
    """A line edit with a magnifier and a clear button."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.setClearButtonEnabled(True)
        self.setPlaceholderText("Search...")

    showSearchIcon = stored(bool, False)
    searchIcon = stored(QtGui.QIcon, QtGui.QIcon)
    clearIcon = stored(QtGui.QIcon, QtGui.QIcon)


@implements("ctkExpandableWidget")
class ExpandableWidget(QtWidgets.QFrame):
    """A frame that the user can make higher."""

    orientations = stored_enum(3)
    sizeGripInside = stored(bool, True)
    sizeGripMargins = stored(QtCore.QSize, QtCore.QSize)
