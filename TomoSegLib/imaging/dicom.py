"""DICOM series: finding them in a folder, sorting them by geometry, reading their voxels.

Positions decide everything: file names, instance numbers and slice locations are not trusted. A
stack that is no regular grid (missing slices, uneven distances, a tilted gantry, several time
points) is refused with its reason, because a grid put over it would be a guess.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.misc import is_dicom
from pydicom.uid import UID, MediaStorageDirectoryStorage

from TomoSegLib.errors import TomoSegError, TomoSegWarning, shown_name
from TomoSegLib.imaging.checks import check_size
from TomoSegLib.imaging.volume import FloatArray, Geometry, Volume

# Positions may deviate from the regular grid by rounding in the headers, not by more.
_LARGEST_UNEVENNESS = 0.05
_NOTABLE_UNEVENNESS = 0.01
_LARGEST_TILT_DEGREES = 0.5
_SAME_DIRECTION = 1e-3
# What pydicom raises at bytes that are no DICOM, besides what files raise.
_PARSING = (
    InvalidDicomError,
    BytesLengthException,
    struct.error,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
)
_UNDEFINED = 0xFFFFFFFF  # the length of an element that ends where it says so
_KEPT_HEADER_FIELDS = ("Modality", "SeriesDescription", "SeriesInstanceUID", "BodyPartExamined")


@dataclass(frozen=True, eq=False)
class ImageSlice:
    """One image plane: where it lies and where its pixels are."""

    path: Path
    frame: int
    position: FloatArray
    orientation: FloatArray  # (6,) unit vectors along a row, then along a column
    spacing: tuple[float, float]  # between columns, between rows: along i, along j
    shape: tuple[int, int]  # rows, columns
    slope: float
    intercept: float
    header: Dataset

    @property
    def normal(self) -> FloatArray:
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True)
class Series:
    """A series of images in a folder, as a person would recognise it."""

    uid: str
    modality: str
    description: str
    files: tuple[Path, ...]

    def __str__(self) -> str:
        images = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        return f"{self.uid} ({self.modality} '{self.description}', {images})"


def is_dicom_file(path: Path) -> bool:
    """Whether a file has DICOM's preamble; scanners' files do, and guessing without is unsafe."""
    try:
        return path.is_file() and is_dicom(path)  # a pipe would be waited for
    except OSError:
        return False


def image_type(header: Dataset) -> list[str]:
    """The values of ImageType in capitals; pydicom gives a single one as a string."""
    value = header.get("ImageType", None) or []
    return [str(v).upper() for v in ([value] if isinstance(value, str) else value)]


def find_series(folder: Path, damaged: list[tuple[Path, str]] | None = None) -> list[Series]:
    """All series of images in a folder and the folders below it.

    Files that are no DICOM and objects without pixels (reports, DICOMDIR) are passed over.

    Args:
        folder: Where to look.
        damaged: Receives the files whose header is cut, with their series' UID if it is known.
    """
    found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            header = read_header(path) if is_dicom_file(path) else None
            if header is None or is_cut(header):
                if damaged is not None and (header is not None or is_dicom_file(path)):
                    uid = "" if header is None else str(header.get("SeriesInstanceUID", ""))
                    damaged.append((path, uid))
            elif "Rows" in header and "SeriesInstanceUID" in header:
                found[str(header.SeriesInstanceUID)].append((path, header))
    return [
        Series(
            uid,
            str(files[0][1].get("Modality", "?")),
            str(files[0][1].get("SeriesDescription", "")),
            tuple(path for path, _ in files),
        )
        for uid, files in sorted(found.items())
    ]


def read_series(path: Path, series_uid: str | None = None) -> Volume:
    """Read a series as one volume, sorted by position, with the modality's rescaling applied.

    Classic series (a file per slice) and enhanced multi-frame files are read. Localizers within
    the series are left out. Voxels are int16 or int32 where the rescaling is by whole numbers,
    else float32.

    Args:
        path: A folder, searched with the folders below it, or a DICOM file, whose series is read
            from its folder.
        series_uid: Which series, where the folder holds several.

    Returns:
        The volume; ``k`` runs along the slices' normal, so that the grid is right-handed.

    Raises:
        TomoSegError: ``dicom-no-images``, ``dicom-several-series``, ``dicom-series-unknown``,
            ``dicom-no-geometry``, ``dicom-several-volumes``, ``dicom-mixed-geometry``,
            ``dicom-missing-slices``, ``dicom-uneven-spacing``, ``dicom-gantry-tilt``,
            ``volume-not-3d``, ``volume-truncated`` or ``volume-unreadable``.
    """
    slices, name = series_slices(path, series_uid)
    return _volume(slices, name)


def series_slices(path: Path, series_uid: str | None = None) -> tuple[list[ImageSlice], str]:
    """The image planes of `read_series` in the order of its ``k``, and the series' name.

    Args:
        path: As there.
        series_uid: As there.

    Raises:
        TomoSegError: As there, but what is wrong with the distances or the pixels is not noticed.
    """
    if path.is_file():
        header = read_header(path)
        if header is None or "Rows" not in header:
            raise TomoSegError(
                "dicom-no-images",
                f"'{path.name}' is a DICOM file without an image.",
                "Give the folder of an image series, or one of its files.",
            )
        if int(header.get("NumberOfFrames", 1) or 1) > 1:
            return _sorted_stack(_slices([path]), path.name), path.name
        series_uid = str(header.get("SeriesInstanceUID", ""))
        folder = path.parent
    else:
        folder = path
    damaged: list[tuple[Path, str]] = []
    series = _select(find_series(folder, damaged), (series_uid or "").strip() or None, folder)
    _warn_of_damage([path for path, uid in damaged if series.uid.startswith(uid)])
    return _sorted_stack(_slices(series.files), folder.name), folder.name


def _warn_of_damage(files: Sequence[Path]) -> None:
    """A slice that is missing in the middle is noticed by its gap, the first and last are not."""
    if not files:
        return
    names = ", ".join(f"'{shown_name(path.name)}'" for path in files[:3])
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    warnings.warn(
        TomoSegWarning(
            "dicom-damaged",
            f"{names}{more}: damaged DICOM, cut in the header, and left out.",
            "If it belongs to the series, its image is missing: copy or export it again.",
        ),
        stacklevel=3,
    )


def _sorted_stack(slices: list[ImageSlice], name: str) -> list[ImageSlice]:
    slices = _one_stack(slices, name)
    normal = slices[0].normal
    return sorted(slices, key=lambda s: float(s.position @ normal))


def _select(found: Sequence[Series], uid: str | None, folder: Path) -> Series:
    if not found:
        raise TomoSegError(
            "dicom-no-images",
            f"The folder '{folder}' contains no DICOM images.",
            "Give the folder of a DICOM series, or a NIfTI, NRRD or MetaImage file.",
        )
    listing = "; ".join(str(series) for series in found[:10])
    if len(found) > 10:
        listing += f"; and {len(found) - 10} more"
    if uid is not None:
        for series in found:
            if series.uid == uid:
                return series
        raise TomoSegError(
            "dicom-series-unknown",
            f"The folder '{folder}' has no series '{uid}'.",
            f"It has: {listing}.",
        )
    # A screen shot or a single scout image beside the scan leaves no doubt about which is meant.
    stacks = [series for series in found if len(series.files) > 1 or _is_multiframe(series)]
    if len(stacks) == 1:
        return stacks[0]
    if len(found) > 1:
        raise TomoSegError(
            "dicom-several-series",
            f"The folder '{folder}' contains {len(found)} series: {listing}.",
            f"Choose one by writing {folder}::{(stacks or found)[0].uid}.",
        )
    return found[0]


def _is_multiframe(series: Series) -> bool:
    header = read_header(series.files[0])
    return header is not None and int(header.get("NumberOfFrames", 1) or 1) > 1


def read_header(path: Path) -> Dataset | None:
    """A file's data elements before its pixels, or None where it cannot be parsed."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, EOFError, AttributeError, NotImplementedError, *_PARSING):
        return None
    # pydicom takes what there is of an element for the whole of it.
    last: Any = header.get_item(max(header.keys())) if len(header) else None
    if isinstance(last, RawDataElement) and last.length not in (_UNDEFINED, len(last.value or b"")):
        return None
    return header


def is_cut(header: Dataset) -> bool:
    """Whether a header ends before it says how large its image is, though the object has one."""
    if "Rows" in header:
        return False
    try:
        kind = header.get("SOPClassUID")
        if not kind:  # only an index of files has none, but in its preamble
            meta = getattr(header, "file_meta", Dataset())
            return meta.get("MediaStorageSOPClassUID") != MediaStorageDirectoryStorage
        return "Image Storage" in UID(str(kind)).name
    except (AttributeError, *_PARSING):
        return True


def _slices(paths: Iterable[Path]) -> list[ImageSlice]:
    """The image planes of a series' files, without localizers."""
    slices: list[ImageSlice] = []
    for path in paths:
        header = read_header(path)
        if header is None or "LOCALIZER" in image_type(header):
            continue
        if int(header.get("SamplesPerPixel", 1)) != 1:
            raise TomoSegError(
                "volume-not-3d",
                f"'{path.name}' is a colour image.",
                "Give the series of the scan itself, not screen shots or maps in colour.",
            )
        try:
            slices += image_slices(header, path)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise TomoSegError(
                "dicom-no-geometry",
                f"'{path.name}' does not say where its image lies in the patient.",
                "Give a series of original axial, coronal or sagittal images; secondary captures "
                "and ultrasound have no position.",
            ) from error
    if not slices:
        raise TomoSegError(
            "dicom-no-images",
            "The series contains nothing but localizer images.",
            "Give the series of the scan itself.",
        )
    return slices


def image_slices(header: Dataset, path: Path) -> list[ImageSlice]:
    """The image planes of a file, one or one a frame.

    Raises:
        AttributeError, KeyError, IndexError, TypeError or ValueError: Its geometry is missing or
            makes no sense.
    """
    shape = (int(header.Rows), int(header.Columns))
    if "PerFrameFunctionalGroupsSequence" in header:
        shared = header.SharedFunctionalGroupsSequence[0]
        frames = header.PerFrameFunctionalGroupsSequence
        if len(frames) != int(header.NumberOfFrames):
            raise ValueError("frames without positions, or positions without frames")
        result = []
        for index, frame in enumerate(frames):
            orientation = _group("PlaneOrientationSequence", frame, shared)
            measures = _group("PixelMeasuresSequence", frame, shared)
            position = _group("PlanePositionSequence", frame, shared)
            try:
                rescale: Dataset = _group("PixelValueTransformationSequence", frame, shared)
            except KeyError:
                rescale = Dataset()
            result.append(
                _plane(path, index, position, orientation, measures, rescale, shape, header)
            )
        return result
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        raise KeyError("frames without positions")
    return [_plane(path, 0, header, header, header, header, shape, header)]


def _group(name: str, frame: Dataset, shared: Dataset) -> Dataset:
    """A functional group macro: a frame's own has precedence over the shared one."""
    for source in (frame, shared):
        if name in source:
            return source[name].value[0]
    raise KeyError(name)


def _plane(
    path: Path,
    frame: int,
    position: Dataset,
    orientation: Dataset,
    measures: Dataset,
    rescale: Dataset,
    shape: tuple[int, int],
    header: Dataset,
) -> ImageSlice:
    axes = np.array([float(v) for v in orientation.ImageOrientationPatient])
    with np.errstate(invalid="ignore"):
        rows, columns = axes[:3] / np.linalg.norm(axes[:3]), axes[3:] / np.linalg.norm(axes[3:])
    if not abs(float(rows @ columns)) <= 0.01:  # also where it is no number
        raise ValueError("orientation")
    # PixelSpacing is the distance of rows, then of columns.
    between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
    if between_rows < 0 or between_columns < 0:
        raise ValueError("spacing")
    return ImageSlice(
        path,
        frame,
        np.array([float(v) for v in position.ImagePositionPatient]).reshape(3),
        np.concatenate([rows, columns]),
        (between_columns, between_rows),
        shape,
        float(rescale.get("RescaleSlope", 1) or 1),
        float(rescale.get("RescaleIntercept", 0) or 0),
        header,
    )


def _volume(slices: list[ImageSlice], name: str) -> Volume:
    geometry, first = volume_geometry(slices, name), slices[0]
    metadata = {
        field: str(first.header[field].value)
        for field in _KEPT_HEADER_FIELDS
        if field in first.header
    }
    return Volume(voxels(slices, name), geometry, name, metadata)


def volume_geometry(slices: list[ImageSlice], name: str) -> Geometry:
    """The grid of slices that are sorted by position.

    Raises:
        TomoSegError: As `read_series`, where they are no regular grid; ``volume-too-large``.
    """
    step = _step(slices, name)
    first = slices[0]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[0]
    affine[:3, 1] = first.orientation[3:] * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    geometry = Geometry((len(slices), *first.shape), affine)
    check_size(geometry.shape, name)
    return geometry


def _one_stack(slices: list[ImageSlice], name: str) -> list[ImageSlice]:
    """The slices that share one orientation, pixel size and matrix; stray ones are left out."""
    stacks: list[list[ImageSlice]] = []
    for item in slices:
        for stack in stacks:
            if (
                stack[0].shape == item.shape
                and np.allclose(stack[0].orientation, item.orientation, atol=_SAME_DIRECTION)
                and np.allclose(stack[0].spacing, item.spacing, rtol=1e-3)
            ):
                stack.append(item)
                break
        else:
            stacks.append([item])
    stacks.sort(key=len, reverse=True)
    stray = len(slices) - len(stacks[0])
    if stray == 0:
        return stacks[0]
    if len(stacks[0]) > 4 * stray:
        warnings.warn(
            TomoSegWarning(
                "dicom-stray-images",
                f"{stray} images of '{name}' lie in another plane than the rest and are left out.",
                "They are probably localizers.",
            ),
            stacklevel=2,
        )
        return stacks[0]
    raise TomoSegError(
        "dicom-mixed-geometry",
        f"The series '{name}' mixes {len(stacks)} orientations, pixel sizes or matrices.",
        "Give one stack of parallel slices: split the series, or convert it to NIfTI first.",
    )


def _step(slices: list[ImageSlice], name: str) -> FloatArray:
    """Vector from a slice to the next, mm; the checks that make it one."""
    positions = np.array([s.position for s in slices])
    first = slices[0]
    if len(slices) == 1:
        thickness = float(first.header.get("SliceThickness", 0) or 0) or first.spacing[0]
        return first.normal * thickness
    distances = np.diff(positions @ first.normal)
    median = float(np.median(distances))
    if distances.min() < 0.01 or distances.min() < 0.02 * median:
        raise TomoSegError(
            "dicom-several-volumes",
            f"Several images of the series '{name}' lie at the same position.",
            "The series holds several time points, echoes or b-values, or a copy of each file: "
            "put one volume in a folder of its own; 'tomoseg run' works on every time point.",
        )
    if distances.max() > 1.5 * median:
        gap = int(distances.argmax())
        missing = int(np.sum(np.maximum(np.round(distances / median) - 1, 0)))
        raise TomoSegError(
            "dicom-missing-slices",
            f"About {missing} slices are missing from the series '{name}': {distances[gap]:.2f} mm "
            f"lie between slices {gap + 1} and {gap + 2}, elsewhere {median:.2f} mm.",
            "Export the series again, completely.",
        )
    mean = float(distances.mean())
    unevenness = float(np.abs(distances - mean).max()) / mean
    if unevenness > _LARGEST_UNEVENNESS:
        raise TomoSegError(
            "dicom-uneven-spacing",
            f"The slices of '{name}' are unevenly spaced: "
            f"{distances.min():.2f} to {distances.max():.2f} mm.",
            "Resample it to even spacing first (Slicer's DICOM module does, with 'acquisition "
            "geometry regularization').",
        )
    if unevenness > _NOTABLE_UNEVENNESS:
        warnings.warn(
            TomoSegWarning(
                "dicom-uneven-spacing",
                f"The slices of '{name}' are spaced {distances.min():.3f} to "
                f"{distances.max():.3f} mm; {mean:.3f} mm is used.",
            ),
            stacklevel=2,
        )
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    tilt = math.degrees(
        math.acos(min(1.0, float(step @ first.normal) / float(np.linalg.norm(step))))
    )
    if tilt > _LARGEST_TILT_DEGREES:
        raise TomoSegError(
            "dicom-gantry-tilt",
            f"The slices of '{name}' are shifted against each other by a gantry tilt of "
            f"{tilt:.1f} degrees.",
            "Resample it to a rectangular grid first (Slicer's DICOM module does, with "
            "'acquisition geometry regularization').",
        )
    return step


def voxels(slices: list[ImageSlice], name: str) -> npt.NDArray[np.generic]:
    """The voxels ``[k, j, i]`` of sorted slices, rescaled; see `read_series`.

    Raises:
        TomoSegError: ``volume-truncated`` or ``volume-unreadable``.
    """
    whole = all(s.slope.is_integer() and s.intercept.is_integer() for s in slices)
    dtype: type[np.generic] = np.int32 if whole else np.float32
    array = np.empty((len(slices), *slices[0].shape), dtype=dtype)
    # Multi-frame files are decoded once.
    frames: tuple[Path, npt.NDArray[Any]] | None = None
    for index, item in enumerate(slices):
        try:
            if frames is None or frames[0] != item.path:
                frames = (item.path, decode_pixels(item.path))
            pixels = frames[1]
            plane = pixels[item.frame] if pixels.ndim == 3 else pixels
            array[index] = plane
        except (AttributeError, ValueError, EOFError, OSError) as error:
            raise TomoSegError(
                "volume-truncated",
                f"The pixels of '{item.path.name}' are incomplete or damaged: {error}",
                "Copy or export the series again.",
            ) from error
        if (item.slope, item.intercept) != (1.0, 0.0):
            array[index] *= dtype(item.slope)
            array[index] += dtype(item.intercept)
    limits = np.iinfo(np.int16)
    if whole and limits.min <= array.min() and array.max() <= limits.max:
        return array.astype(np.int16)
    return array


def decode_pixels(path: Path) -> npt.NDArray[Any]:
    """Stored values ``(rows, columns)`` or ``(frames, rows, columns)``, before rescaling."""
    try:
        dataset = pydicom.dcmread(path)
    except _PARSING as error:
        raise ValueError(str(error)) from error
    try:
        return dataset.pixel_array
    except (NotImplementedError, RuntimeError) as error:
        # pydicom itself decodes uncompressed and RLE images; GDCM, in SimpleITK, the JPEGs.
        return _decode_with_gdcm(path, dataset, error)


def _decode_with_gdcm(path: Path, dataset: Dataset, cause: Exception) -> npt.NDArray[Any]:
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    except RuntimeError as error:
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise TomoSegError(
            "volume-unreadable",
            f"The pixels of '{path.name}' cannot be decoded ({syntax}): {cause}",
            "Decompress the series first, e.g. with gdcmconv --raw or dcmdjpeg.",
        ) from error
    array = sitk.GetArrayFromImage(image).astype(np.float64)
    # GDCM has applied the rescaling of the whole file, which the caller applies per slice.
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    array = np.round((array - intercept) / slope)
    return array[0] if array.shape[0] == 1 else array
