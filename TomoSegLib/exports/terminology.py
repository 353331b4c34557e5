"""Slicer's serialised terminology entries, taken apart into coded concepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from TomoSegLib.imaging.segmentation import DEFAULT_TERMINOLOGY
from TomoSegLib.models.card import Label


class Code(NamedTuple):
    """A coded concept, e.g. ``52988006, SCT, Lesion``."""

    value: str
    scheme: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.value}^{self.scheme}^{self.meaning}"


@dataclass(frozen=True)
class Terminology:
    """What a segment is, and where.

    Attributes:
        category: Segmented property category, e.g. Morphologically Altered Structure.
        type: Segmented property type, e.g. Lesion.
        modifier: Its modifier, e.g. Left.
        region: Anatomic region, e.g. Brain.
        region_modifier: Its modifier.
    """

    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None


def terminology_of(label: Label) -> Terminology:
    """The codes of a label; of a lesion that is not further specified where it has none.

    Slicer's entry is ``context~category~type~modifier~anatomic context~region~modifier``, each
    code ``scheme^value^meaning``.
    """
    found = _parse(label.terminology)
    if found is None:
        found = _parse(DEFAULT_TERMINOLOGY)
        assert found is not None
    return found


def _parse(entry: str) -> Terminology | None:
    parts = [_code(part) for part in entry.split("~")]
    parts += [None] * (7 - len(parts))
    category, kind = parts[1], parts[2]
    if category is None or kind is None:
        return None
    return Terminology(category, kind, parts[3], parts[5], parts[6])


def _code(text: str) -> Code | None:
    scheme, _, rest = text.partition("^")
    value, _, meaning = rest.partition("^")
    if not (scheme.strip() and value.strip() and meaning.strip()):
        return None
    return Code(value.strip(), scheme.strip(), meaning.strip())
