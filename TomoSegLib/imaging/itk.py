"""NRRD and MetaImage files, and images in memory, by SimpleITK.

It converts NRRD's `space` to LPS, keeps every digit of the geometry, and notices truncated files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path, suffix_of
from TomoSegLib.imaging.checks import (
    broken_file,
    check_size,
    not_3d,
    not_found,
    unreadable_file,
    zero_spacing,
)
from TomoSegLib.imaging.volume import Geometry, Volume, storable

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
# Before a MetaImage's or NRRD's header says where its voxels are, nobody writes more.
_MAXIMUM_HEADER_BYTES = 1 << 20


def to_sitk(volume: Volume) -> sitk.Image:
    """The volume as a SimpleITK image (a copy); booleans become uint8."""
    return sitk_image(volume.array, volume.geometry)


def sitk_image(array: npt.NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """A ``[k, j, i]`` array on its grid as a SimpleITK image (a copy)."""
    image = sitk.GetImageFromArray(storable(array))
    image.SetSpacing(geometry.spacing.tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    image.SetOrigin(geometry.origin.tolist())
    return image


def resample(image: sitk.Image, target: Geometry, interpolator: int, outside: float) -> sitk.Image:
    """A SimpleITK image on another grid of the same space."""
    return sitk.Resample(
        image,
        [int(n) for n in target.size],
        sitk.Transform(),
        interpolator,
        target.origin.tolist(),
        target.spacing.tolist(),
        target.direction.ravel().tolist(),
        outside,
    )


def geometry_of(image: sitk.Image) -> Geometry:
    """The grid of a three-dimensional SimpleITK image."""
    size = image.GetSize()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return Geometry.from_parts(
        (size[2], size[1], size[0]), image.GetSpacing(), direction, image.GetOrigin()
    )


def write_itk(image: sitk.Image, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a SimpleITK image compressed and atomically, with header fields where the format
    has them. Raises as `write_volume`."""
    for key, value in (metadata or {}).items():
        image.SetMetaData(key, value)
    # Level 1: a heatmap's float noise hardly shrinks further, and takes six times as long.
    with atomic_path(path) as temporary, _narrow_path(temporary, writing=True) as file:
        sitk.WriteImage(image, str(file), useCompression=True, compressionLevel=1)


def read_itk_volume(path: Path | str) -> tuple[Volume, dict[str, str]]:
    """Read an NRRD or MetaImage file with its header fields, whatever its voxels hold.

    Raises:
        TomoSegError: As `read_volume`, except for what `check_volume` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise not_found(path)
    with itk_reader(path) as reader:
        image = _read_itk_image(reader, path)
    volume = Volume(sitk.GetArrayFromImage(image), geometry_of(image), path.name)
    return volume, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


@contextlib.contextmanager
def itk_reader(path: Path) -> Iterator[sitk.ImageFileReader]:
    """A reader that has read the header of an NRRD or MetaImage file.

    Raises:
        TomoSegError: ``volume-unreadable``, ``volume-spacing`` or ``geometry-singular``.
    """
    with _narrow_path(path, writing=False) as file:
        _check_detached(file, path)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        nrrd = suffix_of(file) in (".nrrd", ".nhdr")
        reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _bad_header(path, error) from error
        yield reader


def _read_itk_image(reader: sitk.ImageFileReader, path: Path) -> sitk.Image:
    """Read a 3D scalar NRRD or MetaImage file; ``path`` is what it is called in messages."""
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    if components != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise not_3d(size, f"{components} components" if components > 1 else "complex", path)
    if len(size) == 4 and size[3] == 1:
        reader.SetExtractSize([*size[:3], 0])
    elif len(size) != 3:
        raise not_3d(size, "scalar", path)
    check_size(size, path.name)
    try:
        return reader.Execute()
    except RuntimeError as error:
        # ITK's own reason is of no help here: for MetaImage it is "no such file or directory".
        if "irection" in str(error) or "pacing" in str(error):
            raise _bad_header(path, error) from error
        raise broken_file(path, "its voxels are not all there") from error


def _bad_header(path: Path, error: RuntimeError) -> TomoSegError:
    text = str(error).lower()
    if "direction" in text and ("determinant" in text or "singular" in text):
        return TomoSegError(
            "geometry-singular",
            f"The direction matrix of '{path.name}' is singular: its axes do not span space.",
            "Repair the header, or convert the volume again from its DICOM files.",
        )
    if "spacing" in text and "zero" in text:
        return zero_spacing(path)
    if suffix_of(path) in (".mha", ".mhd") and "success" in text:
        return unreadable_file(path, "it has no header of MetaImage")
    return unreadable_file(path, error)


def _check_detached(file: Path, path: Path) -> None:
    """Look where a header says that the voxels are, before ITK opens anything there.

    ITK waits for ever for a pipe, and hands a pattern of MetaImage's to the C library's printf,
    which may do anything with another conversion than of one whole number.
    """
    try:
        with file.open("rb") as stream:
            header = stream.read(_MAXIMUM_HEADER_BYTES)
    except OSError as error:
        raise unreadable_file(path, error.strerror) from error
    nrrd = suffix_of(file) in (".nrrd", ".nhdr")
    if nrrd:
        header = re.split(rb"\r?\n\r?\n", header, maxsplit=1)[0]
    key = rb"data ?file\s*:" if nrrd else rb"ElementDataFile\s*[=:]"
    found = re.search(rb"(?im)^[ \t]*" + key + rb"[ \t]*([^\r\n]*)", header)
    if found is None:
        if nrrd:
            return
        raise unreadable_file(path, "its header does not say where the voxels are")
    value = found[1].strip()
    if not nrrd and value.upper() == b"LOCAL":
        return
    names = [value]
    if value.startswith(b"LIST"):
        names = [line.strip() for line in header[found.end() :].splitlines()]
    elif not nrrd and b"%" in value and not re.fullmatch(rb"[^%]*%0?\d{0,2}d[^%]*", value):
        raise unreadable_file(path, "the pattern of its files' names is not one of numbers")
    for name in filter(None, names):
        data = file.parent / os.fsdecode(name)
        with contextlib.suppress(OSError, ValueError):  # no name of a file
            if data.exists() and not data.is_file():
                raise unreadable_file(path, f"its voxels cannot be in '{data}', which is no file")


@contextlib.contextmanager
def _narrow_path(path: Path, *, writing: bool, windows: bool | None = None) -> Iterator[Path]:
    """A path that ITK can open.

    ITK's NRRD code opens files through the C library, which on Windows takes names in the
    system's code page only; there a name outside ASCII is reached through a temporary copy with
    a plain one. So is elsewhere a name that is not UTF-8, which Python cannot tell to ITK.
    """
    if windows is None:
        windows = sys.platform == "win32"
    if _is_encodable(str(path), "ascii" if windows else "utf-8"):
        yield path
        return
    base = tempfile.gettempdir()
    if not base.isascii():
        base = os.environ.get("PUBLIC", base)
    with tempfile.TemporaryDirectory(prefix="tomoseg-", dir=base) as folder:
        narrow = Path(folder) / f"volume{suffix_of(path)}"
        if writing:
            yield narrow
            shutil.copyfile(narrow, path)
        else:
            shutil.copyfile(path, narrow)
            yield narrow


def _is_encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
