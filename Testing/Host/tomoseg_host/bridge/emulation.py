"""Functions that PySide6 spells otherwise, answers otherwise, or that only Qt 5 has.

Decorators (``connect``, ``findChild``...) are what PythonQt adds to every QObject.  Each function
takes the PySide6 object (None for statics; decorators take the wrapper) and converted arguments.
"""

import sys

from PySide6 import QtCore, QtGui, QtWidgets

from . import api, enums, lifetime, pyside, topython

_DECORATORS: dict[str, object] = {}
_METHODS: dict[tuple[str, str], object] = {}
_STATIC: dict[tuple[str, str], object] = {}
_GETTERS: dict[tuple[str, str], object] = {}
_SETTERS: dict[tuple[str, str], object] = {}


def decorator(name: str, chosen: api.Overload) -> object:
    """PythonQt's own function of that name, or None."""
    return _DECORATORS.get(f"{'static ' * (chosen.kind == 'sdeco')}{name}")


def find(info: api.ClassInfo, chosen: api.Overload) -> object:
    """The stand-in for a method, or None where PySide6's own is right."""
    name = chosen.signature.name
    for level in info.chain:
        if found := _METHODS.get((level.name, name)):
            return found
    return None


def constructor(name: str) -> object:
    """The stand-in for a constructor."""
    return _METHODS.get((name, "new"))


def getter(prop: api.Property) -> object:
    """The stand-in for reading a property."""
    return _GETTERS.get((prop.owner, prop.name))


def setter(prop: api.Property) -> object:
    """The stand-in for writing a property."""
    return _SETTERS.get((prop.owner, prop.name))


def _deco(name: str):
    def register(function):
        _DECORATORS[name] = function
        return function

    return register


def _method(cls: str, *names: str):
    def register(function):
        for name in names:
            _METHODS[cls, name] = function
        return function

    return register


#: For the stand-ins of other files.
stand_in = _method


# -- what PythonQt adds to QObject ---------------------------------------------------------------


def _bytes(value: object) -> str:
    """The text of a converted QByteArray or ``char*`` argument."""
    if isinstance(value, QtCore.QByteArray):
        return bytes(value.data()).decode("utf-8", "replace")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _no_such_signal(verb: str, text: str, name: str) -> bool:
    print(f"PythonQt: QObject::{verb}() signal '{text}' does not exist on {name}", file=sys.stderr)
    return False


@_deco("connect")
def connect(self: object, signal: object, *rest: object) -> bool:
    """``connect(signal, callable)``, ``connect(signal, receiver, slot[, type])`` or, on the
    receiver, ``connect(sender, signal, slot[, type])``."""
    from . import signals

    if isinstance(signal, QtCore.QObject):  # called on the receiver
        sender, signal, slot = lifetime.wrapper_of(signal), rest[0], rest[1]
        found = signals.find(sender._info_, sender._peer_, _bytes(signal))
        return bool(found) and signals.connect_slot(sender, found, self, _bytes(slot))
    text = _bytes(signal)
    found = signals.find(self._info_, self._peer_, text) if text else None
    if len(rest) >= 2:
        receiver = rest[0]
        return (
            found is not None
            and receiver is not None
            and signals.connect_slot(self, found, lifetime.wrapper_of(receiver), _bytes(rest[1]))
        )
    if found is None:
        return _no_such_signal("connect", text, self._info_.name)
    signals.handle(self._peer_, found, rest[0])
    return True


@_deco("disconnect")
def disconnect(self: object, signal: object, *rest: object) -> bool:
    """``disconnect(signal[, callable])`` or ``disconnect(signal, receiver, slot)``."""
    from . import signals

    text = _bytes(signal)
    found = signals.find(self._info_, self._peer_, text) if text else None
    if found is None:
        return False if len(rest) == 2 else _no_such_signal("disconnect", text, self._info_.name)
    if len(rest) == 2:
        return signals.disconnect_slot(self, found, lifetime.wrapper_of(rest[0]), _bytes(rest[1]))
    return signals.remove(self._peer_, found, *rest)


@_deco("static connect")
def static_connect(_: object, sender: QtCore.QObject, *rest: object) -> bool:
    """``qt.QObject.connect(sender, signal, ...)``."""
    return connect(lifetime.wrapper_of(sender), *rest)


@_deco("static disconnect")
def static_disconnect(_: object, sender: QtCore.QObject, *rest: object) -> bool:
    """``qt.QObject.disconnect(sender, signal, ...)``."""
    return disconnect(lifetime.wrapper_of(sender), *rest)


@_deco("metaObject")
def meta_object(self: object) -> object:
    """The meta object (a QMetaObject wrapper)."""
    return topython.convert(self._peer_.metaObject())


@_deco("parent")
def parent(self: object) -> object:
    """The parent, or None."""
    return topython.convert(self._peer_.parent())


@_deco("setParent")
def set_parent(self: object, new: QtCore.QObject | None) -> None:
    """Set the parent of any QObject."""
    self._peer_.setParent(new)


@_deco("children")
def children(self: object) -> tuple:
    """The children, in the order in which they came."""
    return tuple(lifetime.wrapper_of(each) for each in self._peer_.children())


def _matches(item: QtCore.QObject, wanted: object) -> bool:
    info = getattr(wanted, "_info_", None)
    name = info.name if info is not None else wanted
    if lifetime.class_of(item)._info_.inherits(name):
        return True
    return item.inherits(name)


def _descendants(item: QtCore.QObject):
    for child in item.children():
        yield child
        yield from _descendants(child)


def _search(self: object, type_: object, name: object) -> list[QtCore.QObject]:
    if not isinstance(type_, str) and getattr(type_, "_info_", None) is None or type_ == "":
        return []
    found = []
    for item in _descendants(self._peer_):
        if isinstance(name, QtCore.QRegularExpression):
            fits = name.match(item.objectName()).hasMatch()
        else:
            fits = name is None or item.objectName() == name
        if fits and _matches(item, type_):
            found.append(item)
    return found


@_deco("findChild")
def find_child(self: object, type_: object, name: object = None) -> object:
    """The first descendant of a class (level by level) with that name, or None."""
    level = list(self._peer_.children())
    for item in level:
        if (name is None or item.objectName() == name) and _usable(type_) and _matches(item, type_):
            return lifetime.wrapper_of(item)
    for item in level:
        found = find_child(lifetime.wrapper_of(item), type_, name)
        if found is not None:
            return found
    return None


def _usable(type_: object) -> bool:
    return isinstance(type_, str) and type_ != "" or getattr(type_, "_info_", None) is not None


@_deco("findChildren")
def find_children(self: object, type_: object, name: object = None) -> tuple:
    """All descendants of a class with that name."""
    return tuple(lifetime.wrapper_of(each) for each in _search(self, type_, name))


@_deco("setProperty")
def set_property(self: object, name: object, value: object) -> bool:
    """Set a property by name; False for a dynamic one, as Qt has it."""
    from . import slots

    text = _bytes(name)
    prop = self._info_.properties().get(text)
    if prop is not None and prop.writable and getattr(type(self._peer_), "facade_name", None):
        slots.write_property(self._peer_, prop, value)
        return True
    return bool(self._peer_.setProperty(text, value))


@_deco("property")
def property_(self: object, name: object) -> object:
    """A property or dynamic property by name, or None."""
    text = _bytes(name)
    if text in self._info_.properties():
        return getattr(self, text)
    return topython.convert(self._peer_.property(text))


@_deco("tr")
def tr(self: object, text: str, comment: str = "", number: int = -1) -> str:
    """Translate in the context of the class."""
    return QtCore.QCoreApplication.translate(self._info_.name, text, comment, number)


@_deco("static singleShot")
def single_shot(_: object, msec: int, handler: object) -> None:
    """Call once after ``msec`` milliseconds."""
    from . import signals

    QtCore.QTimer.singleShot(msec, lambda: signals.call(handler, []))


# -- functions of the qt module -------------------------------------------------------------------

_PLAIN = {
    "qAbs": abs,
    "qMax": max,
    "qMin": min,
    "qBound": lambda low, x, high: max(low, min(x, high)),
    "qRound": lambda x: int(x + 0.5) if x >= 0 else -int(-x + 0.5),
    "qRound64": lambda x: int(x + 0.5) if x >= 0 else -int(-x + 0.5),
    "qFuzzyCompare": lambda a, b: abs(a - b) * 1e12 <= min(abs(a), abs(b)),
    # The cases were measured with this version, and modules ask for it to tell Qt 5 from 6.
    "qVersion": lambda: "5.15.8",
    "SIGNAL": lambda text: f"2{text}",
    "SLOT": lambda text: f"1{text}",
    "qDebug": lambda text: QtCore.qDebug(_bytes(text)),
    "qWarning": lambda text: QtCore.qWarning(_bytes(text)),
    "qCritical": lambda text: QtCore.qCritical(_bytes(text)),
    "qFatal": lambda text: QtCore.qFatal(_bytes(text)),
    "qrand": lambda: QtCore.QRandomGenerator.global_().bounded(2**31 - 1),
    "qsrand": lambda _: None,
}
for _name, _function in _PLAIN.items():
    _DECORATORS[f"static {_name}"] = lambda _, *args, function=_function: function(*args)


# -- methods that PySide6 answers otherwise --------------------------------------------------------


def _first_of_pair(cls: str, name: str) -> None:
    """PySide6 returns (value, filter) or (value, ok); PythonQt the value alone."""

    def call(_: object, *args: object) -> object:
        kept = [each for each in args if each is not None or each is args[0]] if args else []
        return getattr(pyside.find(cls), name)(*kept)[0]

    _METHODS[cls, name] = call


for _name in (
    "getOpenFileName",
    "getSaveFileName",
    "getOpenFileNames",
    "getOpenFileUrl",
    "getOpenFileUrls",
    "getSaveFileUrl",
):
    _first_of_pair("QFileDialog", _name)
for _name in ("getText", "getInt", "getDouble", "getItem", "getMultiLineText"):
    _first_of_pair("QInputDialog", _name)


@_method("QProcess", "start")
def process_start(process: QtCore.QProcess, *args: object) -> None:
    """Every form of Qt 5: a command line, or a program and its arguments."""
    mode = [each for each in args if isinstance(each, QtCore.QIODeviceBase.OpenModeFlag)]
    args = [each for each in args if each not in mode]
    if len(args) == 1:
        parts = QtCore.QProcess.splitCommand(args[0])
        process.start(parts[0] if parts else "", parts[1:], *mode)
    else:
        process.start(*args, *mode)


@_method("QProcess", "startDetached")
def process_start_detached(process: QtCore.QProcess | None, *args: object) -> bool:
    """Of an object, or static with a command line or a program and its arguments."""
    if not args:
        result = process.startDetached()
    else:
        program, *rest = args
        if not rest:
            program, *arguments = QtCore.QProcess.splitCommand(program)
            rest = [arguments]
        result = QtCore.QProcess.startDetached(
            program, *[each for each in rest if each is not None]
        )
    return result[0] if isinstance(result, tuple) else result


@_method("QProcess", "execute")
def process_execute(_: object, program: str, arguments: list | None = None) -> int:
    """Run to the end, with a command line or a program and its arguments."""
    if arguments is None:
        program, *arguments = QtCore.QProcess.splitCommand(program)
    return QtCore.QProcess.execute(program, arguments)


@_method("QFontMetrics", "new")
def font_metrics(cls: type, *args: object) -> QtGui.QFontMetrics:
    """Without a font, the application's."""
    return cls(*args) if args else cls(QtWidgets.QApplication.font())


_METHODS["QFontInfo", "new"] = font_metrics


@_method("QFont", "new")
def font(cls: type, *args: object) -> QtGui.QFont:
    """The weight is a number of Qt 5's scale."""
    if len(args) > 2:
        args = (*args[:2], enums.to_pyside("QFont", "Weight", args[2]), *args[3:])
    return cls(*args)


@_method("QFont", "setWeight")
def set_font_weight(item: QtGui.QFont, weight: int) -> None:
    """As above."""
    item.setWeight(enums.to_pyside("QFont", "Weight", weight))


@_method("QFont", "weight")
def font_weight(item: QtGui.QFont) -> int:
    """As above."""
    return int(enums.from_pyside(item.weight(), ("QFont", "Weight")))


@_method("QFontMetrics", "width")
def font_width(metrics: QtGui.QFontMetrics, text: str, length: int = -1, _: int = 0) -> int:
    """Qt 5's name of horizontalAdvance."""
    return metrics.horizontalAdvance(text, length)


@_method("QFontMetrics", "charWidth")
def char_width(metrics: QtGui.QFontMetrics, text: str, position: int) -> int:
    """The advance of one character of a text."""
    return metrics.horizontalAdvance(text[position : position + 1])


@_method("QWidget", "devicePixelRatio")
def device_pixel_ratio(widget: QtWidgets.QWidget) -> int:
    """Qt 5 gives a whole number."""
    return int(widget.devicePixelRatio())


_METHODS["QPaintDevice", "devicePixelRatio"] = device_pixel_ratio


@_method("QLayout", "setMargin")
def set_margin(layout: QtWidgets.QLayout, margin: int) -> None:
    """One margin for all sides."""
    layout.setContentsMargins(margin, margin, margin, margin)


_SETTERS["QLayout", "margin"] = set_margin


def margin(layout: QtWidgets.QLayout) -> int:
    """The margin where all sides have the same, else -1."""
    all_sides = layout.contentsMargins()
    sides = {all_sides.left(), all_sides.top(), all_sides.right(), all_sides.bottom()}
    return sides.pop() if len(sides) == 1 else -1


_GETTERS["QLayout", "margin"] = margin


@_method("QWidget", "actions")
def actions(widget: QtWidgets.QWidget) -> list:
    """The actions of the widget."""
    return widget.actions()


@_method("QWidget", "addAction")
def add_action(widget: QtWidgets.QWidget, action: QtGui.QAction) -> None:
    """Qt 5 has no form that makes the action (menus and tool bars do)."""
    widget.addAction(action)


def _adding(cls: str, name: str) -> None:
    def call(widget: QtWidgets.QWidget, *args: object) -> object:
        return getattr(widget, name)(*args)

    _METHODS[cls, name] = call


for _name in ("addAction", "addMenu", "addSeparator", "addSection"):
    for _class in ("QMenu", "QMenuBar", "QToolBar"):
        _adding(_class, _name)


@_method("QAction", "parentWidget")
def action_parent(action: QtGui.QAction) -> object:
    """The parent where it is a widget."""
    return action.parent() if isinstance(action.parent(), QtWidgets.QWidget) else None


@_method("QAction", "associatedWidgets")
def associated_widgets(action: QtGui.QAction) -> list:
    """The widgets that show the action."""
    return [each for each in action.associatedObjects() if isinstance(each, QtWidgets.QWidget)]


@_method("QByteArray", "__nonzero__")
def bytes_truth(array: QtCore.QByteArray) -> bool:
    """Whether there is anything in it."""
    return not array.isEmpty()


@_method("QByteArray", "data")
def bytes_data(array: QtCore.QByteArray) -> bytes:
    """The contents."""
    return bytes(array.data())


@_method("QCoreApplication", "translate")
def translate(_: object, context: object, text: object, *rest: object) -> str:
    """PySide6 wants texts where C++ takes ``char*``."""
    comment = [_bytes(each) if isinstance(each, bytes) else each for each in rest]
    return QtCore.QCoreApplication.translate(_bytes(context), _bytes(text), *comment)


@_method("QSysInfo", "productType")
def product_type(_: object) -> str:
    """The cases were measured on Debian; elsewhere what the system says."""
    return QtCore.QSysInfo.productType()


@_method("QLayout", "setAlignment")
def layout_alignment(layout: QtWidgets.QLayout, *args: object) -> object:
    """Of the layout itself, or of one of its widgets or layouts."""
    return layout.setAlignment(*args)


@_method("QPixmap", "grabWidget")
def grab_widget(_: object, widget: QtWidgets.QWidget, *rect: object) -> QtGui.QPixmap:
    """Qt 5's name of QWidget.grab."""
    return widget.grab(*rect) if rect else widget.grab()


@_method("QImage", "byteCount")
def byte_count(image: QtGui.QImage) -> int:
    """The number of bytes of the image."""
    return image.sizeInBytes()


@_method("QLabel", "setPixmap")
def set_pixmap(label: QtWidgets.QLabel, pixmap: QtGui.QPixmap) -> None:
    """Set the picture."""
    label.setPixmap(pixmap)


@_method("QTreeWidget", "isFirstItemColumnSpanned")
def first_column_spanned(tree: QtWidgets.QTreeWidget, item: QtWidgets.QTreeWidgetItem) -> bool:
    """Moved to the item in Qt 6."""
    return item.isFirstColumnSpanned()


@_method("QTreeWidget", "setFirstItemColumnSpanned")
def set_first_column_spanned(tree: object, item: QtWidgets.QTreeWidgetItem, span: bool) -> None:
    """Moved to the item in Qt 6."""
    item.setFirstColumnSpanned(span)


def _operators() -> None:
    """Operators that PySide6 offers only as Python operators."""
    import operator

    names = {
        "__add__": operator.add,
        "__sub__": operator.sub,
        "__mul__": operator.mul,
        "__div__": operator.truediv,
        "__and__": operator.and_,
        "__or__": operator.or_,
        "__xor__": operator.xor,
        "__iadd__": operator.iadd,
        "__isub__": operator.isub,
        "__imul__": operator.imul,
        "__idiv__": operator.itruediv,
        "__iand__": operator.iand,
        "__ior__": operator.ior,
        "__ixor__": operator.ixor,
        "__lshift__": operator.lshift,
        "__eq__": operator.eq,
        "__ne__": operator.ne,
        "__lt__": operator.lt,
        "__le__": operator.le,
        "__gt__": operator.gt,
        "__ge__": operator.ge,
        "__invert__": operator.invert,
    }
    for name, function in names.items():
        for cls, raw in api.classes().items():
            if any(f"{name}(" in text for text in raw.get("meth", [])):
                _METHODS[cls, name] = lambda item, *args, function=function: function(item, *args)


_operators()

_GETTERS["QComboBox", "autoCompletion"] = lambda combo: combo.completer() is not None
_GETTERS["QComboBox", "autoCompletionCaseSensitivity"] = lambda combo: (
    combo.completer().caseSensitivity() if combo.completer() else QtCore.Qt.CaseInsensitive
)
_SETTERS["QComboBox", "autoCompletion"] = lambda combo, on: combo.setCompleter(
    QtWidgets.QCompleter(combo.model(), combo) if on else None
)
_SETTERS["QComboBox", "autoCompletionCaseSensitivity"] = lambda combo, case: (
    combo.completer().setCaseSensitivity(case) if combo.completer() else None
)


def _dialog_option(name: str, option: str, inverted: bool) -> None:
    """A property of Qt 5's file dialog that is an option in Qt 6."""
    flag = QtWidgets.QFileDialog.Option[option]
    _GETTERS["QFileDialog", name] = lambda dialog: dialog.testOption(flag) is not inverted
    _SETTERS["QFileDialog", name] = lambda dialog, on: dialog.setOption(flag, on is not inverted)


for _name, _option, _inverted in (
    ("confirmOverwrite", "DontConfirmOverwrite", True),
    ("readOnly", "ReadOnly", False),
    ("nameFilterDetailsVisible", "HideNameFilterDetails", True),
    ("resolveSymlinks", "DontResolveSymlinks", True),
):
    _dialog_option(_name, _option, _inverted)

_GETTERS["QTextEdit", "tabStopWidth"] = lambda edit: int(edit.tabStopDistance())
_GETTERS["QPlainTextEdit", "tabStopWidth"] = lambda edit: int(edit.tabStopDistance())
_SETTERS["QTextEdit", "tabStopWidth"] = lambda edit, width: edit.setTabStopDistance(width)
_SETTERS["QPlainTextEdit", "tabStopWidth"] = lambda edit, width: edit.setTabStopDistance(width)
