"""A folder of DICOM files as a study: stacks by orientation, slices by position, phases by time.

A series is no more than a hint. One series may hold several views (three long-axis planes in one
acquisition) and one stack may be spread over many series (a breath hold, and a series, a slice).
Images are therefore sorted by where they lie: those of one orientation, pixel size and matrix
are a stack; those at one position are the phases of a slice.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from TomoSegLib.errors import TomoSegError
from TomoSegLib.studies.dicom_images import DicomImage, ProblemList, files_below, read_images
from TomoSegLib.studies.recognition import base_first, plain_words, recognise
from TomoSegLib.studies.study import UNKNOWN, Problem, View, unique_names

# Images nearer to each other than this are at one position.
SAME_POSITION_MM = 0.1
_SAME_DIRECTION = 1e-3
_INSTANCE = 2  # the kind of time that is none: numbers of instances
# So many images at a position that no time tells apart are one that was stored again. A cine has
# more; numbers of instances are then the best sign of their order that there is.
_COPIES = 2


def read_dicom_views(
    folder: Path, on_read: Callable[[int, int], None] | None = None
) -> tuple[list[View], list[Problem]]:
    """The views of a folder of DICOM files and the folders below, with what could not be used.

    Args:
        folder: One patient's study.
        on_read: Called with the files read and their number.

    Raises:
        TomoSegError: ``study-mixed-patients`` where no patient has more images than the others.
    """
    problems = ProblemList()
    images: dict[str, list[DicomImage]] = defaultdict(list)
    paths = list(files_below(folder))
    for number, path in enumerate(paths):
        patient, found = read_images(path, folder, problems)
        images[patient] += found
        if on_read is not None:
            on_read(number + 1, len(paths))
    kept = _one_patient(images, problems)
    stacks = _joined(_split(kept))
    parts = [_stack(stack, problems) for stack in stacks]
    names, kinds = [], recognise([(p.description, [s[0].plane for s in p.slices]) for p in parts])
    for kind, part in zip(kinds, parts, strict=True):
        words = plain_words(part.description).replace(" ", "-")[:40]
        names.append(kind if kind != UNKNOWN else words or f"series-{part.number}")
    frames = Counter(image.frame_of_reference for image in kept if image.frame_of_reference)
    views = []
    for name, kind, part in zip(unique_names(names), kinds, parts, strict=True):
        reference = part.slices[0][0].frame_of_reference
        if len(frames) > 1 and reference != frames.most_common(1)[0][0]:
            problems.add(
                "contradictory-geometry",
                "its frame of reference is another one than most views': if the patient was moved "
                "in between, its lines are wrong",
                [part.slices[0][0].file],
                part.id,
            )
        planes = tuple(phases[0].plane for phases in part.slices)
        sources = tuple(
            tuple(phases[phase].source for phases in part.slices)
            for phase in range(len(part.slices[0]))
        )
        first = base_first(kind, planes)
        views.append(View(part.id, name, kind, planes, sources, first, part.description, reference))
    return views, problems.listed()


def _one_patient(images: dict[str, list[DicomImage]], problems: ProblemList) -> list[DicomImage]:
    counts = sorted(((len(v), k) for k, v in images.items() if v), reverse=True)
    if not counts:
        return []
    if len(counts) > 1 and counts[0][0] == counts[1][0]:
        files = ", ".join(f"'{images[patient][0].file}'" for _, patient in counts[:4])
        raise TomoSegError(
            "study-mixed-patients",
            f"The folder holds the images of {len(counts)} patients, and none has most: {files}.",
            "Put one patient's study in a folder of its own.",
        )
    for _, patient in counts[1:]:
        files_of = list(dict.fromkeys(image.file for image in images[patient]))
        problems.add(
            "mixed-patients",
            "of another patient than most images of the folder: left out",
            files_of,
            patient,
        )
    return images[counts[0][1]]


def _split(images: Sequence[DicomImage]) -> list[list[DicomImage]]:
    """Groups of images of one series, orientation, pixel size and matrix."""
    groups: list[list[DicomImage]] = []
    by_series: dict[str, list[list[DicomImage]]] = defaultdict(list)
    for image in images:
        for group in by_series[image.series]:
            if _alike(group[0], image):
                group.append(image)
                break
        else:
            group = [image]
            by_series[image.series].append(group)
            groups.append(group)
    return groups


def _alike(a: DicomImage, b: DicomImage) -> bool:
    return (
        a.slice.shape == b.slice.shape
        and np.allclose(a.slice.orientation, b.slice.orientation, atol=_SAME_DIRECTION)
        and np.allclose(a.slice.spacing, b.slice.spacing, rtol=1e-3)
        and a.component == b.component
        and a.frame_of_reference == b.frame_of_reference
    )


def _joined(groups: list[list[DicomImage]]) -> list[list[DicomImage]]:
    """Stacks: groups of a single position each, from several series, that belong together.

    They do if they lie alike, at different positions, and are called alike but for numbers.
    """
    stacks: list[list[DicomImage]] = []
    open_stacks: list[list[DicomImage]] = []
    for group in groups:
        if len(_positions(group)) > 1:
            stacks.append(group)
            continue
        for stack in open_stacks:
            if (
                _alike(stack[0], group[0])
                and _stem(stack[0].description) == _stem(group[0].description)
                and all(
                    abs(_position(group[0], stack[0]) - place) > SAME_POSITION_MM
                    for place in _positions(stack)
                )
            ):
                stack += group
                break
        else:
            joined = list(group)
            open_stacks.append(joined)
            stacks.append(joined)
    return stacks


def _stem(description: str) -> str:
    """A description without the number that its series was given at the end of a part."""
    return " / ".join(re.sub(r"[\W_]*\d+$", "", part) for part in description.split(" / "))


def _position(image: DicomImage, reference: DicomImage) -> float:
    return float(image.slice.position @ reference.slice.normal)


def _positions(images: Sequence[DicomImage]) -> list[float]:
    """The different positions, ascending."""
    found: list[float] = []
    for place in sorted(_position(image, images[0]) for image in images):
        if not found or place - found[-1] > SAME_POSITION_MM:
            found.append(place)
    return found


@dataclass(frozen=True)
class _Part:
    """A stack: ``slices[slice][phase]``, all with the same number of phases."""

    id: str
    number: int
    description: str
    slices: list[list[DicomImage]]


def _stack(images: list[DicomImage], problems: ProblemList) -> _Part:
    """Slices by position, and the phases of each by time."""
    first = images[0]
    slices = stack_slices(images, problems)
    return _Part(_identifier(images), int(first.number), first.description, slices)


def stack_slices(
    images: Sequence[DicomImage], problems: ProblemList, *, pairs: bool = False
) -> list[list[DicomImage]]:
    """The images of one stack as ``[slice][phase]``, all slices with the same number of phases.

    Args:
        images: Images of one orientation, pixel size and matrix.
        problems: Receives what could not be used.
        pairs: Take two images at a position that have nothing but numbers to tell them apart for
            two phases (or echoes), not for one that was stored again.
    """
    first = images[0]
    places = _positions(images)
    at: list[list[DicomImage]] = [[] for _ in places]
    for image in images:
        place = _position(image, first)
        at[int(np.argmin(np.abs(np.array(places) - place)))].append(image)
    slices = [_in_time(found, problems, pairs) for found in at]
    # Whatever most slices have is the number of phases; two at a few places are rather copies.
    counts = Counter(len(item) for item in slices)
    phases = max(counts, key=lambda n: (counts[n], 0 if n == _COPIES and not pairs else n))
    for index, item in enumerate(slices):
        if len(item) == phases:
            continue
        if phases == 1:
            problems.add(
                "duplicate-position",
                "another image lies at the same position: the first is kept",
                [image.file for image in item[1:]],
                first.series,
            )
        else:
            problems.add(
                "phases-differ",
                f"its slice has {len(item)} phases, most of the view's have {phases}: the nearest "
                "in the cycle are used",
                [item[0].file],
                first.series,
            )
        # Phase p of n lies at p / n of the cycle.
        nearest = [round(p * len(item) / phases) % len(item) for p in range(phases)]
        slices[index] = [item[p] for p in nearest]
    return slices


def _identifier(images: Sequence[DicomImage]) -> str:
    """Stable as long as the files are: the first series and where in it the stack begins."""
    series = min(image.series for image in images)
    first = min(image.instance_uid for image in images if image.series == series)
    return f"{series}#{first.rsplit('.', 1)[-1]}"


def _in_time(images: list[DicomImage], problems: ProblemList, pairs: bool) -> list[DicomImage]:
    """The images at one position in the order of time; copies are left out."""
    once: dict[str, DicomImage] = {}
    for image in images:
        if image.instance_uid in once:
            problems.add(
                "duplicate-position",
                "a copy of another image: left out",
                [image.file],
                image.series,
            )
        else:
            once[image.instance_uid] = image
    kept = list(once.values())
    if len(kept) == 1:
        return kept
    kind = _telling_time(kept)
    if kind == _INSTANCE and len(kept) == _COPIES and not pairs:
        kind = None
    times = [None if kind is None else image.times[kind] for image in kept]
    order: dict[float, DicomImage] = {}
    for image, time in sorted(
        zip(kept, times, strict=True),
        key=lambda pair: (pair[1] or 0.0, pair[0].times[_INSTANCE] or 0.0, pair[0].file),
    ):
        key = 0.0 if time is None else round(time, 3)
        if key in order:
            problems.add(
                "duplicate-position",
                "another image has the same position and time: left out",
                [image.file],
                image.series,
            )
        else:
            order[key] = image
    return list(order.values())


def _telling_time(images: Sequence[DicomImage]) -> int | None:
    """The first kind of time that tells any of the images apart, or None."""
    for kind in range(len(images[0].times)):
        times = [image.times[kind] for image in images]
        if None not in times and len(set(times)) > 1:
            return kind
    return None
