"""Callables of C++ objects: overloads are chosen as PythonQt does, then PySide6 is called."""

from PySide6 import QtCore

from . import api, emulation, lifetime, pyside, topython, toqt
from .signature import Signature
from .strictness import HostLacks, SilentConversion, recording

#: Names that PySide6 spells otherwise because they are Python's keywords.
_RENAMED = {
    "raise": "raise_",
    "del": "del_",
    "print": "print_",
    "import": "import_",
    "from": "from_",
    "yield": "yield_",
    "exec": "exec",
}


def choose(overloads: list[Signature], args: tuple, scope: str) -> tuple[Signature, list]:
    """The overload that takes ``args``, and the converted arguments; ValueError where none does.

    Several overloads are tried with strict conversions first and all of them again with loose
    ones; a single one takes loose conversions at once.  A default value makes a function several.
    """
    several = len(overloads) > 1 or overloads[0].required < len(overloads[0].arguments)
    for strict in (True, False) if several else (False,):
        for signature in overloads:
            if not signature.accepts(len(args)):
                continue
            with recording() as silent:
                try:
                    converted = [
                        toqt.argument(type_, value, scope, strict)
                        for type_, value in zip(signature.arguments, args, strict=False)
                    ]
                except toqt.Mismatch:
                    continue
            if silent:
                raise SilentConversion(silent[0])
            return signature, converted
    listed = "\n".join(signature.text for signature in overloads)
    raise ValueError(
        f"Could not find matching overload for given arguments:\n{args!r}\n"
        f" The following slots are available:\n{listed}"
    )


class Slot:
    """A function of a class, bound to an instance or (for statics and unbound calls) to a class."""

    __slots__ = ("__name__", "_member", "_info", "_instance", "_class")

    def __init__(
        self,
        name: str,
        member: api.Member,
        info: api.ClassInfo,
        instance: object = None,
        owner: type | None = None,
    ):
        self.__name__ = name
        self._member, self._info = member, info
        self._instance, self._class = instance, owner

    @property
    def __self__(self) -> object:
        """The instance or the class that it was taken from."""
        return self._class if self._instance is None else self._instance

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Slot)
            and self.__self__ is other.__self__
            and self._member is other._member
        )

    def __hash__(self) -> int:
        return hash((id(self.__self__), id(self._member)))

    def __repr__(self) -> str:
        return f"<built-in qt slot {self.__name__} of {self._info.name}>"

    def __call__(self, *args: object, **kwargs: object) -> object:
        name = self.__name__
        if kwargs:
            raise ValueError(
                f"Called {name} with keyword arguments, but called slot does not support kwargs."
            )
        instance, unbound = self._instance, False
        overloads = self._member.overloads
        if instance is None and not all(each.static for each in overloads):
            statics = [each for each in overloads if each.static]
            if not (statics and overloads[0].static):
                instance, args, unbound = *self._unbound_self(args), True
        needs_object = not all(each.static for each in overloads)
        if instance is not None and needs_object and not pyside.alive(instance._peer_):
            raise ValueError(f"Trying to call '{name}' on a destroyed {self._info.name} object")
        signature, converted = choose(
            [each.signature for each in overloads], args, self._member.owner
        )
        chosen = next(each for each in overloads if each.signature is signature)
        result = _invoke(chosen, instance, converted, self._info, unbound)
        _pass_ownership(signature, args, instance)
        if _is_wrapper(result) or _is_decorated(chosen):
            returned = result  # PythonQt's own functions give what Python gets
        else:
            returned = topython.returned(
                result, signature.returns, chosen.owner, chosen.kind != "slot"
            )
        if (
            signature.returns is not None
            and _is_wrapper(returned)
            and signature.returns.ownership == "PassOwnershipToPython"
        ):
            lifetime.to_python(returned)
        return returned

    def _unbound_self(self, args: tuple) -> tuple[object, tuple]:
        """Split the object off the arguments of a call through the class."""
        if not args or not _is_wrapper(args[0]) or not args[0]._info_.inherits(self._info.name):
            given = type(args[0]).__name__ if args else "nothing"
            raise ValueError(
                f"slot {self.__name__} requires {self._info.name} instance as first "
                f"argument, got {given}"
            )
        return args[0], args[1:]


def _is_decorated(chosen: api.Overload) -> bool:
    """Whether the overload is one that PythonQt adds and the host has written itself."""
    return (
        chosen.kind in ("deco", "sdeco")
        and emulation.decorator(chosen.signature.name, chosen) is not None
    )


def _is_wrapper(value: object) -> bool:
    from .instance import Instance

    return isinstance(value, Instance)


def _invoke(
    chosen: api.Overload, instance: object, args: list, info: api.ClassInfo, unbound: bool
) -> object:
    """Call the chosen overload with converted arguments."""
    name = chosen.signature.name
    if chosen.kind in ("deco", "sdeco") and (function := emulation.decorator(name, chosen)):
        return function(instance, *args)
    if function := emulation.find(info, chosen):
        return function(instance._peer_ if instance is not None else None, *args)
    if chosen.kind == "signal":
        from .signals import emit

        return emit(instance._peer_, chosen, args)
    renamed = _RENAMED.get(name, name)
    if instance is None or unbound:
        cls = pyside.find(info.name)
        function = getattr(cls, renamed, None)
        if instance is not None and function is not None:
            return _call(function, chosen, [instance._peer_, *args])
    else:
        function = getattr(instance._peer_, renamed, None)
        if function is not None and chosen.static:
            function = getattr(type(instance._peer_), renamed, None)
    if function is None or not callable(function):
        function = getattr(pyside.find(chosen.owner), renamed, None)
        if function is None:
            raise HostLacks(f"the host does not have {chosen.owner}.{chosen.signature.text}")
        if instance is not None and not chosen.static:
            args = [instance._peer_, *args]
    return _call(function, chosen, args)


def _call(function, chosen: api.Overload, args: list) -> object:
    """Call PySide6; where it takes no such arguments, that is the host's failing, so say so."""
    args = _without_out_parameters(chosen.signature, args)
    try:
        return function(*args)
    except TypeError as error:
        if "called with wrong argument" in str(error) or "Supported signatures" in str(error):
            raise HostLacks(
                f"PySide6 has no {chosen.owner}.{chosen.signature.text}: {error}"
            ) from error
        raise


def _without_out_parameters(signature: Signature, args: list) -> list:
    """PySide6 returns what C++ writes through ``bool*``; the arguments for it are left out."""
    offset = 0 if len(args) <= len(signature.arguments) else 1  # an unbound call has its object
    kept = args[:offset]
    for type_, value in zip(signature.arguments, args[offset:], strict=False):
        if not (type_.pointer and type_.name in ("bool", "int", "QString")):
            kept.append(value)
    return kept


def _pass_ownership(signature: Signature, args: tuple, instance: object) -> None:
    """Move ownership as the types of the arguments say."""
    from .instance import Instance

    for type_, value in zip(signature.arguments, args, strict=False):
        each = value if isinstance(value, list | tuple) else [value]
        if type_.ownership == "PassOwnershipToCPP":
            for item in each:
                if isinstance(item, Instance) and item._peer_ is not None:
                    lifetime.to_cpp(item)
        elif type_.ownership == "PassOwnershipToPython":
            for item in each:
                if isinstance(item, Instance):
                    lifetime.to_python(item)
        elif type_.ownership == "NewOwnerOfThis" and instance is not None:
            (lifetime.to_python if value is None else lifetime.to_cpp)(instance)


def build(cls: type, info: api.ClassInfo, signature: Signature, args: list) -> object:
    """Construct the PySide6 object."""
    if function := emulation.constructor(info.name):
        return function(cls, *args)
    try:
        return cls(*args)
    except NotImplementedError:
        # PythonQt's shells make abstract classes constructible; so does an empty subclass.
        return type(cls)(info.name, (cls,), {"facade_name": info.name})(*args)
    except TypeError as error:
        raise HostLacks(f"PySide6 has no constructor {signature.text}: {error}") from error


def read_property(item: QtCore.QObject, prop: api.Property) -> object:
    """Read a property of a PySide6 object."""
    if function := emulation.getter(prop):
        return function(item)
    if getattr(type(item), "facade_name", None) and hasattr(type(item), prop.name):
        value = getattr(item, prop.name)
        return value() if callable(value) else value
    try:
        if item.metaObject().indexOfProperty(prop.name) >= 0:
            return item.property(prop.name)
    except RuntimeError:
        pass  # PySide6 has no converter for flags inside a QVariant: ask the getter below
    capital = prop.name[0].upper() + prop.name[1:]
    for name in (prop.name, f"is{capital}", f"has{capital}", f"get{capital}"):
        function = getattr(item, name, None)
        if callable(function):
            return function()
    raise HostLacks(f"the host cannot read {prop.owner}.{prop.name}")


def write_property(item: QtCore.QObject, prop: api.Property, value: object) -> None:
    """Write a property of a PySide6 object."""
    if function := emulation.setter(prop):
        function(item, value)
        return
    own = getattr(type(item), prop.name, None)
    if isinstance(own, QtCore.Property):
        setattr(item, prop.name, value)
        return
    function = getattr(item, f"set{prop.name[0].upper()}{prop.name[1:]}", None)
    if callable(function):
        function(value)
    elif item.metaObject().indexOfProperty(prop.name) >= 0:
        item.setProperty(prop.name, value)
    else:
        raise HostLacks(f"the host cannot write {prop.owner}.{prop.name}")
