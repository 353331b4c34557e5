"""Where the facade's classes live: PySide6 for Qt, the host's own implementations for the rest."""

from functools import cache

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtSvg, QtSvgWidgets, QtUiTools, QtWidgets

_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork, QtSvg, QtSvgWidgets, QtUiTools)

#: Implementations of ctk, qMRML and qSlicer classes, by facade name; filled by their packages.
_IMPLEMENTATIONS: dict[str, type] = {}


def implements(name: str):
    """Class decorator: this PySide6 class is what the facade's class ``name`` stands on."""

    def register(cls: type) -> type:
        cls.facade_name = name
        _IMPLEMENTATIONS[name] = cls
        find.cache_clear()
        return cls

    return register


def implemented() -> dict[str, type]:
    """The registered implementations, by facade name."""
    return dict(_IMPLEMENTATIONS)


@cache
def find(name: str) -> type | None:
    """The PySide6 class of that facade name (``A__B`` for a nested one), or None."""
    if not name.startswith("Q") or name in _IMPLEMENTATIONS:
        return _own(name)
    outer, _, inner = name.partition("__")
    for module in _MODULES:
        cls = getattr(module, outer, None)
        if cls is not None:
            return getattr(cls, inner, None) if inner else cls
    return None


def _own(name: str) -> type | None:
    """A ctk, qMRML or qSlicer class: the registered implementation, completed from the API."""
    from . import api, plain

    base = _IMPLEMENTATIONS.get(name)
    if base is None and name in api.classes():
        bases = [find(each) for each in api.classes()[name].get("b", [])]
        base = next((each for each in bases if each is not None), None)
    return plain.complete(name, base) if base is not None else None


def alive(item: object) -> bool:
    """Whether the C++ object behind a PySide6 object still exists."""
    return isinstance(item, shiboken6.Object) and shiboken6.isValid(item)


def address(item: shiboken6.Object) -> int:
    """The address of the C++ object: what makes two PySide6 objects the same."""
    return shiboken6.getCppPointer(item)[0]


def most_derived(item: QtCore.QObject) -> QtCore.QObject:
    """The PySide6 object of the class that the C++ object really has.

    PySide6 keeps the first object that it makes for an address. One that was made while the
    constructors of C++ were still running (in ``childEvent``, say) is of a base class for good, so
    a new one takes its place here.
    """
    cls = type(item)
    if not cls.__module__.startswith("PySide6"):
        return item  # implemented in Python: nothing can be more derived
    meta = item.metaObject()
    while meta is not None and meta.className() != cls.__name__:
        wanted = find(meta.className()) if meta.className().startswith("Q") else None
        if wanted is not None and wanted is not cls and issubclass(wanted, cls):
            place = address(item)
            shiboken6.invalidate(item)
            return shiboken6.wrapInstance(place, wanted)
        meta = meta.superClass()
    return item
