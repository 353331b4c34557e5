"""Stand-ins for what no one has implemented: properties keep their values, signals exist.

Every class of the API that Python can construct should be constructible in the host.  Where the
host has no implementation of its own, or an implementation leaves a member out, the members are
made here from the API; a function that would have to *do* something raises `HostLacks`.
"""

import json
from functools import cache

from PySide6 import QtCore, QtGui

from ..qtproperty import stored, stored_enum
from . import api, pyside
from .signature import Signature, parse_signature, parse_type
from .strictness import HostLacks

_TYPES = {
    "bool": (bool, False),
    "int": (int, 0),
    "double": (float, 0.0),
    "float": (float, 0.0),
    "QString": (str, ""),
    "QStringList": ("QStringList", list),
    "QColor": (QtGui.QColor, QtGui.QColor),
    "QIcon": (QtGui.QIcon, QtGui.QIcon),
    "QSize": (QtCore.QSize, QtCore.QSize),
    "QFont": (QtGui.QFont, QtGui.QFont),
}


@cache
def _defaults() -> dict:
    return json.loads(api.DATA.with_name("defaults.json").read_text(encoding="utf-8"))


def complete(name: str, base: type) -> type:
    """A subclass of ``base`` that has every property, signal and function of the class ``name``."""
    namespace: dict = {"facade_name": name, "__doc__": f"{name}, as far as the host has it."}
    signals = dict(getattr(base, "facade_signals", {}))
    for level in reversed(api.info(name).chain):
        if level.name.startswith("Q"):
            continue
        _add_signals(level, base, namespace, signals)
        _add_properties(level, base, namespace)
        _add_functions(level, base, namespace)
    namespace["facade_signals"] = signals
    return type(base)(base.__name__ if hasattr(base, "facade_name") else name, (base,), namespace)


def _has(base: type, name: str) -> bool:
    """Whether the host's own classes (not Qt's) define the name."""
    return any(
        name in cls.__dict__
        for cls in base.__mro__
        if not cls.__module__.startswith(("PySide6", "Shiboken", "builtins"))
    )


def _add_signals(level: api.ClassInfo, base: type, namespace: dict, signals: dict) -> None:
    taken = set()
    for text in level.own("sig"):
        signature = parse_signature(text)
        if text in signals:
            taken.add(signature.name)
            continue
        first = signature.name not in taken
        taken.add(signature.name)
        if first and (_has(base, signature.name) or signature.name in namespace):
            continue
        # A second overload gets a name of its own, which only the facade knows.
        attribute = signature.name if first else f"{signature.name}_{len(signals)}"
        namespace[attribute] = QtCore.Signal(*[object] * len(signature.arguments))
        if not first:
            signals[text] = attribute


def _add_properties(level: api.ClassInfo, base: type, namespace: dict) -> None:
    for name, type_text, *_ in level.own("p"):
        if _has(base, name):
            continue
        default = _defaults().get(level.name, {}).get(name)
        if api.find_enum(level.name, type_text):
            namespace[name] = stored_enum(default or 0)
            continue
        type_, empty = _TYPES.get(parse_type(type_text).name, (object, None))
        if parse_type(type_text).pointer:
            type_, empty = object, None
        elif empty is None and type_ is object:
            # A value class: an empty one of it, where Qt has it.
            empty = pyside.find(type_text) if type_text.startswith("Q") else None
            empty = dict if type_text == "QVariantMap" else empty
        if callable(empty) and isinstance(default, str | bool | int | float):
            default = None  # a colour of the table is a number of an enum: not worth more code
        namespace[name] = stored(type_, empty if default is None else default)


def _add_functions(level: api.ClassInfo, base: type, namespace: dict) -> None:
    properties = {name for name, *_ in level.own("p")}
    for key in ("slot", "inv", "deco", "sdeco"):
        for text in level.own(key):
            name = parse_signature(text).name
            if _has(base, name) or name in namespace:
                continue
            target = name[3:4].lower() + name[4:] if name.startswith("set") else ""
            if target in properties:
                namespace[name] = _setter(target)
            else:
                accessor = _node_accessor(level, parse_signature(text))
                namespace[name] = accessor or _missing(f"{level.name}.{text}")


def _setter(name: str):
    def call(self: QtCore.QObject, value: object) -> None:
        setattr(self, name, value)

    return call


def _node_accessor(level: api.ClassInfo, signature: Signature):
    """``setMRMLTableNode(vtkMRMLTableNode*)`` or ``mrmlTableNode()``: a widget keeps its node even
    where nothing else of it is implemented; None for other functions."""
    arguments, returns = signature.arguments, signature.returns
    if signature.name.startswith("set") and len(arguments) == 1 and returns is None:
        type_, key = arguments[0], signature.name[3:]
    elif not arguments and returns is not None:
        type_, key = returns, signature.name
        if not any(level.overloads(f"set{prefix}") for prefix in (_capital(key), _mrml(key))):
            return None
    else:
        return None
    if not (type_.pointer and type_.name.startswith(("vtkMRML", "vtkSegment"))):
        return None
    key = f"_node_{key.lower()}"
    if not arguments:
        return lambda self: getattr(self, key, None)

    def call(self: QtCore.QObject, node: object) -> None:
        getter = level.overloads(signature.name[3:4].lower() + signature.name[4:])
        wanted = getter[0].signature.returns if getter and getter[0].signature.returns else type_
        setattr(self, key, node if node is not None and node.IsA(wanted.name) else None)

    return call


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _mrml(name: str) -> str:
    return f"MRML{name[4:]}" if name.startswith("mrml") else _capital(name)


def _missing(text: str):
    def call(self: QtCore.QObject, *_: object) -> None:
        raise HostLacks(f"the host does not have {text}")

    return call
