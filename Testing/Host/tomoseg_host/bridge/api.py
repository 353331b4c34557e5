"""What each class offers to Python, read from the data file, with inheritance resolved.

The order of a look-up is PythonQt's: properties first (over the whole chain), then methods and
signals of a name together as overloads (most derived first), then enum values, enum types, nested
classes, and last the name without a trailing underscore (``exec_``).
"""

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .signature import Signature, parse_signature, parse_type

DATA = Path(__file__).resolve().parent.parent / "data" / "api.json.gz"


@dataclass(frozen=True)
class Property:
    """A property: an attribute for Python, never callable."""

    name: str
    type: str
    access: str
    owner: str

    @property
    def readable(self) -> bool:
        """Whether Python may read it."""
        return "r" in self.access

    @property
    def writable(self) -> bool:
        """Whether Python may write it."""
        return "w" in self.access


@dataclass(frozen=True)
class Overload:
    """One callable of a name.

    ``kind`` is ``"method"``, ``"slot"`` (Qt's slots are listed without the types that they return),
    ``"static"``, ``"signal"``, or one of the decorators that PythonQt adds: ``"deco"``, and
    ``"sdeco"`` for static ones.
    """

    signature: Signature
    kind: str
    owner: str

    @property
    def static(self) -> bool:
        """Whether it needs no object."""
        return self.kind in ("static", "sdeco")


@dataclass(frozen=True)
class Member:
    """What a name means on a class: ``kind`` is property, slot, signal, value, enum or class."""

    kind: str
    property: Property | None = None
    overloads: tuple[Overload, ...] = ()
    owner: str = ""
    enum: str = ""


#: JSON key -> kind of overload, in the order in which PythonQt searches one level.
_LEVEL = (
    ("deco", "deco"),
    ("sdeco", "sdeco"),
    ("meth", "method"),
    ("smeth", "static"),
    ("sig", "signal"),
    ("slot", "slot"),
    ("inv", "method"),
)

#: Names that PythonQt asks for itself and hides from scripts.
_INTERNAL = ("py_toString",)

#: Signals of the light ctk and qMRML wrappers stand before their methods, as in their meta objects.


class ClassInfo:
    """One class of the API with everything that it inherits."""

    def __init__(self, name: str, raw: dict, like: "ClassInfo | None" = None):
        """``like``: for a class met only at run time (a private style class), what it extends."""
        self.name = name
        self.raw = raw
        self.bases = [info(base) for base in raw.get("b", []) if base in classes()]
        if like is not None:
            self.bases = [like]
        self._members: dict[str, Member | None] = {}

    @property
    def library(self) -> str:
        """Where it was declared: ``"CTKWidgets"``, ``"qt_gui"``..."""
        return self.raw.get("lib", "")

    @property
    def is_qobject(self) -> bool:
        """Whether it inherits QObject."""
        return any(level.name == "QObject" for level in self.chain)

    @property
    def chain(self) -> list["ClassInfo"]:
        """This class and its bases, depth first, each once."""
        found: dict[str, ClassInfo] = {self.name: self}
        for base in self.bases:
            for level in base.chain:
                found.setdefault(level.name, level)
        return list(found.values())

    def inherits(self, name: str) -> bool:
        """Whether ``name`` is this class or one of its bases."""
        return any(level.name == name for level in self.chain)

    def _absent(self, key: str) -> list:
        """Names that only Qt 6 has: the host offers Qt 5's surface, which was measured."""
        return self.raw.get("qt6", {}).get(key, [])

    def own(self, key: str) -> list:
        """Entries of one kind declared by this class itself, for the Qt that is stood in for."""
        absent = self._absent(key)
        entries = [
            entry
            for entry in self.raw.get(key, [])
            if (entry[0] if key == "p" else entry) not in absent
        ]
        return entries + self.raw.get("qt5", {}).get(key, [])

    def constructors(self) -> list[str]:
        """The argument lists that Python may construct with; empty where it may not."""
        if "new" in self.raw:
            return [f"{self.raw['new']}*=" if self.raw["new"] else ""]
        return self.raw.get("ctor", [])

    def properties(self) -> dict[str, Property]:
        """All properties, by name; the most derived declaration wins."""
        found: dict[str, Property] = {}
        if not self.is_qobject:
            return found
        for level in reversed(self.chain):
            for name, type_, access, *_ in level.own("p"):
                found[name] = Property(name, type_, access, level.name)
        return found

    def signals(self) -> dict[str, Overload]:
        """All signals, by normalized signature."""
        return {
            parse_signature(text).text: Overload(parse_signature(text), "signal", level.name)
            for level in reversed(self.chain)
            for text in level.own("sig")
        }

    def own_overloads(self, name: str) -> list[Overload]:
        """The callables of that name that this class itself declares."""
        found = []
        for key, kind in _LEVEL:
            for text in self.own(key):
                signature = parse_signature(text)
                if signature.name == name:
                    found.append(Overload(signature, kind, self.name))
        return found

    def overloads(self, name: str) -> tuple[Overload, ...]:
        """The callables of a name over the whole chain, most derived first, each signature once."""
        found: dict[tuple, Overload] = {}
        for level in self.chain:
            for overload in level.own_overloads(name):
                # A clone (the same arguments again, from the wrapper and the meta object) is one.
                key = (overload.signature.arguments, overload.signature.required)
                found.setdefault(key, overload)
        return tuple(found.values())

    def enums(self) -> dict[str, list[str]]:
        """Enum types declared here: name -> value names ([] where another type has them)."""
        return self.raw.get("enum", {})

    def member(self, name: str) -> Member | None:
        """What ``name`` means on an instance or the class; None where there is nothing."""
        if name not in self._members:
            self._members[name] = self._find(name)
        return self._members[name]

    def _find(self, name: str) -> Member | None:
        if found := self._find_property(name):
            return Member("property", property=found, owner=found.owner)
        if name not in _INTERNAL and (overloads := self.overloads(name)):
            kind = "signal" if overloads[0].kind == "signal" else "slot"
            return Member(kind, overloads=overloads, owner=overloads[0].owner)
        for level in self.chain:
            for enum, values in level.enums().items():
                if name in values:
                    return Member("value", owner=level.name, enum=enum)
        for level in self.chain:
            if name in level.enums():
                return Member("enum", owner=level.name, enum=name)
        for level in self.chain:
            if f"{level.name}__{name}" in classes():
                return Member("class", owner=f"{level.name}__{name}")
        if len(name) > 2 and name.endswith("_") and not name.endswith("__"):
            stripped = self.overloads(name[:-1])
            if stripped:
                kind = "signal" if stripped[0].kind == "signal" else "slot"
                return Member(kind, overloads=stripped, owner=stripped[0].owner)
        return None

    def _find_property(self, name: str) -> Property | None:
        # QTimer's property of this name is left out by PythonQt, the static function stays.
        if name == "singleShot" and self.name == "QTimer":
            return None
        properties = self.properties()
        if name not in properties and name == "name":
            name = "objectName"
        return properties.get(name)

    def names(self) -> set[str]:
        """Every name that an instance answers to (for ``dir``)."""
        found = set(self.properties())
        for level in self.chain:
            for key, _ in _LEVEL:
                found.update(parse_signature(text).name for text in level.own(key))
            for enum, values in level.enums().items():
                found.add(enum)
                found.update(values)
        return found - set(_INTERNAL)


@cache
def document() -> dict:
    """The whole data file."""
    return json.loads(gzip.decompress(DATA.read_bytes()))


@cache
def classes() -> dict[str, dict]:
    """The raw description of each class."""
    return document()["classes"]


@cache
def info(name: str) -> ClassInfo:
    """The class of that name (KeyError where there is none)."""
    return ClassInfo(name, classes()[name])


def known(name: str) -> bool:
    """Whether the API lists a class of that C++ name (``A::B`` stands as ``A__B``)."""
    return name.replace("::", "__") in classes()


@cache
def find_enum(scope: str, type_name: str) -> tuple[str, str] | None:
    """Resolve the name of an enum type as written inside ``scope``: (class, enum) or None."""
    type_name = parse_type(type_name).name
    if "::" in type_name:
        owner, _, enum = type_name.rpartition("::")
        owner = owner.replace("::", "__")
        if owner in classes():
            for level in info(owner).chain:
                if enum in level.enums():
                    return level.name, enum
        return None
    if scope in classes():
        for level in info(scope).chain:
            if type_name in level.enums():
                return level.name, type_name
    return None
