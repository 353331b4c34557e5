"""Reading and writing volumes: the edge where file conventions become the project's one.

One library per format:

* NIfTI: nibabel. ITK refuses an sform whose axes are not orthonormal to its tolerance, which
  converters write all the time, and hides which of sform and qform it took.
* NRRD and MetaImage: SimpleITK, which converts NRRD's `space` to LPS, keeps every digit of the
  geometry, and notices truncated files.
* DICOM: pydicom, see `TomoSegLib.imaging.dicom`.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import math
import os
import re
import shutil
import sys
import tempfile
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.volume import FloatArray, Geometry, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
WRITABLE_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")
READABLE = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), DICOM series folder"

MINIMUM_SPACING_MM = 0.01
MAXIMUM_SPACING_MM = 100.0
# Axes further from a right angle than this are a sheared grid (an untreated gantry tilt), not
# the rounding of a converter.
MAXIMUM_SHEAR_DEGREES = 0.5

# What may follow the voxels in a compressed NIfTI file and is still read, for its checksum.
_MAXIMUM_TRAILING_MIB = 64
# Before a MetaImage's or NRRD's header says where its voxels are, nobody writes more.
_MAXIMUM_HEADER_BYTES = 1 << 20

_MM_PER_NIFTI_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def suffix_of(path: Path) -> str:
    """The suffix that decides the format, lower-case; ``.nii.gz`` counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def read_volume(path: Path | str, *, single_slice: bool = False, constant: bool = False) -> Volume:
    """Read a volume with its geometry, in the voxel type of the file.

    Integers stay integers; where the file scales its values (NIfTI ``scl_slope``, DICOM rescale)
    with anything but whole numbers the result is float32. NIfTI: the sform has precedence over
    the qform, as in the NIfTI standard.

    Args:
        path: A NIfTI, NRRD or MetaImage file, a DICOM file, or a folder of a DICOM series; one of
            several series in a folder is chosen by ``FOLDER::SeriesInstanceUID``, one of several
            volumes in a file (four axes) by ``FILE::NUMBER``, from 0.
        single_slice: Accept a grid of one slice, e.g. a single long-axis view of the heart.
        constant: Accept equal values everywhere, e.g. a mask without a voxel.

    Returns:
        The volume; array axes ``[k, j, i]``, geometry in LPS mm.

    Raises:
        TomoSegError: ``volume-not-found``, ``volume-unreadable``, ``volume-truncated``,
            ``volume-format``, ``volume-not-3d``, ``volume-empty``, ``volume-too-large``,
            ``volume-not-finite``, ``volume-constant``, ``volume-spacing``, ``geometry-singular``,
            ``geometry-invalid``, ``geometry-sheared``, ``volume-frame`` or one of the
            ``dicom-...`` codes.
    """
    path = Path(path)
    if (frame := _frame_of(path)) is not None:
        return _read_frame(*frame, single_slice=single_slice, constant=constant)
    suffix = suffix_of(path)
    if path.is_file() and suffix in NIFTI_SUFFIXES:
        volume = _read_nifti(path)
    elif path.is_file() and suffix in ITK_SUFFIXES:
        volume, _ = read_itk_volume(path)
    else:
        # Imported here: only where DICOM may be meant is pydicom worth its time.
        from TomoSegLib.imaging import dicom

        folder, series = dicom.split_path(path)
        if not folder.exists():
            raise _not_found(folder)
        if folder.is_file() and not dicom.is_dicom_file(folder):
            raise TomoSegError(
                "volume-format",
                f"'{folder.name}' is not a volume in a format that can be read.",
                f"Give one of: {READABLE}.",
            )
        volume = dicom.read_series(folder, series)
    check_volume(volume, single_slice=single_slice, constant=constant)
    return volume


def _frame_of(path: Path) -> tuple[Path, int] | None:
    """``FILE::NUMBER`` as file and number; None for a path that is something else, or exists."""
    name, separator, number = str(path).rpartition("::")
    file = Path(name)
    if not separator or not re.fullmatch(r"\d{1,9}", number) or path.exists():
        return None
    known = suffix_of(file) in (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
    return (file, int(number)) if known and file.is_file() else None


def _read_frame(path: Path, number: int, *, single_slice: bool, constant: bool) -> Volume:
    """One of the volumes of a file with several."""
    from TomoSegLib.imaging.sequence import open_sequence  # it reads by this module

    sequence = open_sequence(path)
    count = 1 if sequence is None else len(sequence)
    if sequence is None or number >= count:
        raise TomoSegError(
            "volume-frame",
            f"'{path.name}' has no volume of number {number}: it holds {count}.",
            f"Give a number from 0 to {count - 1}." if count > 1 else "Leave '::' and number out.",
        )
    sequence = replace(sequence, single_slice=single_slice)
    return next(sequence.frames([number], constant=constant))


def check_volume(volume: Volume, *, single_slice: bool = False, constant: bool = False) -> None:
    """Refuse volumes with which nothing sensible can be computed.

    Raises:
        TomoSegError: See `read_volume`.
    """
    array, name = volume.array, volume.name
    if array.size == 0:
        raise TomoSegError(
            "volume-empty",
            f"'{name}' has no voxels: its shape is {array.shape}.",
            "Export the volume again.",
        )
    if not single_slice and min(array.shape) < 2:
        raise TomoSegError(
            "volume-not-3d",
            f"'{name}' is a single slice ({_times(volume.geometry.size)}), not a volume.",
            "Give a stack of at least two slices in every direction.",
        )
    check_geometry(volume.geometry, name)
    if not _is_finite(array):
        raise TomoSegError(
            "volume-not-finite",
            f"'{name}' contains NaN or infinite values.",
            "Replace them by the background value (e.g. numpy.nan_to_num) and save the volume.",
        )
    if not constant and array.min() == array.max():
        raise TomoSegError(
            "volume-constant",
            f"Every voxel of '{name}' has the same value, {array.flat[0]}.",
            "Check that it is the image and not an empty mask, and export it again.",
        )


def check_size(shape: Sequence[int], name: str) -> None:
    """Refuse, before memory is taken, what cannot fit into the machine's as single precision.

    Raises:
        TomoSegError: ``volume-too-large``.
    """
    import psutil

    needed, there = 4 * math.prod(shape), psutil.virtual_memory().total
    if needed > there:
        raise TomoSegError(
            "volume-too-large",
            f"'{name}' has {_times(shape)} voxels by its header, which need more than the "
            f"{there / 2**30:.0f} GiB of memory of this machine.",
            "Check that its header is right; if it is, crop or resample the volume first.",
        )


def check_geometry(geometry: Geometry, name: str) -> None:
    """Refuse absurd spacing and sheared grids; see `read_volume` for the codes."""
    spacing = geometry.spacing
    if np.any(spacing < MINIMUM_SPACING_MM) or np.any(spacing > MAXIMUM_SPACING_MM):
        raise TomoSegError(
            "volume-spacing",
            f"'{name}' has an absurd voxel size of {_times(np.round(spacing, 6))} mm.",
            f"Sizes between {MINIMUM_SPACING_MM:g} and {MAXIMUM_SPACING_MM:g} mm make sense; "
            "repair the header, or convert the volume again from its DICOM files.",
        )
    cosines = np.abs(geometry.direction.T @ geometry.direction - np.eye(3))
    shear_degrees = math.degrees(math.asin(min(float(cosines.max()), 1.0)))
    if shear_degrees > MAXIMUM_SHEAR_DEGREES:
        raise TomoSegError(
            "geometry-sheared",
            f"The axes of '{name}' are not perpendicular: {shear_degrees:.1f} degrees off.",
            "Probably a CT with tilted gantry: resample it to a rectangular grid first (Slicer's "
            "DICOM module does, with 'acquisition geometry regularization').",
        )


def write_volume(volume: Volume, path: Path | str) -> None:
    """Write a volume so that the file appears complete or not at all.

    ``.nrrd``, ``.mha`` and ``.nii.gz`` are compressed. Booleans are written as uint8, half
    precision as float32. NIfTI stores the matrix in single precision, as sform and qform with
    the code for scanner coordinates.

    Raises:
        TomoSegError: ``output-format``, ``output-no-space`` or ``output-unwritable``.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in WRITABLE_SUFFIXES:
        raise TomoSegError(
            "output-format",
            f"'{path.name}' does not name a format that can be written.",
            f"Use one of the suffixes {', '.join(WRITABLE_SUFFIXES)}.",
        )
    if suffix in NIFTI_SUFFIXES:
        with atomic_path(path) as temporary:
            nibabel.save(_to_nifti(volume), temporary)
    else:
        write_itk(to_sitk(volume), path)


def hash_volume(volume: Volume) -> str:
    """SHA-256 of a volume's content: voxels, their type, and the grid.

    The same content hashes equally whatever the file's format: bytes are taken little-endian in
    C order, and the matrix in single precision (NIfTI has no more) rounded to 1e-4. The slices of a
    left-handed grid are taken in reverse, which makes it right-handed: 3D Slicer reads it so.
    """
    digest = hashlib.sha256()
    array, affine = volume.array, volume.geometry.affine
    if np.linalg.det(affine[:3, :3]) < 0:
        array, affine = array[::-1], affine.copy()
        affine[:3, 3] += (array.shape[0] - 1) * affine[:3, 2]
        affine[:3, 2] *= -1
    dtype = array.dtype.newbyteorder("<")
    digest.update(f"{dtype.kind}{dtype.itemsize} {array.shape}".encode())
    rounded = np.round(affine.astype(np.float32).astype(np.float64), 4) + 0.0
    digest.update(rounded.astype("<f8").tobytes())
    for plane in array:
        digest.update(np.ascontiguousarray(plane, dtype=dtype).data)
    return digest.hexdigest()


def to_sitk(volume: Volume) -> sitk.Image:
    """The volume as a SimpleITK image (a copy); booleans become uint8."""
    return sitk_image(volume.array, volume.geometry)


def sitk_image(array: npt.NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """A ``[k, j, i]`` array on its grid as a SimpleITK image (a copy)."""
    image = sitk.GetImageFromArray(_storable(array))
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


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block succeeds.

    It ends like ``path``, so that libraries recognise the format. Nothing stays behind on
    failure, and failures to write become `TomoSegError` ``output-no-space`` or
    ``output-unwritable``.
    """
    suffix = ".seg.nrrd" if path.name.lower().endswith(".seg.nrrd") else suffix_of(path)
    temporary = path.with_name(f".tomoseg-{uuid.uuid4().hex}{suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # SimpleITK only says that it failed; whether the disk is full has to be looked up.
        number = getattr(error, "errno", None)
        folder = path.parent
        if number in (errno.ENOSPC, errno.EDQUOT) or _free_bytes(folder) < 1 << 20:
            raise TomoSegError(
                "output-no-space",
                f"There is no space left in '{folder}' to write '{path.name}'.",
                "Free some space, or choose an output folder on another disk.",
            ) from error
        raise TomoSegError(
            "output-unwritable",
            f"'{path}' cannot be written: {_last_line(error)}.",
            "Check that the folder exists and that you may write in it.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def open_nifti(path: Path) -> nibabel.Nifti1Image:
    """A NIfTI file with its header read and checked, and its voxels still in the file.

    Raises:
        TomoSegError: ``volume-unreadable``, ``volume-truncated``, or ``volume-not-3d`` for voxels
            that are no single numbers.
    """
    try:
        # Not memory-mapped: the volume must outlive a file that is replaced meanwhile.
        image = nibabel.load(path, mmap=False)
        shape, dtype = image.shape, image.get_data_dtype()
    except (ImageFileError, HeaderDataError, ValueError, KeyError, OverflowError) as error:
        raise unreadable_file(path, error) from error
    except (OSError, EOFError, zlib.error) as error:
        raise broken_file(path, error) from error
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti2Image)):
        raise unreadable_file(path, "it is not a NIfTI file")
    if dtype.names is not None or dtype.kind == "c":
        raise _not_3d(shape, str(dtype), path)
    return image


def nifti_shape(image: nibabel.Nifti1Image) -> tuple[int, ...]:
    """The sizes along ``(i, j, k, ...)``, without axes of length one after the third.

    A trailing axis of length one is a 3D volume that some program wrote as 4D.
    """
    shape: tuple[int, ...] = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _read_nifti(path: Path) -> Volume:
    image = open_nifti(path)
    shape = nifti_shape(image)
    if len(shape) != 3:
        raise _not_3d(shape, str(image.get_data_dtype()), path)
    check_size(shape, path.name)
    geometry = Geometry((shape[2], shape[1], shape[0]), nifti_affine(image, path))
    try:
        raw = _nifti_stored(image.dataobj, path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise broken_file(path, error) from error
    array = nifti_values(raw, image.dataobj)
    # NIfTI has i fastest in memory; transposing makes the order [k, j, i] without copying.
    array = np.ascontiguousarray(array.reshape(shape).T)
    return Volume(array, geometry, path.name)


def nifti_values(raw: npt.NDArray[np.generic], proxy: ArrayProxy) -> npt.NDArray[np.generic]:
    """Voxels in native byte order; scaled ones as whole numbers where possible, else float32.

    Args:
        raw: Voxels as they are stored, of the whole file or a part.
        proxy: The file's, with its ``slope`` and ``inter``.
    """
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    slope, inter = float(proxy.slope), float(proxy.inter)
    if (slope, inter) == (1.0, 0.0):
        return raw
    if slope == 1.0 and inter.is_integer() and raw.dtype.kind in "iu" and raw.size:
        low, high = int(raw.min()) + int(inter), int(raw.max()) + int(inter)
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                shifted = raw.astype(np.int32 if raw.dtype.itemsize < 4 else np.int64)
                shifted += int(inter)
                return shifted.astype(dtype, copy=False)
    scaled = raw.astype(np.float64 if raw.dtype.itemsize == 8 else np.float32)
    scaled *= slope
    scaled += inter
    return scaled


def _nifti_stored(proxy: ArrayProxy, path: Path) -> npt.NDArray[np.generic]:
    """Voxels as they are stored; those of a compressed file with its checksum verified."""
    if suffix_of(path) != ".nii.gz":
        return np.asanyarray(proxy.get_unscaled())
    with gzip.open(path) as stream:
        specification = (proxy.shape, proxy.dtype, proxy.offset)
        raw = np.asanyarray(ArrayProxy(stream, specification, mmap=False).get_unscaled())
        read_to_end(stream)
    return raw


def read_to_end(stream: IO[bytes] | gzip.GzipFile) -> None:
    """Read what follows the voxels of a compressed stream, up to the checksum that comes last.

    Raises:
        OSError, EOFError or zlib.error: The checksum is another, or not there.
    """
    for _ in range(_MAXIMUM_TRAILING_MIB):
        if not stream.read(1 << 20):
            break


def nifti_affine(image: nibabel.Nifti1Image, path: Path) -> FloatArray:
    """Voxel index to LPS mm, from the sform if it is set, else the qform."""
    header = image.header
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except HeaderDataError as error:
        if not sform_code:
            raise unreadable_file(path, error) from error
        qform, qform_code = None, 0
    if not sform_code:
        _check_pixdim(image, path)
    if sform_code:
        ras = sform
        if qform_code and qform is not None and not np.allclose(sform, qform, rtol=0, atol=0.1):
            warnings.warn(
                TomoSegWarning(
                    "volume-two-orientations",
                    f"'{path.name}' has an sform and a qform that differ; the sform is used.",
                    "Programs that prefer the qform, Slicer among them, show it elsewhere.",
                ),
                stacklevel=2,
            )
    elif qform_code and qform is not None:
        ras = qform
    else:
        warnings.warn(
            TomoSegWarning(
                "volume-no-orientation",
                f"'{path.name}' does not say how it lies in the patient.",
                "Its axes are taken to run to the patient's left, back and head, as ITK and "
                "Slicer do; left and right may be wrong.",
            ),
            stacklevel=2,
        )
        return np.diag([*header.get_zooms()[:3], 1.0]).astype(np.float64)
    try:
        unit = _MM_PER_NIFTI_UNIT.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:
        unit = 1.0
    affine = _LPS_FROM_RAS @ np.asarray(ras, dtype=np.float64)
    affine[:3] *= unit
    return affine


def _check_pixdim(image: nibabel.Nifti1Image, path: Path) -> None:
    """Refuse voxel sizes of zero, which nibabel silently takes for 1 mm."""
    with ImageOpener(path) as stream:
        stored = type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]
    if np.any(stored == 0):
        raise _zero_spacing(path)


def _to_nifti(volume: Volume) -> nibabel.Nifti1Image:
    array = _storable(volume.array)
    header = nifti_header(volume.geometry, array.dtype)
    # 64-bit integers are valid NIfTI, but nibabel wants to be told that they are meant.
    return nibabel.Nifti1Image(array.T, header.get_sform(), header, dtype=array.dtype)


def nifti_header(
    geometry: Geometry, dtype: np.dtype[Any], more: tuple[int, ...] = ()
) -> nibabel.Nifti1Header:
    """The header of a NIfTI file on a grid, with the code for scanner coordinates.

    Args:
        geometry: The grid.
        dtype: Type of the voxels.
        more: Sizes of axes after the three in space.
    """
    affine = _LPS_FROM_RAS @ geometry.affine
    header = nibabel.Nifti1Header()
    header.set_data_shape((*geometry.size, *more))
    header.set_data_dtype(dtype)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    return header


def read_itk_volume(path: Path | str) -> tuple[Volume, dict[str, str]]:
    """Read an NRRD or MetaImage file with its header fields, whatever its voxels hold.

    Raises:
        TomoSegError: As `read_volume`, except for what `check_volume` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise _not_found(path)
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
        raise _not_3d(size, f"{components} components" if components > 1 else "complex", path)
    if len(size) == 4 and size[3] == 1:
        reader.SetExtractSize([*size[:3], 0])
    elif len(size) != 3:
        raise _not_3d(size, "scalar", path)
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
        return _zero_spacing(path)
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


def _storable(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The array in a type and layout that every format has."""
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _is_finite(array: npt.NDArray[Any]) -> bool:
    # Slice by slice: the test's temporary array stays small.
    return array.dtype.kind in "iub" or all(bool(np.isfinite(plane).all()) for plane in array)


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return sys.maxsize


def _times(values: npt.ArrayLike) -> str:
    return " x ".join(f"{value:g}" for value in np.asarray(values).tolist())


def _last_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


def _not_found(path: Path) -> TomoSegError:
    return TomoSegError(
        "volume-not-found",
        f"There is no file or folder '{path}'.",
        f"Check the path; the current folder is '{Path.cwd()}'.",
    )


def _zero_spacing(path: Path) -> TomoSegError:
    return TomoSegError(
        "volume-spacing",
        f"'{path.name}' has a voxel size of zero.",
        "Repair the header, or convert the volume again from its DICOM files.",
    )


def unreadable_file(path: Path, reason: object) -> TomoSegError:
    """The error for a file that is not what its name says."""
    return TomoSegError(
        "volume-unreadable",
        f"'{path.name}' cannot be read as {suffix_of(path)}: {_last_line(reason)}.",
        f"Check that it is what its name says, one of: {READABLE}.",
    )


def broken_file(path: Path, reason: object) -> TomoSegError:
    """The error for a file of which not everything is there."""
    return TomoSegError(
        "volume-truncated",
        f"'{path.name}' is incomplete or damaged: {_last_line(reason)}.",
        "Copy or download the file again.",
    )


def _not_3d(size: Sequence[int], kind: str, path: Path) -> TomoSegError:
    return TomoSegError(
        "volume-not-3d",
        f"'{path.name}' is not a 3D volume of single values but {_times(size)}, {kind}.",
        "Give one 3D image: extract one time point or channel, or convert colours to grey; "
        "'tomoseg run' works on every frame of a 4D image.",
    )
