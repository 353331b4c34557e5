"""Signatures as the API list writes them, such as ``"addItem(QString,QVariant=)"``."""

import re
from dataclasses import dataclass, field
from functools import cache

_OWNERSHIP = re.compile(
    r"^PythonQt(PassOwnershipToCPP|PassOwnershipToPython|NewOwnerOfThis)<(.*)>$"
)
_FLAGS = re.compile(r"^QFlags<(.*)>$")
_SIGNATURE = re.compile(r"^(?P<returns>.*?)(?P<name>\w+)\((?P<arguments>.*)\)$")


@dataclass(frozen=True)
class Type:
    """A C++ type of an argument or of a returned value.

    Attributes:
        name: the type without ``const``, ``&`` and ``*`` (``"QWidget"``, ``"QString"``).
        pointer: whether one ``*`` followed the name.
        ownership: "PassOwnershipToCPP", "PassOwnershipToPython", "NewOwnerOfThis" or "".
    """

    name: str
    pointer: bool = False
    ownership: str = ""

    @property
    def item(self) -> "Type | None":
        """The type of the items where this is a ``QList`` or ``QVector``, else None."""
        match = re.match(r"^(?:QList|QVector)<(.*)>$", self.name)
        return parse_type(match.group(1)) if match else None


@dataclass(frozen=True)
class Signature:
    """One overload.  ``required`` arguments must be given; those after have defaults."""

    name: str
    returns: Type | None
    arguments: tuple[Type, ...] = ()
    required: int = 0
    text: str = field(default="", compare=False)

    def accepts(self, count: int) -> bool:
        """Whether a call with ``count`` arguments can be meant for this overload."""
        return self.required <= count <= len(self.arguments)


def split_arguments(text: str) -> list[str]:
    """Split at the commas that are not inside ``<>``."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    if current.strip():
        parts.append(current.strip())
    return parts


@cache
def parse_type(text: str) -> Type:
    """Read a type as C++ writes it."""
    text = text.strip().removesuffix("=").strip()
    ownership = ""
    if match := _OWNERSHIP.match(text):
        ownership, text = match.groups()
    text = text.removeprefix("const ").strip().removesuffix("&").strip()
    pointer = text.endswith("*")
    text = text.removesuffix("*").strip()
    text = text.removeprefix("const ").strip()
    if match := _FLAGS.match(text):
        text = match.group(1)
    if text.startswith("PythonQt"):  # an ownership template inside a pointer or reference
        inner = parse_type(text)
        return Type(inner.name, inner.pointer or pointer, inner.ownership)
    return Type(text, pointer, ownership)


@cache
def parse_signature(text: str) -> Signature:
    """Read a signature, with or without a returned type."""
    match = _SIGNATURE.match(text)
    if match is None:
        raise ValueError(f"not a signature: {text!r}")
    return _signature(match["name"], match["returns"].strip(), match["arguments"], text)


@cache
def parse_constructor(class_name: str, arguments: str) -> Signature:
    """Read the argument list of a constructor of ``class_name``."""
    return _signature(class_name, "", arguments, f"{class_name}({arguments})")


def _signature(name: str, returns: str, arguments: str, text: str) -> Signature:
    parts = split_arguments(arguments)
    required = next((i for i, part in enumerate(parts) if part.endswith("=")), len(parts))
    types = tuple(parse_type(part) for part in parts)
    return Signature(name, parse_type(returns) if returns else None, types, required, text)


def normalize(signal: str) -> str:
    """The normalized form of a signal or slot signature: no spaces, no ``const T&``.

    >>> normalize("currentTextChanged( const QString & )")
    'currentTextChanged(QString)'
    """
    match = re.match(r"^\s*(\w+)\s*\((.*)\)\s*$", signal, re.S)
    if match is None:
        return signal
    arguments = []
    for part in split_arguments(match.group(2)):
        part = re.sub(r"\s+", " ", part).strip()
        if part.endswith("&") and part.startswith("const "):
            part = part[len("const ") : -1].strip()
        elif part.startswith("const ") and not part.endswith(("*", "&")):
            part = part[len("const ") :]
        arguments.append(re.sub(r"\s*([*&<>,])\s*", r"\1", part))
    return f"{match.group(1)}({','.join(arguments)})"
