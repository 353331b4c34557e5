"""Short forms of Qt properties for the host's widgets."""

from collections.abc import Callable

from PySide6 import QtCore


def number(value: object) -> int:
    """The number of an enum of PySide6, or of anything that is one already."""
    return int(getattr(value, "value", value))


def stored(
    type_: object, default: object = None, changed: str = "", check: Callable | None = None
) -> QtCore.Property:
    """A property that keeps its value.

    Args:
        type_: the type as `QtCore.Property` takes it.
        default: the value until it is set (a callable is called for each object).
        changed: the name of a method to call after each change, without arguments.
        check: turns what is set into what is kept.
    """
    key = object()

    def read(self: QtCore.QObject) -> object:
        values = self.__dict__.setdefault("_stored", {})
        if key not in values:
            values[key] = default() if callable(default) else default
        return values[key]

    def write(self: QtCore.QObject, value: object) -> None:
        value = check(value) if check else value
        if read(self) == value:
            return
        self.__dict__["_stored"][key] = value
        if changed:
            getattr(self, changed)()

    return QtCore.Property(type_, read, write)


def stored_enum(default: int = 0, changed: str = "") -> QtCore.Property:
    """A stored property of an enum or flags type, kept as its number."""
    return stored(int, default, changed, number)


def passed(
    type_: object, child: str, getter: str, setter: str = "", convert: Callable | None = None
) -> QtCore.Property:
    """A property that a child widget has."""

    def read(self: QtCore.QObject) -> object:
        value = getattr(getattr(self, child), getter)()
        return number(value) if convert else value

    def write(self: QtCore.QObject, value: object) -> None:
        getattr(getattr(self, child), setter)(convert(number(value)) if convert else value)

    return QtCore.Property(type_, read, write if setter else None)
