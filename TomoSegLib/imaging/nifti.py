"""NIfTI files, by nibabel.

ITK refuses an sform whose axes are not orthonormal to its tolerance, which converters write all the
time, and hides which of sform and qform it took.
"""

from __future__ import annotations

import gzip
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.files import suffix_of
from TomoSegLib.imaging.checks import broken_file, check_size, not_3d, unreadable_file, zero_spacing
from TomoSegLib.imaging.volume import FloatArray, Geometry, Volume, storable

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# What may follow the voxels in a compressed NIfTI file and is still read, for its checksum.
_MAXIMUM_TRAILING_MIB = 64
_MM_PER_NIFTI_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
        raise not_3d(shape, str(dtype), path)
    return image


def nifti_shape(image: nibabel.Nifti1Image) -> tuple[int, ...]:
    """The sizes along ``(i, j, k, ...)``, without axes of length one after the third.

    A trailing axis of length one is a 3D volume that some program wrote as 4D.
    """
    shape: tuple[int, ...] = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file with one volume; raises as `TomoSegLib.imaging.io.read_volume`."""
    image = open_nifti(path)
    shape = nifti_shape(image)
    if len(shape) != 3:
        raise not_3d(shape, str(image.get_data_dtype()), path)
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
        raise zero_spacing(path)


def to_nifti(volume: Volume) -> nibabel.Nifti1Image:
    """The volume as nibabel writes it; see `TomoSegLib.imaging.io.write_volume`."""
    array = storable(volume.array)
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
