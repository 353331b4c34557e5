"""The images of DICOM files: where they lie, when they were taken, and what is wrong with them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from TomoSegLib.errors import TomoSegError, shown_name
from TomoSegLib.imaging.checks import MAXIMUM_SPACING_MM, MINIMUM_SPACING_MM
from TomoSegLib.imaging.dicom import (
    ImageSlice,
    decode_pixels,
    image_slices,
    image_type,
    is_cut,
    is_dicom_file,
    read_header,
)
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.study import Float32Array, PixelSource, Problem

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
class DicomImage:
    """One image of a file with what sorts it.

    Attributes:
        slice: Where it lies and where its pixels are.
        file: The file, relative to the study's folder.
        series: SeriesInstanceUID.
        number: SeriesNumber, 0 if there is none.
        description: Of the series, with the body part.
        frame_of_reference: UID, empty if there is none.
        component: Of a complex signal, where the image is not its magnitude: phase, real part...
        instance_uid: Of the file, and the frame.
        times: Trigger delay (ms), temporal position, instance or frame number; None where the
            header has none.
    """

    slice: ImageSlice
    file: str
    series: str
    number: int
    description: str
    frame_of_reference: str
    component: str
    instance_uid: str
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
class ProblemList:
    """Collects problems: one for each kind and series, with all its files."""

    found: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def add(self, code: str, message: str, files: Sequence[str], series: str = "") -> None:
        self.found.setdefault((code, series, message), []).extend(files)

    def listed(self) -> list[Problem]:
        return [Problem(code, text, tuple(f)) for (code, _, text), f in self.found.items()]


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and those below it, sorted by name."""
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root) / name for name in sorted(names)]
    return found


def has_dicom(folder: Path) -> bool:
    """Whether a folder or one below it holds a DICOM file."""
    return any(is_dicom_file(path) for path in files_below(folder))


def read_images(path: Path, folder: Path, problems: ProblemList) -> tuple[str, list[DicomImage]]:
    """The images of a file and whose they are."""
    name = shown_name(path.relative_to(folder).as_posix())
    if not is_dicom_file(path):
        if path.suffix.lower() in (".dcm", ".ima"):
            problems.add("unreadable", "not a DICOM file: left out", [name])
        return "", []
    header = read_header(path)
    if path.name.upper() == "DICOMDIR":
        return "", []
    if header is None or is_cut(header):
        problems.add("unreadable", "damaged DICOM file, cut in its header: left out", [name])
        return "", []
    series = _text(header, "SeriesInstanceUID")
    patient = _patient(header)
    modality = _text(header, "Modality")
    if "Rows" not in header or modality in _NO_SCAN or _number(header, "SamplesPerPixel", 1) != 1:
        what = f"no scan ({modality or 'no modality'}): left out"
        problems.add("not-an-image", what, [name], series)
        return patient, []
    if "LOCALIZER" in image_type(header):
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
    return patient, [dicom_image(item, name) for item in good]


def dicom_image(item: ImageSlice, file: str) -> DicomImage:
    """An image plane with what sorts it, from its file's header.

    Args:
        item: The image plane.
        file: What to call its file.
    """
    header = item.header
    return DicomImage(
        item,
        file,
        _text(header, "SeriesInstanceUID"),
        int(_number(header, "SeriesNumber", 0)),
        _description(header),
        _text(header, "FrameOfReferenceUID"),
        _component(header),
        f"{_text(header, 'SOPInstanceUID')}/{item.frame}",
        _times(header, item.frame),
    )


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


def _raw_orientation(item: ImageSlice) -> npt.NDArray[np.float64]:
    """The direction cosines as written; `ImageSlice` has scaled them to unit length."""
    source: Dataset = item.header
    if "PerFrameFunctionalGroupsSequence" in source:
        frame = source.PerFrameFunctionalGroupsSequence[item.frame]
        shared = source.SharedFunctionalGroupsSequence[0]
        group = frame if "PlaneOrientationSequence" in frame else shared
        source = group.PlaneOrientationSequence[0]
    return np.array([float(value) for value in source.ImageOrientationPatient])


def _patient(header: Dataset) -> str:
    """What tells patients apart: identifier and name, or the study where there is neither."""
    name = _text(header, "PatientName").upper().rstrip("^= ")
    known = "\0".join((_text(header, "PatientID"), name))
    return known if known != "\0" else _text(header, "StudyInstanceUID")


_COMPONENTS = {
    "P": "phase",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "VELOCITY": "phase",
    "R": "real",
    "REAL": "real",
    "I": "imaginary",
    "IMAGINARY": "imaginary",
}


def _component(header: Dataset) -> str:
    """Of MR's complex signal; empty for the magnitude, and for all else."""
    words = [*image_type(header)[2:], _text(header, "ComplexImageComponent").upper()]
    return next((_COMPONENTS[word] for word in words if word in _COMPONENTS), "")


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
