"""A folder of DICOM files as a study: stacks by orientation, slices by position, phases by time.

A series is no more than a hint. One series may hold several views (three long-axis planes in one
acquisition) and one stack may be spread over many series (a breath hold, and a series, a slice).
Images are therefore sorted by where they lie: those of one orientation, pixel size and matrix
are a stack; those at one position are the phases of a slice.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.dicom import (
    ImageSlice,
    decode_pixels,
    image_slices,
    is_dicom_file,
    read_header,
)
from TomoSegLib.imaging.io import MAXIMUM_SPACING_MM, MINIMUM_SPACING_MM
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.recognition import base_first, plain_words, recognise
from TomoSegLib.studies.study import (
    UNKNOWN,
    Float32Array,
    PixelSource,
    Problem,
    View,
    unique_names,
)

# Images nearer to each other than this are at one position.
SAME_POSITION_MM = 0.1
_SAME_DIRECTION = 1e-3
_NO_SCAN = {"SR", "PR", "KO", "SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "DOC", "REG", "ECG", "AU"}


@dataclass(frozen=True)
class DicomPixels:
    """One frame of a DICOM file."""

    path: Path
    frame: int
    slope: float
    intercept: float

    def read(self) -> Float32Array:
        """See `TomoSegLib.studies.study.PixelSource`."""
        try:
            pixels = _decoded(self.path, self.path.stat().st_mtime_ns)
            plane = pixels[self.frame] if pixels.ndim == 3 else pixels
        except (AttributeError, ValueError, IndexError, EOFError, OSError) as error:
            raise TomoSegError(
                "volume-truncated",
                f"The pixels of '{self.path.name}' are incomplete or damaged: {error}",
                "Copy or export the series again.",
            ) from error
        return plane.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


@lru_cache(maxsize=2)
def _decoded(path: Path, modified: int) -> Any:
    return decode_pixels(path)


@dataclass(frozen=True, eq=False)
class _Image:
    """One image of a file with what sorts it."""

    slice: ImageSlice
    file: str
    series: str
    number: int
    description: str
    frame_of_reference: str
    instance_uid: str
    # Trigger delay (ms), temporal position, instance or frame number, where the header has them.
    times: tuple[float | None, float | None, float | None]

    @property
    def plane(self) -> ImagePlane:
        u, v = self.slice.orientation[:3], self.slice.orientation[3:]
        return ImagePlane(
            self.slice.position,
            u * self.slice.spacing[0],
            v * self.slice.spacing[1],
            self.slice.shape,
        )

    @property
    def source(self) -> PixelSource:
        item = self.slice
        return DicomPixels(item.path, item.frame, item.slope, item.intercept)


@dataclass
class _Problems:
    """Problems, one for each kind and series, with all files."""

    folder: Path
    found: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def add(self, code: str, message: str, files: Sequence[str], series: str = "") -> None:
        self.found.setdefault((code, series, message), []).extend(files)

    def listed(self) -> list[Problem]:
        return [Problem(code, text, tuple(f)) for (code, _, text), f in self.found.items()]


def has_dicom(folder: Path) -> bool:
    """Whether a folder or one below it holds a DICOM file."""
    return any(is_dicom_file(path) for path in _walk(folder))


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
    problems = _Problems(folder)
    images: dict[str, list[_Image]] = defaultdict(list)
    paths = list(_walk(folder))
    for number, path in enumerate(paths):
        patient, found = _images(path, folder, problems)
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


def _walk(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root) / name for name in sorted(names)]
    return found


def _images(path: Path, folder: Path, problems: _Problems) -> tuple[str, list[_Image]]:
    """The images of a file and whose they are."""
    name = path.relative_to(folder).as_posix()
    if not is_dicom_file(path):
        if path.suffix.lower() in (".dcm", ".ima"):
            problems.add("unreadable", "not a DICOM file: left out", [name])
        return "", []
    header = read_header(path)
    if header is None:
        problems.add("unreadable", "damaged DICOM file: left out", [name])
        return "", []
    if path.name.upper() == "DICOMDIR":
        return "", []
    series = _text(header, "SeriesInstanceUID")
    patient = "\0".join((_text(header, "PatientID"), _text(header, "PatientName")))
    modality = _text(header, "Modality")
    if "Rows" not in header or modality in _NO_SCAN or _number(header, "SamplesPerPixel", 1) != 1:
        what = f"no scan ({modality or 'no modality'}): left out"
        problems.add("not-an-image", what, [name], series)
        return patient, []
    if "LOCALIZER" in [str(value).upper() for value in header.get("ImageType", None) or []]:
        problems.add("localizer", "localizer: left out", [name], series)
        return patient, []
    try:
        slices = image_slices(header, path)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        what = f"no position in the patient ({_last_word(error)}): left out"
        problems.add("missing-geometry", what, [name], series)
        return patient, []
    except ValueError:
        problems.add(
            "contradictory-geometry", "its geometry makes no sense: left out", [name], series
        )
        return patient, []
    good = [item for item in slices if _makes_sense(item)]
    if len(good) < len(slices):
        problems.add(
            "contradictory-geometry", "its geometry makes no sense: left out", [name], series
        )
    return patient, [
        _Image(
            item,
            name,
            series,
            int(_number(header, "SeriesNumber", 0)),
            _description(header),
            _text(header, "FrameOfReferenceUID"),
            f"{_text(header, 'SOPInstanceUID')}/{item.frame}",
            _times(header, item.frame),
        )
        for item in good
    ]


def _makes_sense(item: ImageSlice) -> bool:
    axes = np.linalg.norm(_raw_orientation(item).reshape(2, 3), axis=1)
    return (
        bool(np.all(np.isfinite(item.position)) and np.all(np.isfinite(item.orientation)))
        and bool(np.all(np.abs(axes - 1) < 0.05))
        and all(MINIMUM_SPACING_MM <= value <= MAXIMUM_SPACING_MM for value in item.spacing)
        and min(item.shape) > 1
        and math.isfinite(item.slope)
        and math.isfinite(item.intercept)
    )


def _raw_orientation(item: ImageSlice) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The direction cosines as written; `ImageSlice` has scaled them to unit length."""
    source: Dataset = item.header
    if "PerFrameFunctionalGroupsSequence" in source:
        frame = source.PerFrameFunctionalGroupsSequence[item.frame]
        shared = source.SharedFunctionalGroupsSequence[0]
        group = frame if "PlaneOrientationSequence" in frame else shared
        source = group.PlaneOrientationSequence[0]
    return np.array([float(value) for value in source.ImageOrientationPatient])


def _description(header: Dataset) -> str:
    fields = ("SeriesDescription", "ProtocolName", "BodyPartExamined")
    words = [text for name in fields if (text := _text(header, name))]
    return " / ".join(dict.fromkeys(words))


def _times(header: Dataset, frame: int) -> tuple[float | None, float | None, float | None]:
    if "PerFrameFunctionalGroupsSequence" not in header:
        names = ("TriggerTime", "TemporalPositionIdentifier", "InstanceNumber")
        trigger, temporal, instance = (_number(header, name, None) for name in names)
        return trigger, temporal, instance
    groups = header.PerFrameFunctionalGroupsSequence[frame]

    def of(sequence: str, name: str) -> float | None:
        try:
            return _number(groups[sequence].value[0], name, None)
        except (KeyError, IndexError, TypeError):
            return None

    return (
        of("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        of("FrameContentSequence", "TemporalPositionIndex"),
        float(frame),
    )


def _one_patient(images: dict[str, list[_Image]], problems: _Problems) -> list[_Image]:
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


def _split(images: Sequence[_Image]) -> list[list[_Image]]:
    """Groups of images of one series, orientation, pixel size and matrix."""
    groups: list[list[_Image]] = []
    by_series: dict[str, list[list[_Image]]] = defaultdict(list)
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


def _alike(a: _Image, b: _Image) -> bool:
    return (
        a.slice.shape == b.slice.shape
        and np.allclose(a.slice.orientation, b.slice.orientation, atol=_SAME_DIRECTION)
        and np.allclose(a.slice.spacing, b.slice.spacing, rtol=1e-3)
        and a.frame_of_reference == b.frame_of_reference
    )


def _joined(groups: list[list[_Image]]) -> list[list[_Image]]:
    """Stacks: groups of a single position each, from several series, that belong together.

    They do if they lie alike, at different positions, and are called alike but for numbers.
    """
    stacks: list[list[_Image]] = []
    open_stacks: list[list[_Image]] = []
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


def _position(image: _Image, reference: _Image) -> float:
    return float(image.slice.position @ reference.slice.normal)


def _positions(images: Sequence[_Image]) -> list[float]:
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
    slices: list[list[_Image]]


def _stack(images: list[_Image], problems: _Problems) -> _Part:
    """Slices by position, and the phases of each by time."""
    first = images[0]
    places = _positions(images)
    at: list[list[_Image]] = [[] for _ in places]
    for image in images:
        place = _position(image, first)
        at[int(np.argmin(np.abs(np.array(places) - place)))].append(image)
    slices = [_in_time(found, problems) for found in at]
    # Whatever most slices have is the number of phases.
    counts = Counter(len(item) for item in slices)
    phases = max(counts, key=lambda n: (counts[n], n))
    number = int(first.number)
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
    return _Part(_identifier(images), number, first.description, slices)


def _identifier(images: Sequence[_Image]) -> str:
    """Stable as long as the files are: the first series and where in it the stack begins."""
    series = min(image.series for image in images)
    first = min(image.instance_uid for image in images if image.series == series)
    return f"{series}#{first.rsplit('.', 1)[-1]}"


def _in_time(images: list[_Image], problems: _Problems) -> list[_Image]:
    """The images at one position in the order of time; copies are left out."""
    once: dict[str, _Image] = {}
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
    # The first kind of time that tells any of them apart.
    for kind in range(3):
        times = [image.times[kind] for image in kept]
        known = [time for time in times if time is not None]
        if len(known) == len(times) and len(set(known)) > 1:
            break
    else:
        # Nothing tells them apart.
        kind, times, known = 2, [None] * len(kept), []
    order: dict[float, _Image] = {}
    for image, time in sorted(
        zip(kept, times, strict=True), key=lambda pair: (pair[1] or 0.0, pair[0].file)
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


def _text(header: Dataset, name: str) -> str:
    try:
        return str(header.get(name, "") or "").strip()
    except (ValueError, TypeError, AttributeError):
        return ""


def _number(header: Dataset, name: str, default: Any) -> Any:
    """A finite number of the header, or the default where there is none."""
    try:
        value = float(header.get(name, default))
    except (ValueError, TypeError, AttributeError, OverflowError):
        return default
    return value if math.isfinite(value) else default


def _last_word(error: Exception) -> str:
    words = re.findall(r"[A-Z][A-Za-z]{5,}", str(error))
    return words[-1] if words else "its geometry is incomplete"
