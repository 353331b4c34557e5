"""Volumes on their way to the worker and back, as NRRD files.

Slicer's own readers and writers would do, but they work in the main thread and stop the user
interface for seconds. These need nothing but NumPy and the standard library, and work in any
thread.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

_TYPES = {
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long int",
    "uint64": "unsigned long long int",
    "float32": "float",
    "float64": "double",
}
_PIECE = 8 << 20
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class FrameIndex:
    """What tells the frames of a sequence apart: name (``time``), unit, and a value for each."""

    name: str
    unit: str
    values: Sequence[str]
    isNumeric: bool = True


def writeNrrd(path: str | Path, array: np.ndarray, ijkToRas: np.ndarray) -> None:
    """Write a volume, uncompressed.

    Args:
        path: The file.
        array: Voxels ``[k, j, i]``.
        ijkToRas: 4 x 4 matrix from voxel ``(i, j, k)`` to millimetres in RAS.

    Raises:
        OSError: The file cannot be written.
        ValueError: NRRD has no such type of voxel.
    """
    _write(path, [array], ijkToRas, None)


def writeSequence(
    path: str | Path, frames: Sequence[np.ndarray], ijkToRas: np.ndarray, index: FrameIndex
) -> None:
    """Write volumes of one grid as a sequence, uncompressed, as Slicer does.

    Args:
        path: The file, which ends in ``.seq.nrrd``.
        frames: Voxels ``[k, j, i]`` of each, all of one shape and type.
        ijkToRas: As for `writeNrrd`.
        index: What tells them apart.

    Raises:
        OSError: The file cannot be written.
        ValueError: NRRD has no such type of voxel, or the frames differ.
    """
    _write(path, frames, ijkToRas, index)


def _write(
    path: str | Path,
    frames: Sequence[np.ndarray],
    ijkToRas: np.ndarray,
    index: FrameIndex | None,
) -> None:
    first = frames[0]
    if first.dtype.name not in _TYPES:
        raise ValueError(f"voxels of type {first.dtype} cannot be written")
    if any((frame.shape, frame.dtype) != (first.shape, first.dtype) for frame in frames):
        raise ValueError("the frames are not all of one size and type")
    ijkToLps = _RAS_TO_LPS @ ijkToRas
    vectors = " ".join(_vector(ijkToLps[:3, axis]) for axis in range(3))
    sizes, many = list(reversed(first.shape)), index is not None
    header = (
        "NRRD0004\n"
        f"type: {_TYPES[first.dtype.name]}\n"
        f"dimension: {4 if many else 3}\n"
        "space: left-posterior-superior\n"
        f"sizes: {' '.join(str(size) for size in [*sizes, *([len(frames)] if many else [])])}\n"
        f"space directions: {vectors}{' none' if many else ''}\n"
        f"kinds: domain domain domain{' list' if many else ''}\n"
        f"endian: {sys.byteorder}\n"
        "encoding: raw\n"
        f"space origin: {_vector(ijkToLps[:3, 3])}\n"
    )
    if index is not None:
        kind = "numeric" if index.isNumeric else "text"
        values = index.values if index.isNumeric else [quote(value) for value in index.values]
        header += (
            f'labels: "" "" "" "{_word(index.name)}"\n'
            f'units: "" "" "" "{_word(index.unit)}"\n'
            f"axis 3 index type:={kind}\n"
            f"axis 3 index values:={' '.join(values)}\n"
        )
    with open(path, "wb") as file:
        file.write(header.encode("utf-8") + b"\n")
        for frame in frames:
            array = np.ascontiguousarray(frame, frame.dtype.newbyteorder("="))
            data = memoryview(array).cast("B")
            for start in range(0, len(data), _PIECE):
                file.write(data[start : start + _PIECE])


def readNrrd(path: str | Path) -> np.ndarray:
    """Read the voxels ``[k, j, i]`` of a file that the worker has written.

    Of a sequence they are ``[frame, k, j, i]``.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not what the worker writes.
    """
    with open(path, "rb") as file:
        if not file.readline().startswith(b"NRRD"):
            raise ValueError(f"{path} is no NRRD file")
        fields = {}
        while line := file.readline().strip():
            key, separator, value = line.decode("utf-8").partition(": ")
            if separator:
                fields[key] = value
        names = {name: dtype for dtype, name in _TYPES.items()}
        if fields.get("type") not in names or fields.get("dimension") not in ("3", "4"):
            raise ValueError(f"{path} holds no volume that can be read here")
        order = ">" if fields.get("endian") == "big" else "<"
        dtype = np.dtype(names[fields["type"]]).newbyteorder(order)
        shape = tuple(int(size) for size in reversed(fields.get("sizes", "").split()))
        if str(len(shape)) != fields["dimension"] or min(shape) < 1:
            raise ValueError(f"{path} has the sizes {fields.get('sizes')!r}")
        array = np.empty(shape, dtype)
        room, position = memoryview(array).cast("B"), 0
        unpack = _unpacker(fields.get("encoding", ""), path)
        while piece := file.read(_PIECE):
            try:
                data = unpack(piece)
            except zlib.error as error:
                raise ValueError(f"{path} is damaged: {error}") from None
            if position + len(data) > len(room):
                raise ValueError(f"{path} is longer than its header says")
            room[position : position + len(data)] = data
            position += len(data)
    if position != len(room):
        raise ValueError(f"{path} is cut off")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _unpacker(encoding: str, path: str | Path):
    if encoding == "raw":
        return lambda piece: piece
    if encoding in ("gzip", "gz"):
        return zlib.decompressobj(wbits=31).decompress
    raise ValueError(f"{path} has the encoding {encoding!r}, which is not read here")


def _word(text: str) -> str:
    """Text that can stand between quotes in a header."""
    return "".join(letter for letter in text if letter.isprintable() and letter != '"')


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
