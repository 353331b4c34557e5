"""Classes and instances as Python sees them inside Slicer.

All facade classes stand beside each other: none inherits another, because ``isinstance`` in Slicer
sees no C++ inheritance.  What an attribute means is looked up in the API at each access, after
Python's own look-up, so that ``super().setText()`` fails as it does there.
"""

from functools import cache

import shiboken6
from PySide6 import QtCore

from . import api, enums, lifetime, pyside, shells, slots, topython, toqt
from .signals import Signal
from .signature import parse_constructor, parse_type
from .strictness import HostLacks

#: Operators that Python looks up on the type: API name -> Python's name.
_OPERATORS = {
    "__add__": "__add__",
    "__sub__": "__sub__",
    "__mul__": "__mul__",
    "__div__": "__truediv__",
    "__and__": "__and__",
    "__or__": "__or__",
    "__xor__": "__xor__",
    "__lshift__": "__lshift__",
    "__invert__": "__invert__",
    "__iadd__": "__iadd__",
    "__isub__": "__isub__",
    "__imul__": "__imul__",
    "__idiv__": "__itruediv__",
    "__iand__": "__iand__",
    "__ior__": "__ior__",
    "__ixor__": "__ixor__",
    "__enter__": "__enter__",
    "__exit__": "__exit__",
}


class PythonQtClassWrapper(type):
    """The type of all facade classes: class attributes are looked up in the API."""

    def __getattr__(cls, name: str) -> object:
        info = cls.__dict__.get("_info_") or getattr(super(), "_info_", None)
        for base in cls.__mro__:
            info = info or base.__dict__.get("_info_")
        if info is None or name.startswith("py_"):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        member = info.member(name)
        if member is not None:
            found = _class_attribute(cls, info, name, member)
            if found is not _ABSENT:
                return found
        raise AttributeError(f"{info.name} has no attribute named '{name}'")

    def __dir__(cls) -> list[str]:
        info = getattr(cls, "_info_", None)
        return sorted(set(type.__dir__(cls)) | (info.names() if info else set()))

    def className(cls) -> str:  # noqa: N802 - PythonQt's name
        """The name of the class."""
        return cls.__name__

    def inherits(cls, name: str) -> bool:
        """Whether C++ knows this class as a ``name``."""
        return cls._info_.inherits(name)


_ABSENT = object()


def _class_attribute(cls: type, info: api.ClassInfo, name: str, member: api.Member) -> object:
    """A member of the API looked up on a class."""
    if member.kind == "value":
        found = enums.value(member.owner, member.enum, name)
        return _ABSENT if found is None else found
    if member.kind == "enum":
        return enums.enum_type(member.owner, member.enum)
    if member.kind == "class":
        return facade_class(member.owner)
    if member.kind == "slot":
        return slots.Slot(name, member, info, owner=cls)
    if member.kind == "signal":
        return Signal._of_member_(name, member, info, None)
    # A property on the class gives an empty object of its type, where that is a Qt class.
    type_name = parse_type(member.property.type).name
    if api.known(type_name):
        return facade_class(type_name)._around_(None)
    return None


class PythonQtInstanceWrapper(metaclass=PythonQtClassWrapper):
    """What Python holds of a C++ object."""

    __slots__ = ("_peer_", "_owned_", "_is_shell_", "__weakref__")
    _info_: api.ClassInfo | None = None

    def __new__(cls, *args: object, **kwargs: object) -> "PythonQtInstanceWrapper":
        self = object.__new__(cls)
        for name, value in (("_peer_", None), ("_owned_", False), ("_is_shell_", False)):
            object.__setattr__(self, name, value)
        return self

    def __init__(self, *args: object, **kwargs: object) -> None:
        construct(self, args, kwargs)

    @classmethod
    def _around_(cls, peer: shiboken6.Object | None) -> "PythonQtInstanceWrapper":
        """A wrapper around an object that exists already."""
        self = cls.__new__(cls)
        object.__setattr__(self, "_peer_", peer)
        return self

    def __del__(self) -> None:
        # When Python ends, modules are emptied before the last wrappers die.
        release = getattr(lifetime, "release", None)
        if self._peer_ is not None and release is not None:
            release(self)

    # Python's own look-up comes first; only what it does not find is asked of the API.

    def __getattr__(self, name: str) -> object:
        info = self._info_
        member = info.member(name)
        if member is None:
            if name == "__dict__":
                return {key: getattr(self, key) for key in info.properties()}
            return _unlisted_attribute(self, info, name)
        if member.kind == "property":
            return _read_property(self, info, member.property)
        if member.kind == "slot":
            return slots.Slot(name, member, info, instance=self)
        if member.kind == "signal":
            return Signal._of_member_(name, member, info, self)
        found = _class_attribute(type(self), info, name, member)
        if found is _ABSENT:
            raise AttributeError(f"{info.name} has no attribute named '{name}'")
        return found

    def __setattr__(self, name: str, value: object) -> None:
        info = self._info_
        member = info.member(name)
        if member is not None:
            if member.kind == "property":
                _write_property(self, info, member.property, value)
                return
            raise AttributeError(
                f"{member.kind} '{name}' can not be overwritten on {info.name} object"
            )
        if (setter := info.member(f"py_set_{name}")) is not None:
            _write_field(self, name, setter, value)
            return
        if name in _dynamic_properties(self._peer_):
            converted = toqt.variant(value)
            if converted is None:
                raise AttributeError(f"Dynamic property '{name}' does not accept None")
            self._peer_.setProperty(name, converted)
            return
        if type(self).__mro__[1] is PythonQtInstanceWrapper:
            raise AttributeError(
                f"'{name}' does not exist on {info.name} and creating new attributes on C++ "
                "objects is not allowed"
            )
        object.__setattr__(self, name, value)

    def __bool__(self) -> bool:
        if self._peer_ is None or not pyside.alive(self._peer_):
            return False
        if self._info_.member("__nonzero__") is None:
            return True
        for name in ("isEmpty", "isValid", "isNull"):
            if self._info_.overloads(name) and hasattr(self._peer_, name):
                return bool(getattr(self._peer_, name)()) is (name == "isValid")
        return True

    def __hash__(self) -> int:
        return hash(_identity(self))

    def __eq__(self, other: object) -> object:
        if self._info_.member("__eq__") is None:
            return _same(self, other)
        return _compare(self, other, "__eq__", False)

    def __ne__(self, other: object) -> object:
        if self._info_.member("__ne__") is None:
            same = _same(self, other)
            return same if same is NotImplemented else not same
        return _compare(self, other, "__ne__", True)

    def __lt__(self, other: object) -> object:
        return _compare(self, other, "__lt__", NotImplemented)

    def __le__(self, other: object) -> object:
        return _compare(self, other, "__le__", NotImplemented)

    def __gt__(self, other: object) -> object:
        return _compare(self, other, "__gt__", NotImplemented)

    def __ge__(self, other: object) -> object:
        return _compare(self, other, "__ge__", NotImplemented)

    def __dir__(self) -> list[str]:
        return sorted(set(object.__dir__(self)) | self._info_.names())

    def __str__(self) -> str:
        return _text_of(self) or f"{type(self).__name__} ({_kind(self)} {hex(_identity(self))})"

    def __repr__(self) -> str:
        name, text = type(self).__name__, _text_of(self)
        if text:
            return text if text.startswith(name) else f"{name} ({text}, at: {hex(_identity(self))})"
        return f"{name} ({_kind(self)} at: {hex(_identity(self))})"

    def className(self) -> str:  # noqa: N802 - PythonQt's name
        """The name of the Python class."""
        return type(self).__name__

    def inherits(self, name: str) -> bool:
        """Whether C++ knows the object as a ``name``."""
        if not isinstance(name, str):
            raise TypeError("inherits() argument 1 must be str")
        return self._info_.inherits(name)

    def help(self) -> None:
        """Print the names that the object answers to."""
        print("\n".join(sorted(self._info_.names())))

    def delete(self) -> None:
        """Delete the C++ object."""
        if self._peer_ is not None:
            lifetime.delete(self._peer_)


def peer(wrapper: PythonQtInstanceWrapper) -> shiboken6.Object | None:
    """The PySide6 object of a wrapper; ValueError where C++ has deleted it."""
    item = wrapper._peer_
    if item is not None and not pyside.alive(item):
        return None
    return item


#: The short name under which the rest of the bridge knows the base of all wrappers.
Instance = PythonQtInstanceWrapper


@cache
def facade_class(name: str) -> type:
    """The facade's class of that name."""
    name = name.replace("::", "__")
    info = api.info(name)
    module = "qt" if name.startswith("Q") else "ctk" if name.startswith("ctk") else "slicer"
    namespace = {
        "__slots__": (),
        "_info_": info,
        "__module__": module,
        "__doc__": f"{name.replace('__', '::')}, as Python inside Slicer has it.",
    }
    for operator, special in _OPERATORS.items():
        if info.overloads(operator):
            namespace[special] = _operator(operator, special)
    return PythonQtClassWrapper(name.rpartition("__")[2], (Instance,), namespace)


@cache
def private_class(name: str, base: str) -> type:
    """A class that Qt made and the API does not list: it offers what its listed base does."""
    like = api.info(base) if base else None
    info = api.ClassInfo(name, {}, like)
    return PythonQtClassWrapper(
        name, (Instance,), {"__slots__": (), "_info_": info, "__module__": "qt"}
    )


def _operator(name: str, special: str):
    """A special method that calls the overloads of an operator."""
    in_place = special.startswith("__i") and special != "__invert__"

    def call(self: Instance, *args: object) -> object:
        result = slots.Slot(name, self._info_.member(name), self._info_, instance=self)(*args)
        # C++ returns a reference to the changed object; PySide6 may give a new one.
        if in_place and isinstance(result, Instance):
            object.__setattr__(self, "_peer_", result._peer_)
            return self
        return result

    return call


def construct(self: Instance, args: tuple, kwargs: dict) -> None:
    """Make the C++ object of a new wrapper."""
    info = self._info_
    overloads = [parse_constructor(info.name, text) for text in info.constructors()]
    if not overloads:
        raise ValueError(f"No constructors available for {info.name}")
    if kwargs:
        raise ValueError(
            f"Called new_{info.name} with keyword arguments, but called slot does "
            "not support kwargs."
        )
    signature, converted = slots.choose(overloads, args, info.name)
    cls = pyside.find(info.name)
    if cls is None:
        raise HostLacks(f"the host has no {info.name}")
    derived = type(self).__mro__[1] is not Instance
    if derived:
        cls = shells.shell_class(type(self), info, cls)
    object.__setattr__(self, "_peer_", slots.build(cls, info, signature, converted))
    object.__setattr__(self, "_is_shell_", derived and bool(info.raw.get("shell")))
    lifetime.adopt(self)


def _read_property(self: Instance, info: api.ClassInfo, prop: api.Property) -> object:
    item = peer(self)
    if item is None:
        raise ValueError(
            f"Trying to read property '{prop.name}' from a destroyed {info.name} object"
        )
    return topython.convert(slots.read_property(item, prop), parse_type(prop.type), prop.owner)


def _write_property(self: Instance, info: api.ClassInfo, prop: api.Property, value: object) -> None:
    item = peer(self)
    if item is None:
        raise AttributeError(
            f"Trying to set property '{prop.name}' on a destroyed {info.name} object"
        )
    if not prop.writable:
        raise AttributeError(f"Property '{prop.name}' of {info.name} object is not writable")
    try:
        converted = toqt.property_value(prop.type, value, prop.owner)
    except toqt.Mismatch:
        raise AttributeError(
            f"Property '{prop.name}' of type '{prop.type}' does not accept an object of type "
            f"{type(value).__name__} ({value!r})"
        ) from None
    slots.write_property(item, prop, converted)


def _write_field(self: Instance, name: str, setter: api.Member, value: object) -> None:
    """A public field of a value class (a style option), written through PythonQt's setter."""
    _, converted = slots.choose(
        [each.signature for each in setter.overloads], (value,), self._info_.name
    )
    setattr(self._peer_, name, converted[0])


def _dynamic_properties(item: object) -> list[str]:
    """The names of the dynamic properties of a living QObject."""
    if not isinstance(item, QtCore.QObject) or not pyside.alive(item):
        return []
    return [bytes(each.data()).decode("utf-8", "replace") for each in item.dynamicPropertyNames()]


def _unlisted_attribute(self: Instance, info: api.ClassInfo, name: str) -> object:
    """Fields, dynamic properties and children under their names."""
    item = peer(self)
    if (getter := info.member(f"py_get_{name}")) is not None:
        type_ = getter.overloads[0].signature.returns
        return topython.convert(getattr(item, name), type_, info.name)
    if isinstance(item, QtCore.QObject):
        if name in _dynamic_properties(item):
            return topython.convert(item.property(name))
        for child in item.children():
            if child.objectName() == name:
                return lifetime.wrapper_of(child)
    raise AttributeError(f"{info.name} has no attribute named '{name}'")


def _identity(self: Instance) -> int:
    item = peer(self)
    return 0 if item is None else pyside.address(item)


def _same(self: Instance, other: object) -> object:
    if isinstance(other, Instance):
        return _identity(self) == _identity(other)
    if other is None:
        return peer(self) is None
    return NotImplemented


def _compare(self: Instance, other: object, name: str, otherwise: object) -> object:
    """Compare by the operator of the class; a call that fails gives ``otherwise``."""
    member = self._info_.member(name)
    if member is None:
        return NotImplemented
    if peer(self) is None:
        return _same(self, other) if name == "__eq__" else otherwise
    try:
        return slots.Slot(name, member, self._info_, instance=self)(other)
    except ValueError:
        if otherwise is NotImplemented:
            raise
        return otherwise


def _kind(self: Instance) -> str:
    return "QObject" if self._info_.is_qobject else "C++ Object"


def _text_of(self: Instance) -> str:
    """The short text of value classes, as PythonQt prints them."""
    item = peer(self)
    if item is None or self._info_.is_qobject:
        return ""
    name = self._info_.name
    if name in ("QSize", "QSizeF"):
        return f"{item.width():g}, {item.height():g}"
    if name in ("QPoint", "QPointF"):
        return f"{item.x():g}, {item.y():g}"
    if name in ("QRect", "QRectF"):
        return f"{item.x():g}, {item.y():g}, {item.width():g}, {item.height():g}"
    if name in ("QPixmap", "QImage"):
        return f"{name[1:]} {item.width()}, {item.height()}"
    if name == "QByteArray":
        return repr(item.data()) if item.data() else ""
    if name in ("QDate", "QTime", "QDateTime"):
        return item.toString(QtCore.Qt.DateFormat.ISODate)
    if name == "QColor":
        return item.name()
    if name in ("QUrl", "QKeySequence", "QUuid"):
        return item.toString()
    return ""
