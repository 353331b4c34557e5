"""Qt values to Python: tuples for lists, numbers for enums, wrappers for everything of Qt."""

import enum as python_enum

import shiboken6
from PySide6 import QtCore

from . import api, enums
from .signature import Type


def returned(value: object, type_: Type | None, scope: str) -> object:
    """Convert what a call or a property gave; ``type_`` is the type the API declares."""
    if type_ is None and not scope.startswith("Q"):
        # A C++ function of ctk or qMRML that the API lists without a type returns nothing.  (The
        # slots of Qt's classes are listed without their types: those say themselves.)
        return None
    return convert(value, type_, scope)


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
