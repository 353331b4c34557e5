"""``ctkCollapsibleButton`` and ``ctkCollapsibleGroupBox``: headers that fold what is under them."""

from PySide6 import QtCore, QtGui, QtWidgets

from ..bridge.pyside import implements
from ..qtproperty import stored, stored_enum

_ALIGN = QtCore.Qt.AlignmentFlag
_LEFT = (_ALIGN.AlignLeft | _ALIGN.AlignVCenter).value


def _told_to_hide(widget: QtWidgets.QWidget) -> bool:
    """Whether the widget was hidden on purpose (one that was never shown counts as hidden too)."""
    return widget.isHidden() and widget.testAttribute(
        QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide
    )


class _Fold(QtCore.QObject):
    """Hides the children of a folded widget, whatever they are told meanwhile.

    A child that is told to show itself comes when the widget is unfolded; one that is told to hide
    stays hidden then.
    """

    def __init__(self, widget: QtWidgets.QWidget):
        super().__init__()
        self._widget = widget
        self._hidden: list[QtWidgets.QWidget] = []
        self._is_folded = self._forcing = False

    def set_folded(self, folded: bool) -> None:
        """Hide the children that are shown, or show again those that were hidden so."""
        self._is_folded = folded
        children = [c for c in self._widget.children() if isinstance(c, QtWidgets.QWidget)]
        if folded:
            for child in children:
                child.installEventFilter(self)
                if child not in self._hidden and not _told_to_hide(child):
                    self._hide(child)
            return
        hidden, self._hidden = self._hidden, []
        for child in children:
            child.removeEventFilter(self)
            if child in hidden:
                child.show()

    def child_added(self) -> None:
        """A child that comes while folded is hidden, and shown when unfolded."""
        # The child is still being constructed: asking for it now would give it a wrapper of the
        # wrong class for good, so it is looked for later.
        if self._is_folded:
            QtCore.QTimer.singleShot(0, self, self._fold_late_children)

    def _fold_late_children(self) -> None:
        if self._is_folded:
            self.set_folded(True)

    def _hide(self, child: QtWidgets.QWidget) -> None:
        self._forcing = True
        child.hide()
        # It has not been told to: so it will know when it is.
        child.setAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)
        self._forcing = False
        if child not in self._hidden:
            self._hidden.append(child)

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:  # noqa: N802
        """A child is told to show or to hide itself."""
        if self._is_folded and not self._forcing:
            if event.type() == QtCore.QEvent.Type.ShowToParent:
                self._hide(child)
            elif event.type() == QtCore.QEvent.Type.HideToParent and child in self._hidden:
                self._hidden.remove(child)
        return False


@implements("ctkCollapsibleButton")
class CollapsibleButton(QtWidgets.QAbstractButton):
    """A button on top of its own children; unchecked is collapsed."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._fold = _Fold(self)
        self._collapsed = False
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, self._header_height(), 0, 0)
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Minimum, policy.Preferred)
        self.setBackgroundRole(QtGui.QPalette.ColorRole.Window)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.toggled.connect(lambda checked: self._collapse(not checked))

    def _header_height(self) -> int:
        return self.fontMetrics().height() + 8

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self._fold.set_folded(collapsed)
        self.setMaximumHeight(
            self._header_height() + self.collapsedHeight if collapsed else 16777215
        )
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def childEvent(self, event: QtCore.QChildEvent) -> None:  # noqa: N802
        """Let a child that comes while collapsed be hidden."""
        super().childEvent(event)
        if event.added():
            self._fold.child_added()

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802
        """The header, and the contents where they are shown."""
        header = QtCore.QSize(
            self.fontMetrics().horizontalAdvance(self.text()) + 40, self._header_height()
        )
        if self._collapsed or self.layout() is None:
            extra = self.collapsedHeight if self._collapsed else 0
            return header + QtCore.QSize(0, extra)
        return self.layout().totalSizeHint().expandedTo(header)

    def minimumSizeHint(self) -> QtCore.QSize:  # noqa: N802
        """As the size hint, for the minimum."""
        header = QtCore.QSize(40, self._header_height())
        if self._collapsed or self.layout() is None:
            return header
        return self.layout().totalMinimumSize().expandedTo(header)

    def hitButton(self, position: QtCore.QPoint) -> bool:  # noqa: N802
        """Only the header is the button."""
        return position.y() < self._header_height()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        """Draw the header with the style's arrow."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self._header_height())
        if not self.flat:
            option.state |= QtWidgets.QStyle.StateFlag.State_Raised
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        side = 10
        arrow.rect = QtCore.QRect(8, (self._header_height() - side) // 2, side, side)
        element = QtWidgets.QStyle.PrimitiveElement
        painter.drawPrimitive(
            element.PE_IndicatorArrowRight if self._collapsed else element.PE_IndicatorArrowDown,
            arrow,
        )
        text = QtCore.QRect(26, 0, self.width() - 30, self._header_height())
        painter.drawItemText(
            text,
            self.buttonTextAlignment,
            self.palette(),
            self.isEnabled(),
            self.text(),
            QtGui.QPalette.ColorRole.ButtonText,
        )

    collapsed = QtCore.Property(
        bool,
        lambda self: self._collapsed,
        lambda self, value: self.setChecked(not value),
        notify=contentsCollapsed,
    )
    collapsedHeight = stored(int, 14)
    flat = stored(bool, False, "update")
    contentsFrameShape = stored_enum(0, "update")
    contentsFrameShadow = stored_enum(QtWidgets.QFrame.Shadow.Plain.value, "update")
    contentsLineWidth = stored(int, 1, "update")
    contentsMidLineWidth = stored(int, 0, "update")
    buttonTextAlignment = stored_enum(_LEFT, "update")
    indicatorAlignment = stored_enum(_LEFT, "update")


@implements("ctkCollapsibleGroupBox")
class CollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose check box folds it."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._fold = _Fold(self)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._expand)

    def _expand(self, on: bool) -> None:
        self._fold.set_folded(not on)
        height = self.fontMetrics().height() + self.collapsedHeight
        self.setMaximumHeight(16777215 if on else height)

    def childEvent(self, event: QtCore.QChildEvent) -> None:  # noqa: N802
        """Let a child that comes while collapsed be hidden."""
        super().childEvent(event)
        if event.added():
            self._fold.child_added()

    collapsed = QtCore.Property(
        bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value)
    )
    collapsedHeight = stored(int, 14)
