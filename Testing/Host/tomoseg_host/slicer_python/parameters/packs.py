"""``@parameterPack``: several parameters under one name."""

import typing

from .annotations import Default, first, split
from .serializers import Serializer, check, createSerializer, parameterNodeSerializer


def _members(cls: type) -> dict[str, tuple[Serializer, object]]:
    """Name -> (serializer, default) of an annotated class."""
    found = {}
    for name, type_ in typing.get_type_hints(cls, include_extras=True).items():
        bare, annotations = split(type_)
        serializer, _ = createSerializer(bare, annotations)
        given = first(annotations, Default)
        if name in vars(cls):
            default = Default(vars(cls)[name])
        else:
            default = given or Default(generator=serializer.default)
        found[name] = (serializer, default)
    return found


def parameterPack(classtype=None):  # noqa: N802
    """Class decorator: annotated members become checked attributes."""

    def wrap(cls):
        members = _members(cls)

        def init(self, *args, **kwargs):
            values = dict(zip(members, args, strict=False)) | kwargs
            for name, (_, default) in members.items():
                setattr(self, name, values.pop(name, default.value))
            if values:
                raise TypeError(f"unknown members: {', '.join(values)}")

        def setattribute(self, name, value):
            if name in members:
                check(members[name][0], value)
            object.__setattr__(self, name, value)
            if name in members and "_where" in self.__dict__:
                node, serializer, where = self._where
                serializer.write(node, where, self)

        def equal(self, other):
            return type(self) is type(other) and all(
                getattr(self, name) == getattr(other, name) for name in members
            )

        cls.__init__, cls.__setattr__, cls.__eq__ = init, setattribute, equal
        cls.__hash__ = None
        cls.allParameters = members
        cls._is_parameter_pack = True
        cls.getValue = lambda self, name: getattr(self, name)
        cls.setValue = lambda self, name, value: setattr(self, name, value)
        return cls

    return wrap if classtype is None else wrap(classtype)


def isParameterPack(item) -> bool:  # noqa: N802
    """Whether it is a pack, or a class of packs."""
    return bool(getattr(item, "_is_parameter_pack", False))


@parameterNodeSerializer
class PackSerializer(Serializer):
    """Packs, member by member."""

    @staticmethod
    def canSerialize(type_):
        """A class of packs."""
        return isParameterPack(type_)

    def default(self):
        """A pack of defaults."""
        return self.type()

    def isIn(self, node, name):
        """Whether it has its first member."""
        member, (serializer, _) = next(iter(self.type.allParameters.items()))
        return serializer.isIn(node, f"{name}.{member}")

    def write(self, node, name, value):
        """The members."""
        for member, (serializer, _) in self.type.allParameters.items():
            serializer.write(node, f"{name}.{member}", getattr(value, member))

    def read(self, node, name):
        """A pack that writes its changes back."""
        pack = self.type(**{
            member: serializer.read(node, f"{name}.{member}")
            for member, (serializer, _) in self.type.allParameters.items()
        })  # fmt: skip
        object.__setattr__(pack, "_where", (node, self, name))
        return pack

    def remove(self, node, name):
        """The members."""
        for member, (serializer, _) in self.type.allParameters.items():
            serializer.remove(node, f"{name}.{member}")

    @staticmethod
    def supportsCaching():
        """A pack changes under its reader."""
        return False
