"""How values stand in a parameter node: as texts and as references to nodes."""

import enum
import json
import pathlib
import types
import typing

import slicer
import slicer.util

from .annotations import Default, FloatRange, IsInstance, NotNone, Validator, split

_PATHS = (
    pathlib.Path,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
)

_registered: list[type] = []


class Serializer:
    """Reads and writes values of one type under a name."""

    validators: tuple[Validator, ...] = ()

    @staticmethod
    def canSerialize(type_) -> bool:  # noqa: N802
        """Whether it is for this type."""
        return False

    @classmethod
    def create(cls, type_):
        """One for this type."""
        return cls(type_)

    def __init__(self, type_=None):
        self.type = type_

    def default(self):
        """The value of a parameter that has no other default."""
        return None

    def isIn(self, node, name) -> bool:  # noqa: N802
        """Whether the node has the parameter."""
        return bool(node.HasParameter(name))

    def write(self, node, name, value):
        """Write a value."""
        node.SetParameter(name, str(value))

    def read(self, node, name):
        """Read a value."""
        return node.GetParameter(name)

    def remove(self, node, name):
        """Remove the parameter."""
        node.UnsetParameter(name)

    @staticmethod
    def supportsCaching() -> bool:  # noqa: N802
        """Whether a value that was read may be kept."""
        return True


def parameterNodeSerializer(classtype=None):  # noqa: N802
    """Class decorator: register a serializer."""

    def wrap(cls):
        _registered.append(cls)
        return cls

    return wrap if classtype is None else wrap(classtype)


@parameterNodeSerializer
class NumberSerializer(Serializer):
    """int and float."""

    @staticmethod
    def canSerialize(type_):
        """int and float, not bool."""
        return type_ in (int, float)

    @classmethod
    def create(cls, type_):
        """An int may stand where a float is wanted."""
        self = cls(type_)
        self.validators = (NotNone(), IsInstance((int, float) if type_ is float else int))
        return self

    def default(self):
        """Zero."""
        return 0

    def read(self, node, name):
        """As a number."""
        return self.type(node.GetParameter(name))


@parameterNodeSerializer
class StringSerializer(Serializer):
    """str."""

    @staticmethod
    def canSerialize(type_):
        """str."""
        return type_ is str

    @classmethod
    def create(cls, type_):
        """Only str."""
        self = cls(type_)
        self.validators = (NotNone(), IsInstance(str))
        return self

    def default(self):
        """Empty."""
        return ""


@parameterNodeSerializer
class PathSerializer(Serializer):
    """Paths."""

    @staticmethod
    def canSerialize(type_):
        """The classes of pathlib."""
        return type_ in _PATHS

    @classmethod
    def create(cls, type_):
        """Only this class of paths."""
        self = cls(type_)
        self.validators = (NotNone(), IsInstance(type_))
        return self

    def default(self):
        """The current folder."""
        return self.type()

    def read(self, node, name):
        """As a path."""
        return self.type(node.GetParameter(name))


@parameterNodeSerializer
class BoolSerializer(Serializer):
    """bool."""

    @staticmethod
    def canSerialize(type_):
        """bool."""
        return type_ is bool

    @classmethod
    def create(cls, type_):
        """Only bool."""
        self = cls(type_)
        self.validators = (NotNone(), IsInstance(bool))
        return self

    def default(self):
        """False."""
        return False

    def write(self, node, name, value):
        """ "True" or "False"."""
        node.SetParameter(name, "True" if value else "False")

    def read(self, node, name):
        """As a bool."""
        return node.GetParameter(name) == "True"


@parameterNodeSerializer
class NodeSerializer(Serializer):
    """Nodes, as references."""

    @staticmethod
    def canSerialize(type_):
        """A node class."""
        return isinstance(type_, type) and issubclass(type_, slicer.vtkMRMLNode)

    @classmethod
    def create(cls, type_):
        """Only nodes of the class (or None)."""
        self = cls(type_)
        self.validators = (IsInstance(type_),)
        return self

    def write(self, node, name, value):
        """The reference, and an empty parameter that tells None from nothing."""
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        """The node, or None."""
        return node.GetNodeReference(name)

    def remove(self, node, name):
        """Both."""
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


@parameterNodeSerializer
class EnumSerializer(Serializer):
    """Enums, by the names of their values."""

    @staticmethod
    def canSerialize(type_):
        """An enum."""
        return isinstance(type_, type) and issubclass(type_, enum.Enum)

    @classmethod
    def create(cls, type_):
        """Only values of the enum."""
        self = cls(type_)
        self.validators = (IsInstance(type_),)
        return self

    def default(self):
        """The first value."""
        return next(iter(self.type))

    def write(self, node, name, value):
        """The name of the value."""
        node.SetParameter(name, value.name)

    def read(self, node, name):
        """By its name."""
        key = node.GetParameter(name)
        if key not in self.type.__members__:
            raise ValueError(f"Found {key!r} but it is not a name in {self.type!r}")
        return self.type[key]


@parameterNodeSerializer
class FloatRangeSerializer(Serializer):
    """Ranges, as two numbers."""

    @staticmethod
    def canSerialize(type_):
        """FloatRange."""
        return type_ is FloatRange

    def default(self):
        """Empty."""
        return FloatRange()

    def isIn(self, node, name):
        """Whether it has the lower end."""
        return bool(node.HasParameter(f"{name}.minimum"))

    def write(self, node, name, value):
        """Both ends."""
        node.SetParameter(f"{name}.minimum", str(value.minimum))
        node.SetParameter(f"{name}.maximum", str(value.maximum))

    def read(self, node, name):
        """As a range."""
        return FloatRange(
            float(node.GetParameter(f"{name}.minimum")), float(node.GetParameter(f"{name}.maximum"))
        )

    def remove(self, node, name):
        """Both ends."""
        node.UnsetParameter(f"{name}.minimum")
        node.UnsetParameter(f"{name}.maximum")


class _WritesBack:
    """A container that writes itself into the node when it is changed."""

    def _bind(self, node, serializer, name):
        self._where = (node, serializer, name)
        return self

    def _save(self):
        node, serializer, name = self._where
        serializer.write(node, name, self)


def _writing(base: type, names: tuple[str, ...]) -> type:
    """A subclass of a container whose changing functions save."""

    def make(name):
        original = getattr(base, name)

        def call(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            if hasattr(self, "_where"):
                self._save()
            return result

        return call

    return type(f"Observed{base.__name__.title()}", (_WritesBack, base),
                {name: make(name) for name in names})  # fmt: skip


ObservedList = _writing(
    list,
    ("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "__setitem__",
     "__delitem__", "__iadd__", "__imul__"),
)  # fmt: skip
ObservedDict = _writing(
    dict, ("__setitem__", "__delitem__", "pop", "popitem", "clear", "update", "setdefault")
)


@parameterNodeSerializer
class ListSerializer(Serializer):
    """Lists: a length and the items."""

    @staticmethod
    def canSerialize(type_):
        """list[T]."""
        return typing.get_origin(type_) is list

    def __init__(self, type_):
        super().__init__(type_)
        self.item = createSerializer(*split(typing.get_args(type_)[0]))[0]

    def default(self):
        """Empty."""
        return []

    def isIn(self, node, name):
        """Whether it has a length."""
        return bool(node.HasParameter(f"{name}.len"))

    def _length(self, node, name):
        return int(node.GetParameter(f"{name}.len")) if self.isIn(node, name) else 0

    def write(self, node, name, value):
        """Length and items; what is left of a longer list goes."""
        for item in value:
            check(self.item, item)
        with slicer.util.NodeModify(node):
            for index in range(len(value), self._length(node, name)):
                self.item.remove(node, f"{name}.{index}")
            for index, item in enumerate(value):
                self.item.write(node, f"{name}.{index}", item)
            node.SetParameter(f"{name}.len", str(len(value)))

    def read(self, node, name):
        """A list that writes its changes back."""
        items = [self.item.read(node, f"{name}.{i}") for i in range(self._length(node, name))]
        return ObservedList(items)._bind(node, self, name)

    def remove(self, node, name):
        """Length and items."""
        for index in range(self._length(node, name)):
            self.item.remove(node, f"{name}.{index}")
        node.UnsetParameter(f"{name}.len")


@parameterNodeSerializer
class TupleSerializer(Serializer):
    """Tuples of given length."""

    @staticmethod
    def canSerialize(type_):
        """tuple[A, B]."""
        return typing.get_origin(type_) is tuple

    def __init__(self, type_):
        super().__init__(type_)
        self.items = [createSerializer(*split(each))[0] for each in typing.get_args(type_)]

    def default(self):
        """The defaults of the items."""
        return tuple(each.default() for each in self.items)

    def isIn(self, node, name):
        """Whether it has its first item."""
        return self.items[0].isIn(node, f"{name}_0")

    def write(self, node, name, value):
        """The items."""
        if len(value) != len(self.items):
            raise ValueError(f"Expected {len(self.items)} items, got {len(value)}")
        for index, (each, item) in enumerate(zip(self.items, value, strict=True)):
            check(each, item)
            each.write(node, f"{name}_{index}", item)

    def read(self, node, name):
        """A tuple."""
        return tuple(each.read(node, f"{name}_{i}") for i, each in enumerate(self.items))

    def remove(self, node, name):
        """The items."""
        for index, each in enumerate(self.items):
            each.remove(node, f"{name}_{index}")


@parameterNodeSerializer
class DictSerializer(Serializer):
    """Dictionaries, as lists of pairs."""

    @staticmethod
    def canSerialize(type_):
        """dict[K, V]."""
        return typing.get_origin(type_) is dict

    def __init__(self, type_):
        super().__init__(type_)
        key, value = typing.get_args(type_)
        self.pairs = ListSerializer(list[tuple[key, value]])

    def default(self):
        """Empty."""
        return {}

    def isIn(self, node, name):
        """Whether it has a length."""
        return self.pairs.isIn(node, name)

    def write(self, node, name, value):
        """The pairs."""
        self.pairs.write(node, name, list(value.items()))

    def read(self, node, name):
        """A dictionary that writes its changes back."""
        return ObservedDict(dict(self.pairs.read(node, name)))._bind(node, self, name)

    def remove(self, node, name):
        """The pairs."""
        self.pairs.remove(node, name)


@parameterNodeSerializer
class UnionSerializer(Serializer):
    """``A | B`` and ``Optional[A]``."""

    @staticmethod
    def canSerialize(type_):
        """A union."""
        return typing.get_origin(type_) in (typing.Union, types.UnionType)

    def __init__(self, type_):
        super().__init__(type_)
        members = [each for each in typing.get_args(type_) if each is not type(None)]
        self.optional = len(members) < len(typing.get_args(type_))
        self.members = [createSerializer(*split(each))[0] for each in members]

    def default(self):
        """None where it may be, else the first type's."""
        return None if self.optional else self.members[0].default()

    def _which(self, name):
        return f"{name}.type"

    def isIn(self, node, name):
        """Whether it says which type it has."""
        return bool(node.HasParameter(self._which(name)))

    def write(self, node, name, value):
        """The value, and which type it has."""
        self.remove(node, name)
        if value is None and self.optional:
            node.SetParameter(self._which(name), "-1")
            return
        for index, member in enumerate(self.members):
            try:
                check(member, value)
            except (TypeError, ValueError):
                continue
            member.write(node, name, value)
            node.SetParameter(self._which(name), str(index))
            return
        raise TypeError(f"{value!r} is none of {self.type}")

    def read(self, node, name):
        """By its type."""
        index = int(node.GetParameter(self._which(name)))
        return None if index < 0 else self.members[index].read(node, name)

    def remove(self, node, name):
        """All."""
        for member in self.members:
            if member.isIn(node, name):
                member.remove(node, name)
        node.UnsetParameter(self._which(name))


@parameterNodeSerializer
class AnySerializer(Serializer):
    """Anything that JSON holds."""

    @staticmethod
    def canSerialize(type_):
        """typing.Any."""
        return type_ is typing.Any

    def write(self, node, name, value):
        """As JSON."""
        node.SetParameter(name, json.dumps(value))

    def read(self, node, name):
        """From JSON."""
        return json.loads(node.GetParameter(name))


def check(serializer: Serializer, value) -> None:
    """Run the validators."""
    for validator in serializer.validators:
        validator.validate(value)


def createSerializer(type_, annotations=()):  # noqa: N802
    """The serializer for a type with its validators, and the annotations that are left over."""
    for cls in _registered:
        if cls.canSerialize(type_):
            serializer = cls.create(type_)
            break
    else:
        raise RuntimeError(f"Unable to create serializer for type: {type_}")
    extra = tuple(each for each in annotations if isinstance(each, Validator))
    serializer.validators = (*serializer.validators, *extra)
    return serializer, [each for each in annotations if not isinstance(each, Validator | Default)]
