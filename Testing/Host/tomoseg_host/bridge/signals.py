"""Signals: connecting callables and slots, and what handlers are given.

A handler that is a function or a bound method gets at most as many arguments as it declares; any
other callable gets all.  References are strong, connecting twice calls twice, and an exception is
reported through ``sys.excepthook`` and goes no further.
"""

import sys
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from PySide6 import QtCore

from . import api, pyside, topython
from .signature import Signature, normalize, parse_signature

#: Signals that only Qt 5 has: the Qt 6 signal that stands in, and what becomes of its arguments.
_QT5_SIGNALS: dict[tuple[str, str], tuple[str, Callable]] = {
    ("QComboBox", "currentIndexChanged(QString)"): ("currentTextChanged(QString)", None),
    ("QComboBox", "activated(QString)"): ("textActivated(QString)", None),
    ("QComboBox", "highlighted(QString)"): ("textHighlighted(QString)", None),
    ("QSpinBox", "valueChanged(QString)"): ("textChanged(QString)", None),
    ("QDoubleSpinBox", "valueChanged(QString)"): ("textChanged(QString)", None),
    ("QProcess", "finished(int)"): ("finished(int,QProcess::ExitStatus)", lambda *a: a[:1]),
    ("QProcess", "error(QProcess::ProcessError)"): ("errorOccurred(QProcess::ProcessError)", None),
    ("QButtonGroup", "buttonClicked(int)"): ("idClicked(int)", None),
    ("QButtonGroup", "buttonPressed(int)"): ("idPressed(int)", None),
    ("QButtonGroup", "buttonReleased(int)"): ("idReleased(int)", None),
    ("QButtonGroup", "buttonToggled(int,bool)"): ("idToggled(int,bool)", None),
    ("QTextBrowser", "highlighted(QString)"): ("highlighted(QUrl)", lambda url: (url.toString(),)),
    ("QAbstractItemModel", "dataChanged(QModelIndex,QModelIndex,QVector<int>)"): (
        "dataChanged(QModelIndex,QModelIndex,QList<int>)",
        None,
    ),
}


@dataclass
class _Target:
    """One connection of a callable."""

    signal: str
    handler: object
    connection: object


#: Targets by the address of the sender, together with the sender (addresses are used again).
_targets: dict[int, tuple[QtCore.QObject, list[_Target]]] = {}


def forget(key: int) -> None:
    """Let go of the handlers of a sender that is being deleted."""
    _targets.pop(key, None)


def _targets_of(sender: QtCore.QObject) -> list[_Target]:
    if len(_targets) % 128 == 127:
        for key in [key for key, (each, _) in _targets.items() if not pyside.alive(each)]:
            del _targets[key]
    key = pyside.address(sender)
    if key in _targets and pyside.alive(_targets[key][0]):
        return _targets[key][1]
    _targets[key] = (sender, [])
    return _targets[key][1]


def find(info: api.ClassInfo, sender: QtCore.QObject, text: str) -> api.Overload | None:
    """The signal with that signature on the sender, or None."""
    text = text[1:] if text[:1].isdigit() else text
    wanted = normalize(text)
    if (found := info.signals().get(wanted)) is not None:
        return found
    for dynamic in getattr(type(sender), "dynamic_signals", {}).values():
        if wanted in (signature.text for signature in dynamic):
            return api.Overload(parse_signature(wanted), "signal", info.name)
    # Qt's private classes are not listed; their own meta object knows.
    if info.name not in api.classes() and sender.metaObject().indexOfSignal(wanted) >= 0:
        return api.Overload(parse_signature(wanted), "signal", info.name)
    return None


def handle(sender: QtCore.QObject, signal: api.Overload, handler: object) -> None:
    """Connect a Python object (callable or not: that shows when the signal comes)."""
    signature, scope = signal.signature, signal.owner

    def deliver(*values: object) -> None:
        arguments = [
            topython.convert(value, type_, scope)
            for value, type_ in zip(values, signature.arguments, strict=False)
        ]
        call(handler, arguments)

    connection = _connect(sender, signal, deliver)
    _targets_of(sender).append(_Target(signature.text, handler, connection))


def call(handler: object, arguments: list) -> object:
    """Call a handler with as many arguments as it takes; report its exception."""
    code = None
    function = handler.__func__ if isinstance(handler, types.MethodType) else handler
    if isinstance(function, types.FunctionType):
        code = function.__code__
        if not code.co_flags & 0x04:  # no *args
            count = code.co_argcount - (function is not handler)
            arguments = arguments[: max(count, 0)]
    try:
        return handler(*arguments)
    except Exception:
        sys.excepthook(*sys.exc_info())
        return None


def _attribute(sender: QtCore.QObject, signature: Signature) -> object:
    """The signal of a class that the host implements in Python, where it is one."""
    names = getattr(type(sender), "facade_signals", {})
    if signature.text in names:
        return getattr(sender, names[signature.text])
    for cls in type(sender).__mro__:
        if cls.__module__.startswith(("PySide6", "Shiboken")):
            return None
        if isinstance(cls.__dict__.get(signature.name), QtCore.Signal):
            return getattr(sender, signature.name)
    return None


def _connect(sender: QtCore.QObject, signal: api.Overload, deliver: Callable) -> object:
    """Connect ``deliver`` with the PySide6 signal that stands for ``signal``."""
    text = signal.signature.text
    own = _attribute(sender, signal.signature)
    if own is not None:
        return own.connect(deliver)
    substitute = _QT5_SIGNALS.get((signal.owner, text))
    if substitute:
        text, change = substitute
        if change:
            inner = deliver

            def deliver(*values: object) -> None:
                inner(*change(*values))

    return QtCore.QObject.connect(sender, QtCore.SIGNAL(text), deliver)


def remove(sender: QtCore.QObject, signal: api.Overload, handler: object = None) -> bool:
    """Disconnect the first equal handler, or with None all of the signal."""
    targets, found = _targets_of(sender), False
    for target in list(targets):
        if target.signal != signal.signature.text:
            continue
        if handler is not None and not (target.handler is handler or target.handler == handler):
            continue
        QtCore.QObject.disconnect(target.connection)
        targets.remove(target)
        found = True
        if handler is not None:
            break
    return found


def connect_slot(sender: object, signal: api.Overload, receiver: object, text: str) -> bool:
    """Connect with a slot or signal of a C++ object, as ``QObject::connect`` does by names."""
    wanted = normalize(text[1:] if text[:1].isdigit() else text)
    if "(" not in wanted:
        return False
    slot = _receiving(receiver._info_, wanted)
    if slot is None and receiver._peer_.metaObject().indexOfMethod(wanted) < 0:
        return False
    sent = [str(each) for each in signal.signature.arguments]
    taken = [str(each) for each in parse_signature(wanted).arguments]
    if sent[: len(taken)] != taken:
        return False  # incompatible sender/receiver arguments
    peer_of = weakref.ref(receiver._peer_)
    count, name = len(taken), parse_signature(wanted).name

    def deliver(*values: object) -> None:
        item = peer_of()
        if item is None or not pyside.alive(item):
            return
        if slot is not None and slot.kind == "signal":
            _emit_to(item, slot, list(values[:count]))
        else:
            getattr(item, name)(*values[:count])

    connection = _connect(sender._peer_, signal, deliver)
    _targets_of(sender._peer_).append(
        _Target(signal.signature.text, (pyside.address(receiver._peer_), wanted), connection)
    )
    return True


def disconnect_slot(sender: object, signal: api.Overload, receiver: object, text: str) -> bool:
    """Undo `connect_slot`."""
    wanted = normalize(text[1:] if text[:1].isdigit() else text)
    return remove(sender._peer_, signal, (pyside.address(receiver._peer_), wanted))


def _receiving(info: api.ClassInfo, wanted: str) -> api.Overload | None:
    """The public slot or signal of that signature (defaults written out or left off)."""
    signature = parse_signature(wanted)
    for overload in info.overloads(signature.name):
        if overload.kind in ("method", "slot", "signal") and (
            overload.signature.arguments[: len(signature.arguments)] == signature.arguments
            and overload.signature.accepts(len(signature.arguments))
        ):
            return overload
    return None


def emit(sender: QtCore.QObject, signal: api.Overload, args: list) -> None:
    """Emit a signal with converted arguments."""
    _emit_to(sender, signal, args)


def _emit_to(sender: QtCore.QObject, signal: api.Overload, args: list) -> None:
    own = _attribute(sender, signal.signature)
    if own is not None:
        own.emit(*args)
        return
    text, _ = _QT5_SIGNALS.get((signal.owner, signal.signature.text), (signal.signature.text, None))
    sender.emit(QtCore.SIGNAL(text), *args)


class Signal:
    """A signal: on an object ``connect``, ``disconnect``, ``emit``; in a class body a declaration
    (``done = qt.Signal(int)``)."""

    __slots__ = ("_types", "_name", "_member", "_info", "_instance", "__weakref__")

    def __init__(self, *types_: object):
        self._types, self._name = types_, ""
        self._member = self._info = self._instance = None

    @classmethod
    def _of_member_(
        cls, name: str, member: api.Member, info: api.ClassInfo, instance: object
    ) -> "Signal":
        self = cls()
        self._name, self._member, self._info, self._instance = name, member, info, instance
        return self

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> "Signal":
        if instance is None or self._member is not None:
            return self
        overloads = tuple(
            api.Overload(each, "signal", owner._info_.name) for each in self.declared()
        )
        member = api.Member("signal", overloads=overloads, owner=owner._info_.name)
        return Signal._of_member_(self._name, member, owner._info_, instance)

    def declared(self) -> list[Signature]:
        """The signatures that a declaration in a class body gives."""
        overloads = [each for each in self._types if isinstance(each, list | tuple)]
        plain = [each for each in self._types if not isinstance(each, list | tuple)]
        if plain or not overloads:
            overloads.append(plain)
        return [
            parse_signature(f"{self._name}({','.join(map(_type_name, each))})")
            for each in overloads
        ]

    @property
    def __name__(self) -> str:
        return self._member.overloads[0].signature.text if self._member else "Signal"

    def __repr__(self) -> str:
        if self._member is None:
            return "Signal"
        if self._instance is None:
            return f"<unbound qt signal {self._name} of {self._info.name} type>"
        return f"<qt signal {self._name} of {type(self._instance).__name__} instance>"

    def _sender(self) -> QtCore.QObject:
        sender = self._instance._peer_ if self._instance is not None else None
        if sender is None or not pyside.alive(sender):
            raise ValueError(f"signal {self._name} of no living object")
        return sender

    def _first(self) -> api.Overload:
        return next(each for each in self._member.overloads if each.kind == "signal")

    def connect(self, *args: object) -> bool:
        """Connect one callable with the first overload."""
        sender = self._sender()
        if len(args) != 1:
            raise ValueError("Called connect with wrong number of arguments")
        handle(sender, self._first(), args[0])
        return True

    def disconnect(self, *args: object) -> bool:
        """Disconnect one callable, or without an argument all."""
        sender = self._sender()
        if len(args) > 1:
            raise ValueError("Called disconnect with wrong number of arguments")
        return remove(sender, self._first(), *args)

    def emit(self, *args: object) -> None:
        """Emit the overload that takes the arguments."""
        from . import slots

        slots.Slot(self._name, self._member, self._info, instance=self._instance)(*args)

    def __call__(self, *args: object, **kwargs: object) -> object:
        from . import slots

        owner = None
        if self._instance is None:
            from .instance import facade_class

            owner = facade_class(self._info.name)
        return slots.Slot(
            self._name, self._member, self._info, instance=self._instance, owner=owner
        )(*args, **kwargs)

    def parameterTypes(self) -> tuple:  # noqa: N802 - PythonQt's name
        """The C++ types of the arguments of each overload."""
        return tuple(
            tuple(each.name + "*" * each.pointer for each in overload.signature.arguments)
            for overload in self._member.overloads
        )


def _type_name(type_: object) -> str:
    """The C++ type that a declaration of a signal names."""
    known = {float: "double", bool: "bool", int: "qint64", str: "QString", None: "void"}
    if isinstance(type_, str):
        return type_
    info = getattr(type_, "_info_", None)
    if info is not None:
        return info.name + "*" * info.is_qobject
    return known.get(type_, "PythonQtSafeObjectPtr")
