"""Virtual functions that a Python subclass overrides, called from C++.

Only the functions that PythonQt's generated shell of a class forwards are forwarded here; a
subclass of a ctk or qMRML class has no shell, so C++ never calls its overrides.
"""

import sys
from functools import cache

from PySide6 import QtCore

from . import api, pyside, topython, toqt

#: How a subclass spells a virtual function whose own name a property hides.
_SPELLING = {"getSizeHint": "sizeHint", "getMinimumSizeHint": "minimumSizeHint"}

#: Virtual functions that give a bool; None from Python is False.
_TRUTHS = (
    "event",
    "eventFilter",
    "focusNextPrevChild",
    "hasHeightForWidth",
    "hitButton",
    "nativeEvent",
    "setData",
    "canFetchMore",
    "filterAcceptsRow",
    "filterAcceptsColumn",
    "lessThan",
    "viewportEvent",
)


@cache
def shell_class(python_class: type, info: api.ClassInfo, base: type) -> type:
    """A PySide6 subclass that calls the overrides of ``python_class``."""
    from .signals import Signal

    namespace: dict = {"facade_name": info.name, "python_class": python_class}
    own = [
        cls for cls in python_class.__mro__ if "_info_" not in cls.__dict__ and cls is not object
    ]
    defined = {name for cls in own for name in cls.__dict__}
    for name in info.raw.get("shell", []):
        if name in defined:
            virtual = _SPELLING.get(name, name)
            namespace[virtual] = _forward(name, virtual, base)
    declared = {
        name: value.declared()
        for cls in reversed(own)
        for name, value in cls.__dict__.items()
        if isinstance(value, Signal)
    }
    for name, signatures in declared.items():
        namespace[name] = QtCore.Signal(*[object] * len(signatures[0].arguments))
    namespace["dynamic_signals"] = declared
    return type(base)(python_class.__name__, (base,), namespace)


def _forward(name: str, virtual: str, base: type):
    """The override that C++ calls: it hands over to the Python object where that still lives."""

    def override(self: QtCore.QObject, *args: object) -> object:
        from .lifetime import _wrappers

        wrapper = _wrappers.get(pyside.address(self)) if pyside.alive(self) else None
        if wrapper is None:
            return getattr(base, virtual)(self, *args)
        try:
            result = getattr(wrapper, name)(*[topython.convert(each) for each in args])
        except Exception:
            # PythonQt prints the error and goes on with an empty value.
            sys.excepthook(*sys.exc_info())
            return False if virtual in _TRUTHS else None
        if virtual in _TRUTHS:
            return bool(result)
        return toqt.variant(result)

    override.__name__ = virtual
    return override
