"""Python values to Qt: what PythonQt accepts for each C++ type, and what it refuses.

Two entrances, with PythonQt's two sets of rules: `argument` for calls (which may be *strict*, when
overloads are told apart) and `property_value` for assignments.  Both raise `Mismatch` where
PythonQt would not convert.
"""

import enum as python_enum
import math
import operator
from collections.abc import Mapping

from . import api, enums, pyside
from .signature import Type, parse_type
from .strictness import refuse

_INTEGERS = {
    "char": (-128, 127),
    "signed char": (-128, 127),
    "uchar": (0, 255),
    "unsigned char": (0, 255),
    "short": (-(2**15), 2**15 - 1),
    "signed short": (-(2**15), 2**15 - 1),
    "ushort": (0, 2**16 - 1),
    "unsigned short": (0, 2**16 - 1),
    "QChar": (0, 2**16 - 1),
    "int": (-(2**31), 2**31 - 1),
    "signed int": (-(2**31), 2**31 - 1),
    "qint32": (-(2**31), 2**31 - 1),
    "uint": (0, 2**32 - 1),
    "unsigned int": (0, 2**32 - 1),
    "unsigned": (0, 2**32 - 1),
    "quint32": (0, 2**32 - 1),
    "QRgb": (0, 2**32 - 1),
    "long": (-(2**63), 2**63 - 1),
    "ulong": (0, 2**64 - 1),
    "unsigned long": (0, 2**64 - 1),
    "qint64": (-(2**63), 2**63 - 1),
    "qlonglong": (-(2**63), 2**63 - 1),
    "long long": (-(2**63), 2**63 - 1),
    "vtkIdType": (-(2**63), 2**63 - 1),
    "quint64": (0, 2**64 - 1),
    "qulonglong": (0, 2**64 - 1),
    "quintptr": (0, 2**64 - 1),
    "size_t": (0, 2**64 - 1),
    "qsizetype": (-(2**63), 2**63 - 1),
    "WId": (0, 2**64 - 1),
    "HANDLE": (0, 2**64 - 1),
    "Qt::HANDLE": (0, 2**64 - 1),
}
_FLOATS = ("double", "float", "qreal")
_TEXTS = (
    "QString",
    "QStringView",
    "QStringRef",
    "QAnyStringView",
    "QLatin1String",
    "std::string",
    "qSlicerIO::IOFileType",
)
_MAPS = (
    "QVariantMap",
    "QVariantHash",
    "QMap<QString,QVariant>",
    "QHash<QString,QVariant>",
    "qSlicerIO::IOProperties",
)
_LISTS = ("QVariantList", "QList<QVariant>")


class Mismatch(Exception):
    """The value does not fit the type."""


def argument(type_: Type, value: object, scope: str, strict: bool) -> object:
    """Convert an argument of a call; ``scope`` is the class whose enums need no prefix."""
    from .instance import Instance

    if type_.name == "PyObject" and type_.pointer:
        return value
    if isinstance(value, Instance) and type_.name != "QVariant":
        return _wrapped(type_, value, strict)
    if type_.pointer:
        return _pointer(type_, value, strict)
    if type_.name in _INTEGERS:
        low, high = _INTEGERS[type_.name]
        number = _integer(value, strict)
        if not low <= number <= high:
            raise Mismatch
        return chr(number) if type_.name == "QChar" else number
    if (converted := _simple(type_, value, strict)) is not _NOTHING:
        return converted
    if declared := api.find_enum(scope, type_.name):
        return _enum_argument(declared, value, strict)
    if not strict and (converted := _auto(type_, value)) is not _NOTHING:
        return converted
    return _container(type_, value, scope)


_NOTHING = object()


def _simple(type_: Type, value: object, strict: bool) -> object:
    """Types whose rules are the same in calls and assignments, once strictness is known."""
    if type_.name == "bool":
        return _boolean(value, strict)
    if type_.name in _FLOATS:
        return _float(value, strict)
    if type_.name in _TEXTS:
        return _text(value, strict)
    if type_.name == "QByteArray":
        return _bytes(value, strict)
    if type_.name in ("QStringList", "QList<QString>"):
        return _text_list(value, strict)
    if type_.name == "QVariant":
        return variant(value)
    if type_.name in _MAPS:
        if not isinstance(value, Mapping):
            raise Mismatch
        return variant(dict(value))
    if type_.name in _LISTS:
        if not _is_sequence(value):
            raise Mismatch
        return [variant(item) for item in value]
    return _NOTHING


def _wrapped(type_: Type, value: object, strict: bool) -> object:
    """A wrapper passed where a Qt class, or something made of one, is wanted."""
    from .instance import peer

    if value._info_.inherits(type_.name.replace("::", "__")):
        return peer(value)
    if type_.pointer:
        raise Mismatch
    if not strict and (converted := _auto(type_, value)) is not _NOTHING:
        return converted
    if type_.name in _TEXTS and not strict:
        return _text(value, strict)
    if type_.name == "bool" and not strict:
        return _boolean(value, strict)
    raise Mismatch


def _pointer(type_: Type, value: object, strict: bool) -> object:
    """A pointer to something that is not a Qt wrapper: null, VTK, or text."""
    if type_.name in ("char", "uchar"):
        if isinstance(value, bytes):
            return value
        return _text(value, strict).encode("utf-8")
    if type_.name == "QString":
        return _text(value, strict)
    if value is None:
        return None
    if type_.name.startswith("vtk"):
        if not hasattr(value, "IsA") or not value.IsA(type_.name):
            # VTK's own wrapper complains here, and PythonQt lets its TypeError through.
            raise TypeError(
                f"method requires a {type_.name}, a {type(value).__name__} was provided."
            )
        return value
    if not strict and type(value) is int and value == 0:
        return None
    raise Mismatch


def _enum_argument(declared: tuple[str, str], value: object, strict: bool) -> object:
    exact = type(value) is enums.enum_type(*declared)
    if strict and not exact:
        raise Mismatch
    return enums.to_pyside(*declared, int(value) if exact else _integer(value, False))


def _auto(type_: Type, value: object) -> object:
    """The few conversions between value classes: colours to brushes and pens, shapes to cursors."""
    from .instance import Instance, peer

    if type_.name not in ("QColor", "QBrush", "QPen", "QCursor"):
        return _NOTHING
    cls = pyside.find(type_.name)
    if type_.name == "QCursor":
        if type(value) is enums.enum_type("Qt", "CursorShape"):
            return cls(enums.to_pyside("Qt", "CursorShape", value))
        return _NOTHING
    if type(value) is enums.enum_type("Qt", "GlobalColor"):
        return cls(enums.to_pyside("Qt", "GlobalColor", value))
    if type_.name != "QColor" and isinstance(value, Instance) and value._info_.name == "QColor":
        return cls(peer(value))
    return _NOTHING


def _container(type_: Type, value: object, scope: str) -> object:
    """``QList<T>`` and ``QPair<A,B>`` from sequences."""
    from .instance import Instance, peer

    item = type_.item
    if item is None or not _is_sequence(value) or isinstance(value, str | bytes):
        raise Mismatch
    if item.pointer and not item.name.startswith("vtk"):
        converted = []
        for each in value:
            if not isinstance(each, Instance) or not each._info_.inherits(item.name):
                raise Mismatch
            converted.append(peer(each))
        return converted
    return [argument(item, each, scope, False) for each in value]


def property_value(type_name: str, value: object, scope: str) -> object:
    """Convert a value that is assigned to a property of this type."""
    from .instance import Instance, peer

    type_ = parse_type(type_name)
    if declared := api.find_enum(scope, type_.name):
        return _enum_property(declared, value)
    if type_.name in _INTEGERS and not type_.pointer:
        return _integer_property(type_.name, value)
    if not type_.pointer:
        if type_.name == "QByteArray":
            return _bytes(value, True)
        if (converted := _simple(type_, value, False)) is not _NOTHING:
            if type_.name == "QVariant" and value is None:
                raise Mismatch
            return converted
    if isinstance(value, Instance):
        if value._info_.inherits(type_.name.replace("::", "__")):
            return peer(value)
        raise Mismatch
    return _container(type_, value, scope)


def _enum_property(declared: tuple[str, str], value: object) -> object:
    """Enum properties take an int or the names of values, nothing else."""
    if isinstance(value, str):
        number = enums.keys_to_number(*declared, value)
        if number is None:
            raise Mismatch
        return enums.to_pyside(*declared, number)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise Mismatch
    return enums.to_pyside(*declared, int(value))


def _integer_property(type_name: str, value: object) -> int:
    """Integers assigned to properties wrap around silently where they do not fit."""
    low, high = _INTEGERS[type_name]
    number = _integer(value, False)
    if not low <= number <= high:
        refuse(value, f"a wrapped-around {type_name}")
        number = (number - low) % (high - low + 1) + low
    return chr(number) if type_name == "QChar" else number


def _integer(value: object, strict: bool) -> int:
    if type(value) is int:
        return value
    if strict:
        raise Mismatch
    if isinstance(value, int):  # bools and enums
        return int(value)
    if type(value) is float:
        if not math.isfinite(value):
            raise Mismatch
        if value != math.floor(value):
            refuse(value, "a whole number")
        return math.floor(value)
    try:
        return operator.index(value)
    except TypeError:
        raise Mismatch from None


def _float(value: object, strict: bool) -> float:
    if type(value) is float:
        return value
    if strict:
        raise Mismatch
    if isinstance(value, str | bytes):
        raise Mismatch
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise Mismatch from None


def _boolean(value: object, strict: bool) -> bool:
    if value is True or value is False:
        return value
    if strict:
        raise Mismatch
    # Numbers, and NumPy's bool, are truth values in their own right; for the rest, their
    # truth is seldom what was meant ("false" is true).
    if not isinstance(value, int | float) and type(value).__name__ not in ("bool_", "bool"):
        refuse(value, "a bool")
    try:
        return bool(value)
    except Exception:
        raise Mismatch from None


def _text(value: object, strict: bool) -> str:
    if isinstance(value, str):
        return str(value)
    if strict:
        raise Mismatch
    refuse(value, "a text")
    try:
        return str(value)
    except Exception:
        raise Mismatch from None


def _bytes(value: object, strict: bool) -> object:
    from .instance import Instance, peer

    if isinstance(value, Instance) and value._info_.name == "QByteArray":
        return peer(value)
    if isinstance(value, bytes):
        return pyside.find("QByteArray")(value)
    if isinstance(value, str) and not strict:
        return pyside.find("QByteArray")(value.encode("utf-8"))
    raise Mismatch


def _is_sequence(value: object) -> bool:
    """What Python's C interface calls a sequence: it can be indexed, and is no mapping."""
    if isinstance(value, dict | set | frozenset | type):
        return False
    return hasattr(type(value), "__getitem__") and hasattr(type(value), "__len__")


def _text_list(value: object, strict: bool) -> list[str]:
    if strict and isinstance(value, str | bytes):
        raise Mismatch
    if not _is_sequence(value):
        raise Mismatch
    if isinstance(value, str | bytes):
        refuse(value, "a list of its characters")
    return [_text(value[index], False) for index in range(len(value))]


def variant(value: object) -> object:
    """A value stored in a QVariant: Qt types become PySide6's, other objects travel as they are."""
    from .instance import Instance, peer

    if isinstance(value, Instance):
        return peer(value)
    if value is None or isinstance(value, bool | python_enum.Enum):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return pyside.find("QByteArray")(value)
    if isinstance(value, dict):
        return {str(key): variant(item) for key, item in value.items()}
    if _is_sequence(value):
        return [variant(value[index]) for index in range(len(value))]
    return value
