"""Sequences as NIfTI files with four axes, read and written frame by frame."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy

from TomoSegLib.files import suffix_of
from TomoSegLib.imaging.checks import broken_file, check_size
from TomoSegLib.imaging.nifti import (
    nifti_affine,
    nifti_header,
    nifti_shape,
    nifti_values,
    open_nifti,
    read_to_end,
)
from TomoSegLib.imaging.sequence import FrameIndex, VolumeSequence
from TomoSegLib.imaging.sequence_nrrd import gzip_writer
from TomoSegLib.imaging.volume import Geometry

_TIME_UNITS = {"s": "sec", "ms": "msec", "us": "usec"}  # ours, and nibabel's
_UNIT_NAMES = {name: unit for unit, name in _TIME_UNITS.items()}


def open_nifti_sequence(path: Path) -> VolumeSequence | None:
    """The sequence in a NIfTI file with four axes, or None where it holds a volume.

    Raises:
        TomoSegError: See `TomoSegLib.imaging.io.open_sequence`.
    """
    image = open_nifti(path)
    shape = nifti_shape(image)
    if len(shape) != 4:
        return None
    grid, count = shape[:3], shape[3]
    check_size(grid, path.name)
    geometry = Geometry((grid[2], grid[1], grid[0]), nifti_affine(image, path))
    header = image.header
    try:
        unit = header.get_xyzt_units()[1]
    except KeyError:
        unit = "unknown"
    index = FrameIndex.of_numbers(count)
    if unit in _UNIT_NAMES or unit == "unknown":
        start, step = float(header["toffset"]), float(header["pixdim"][4])
        if unit != "unknown" or (start, step) != (0.0, 1.0):
            index = FrameIndex.evenly("time", _UNIT_NAMES.get(unit, ""), start, step, count)
    proxy = image.dataobj
    size = int(np.prod(grid)) * proxy.dtype.itemsize

    def read(numbers: Sequence[int]) -> Iterator[npt.NDArray[np.generic]]:
        packed = suffix_of(path) == ".nii.gz"
        try:
            stream: IO[bytes] | gzip.GzipFile
            with gzip.open(path) if packed else path.open("rb") as stream:
                for number in numbers:
                    # Frames follow each other, so a compressed stream is unpacked only once.
                    place = (grid, proxy.dtype, proxy.offset + number * size)
                    raw = ArrayProxy(stream, place, mmap=False).get_unscaled()
                    values = nifti_values(np.asanyarray(raw), proxy)
                    yield np.ascontiguousarray(values.reshape(grid).T)
                if packed and numbers and numbers[-1] == count - 1:
                    read_to_end(stream)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise broken_file(path, error) from error

    return VolumeSequence(path.name, geometry, index, read)


class NiftiSequenceWriter:
    """Writes a ``.nii.gz`` with four axes frame by frame, in a ``with`` statement.

    The distance of the frames is kept where it is the same for all; what else tells them apart
    NIfTI cannot say.

    Args:
        path: The file, in a folder that is moved into place when all is done.
        geometry: The grid of every frame.
        index: What tells the frames apart; as many are to be written.
        dtype: Type of the voxels.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(
        self, path: Path, geometry: Geometry, index: FrameIndex, dtype: npt.DTypeLike
    ) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self._header = nifti_header(geometry, self._dtype, (len(index.values),))
        if (steps := _steps(index)) is not None:
            self._header["toffset"], self._header["pixdim"][4] = steps
            self._header.set_xyzt_units("mm", _TIME_UNITS.get(index.unit, "unknown"))
        self._shape = geometry.shape
        self._stack = contextlib.ExitStack()
        self._stream: gzip.GzipFile

    def __enter__(self) -> NiftiSequenceWriter:
        file = self._stack.enter_context(self._path.open("wb"))
        self._stream = self._stack.enter_context(gzip_writer(file))
        self._header.write_to(self._stream)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def append(self, array: npt.NDArray[np.generic]) -> None:
        """Write the next frame ``[k, j, i]``."""
        if array.shape != self._shape:
            raise ValueError(f"a frame of {array.shape} in a sequence of {self._shape}")
        self._stream.write(np.ascontiguousarray(array, self._dtype).data)


def _steps(index: FrameIndex) -> tuple[float, float] | None:
    """First value and distance of evenly spaced frames."""
    if not index.numeric or len(index.values) < 2:
        return None
    values = np.array([float(value) for value in index.values])
    steps = np.diff(values)
    if steps[0] <= 0 or not np.allclose(steps, steps[0], rtol=1e-3):
        return None
    return float(values[0]), float(steps.mean())
