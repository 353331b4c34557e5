"""Which view an image shows: from the scanner's words where they say so, else from its plane.

Words decide first: technologists name series after the view. Orientation decides where they are
silent. Both can be wrong, which is why the table of views can be corrected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.study import CARDIAC_KINDS, KNEE_KINDS, UNKNOWN

# The long axis of the left ventricle from base to apex in most people: to the left, to the front
# and down (LPS), and the normal of a 4-chamber view. Individual hearts differ by 20 degrees
# and more.
LONG_AXIS = np.array([0.62, -0.62, -0.48]) / np.linalg.norm([0.62, -0.62, -0.48])
_FOUR_CHAMBER_NORMAL = np.array([0.07, 0.50, -0.86])
# Turns about the long axis, from the 4-chamber view, in the sense of the AHA segments.
_TURNS = {"4-chamber": 0.0, "2-chamber": 60.0, "3-chamber": 120.0}
_LARGEST_TURN_ERROR = 25.0
# What becomes of LPS vectors that are taken for RAS.
_TURNED = np.array([-1.0, -1.0, 1.0])
_SHORT_AXIS_WITHIN = 40.0
_LONG_AXIS_WITHIN = 30.0
_ANATOMICAL_WITHIN = 20.0


def _chamber(digit: str, word: str, more: str) -> str:
    return (
        rf"(?<!\d){digit} ?(?:ch|cv|chb|chamber|chambers|kammer)(?![a-z])|ch ?{digit}(?!\d)"
        rf"|(?:^| |a|lax){digit} ?c(?![a-z])|\b{word} ?(?:ch|chamber|chambers)\b|{more}"
    )


_WORDS = {
    "2-chamber": re.compile(_chamber("2", "two", r"\bvla\b|vertical long")),
    "3-chamber": re.compile(_chamber("3", "three", r"\blvot\b|apical long")),
    "4-chamber": re.compile(_chamber("4", "four", r"\bhla\b|horizontal long")),
    "short-axis": re.compile(r"sax|\bsa\b|short ?ax|kurzachse|kurze achse"),
    "sagittal": re.compile(r"\bsag(?:ittal)?\b"),
    "coronal": re.compile(r"\bcor(?:onal)?\b"),
    "axial": re.compile(r"\b(?:ax|axial|tra|transversal|transverse)\b"),
}
_CARDIAC_WORDS = re.compile(r"\bla\b|\blax|long ?ax|heart|cardia|cine|herz|ventric")
_LABEL_WORDS = re.compile(r"\b(?:gt|seg|segmentation|label|labels|mask|groundtruth|contour)\b")


def plain_words(text: str) -> str:
    """Lower case, everything but letters and digits as single spaces."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def is_label_name(name: str) -> bool:
    """Whether a file's name says that it holds labels, not an image."""
    return _LABEL_WORDS.search(plain_words(name)) is not None


def kind_from_words(text: str) -> str:
    """The view that a description names first, else ``unknown``."""
    words = plain_words(text)
    found = [(match.start(), kind) for kind, w in _WORDS.items() if (match := w.search(words))]
    return min(found)[1] if found else UNKNOWN


def recognise(views: Sequence[tuple[str, Sequence[ImagePlane]]]) -> list[str]:
    """The kind of each view of a study.

    Args:
        views: For each its description (with the body part, if known) and its slices.

    Returns:
        One of `TomoSegLib.studies.study.KINDS` each.
    """
    kinds = [kind_from_words(text) for text, _ in views]
    cardiac = any(kind in CARDIAC_KINDS for kind in kinds) or any(
        _CARDIAC_WORDS.search(plain_words(text)) for text, _ in views
    )
    knee = any("knee" in plain_words(t).split() for t, _ in views)
    stacks = [
        planes[0]
        for (_, planes), kind in zip(views, kinds, strict=True)
        if kind == "short-axis"
        or (kind == UNKNOWN and len(planes) > 2 and _across(planes[0].normal))
    ]
    # A study that was turned as a whole is looked at as it was before.
    turned = _TURNED if stacks and looks_turned(stacks[0]) else np.ones(3)
    axis = _long_axis([plane.normal * turned for plane in stacks])
    for index, (_, planes) in enumerate(views):
        if kinds[index] != UNKNOWN:
            continue
        if cardiac and not knee:
            kinds[index] = _cardiac_kind(planes[0].normal * turned, axis)
        else:
            kinds[index] = _anatomical_kind(planes[0])
            if kinds[index] == UNKNOWN and not knee:
                kinds[index] = _cardiac_kind(planes[0].normal * turned, axis)
    return kinds


def base_first(kind: str, planes: Sequence[ImagePlane]) -> bool:
    """Whether a short-axis stack's first slice is at the base, not at the apex.

    The apex of the heart points to the left, to the front and down (unless `looks_turned`).
    """
    axis = LONG_AXIS * _TURNED if looks_turned(planes[0]) else LONG_AXIS
    return kind != "short-axis" or bool((planes[-1].origin - planes[0].origin) @ axis >= 0)


def looks_turned(short_axis: ImagePlane) -> bool:
    """Whether a short-axis stack only fits a heart once the patient is turned front to back.

    NIfTI keeps RAS; a converter that wrote DICOM's LPS into it has turned everything by 180
    degrees about the body's axis. Views still fit each other, but left, right, front and back,
    and with them base and apex, are wrong.
    """
    normal = short_axis.normal
    as_read = abs(float(normal @ LONG_AXIS))
    turned = abs(float(normal @ (LONG_AXIS * _TURNED)))
    return _degrees(as_read) > _SHORT_AXIS_WITHIN and _degrees(turned) < _LONG_AXIS_WITHIN


def _long_axis(normals: Sequence[FloatArray]) -> FloatArray:
    """The patient's own long axis where a short-axis view shows it, else the usual one."""
    if not normals:
        return LONG_AXIS
    normal = normals[0]
    return normal if normal @ LONG_AXIS > 0 else -normal


def _cardiac_kind(normal: FloatArray, axis: FloatArray) -> str:
    if _across(normal, axis):
        return "short-axis"
    tilt = _degrees(abs(float(normal @ axis)))
    if 90 - tilt > _LONG_AXIS_WITHIN:
        return UNKNOWN
    reference = _FOUR_CHAMBER_NORMAL - (_FOUR_CHAMBER_NORMAL @ axis) * axis
    reference /= np.linalg.norm(reference)
    turn = np.degrees(np.arctan2(normal @ np.cross(axis, reference), normal @ reference))
    # A plane's two normals are half a turn apart.
    errors = {kind: abs((turn - t + 90) % 180 - 90) for kind, t in _TURNS.items()}
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] <= _LARGEST_TURN_ERROR else UNKNOWN


def _across(normal: FloatArray, axis: FloatArray = LONG_AXIS) -> bool:
    return _degrees(abs(float(normal @ axis))) <= _SHORT_AXIS_WITHIN


def _anatomical_kind(plane: ImagePlane) -> str:
    closest = int(np.argmax(np.abs(plane.normal)))
    if _degrees(abs(float(plane.normal[closest]))) > _ANATOMICAL_WITHIN:
        return UNKNOWN
    return KNEE_KINDS[closest]


def _degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(min(cosine, 1.0))))
