"""Stacks of images from arrays whose place in the patient is not known: MRNet and fastMRI."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.checks import MAXIMUM_SPACING_MM, MINIMUM_SPACING_MM
from TomoSegLib.imaging.volume import Geometry, Volume

MRNET_SPACING_MM = (0.6, 0.6, 3.0)
"""Nominal: MRNet publishes no pixel size. About a knee of 150 mm in 256 pixels."""

_MOST_VOXELS = 2**28
_MAX_XML_BYTES = 4 << 20


def read_mrnet(path: Path) -> Volume:
    """A stack of MRNet with its nominal spacing.

    Args:
        path: ``.npy`` of ``(slices, rows, columns)``; never unpickled.

    Raises:
        TomoSegError: ``dataset-incomplete``.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from None
    return _volume(array, MRNET_SPACING_MM, path)


def read_fastmri(path: Path) -> Volume:
    """A knee of fastMRI: its reconstruction, with the spacing of its header and no position.

    Args:
        path: HDF5 with ``reconstruction_rss`` ``(slices, rows, columns)``, or
            ``reconstruction_esc``, and ``ismrmrd_header``.

    Raises:
        TomoSegError: ``dependency-missing`` or ``dataset-incomplete``.
    """
    try:
        import h5py
    except ImportError:
        raise TomoSegError(
            "dependency-missing",
            "Reading fastMRI needs the package h5py, which is not installed.",
            "Install it: pip install 'tomoseg[fastmri]'.",
        ) from None
    try:
        with h5py.File(path, "r") as file:
            names = [n for n in ("reconstruction_rss", "reconstruction_esc") if n in file]
            if not names or "ismrmrd_header" not in file:
                raise ValueError("it holds no reconstruction with its header (a test file?)")
            header, data = file["ismrmrd_header"], file[names[0]]
            if header.shape != () or h5py.check_string_dtype(header.dtype) is None:
                raise ValueError("its header is no text")
            spacing = _ismrmrd_spacing(header[()], data.shape)
            return _volume(data, spacing, path)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, TypeError) as error:
        raise _damaged(path, (str(error).splitlines() or [type(error).__name__])[0]) from None


def _ismrmrd_spacing(text: bytes | str, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Pixel size along i and j, and slice distance, of the header's reconstructed space."""
    content = text.encode() if isinstance(text, str) else bytes(text)
    if len(content) > _MAX_XML_BYTES or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("its header is not one of ISMRMRD")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"its header cannot be read ({error})") from None
    space = root.find(".//{*}encoding/{*}reconSpace")
    sizes = []
    for name in ("fieldOfView_mm", "matrixSize"):
        element = None if space is None else space.find(f"{{*}}{name}")
        values = [
            element.findtext(f"{{*}}{axis}") if element is not None else None for axis in "xyz"
        ]
        sizes.append([float(value or "nan") for value in values])
    field, matrix = np.array(sizes)
    with np.errstate(all="ignore"):
        spacing = field / matrix
    if len(shape) == 3 and matrix[2] == 1:
        spacing[2] = field[2]  # of one slice of a 2D acquisition
    if not bool(np.all((spacing >= MINIMUM_SPACING_MM) & (spacing <= MAXIMUM_SPACING_MM))):
        raise ValueError("its header has no size of pixels that makes sense")
    return float(spacing[0]), float(spacing[1]), float(spacing[2])


def _volume(array: Any, spacing: tuple[float, float, float], path: Path) -> Volume:
    """The stack, axes ``[k, j, i]``, at a nominal place: identity directions, origin 0."""
    if (
        len(array.shape) != 3
        or array.dtype.kind not in "uif"
        or min(array.shape) < 1
        or int(np.prod(array.shape, dtype=np.float64)) > _MOST_VOXELS
    ):
        raise _damaged(path, f"it is no stack of grey images but {array.dtype} {array.shape}")
    values: npt.NDArray[Any] = np.asarray(array[...])
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise _damaged(path, "it holds values that are not finite")
    elif values.dtype.itemsize > 2:
        values = values.astype(np.float32)
    geometry = Geometry.from_parts(values.shape, spacing, np.eye(3), (0.0, 0.0, 0.0))
    return Volume(values, geometry)


def _damaged(path: Path, reason: str) -> TomoSegError:
    return TomoSegError(
        "dataset-incomplete",
        f"'{path}' cannot be used: {reason}.",
        "Unpack the data set again, or remove this file.",
    )
