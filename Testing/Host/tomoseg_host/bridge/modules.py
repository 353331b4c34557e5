"""The modules ``qt`` and ``ctk``, and the qMRML and qSlicer classes of ``slicer``."""

import sys
import types
from collections.abc import Iterable

from . import api, slots
from .instance import facade_class
from .signals import Signal


class Slot:
    """``qt.Slot(...)``: a decorator that declares nothing here."""

    def __init__(self, *_: object, **__: object):
        pass

    def __call__(self, function: object) -> object:
        return function


class Property(property):
    """``qt.Property(type, getter, setter)`` in a class body."""

    def __init__(self, _: object, fget: object = None, fset: object = None, **__: object):
        super().__init__(fget, fset)


class LibraryModule(types.ModuleType):
    """A module whose classes are made when they are asked for."""

    def __init__(self, name: str, names: Iterable[str]):
        super().__init__(name, f"The module {name} as Python inside Slicer has it.")
        self._names = set(names)

    def __getattr__(self, name: str) -> object:
        if name not in self.__dict__.get("_names", ()):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        found = facade_class(name)
        self.__dict__[name] = found
        return found

    def __dir__(self) -> list[str]:
        return sorted(set(super().__dir__()) | self._names)


def qt_module() -> types.ModuleType:
    """``qt``: Qt's classes, the functions of the global namespace, and PythonQt's own types."""
    names = [
        name
        for name in api.classes()
        if name.startswith("Q") and "__" not in name and name not in ("QtCore", "QtNetwork")
    ]
    module = LibraryModule("qt", names)
    namespace = api.info("Qt")
    for text in namespace.raw["sdeco"]:
        name = text.partition("(")[0].rpartition(" ")[2]
        setattr(
            module,
            name,
            slots.Slot(name, namespace.member(name), namespace, owner=facade_class("Qt")),
        )
    module.Signal, module.Slot, module.Property = Signal, Slot, Property
    return module


def ctk_module() -> types.ModuleType:
    """``ctk``: the classes that its Python package exposes."""
    names = [
        name
        for name, raw in api.classes().items()
        if name.startswith("ctk") and raw.get("mod", 1) and "__" not in name
    ]
    return LibraryModule("ctk", names)


def slicer_classes() -> list[str]:
    """The names of the qMRML and qSlicer classes, attributes of ``slicer``."""
    return [
        name
        for name, raw in api.classes().items()
        if name.startswith(("qMRML", "qSlicer")) and raw.get("mod", 1) and "__" not in name
    ]


def install() -> None:
    """Put ``qt`` and ``ctk`` where ``import`` finds them (once)."""
    if "qt" not in sys.modules:
        sys.modules["qt"] = qt_module()
    if "ctk" not in sys.modules:
        sys.modules["ctk"] = ctk_module()
