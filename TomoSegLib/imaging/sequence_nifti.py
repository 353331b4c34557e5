"""Sequences as NIfTI files with four axes, written frame by frame."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.imaging.nifti import nifti_header
from TomoSegLib.imaging.sequence import FrameIndex
from TomoSegLib.imaging.sequence_nrrd import gzip_writer
from TomoSegLib.imaging.volume import Geometry

_TIME_UNITS = {"s": "sec", "ms": "msec", "us": "usec"}


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
