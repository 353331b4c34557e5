"""Sequences as NRRD files: 3D Slicer's ``.seq.nrrd``, read and written frame by frame.

The format is that of Slicer's ``vtkMRMLVolumeSequenceStorageNode``: an NRRD whose last axis is a
``list`` without a direction in space, and header fields that say what its values are. The library
that reads NRRD elsewhere knows neither, and reads and writes whole files only.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.checks import broken_file, check_size, unreadable_file
from TomoSegLib.imaging.nifti import read_to_end
from TomoSegLib.imaging.sequence import FrameIndex, VolumeSequence, skip
from TomoSegLib.imaging.volume import Geometry

_MAXIMUM_HEADER_BYTES = 1 << 22
_TYPES = {
    "int8": ("signed char", "int8", "int8_t"),
    "uint8": ("unsigned char", "uchar", "uint8", "uint8_t"),
    "int16": ("short", "short int", "signed short", "int16", "int16_t"),
    "uint16": ("unsigned short", "ushort", "unsigned short int", "uint16", "uint16_t"),
    "int32": ("int", "signed int", "int32", "int32_t"),
    "uint32": ("unsigned int", "uint", "uint32", "uint32_t"),
    "int64": ("long long int", "long long", "longlong", "int64", "int64_t"),
    "uint64": ("unsigned long long int", "unsigned long long", "ulonglong", "uint64", "uint64_t"),
    "float32": ("float",),
    "float64": ("double",),
}
_LPS_FROM = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
_FRAME_KINDS = ("list", "time", "none", "???")
_NODE_CLASSES = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")


@dataclass(frozen=True)
class _Header:
    fields: dict[str, str]
    keys: dict[str, str]
    end: int


def open_nrrd_sequence(path: Path, *, single: bool = False) -> VolumeSequence | None:
    """The sequence in an NRRD file, or None where it has not three axes in space and one beside.

    Args:
        path: The file.
        single: Whether one frame is a sequence too, rather than a volume.

    Raises:
        TomoSegError: ``sequence-unsupported`` for one that is not stored as Slicer does;
            ``volume-unreadable``, ``volume-too-large`` and the geometry's.
    """
    header = _read_header(path)
    if header is None or header.fields.get("dimension") != "4":
        return None
    fields = header.fields
    directions = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    kinds = fields.get("kinds", "domain domain domain list").split()
    if len(directions) != 4 or len(kinds) != 4 or kinds[3].lower() not in _FRAME_KINDS:
        return None
    if directions[3] != "none" or "none" in directions[:3]:
        return None
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
        dtype = np.dtype(_dtype_name(fields["type"]))
        flip = np.array(_LPS_FROM[fields["space"].lower()])
        affine = np.eye(4)
        affine[:3, :3] = np.array([_vector(text) for text in directions[:3]]).T * flip[:, None]
        affine[:3, 3] = np.array(_vector(fields.get("space origin", "(0,0,0)"))) * flip
        if len(sizes) != 4 or min(sizes) < 1:
            raise ValueError("sizes")
    except (KeyError, ValueError) as error:
        reason = str(error).strip("'\"")
        raise unreadable_file(path, f"its header makes no sense at '{reason}'") from error
    if sizes[3] == 1 and not single:
        return None
    big = fields.get("endian", "").lower() == "big"
    encoding = fields.get("encoding", "raw").lower()
    detached = "data file" in fields or "datafile" in fields
    if encoding not in ("raw", "gzip", "gz") or detached or {"line skip", "byte skip"} & {*fields}:
        raise TomoSegError(
            "sequence-unsupported",
            f"The voxels of the sequence '{path.name}' are stored in a way that is not read here "
            f"({'in another file' if detached else encoding}).",
            "Save it as .seq.nrrd in 3D Slicer, or convert it to NIfTI.",
        )
    check_size(sizes[:3], path.name)
    shape = (sizes[2], sizes[1], sizes[0])
    stored = dtype.newbyteorder(">" if big else "<")
    size = math.prod(shape) * dtype.itemsize

    def read(numbers: Sequence[int]) -> Iterator[npt.NDArray[np.generic]]:
        position = 0
        try:
            with _unpacked(path, header.end, encoding) as stream:
                for number in numbers:
                    skip(stream, number * size - position)
                    data = stream.read(size)
                    if len(data) < size:
                        raise EOFError(f"frame {number} is cut off")
                    position = (number + 1) * size
                    array = np.frombuffer(data, stored).reshape(shape)
                    yield array.astype(dtype)
                if encoding != "raw" and numbers and numbers[-1] == sizes[3] - 1:
                    read_to_end(stream)
        except (OSError, EOFError, zlib.error) as error:
            raise broken_file(path, error) from error

    index = _index(header, sizes[3])
    return VolumeSequence(path.name, Geometry(shape, affine), index, read)


@contextlib.contextmanager
def _unpacked(path: Path, start: int, encoding: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("rb") as file:
        file.seek(start)
        if encoding == "raw":
            yield file
        else:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream


def _read_header(path: Path) -> _Header | None:
    """Fields and key/value pairs; None where the file is no NRRD."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAXIMUM_HEADER_BYTES)
    except OSError as error:
        raise unreadable_file(path, error.strerror) from error
    end = re.search(rb"\r?\n\r?\n", text)
    if not text.startswith(b"NRRD"):
        return None
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in text[: end.start() if end else None].decode("utf-8", "replace").splitlines()[1:]:
        key, separator, value = line.partition(":=")
        if separator and ": " not in key:
            keys[key.strip()] = value.strip()
        elif not line.startswith("#"):
            key, separator, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    return _Header(fields, keys, end.end() if end else len(text))


def _index(header: _Header, count: int) -> FrameIndex:
    values = tuple(unquote(text) for text in header.keys.get("axis 3 index values", "").split())
    if len(values) != count or len(set(values)) < count:
        return FrameIndex.of_numbers(count)
    numeric = header.keys.get("axis 3 index type", "numeric").lower() != "text"
    if numeric and not all(map(_is_number, values)):
        return FrameIndex.of_numbers(count)
    name, unit = (_last_quoted(header.fields.get(key, "")) for key in ("labels", "units"))
    return FrameIndex(_line(name) or "time", _line(unit), values, numeric)


def _last_quoted(text: str) -> str:
    """The last of four quoted words, or nothing."""
    words = re.findall(r'"([^"]*)"', text)
    return words[3] if len(words) == 4 else ""


def _line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and letter != '"')[:60].strip()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _vector(text: str) -> list[float]:
    values = [float(value) for value in text.strip("() ").split(",")]
    if len(values) != 3:
        raise ValueError(text)
    return values


def _dtype_name(name: str) -> str:
    for dtype, names in _TYPES.items():
        if name.lower() in names:
            return dtype
    raise ValueError(name)


class SequenceWriter:
    """Writes a sequence frame by frame, in a ``with`` statement.

    The file grows while frames are computed, so it belongs into a folder that is moved into place
    when all is done.

    Args:
        path: A file that ends in ``.seq.nrrd``.
        geometry: The grid of every frame.
        index: What tells the frames apart; as many are to be written.
        dtype: Type of the voxels.
        components: Values a voxel; several make an axis of kind ``vector``, the fastest.
        fields: Further key/value pairs of the header.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        geometry: Geometry,
        index: FrameIndex,
        dtype: npt.DTypeLike = np.float32,
        components: int = 1,
        fields: dict[str, str] | None = None,
    ) -> None:
        self._dtype = np.dtype(dtype)
        vector = components > 1
        self._shape = (*geometry.shape, components) if vector else geometry.shape
        self._path = path
        self._header = _header_text(geometry, index, self._dtype, components, fields or {})
        self._stack = contextlib.ExitStack()
        self._stream: gzip.GzipFile

    def __enter__(self) -> SequenceWriter:
        file = self._stack.enter_context(self._path.open("wb"))
        file.write(self._header.encode("utf-8"))
        self._stream = self._stack.enter_context(gzip_writer(file))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def append(self, array: npt.NDArray[np.generic]) -> None:
        """Write the next frame: ``[k, j, i]`` or ``[k, j, i, component]``."""
        if array.shape != self._shape:
            raise ValueError(f"a frame of {array.shape} in a sequence of {self._shape}")
        self._stream.write(np.ascontiguousarray(array, self._dtype).data)


def gzip_writer(file: IO[bytes]) -> gzip.GzipFile:
    """A compressed stream into a file: fast, and the same content gives the same bytes."""
    return gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=1, mtime=0)


def _header_text(
    geometry: Geometry,
    index: FrameIndex,
    dtype: np.dtype[np.generic],
    components: int,
    fields: dict[str, str],
) -> str:
    def vector(values: npt.ArrayLike) -> str:
        return "(" + ",".join(f"{v + 0.0:.17g}" for v in np.asarray(values).tolist()) + ")"

    affine, vectors = geometry.affine, components > 1
    sizes = [*([components] if vectors else []), *geometry.size, len(index.values)]
    directions = [vector(affine[:3, axis]) for axis in range(3)]
    last = len(sizes) - 1
    quoted = ['""'] * last
    values = index.values if index.numeric else tuple(quote(value) for value in index.values)
    pairs = {
        "DataNodeClassName": _NODE_CLASSES[vectors],
        f"axis {last} index type": "numeric" if index.numeric else "text",
        f"axis {last} index values": " ".join(values),
        **fields,
    }
    lines = [
        "NRRD0005",
        f"type: {_TYPES[dtype.name][0]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        "space directions: " + " ".join([*(["none"] if vectors else []), *directions, "none"]),
        f"kinds: {'vector ' if vectors else ''}domain domain domain list",
        f'labels: {" ".join(quoted)} "{_line(index.name)}"',
        f'units: {" ".join(quoted)} "{_line(index.unit)}"',
        f"endian: {sys.byteorder}",
        "encoding: gzip",
        f"space origin: {vector(affine[:3, 3])}",
        *(f"{key}:={' '.join(value.split())}" for key, value in pairs.items()),
    ]
    return "\n".join(lines) + "\n\n"
