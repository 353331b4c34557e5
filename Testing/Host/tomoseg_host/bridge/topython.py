"""Qt values to Python: tuples for lists, numbers for enums, wrappers for everything of Qt."""

import enum as python_enum

import shiboken6
from PySide6 import QtCore

from . import api, enums
from .signature import Type


def returned(value: object, type_: Type | None, scope: str, typed: bool = True) -> object:
    """Convert what a call gave.

    Args:
        value: what PySide6 gave.
        type_: the type that the API declares; None for nothing.
        scope: the class whose enums need no prefix.
        typed: False for Qt's own slots, which the API lists without their types.
    """
    if type_ is None and (typed or not scope.startswith("Q")):
        return None
    if isinstance(value, tuple) and type_ is not None and not _is_container(type_):
        # PySide6 adds what C++ writes through references; PythonQt gives the result alone.
        value = value[0]
    return convert(value, type_, scope)


def _is_container(type_: Type) -> bool:
    """Whether values of the type are tuples for Python."""
    return (
        type_.item is not None
        or type_.name.endswith("List")
        or type_.name.startswith(("QPair", "QList", "QVector", "QSet", "QVariant"))
    )


def convert(value: object, type_: Type | None = None, scope: str = "") -> object:
    """Convert any PySide6 value; the declared type decides where Python's own does not."""
    name = type_.name if type_ else ""
    if value is None:
        return _nothing(name, type_)
    if isinstance(value, python_enum.Enum):
        return enums.from_pyside(value, api.find_enum(scope, name) if name else None)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        declared = api.find_enum(scope, name) if name and not type_.pointer else None
        if declared:
            return enums.make(*declared, value)
        return float(value) if name in ("double", "qreal", "float") else value
    if isinstance(value, float) and name in ("int", "uint"):
        return int(value)
    if isinstance(value, str):
        # PythonQt gives a QChar as its number.
        return ord(value[0]) if name == "QChar" and value else value
    if isinstance(value, bytes | bytearray) and name == "QByteArray":
        return wrap(QtCore.QByteArray(value))
    if isinstance(value, list | tuple) or (isinstance(value, set) and name.startswith("QSet")):
        item = type_.item if type_ else None
        return tuple(convert(each, item, scope) for each in value)
    if isinstance(value, dict):
        return {convert(key): convert(each) for key, each in value.items()}
    if isinstance(value, shiboken6.Object):
        return wrap(value)
    return value


def _nothing(name: str, type_: Type | None) -> object:
    """What None of PySide6 stands for: a null text is "", an empty list a tuple."""
    if name == "QString":
        return ""
    if name in ("QStringList", "QVariantList") or (type_ and type_.item):
        return ()
    return None


def wrap(item: shiboken6.Object) -> object:
    """The facade's wrapper of a PySide6 object: one for each QObject, a new one for a value."""
    from .lifetime import wrapper_of

    return wrapper_of(item)
