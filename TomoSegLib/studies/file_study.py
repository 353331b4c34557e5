"""A folder of NIfTI, NRRD or MetaImage files as a study: each file is a view.

The direction matrix decides where a view lies; a file without one has no place among others and
is left out. Slices run along ``k``, unless the grid says otherwise: an axis of one voxel, or of
voxels more than twice as long as the others', is the one across the slices.
"""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from TomoSegLib.errors import TomoSegError, TomoSegWarning, shown_name
from TomoSegLib.files import suffix_of
from TomoSegLib.imaging.checks import check_geometry
from TomoSegLib.imaging.itk import ITK_SUFFIXES, read_itk_volume
from TomoSegLib.imaging.nifti import NIFTI_SUFFIXES, nifti_affine
from TomoSegLib.imaging.volume import FloatArray, Geometry
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.recognition import base_first, is_label_name, recognise
from TomoSegLib.studies.study import Float32Array, Problem, View, unique_names

# What a header may claim before its voxels are believed.
_MOST_VOXELS = 2**29
# The axes of columns and rows for slices across each axis of (i, j, k).
_IN_PLANE = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class FilePixels:
    """One slice of one phase of a file."""

    path: Path
    across: int
    slice: int
    phase: int

    def read(self) -> Float32Array:
        """See `TomoSegLib.studies.study.PixelSource`."""
        frame = _frame(self.path, self.path.stat().st_mtime_ns, self.phase)
        return np.ascontiguousarray(frame.take(self.slice, axis=self.across).T, dtype=np.float32)


def study_files(folder: Path) -> list[Path]:
    """The files of a folder that may be views, sorted by name."""
    suffixes = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
    return sorted(
        p for p in folder.iterdir() if suffix_of(p) in suffixes and not p.name.startswith(".")
    )


def read_file_views(folder: Path) -> tuple[list[View], list[Problem]]:
    """The views of a folder of files, with what could not be used.

    A view is named after its file. The files are not searched in the folders below.
    """
    problems: list[Problem] = []
    found: list[tuple[Path, list[ImagePlane], int, int]] = []
    for path in study_files(folder):
        stem = shown_name(path.name[: -len(suffix_of(path))])
        if is_label_name(stem):
            problems.append(
                Problem(
                    "not-an-image",
                    "its name says that it holds labels: left out",
                    (shown_name(path.name),),
                )
            )
            continue
        try:
            geometry, phases = _grid(path, problems)
        except TomoSegError as error:
            code = "missing-geometry" if error.code == "volume-no-orientation" else error.code
            problems.append(Problem(code, f"{error.message} Left out.", (shown_name(path.name),)))
            continue
        across = _slice_axis(geometry)
        found.append((path, _planes(geometry, across), across, phases))
    stems = [shown_name(path.name[: -len(suffix_of(path))]) for path, *_ in found]
    kinds = recognise([(stem, planes) for stem, (_, planes, *_) in zip(stems, found, strict=True)])
    views = []
    for name, kind, (path, planes, across, phases) in zip(
        unique_names(stems), kinds, found, strict=True
    ):
        sources = tuple(
            tuple(FilePixels(path, across, index, phase) for index in range(len(planes)))
            for phase in range(phases)
        )
        views.append(
            View(
                shown_name(path.name),
                name,
                kind,
                tuple(planes),
                sources,
                base_first(kind, planes),
                name,
            )
        )
    return views, problems


def _grid(path: Path, problems: list[Problem]) -> tuple[Geometry, int]:
    """The voxel grid of a file and its number of phases; notes what is odd about it."""
    if suffix_of(path) not in NIFTI_SUFFIXES:
        volume, _ = read_itk_volume(path)
        check_geometry(volume.geometry, path.name)
        return volume.geometry, 1
    image = _open(path)
    shape = tuple(int(n) for n in image.shape)
    dtype = image.get_data_dtype()
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4 or dtype.names is not None or dtype.kind == "c":
        raise TomoSegError(
            "volume-not-3d",
            f"'{path.name}' is no image, stack or cine of single values but has shape {shape}.",
            "Give one 2D, 3D or 4D image of grey values.",
        )
    if min(shape) < 1 or int(np.prod(shape, dtype=np.float64)) > _MOST_VOXELS:
        raise TomoSegError(
            "volume-empty",
            f"'{path.name}' claims the shape {shape}.",
            "Export the image again.",
        )
    size = (*shape, 1, 1)[:4]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TomoSegWarning)
        affine = nifti_affine(image, path)
    for item in caught:
        warning = item.message
        if not isinstance(warning, TomoSegWarning):
            continue
        if warning.code == "volume-no-orientation":
            raise TomoSegError(
                warning.code,
                f"'{path.name}' does not say how it lies in the patient.",
                "Convert it again from its DICOM files.",
            )
        problems.append(
            Problem("contradictory-geometry", warning.message, (shown_name(path.name),))
        )
    if len(shape) == 2:
        affine = _with_third_axis(affine)
    geometry = Geometry((size[2], size[1], size[0]), affine)
    check_geometry(geometry, path.name)
    return geometry, size[3]


def _with_third_axis(affine: FloatArray) -> FloatArray:
    """The matrix of a 2D image with its third axis perpendicular, whatever the file says."""
    affine = affine.copy()
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = float(np.linalg.norm(normal))
    affine[:3, 2] = normal / length if length > 0 else 0.0
    return affine


def _slice_axis(geometry: Geometry) -> int:
    single = [axis for axis, n in enumerate(geometry.size) if n == 1]
    if len(single) == 1:
        return single[0]
    longest = int(np.argmax(geometry.spacing))
    others = np.delete(geometry.spacing, longest)
    return longest if not single and geometry.spacing[longest] > 2 * others.max() else 2


def _planes(geometry: Geometry, across: int) -> list[ImagePlane]:
    columns, rows = _IN_PLANE[across]
    shape = geometry.size[rows], geometry.size[columns]
    planes = []
    for index in range(geometry.size[across]):
        first = [0.0, 0.0, 0.0]
        first[across] = index
        origin = geometry.index_to_lps(first)
        planes.append(
            ImagePlane(origin, geometry.affine[:3, columns], geometry.affine[:3, rows], shape)
        )
    return planes


def _open(path: Path) -> nibabel.Nifti1Image:
    try:
        image = nibabel.load(path, mmap=False)
    except (ImageFileError, HeaderDataError, ValueError, KeyError) as error:
        raise TomoSegError(
            "volume-unreadable",
            f"'{path.name}' cannot be read as NIfTI: {str(error).splitlines()[0]}.",
            "Check that it is what its name says.",
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, error) from error
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti2Image)):
        raise TomoSegError(
            "volume-unreadable", f"'{path.name}' is not a NIfTI file.", "Convert it to NIfTI."
        )
    return image


# One file at a time is kept: the slices of a stack are asked for one after the other.
@lru_cache(maxsize=1)
def _frame(path: Path, modified: int, phase: int) -> Float32Array:
    """``[i, j, k]`` voxels of one phase."""
    if suffix_of(path) not in NIFTI_SUFFIXES:
        volume, _ = read_itk_volume(path)
        return np.asarray(volume.array.T, dtype=np.float32)
    image = _open(path)
    try:
        proxy = image.dataobj
        values = np.asarray(
            proxy[:, :, :, phase] if len(image.shape) > 3 else proxy, dtype=np.float32
        )
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise _broken(path, error) from error
    return values.reshape((*values.shape, 1, 1)[:3]) if values.ndim < 4 else values[..., 0]


def _broken(path: Path, error: Exception) -> TomoSegError:
    return TomoSegError(
        "volume-truncated",
        f"'{path.name}' is incomplete or damaged: {error}.",
        "Copy or download the file again.",
    )
