"""``qt.QUiLoader``: forms with Qt, ctk and qMRML widgets.

Qt builds what it knows; the host makes the ctk and qMRML widgets, and does itself what Qt's loader
cannot do with classes written in Python: enum properties and connections of VTK signals.
"""

import sys
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from ..bridge import api, lifetime, pyside

_ENUMS = ("enum", "set")


@pyside.implements("QUiLoader")
class UiLoader(QtUiTools.QUiLoader):
    """A form loader that knows the host's widgets."""

    def load(
        self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None
    ) -> QtWidgets.QWidget | None:
        """Build the form in a device; None where it cannot be read."""
        try:
            root = ElementTree.fromstring(bytes(device.readAll().data()))
        except ElementTree.ParseError as error:
            print(f"QUiLoader: {error}", file=sys.stderr)
            return None
        self._extends = {
            each.findtext("class", ""): each.findtext("extends", "QWidget")
            for each in root.iterfind("customwidgets/customwidget")
        }
        later = self._take_enums(root)
        connections = self._take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODeviceBase.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        if widget is None:
            return None
        for name, prop, value in later:
            self._set_enum(_named(widget, name), prop, value)
        for connection in connections:
            self._connect(widget, *connection)
        return widget

    def createWidget(  # noqa: N802
        self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        """Make one widget; an unknown class only gives a warning and its base."""
        if class_name.startswith("Q"):
            made = super().createWidget(class_name, parent, name)
            # A parent that is told of its new child may have asked for it too early.
            return pyside.most_derived(made) if made is not None else None
        if not api.known(class_name) or pyside.find(class_name) is None:
            base = self._extends.get(class_name, "QWidget")
            print(
                f"QFormBuilder was unable to create a custom widget of the class '{class_name}'; "
                f"defaulting to base class '{base}'.",
                file=sys.stderr,
            )
            return self.createWidget(base, parent, name)
        widget = pyside.find(class_name)(parent)
        widget.setObjectName(name)
        lifetime.hold(widget)
        return widget

    def _take_enums(self, root: ElementTree.Element) -> list[tuple[str, str, str]]:
        """Take the enum properties of non-Qt widgets out of the form."""
        taken = []
        for widget in root.iter("widget"):
            if widget.get("class", "Q").startswith("Q"):
                continue
            for prop in list(widget.findall("property")):
                kind = next(iter(prop), None)
                if kind is not None and kind.tag in _ENUMS and not _belongs_to_qt(prop):
                    taken.append((widget.get("name", ""), prop.get("name", ""), kind.text or ""))
                    widget.remove(prop)
        return taken

    def _take_connections(self, root: ElementTree.Element) -> list[tuple[str, str, str, str]]:
        """Take the connections out of the form."""
        parent = root.find("connections")
        if parent is None:
            return []
        root.remove(parent)
        keys = ("sender", "signal", "receiver", "slot")
        return [tuple(each.findtext(key, "") for key in keys) for each in parent]

    def _set_enum(self, widget: QtWidgets.QWidget | None, prop: str, value: str) -> None:
        if widget is None:
            return
        try:
            setattr(lifetime.wrapper_of(widget), prop, value)
        except AttributeError as error:
            print(f"QUiLoader: {error}", file=sys.stderr)

    def _connect(
        self, root: QtWidgets.QWidget, sender: str, signal: str, receiver: str, slot: str
    ) -> None:
        ends = [_named(root, name) for name in (sender, receiver)]
        if None in ends:
            print(f"QUiLoader: no widget for {sender} -> {receiver}", file=sys.stderr)
            return
        source, target = map(lifetime.wrapper_of, ends)
        if not source.connect(signal, target, slot):
            print(
                f"QObject::connect: No such signal or slot {sender}.{signal} -> {receiver}.{slot}",
                file=sys.stderr,
            )


def _belongs_to_qt(prop: ElementTree.Element) -> bool:
    """Whether QWidget itself has the property (Qt's loader sets those)."""
    return QtWidgets.QWidget.staticMetaObject.indexOfProperty(prop.get("name", "")) >= 0


def _named(root: QtWidgets.QWidget, name: str) -> QtCore.QObject | None:
    """The root or a descendant of that name."""
    return root if root.objectName() == name else root.findChild(QtCore.QObject, name)
