"""Sequences: volumes of one grid, one after the other in time or by another index.

A sequence stays in its file and is read frame by frame, so that a long one needs no more memory
than one of its volumes. Where the frames come from:

* NIfTI with four axes: the fourth runs over the frames.
* NRRD as 3D Slicer writes sequences (``.seq.nrrd``): see `TomoSegLib.imaging.sequence_nrrd`.
* MetaImage with four axes.
* a DICOM series with several images at each position: `TomoSegLib.imaging.sequence_dicom`.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from nibabel.arrayproxy import ArrayProxy

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import suffix_of
from TomoSegLib.imaging.checks import broken_file, check_size, check_volume
from TomoSegLib.imaging.io import hash_volume, read_volume
from TomoSegLib.imaging.itk import ITK_SUFFIXES, geometry_of, itk_reader
from TomoSegLib.imaging.nifti import (
    NIFTI_SUFFIXES,
    nifti_affine,
    nifti_shape,
    nifti_values,
    open_nifti,
    read_to_end,
)
from TomoSegLib.imaging.volume import Geometry, Volume

_NIFTI_TIME_UNITS = ("sec", "msec", "usec")
_UNIT_NAMES = {"sec": "s", "msec": "ms", "usec": "us"}


@dataclass(frozen=True)
class FrameIndex:
    """What tells the frames of a sequence apart, as 3D Slicer's sequences say it.

    Attributes:
        name: What it is, such as ``time``; ``frame`` where the file says nothing.
        unit: Its unit, such as ``ms``, or empty.
        values: One a frame, as text; no two are alike.
        numeric: Whether they are numbers.
    """

    name: str
    unit: str
    values: tuple[str, ...]
    numeric: bool = True

    @classmethod
    def of_numbers(cls, count: int) -> FrameIndex:
        """Frames that are only counted, from 0."""
        return cls("frame", "", tuple(str(number) for number in range(count)))

    @classmethod
    def evenly(cls, name: str, unit: str, start: float, step: float, count: int) -> FrameIndex:
        """Frames at equal distances; they are counted where the distance is none."""
        values = [start + step * number for number in range(count)]
        texts = tuple(f"{value:.10g}" for value in values)
        if not np.all(np.isfinite(values)) or len(set(texts)) < count:
            return cls.of_numbers(count)
        return cls(name, unit, texts)

    def part(self, numbers: Sequence[int]) -> FrameIndex:
        """The index of some of the frames."""
        return FrameIndex(
            self.name, self.unit, tuple(self.values[n] for n in numbers), self.numeric
        )

    def title(self, number: int) -> str:
        """A frame's value with its unit, for people."""
        return f"{self.name} {self.values[number]} {self.unit}".rstrip()


ReadFrames = Callable[[Sequence[int]], Iterator[npt.NDArray[np.generic]]]


@dataclass(frozen=True, eq=False)
class VolumeSequence:
    """A sequence in its file.

    Attributes:
        name: What to call it in messages: usually the file's name.
        geometry: The grid of every frame.
        index: What tells the frames apart.
        single_slice: Whether frames of one slice are accepted.
    """

    name: str
    geometry: Geometry
    index: FrameIndex
    _read: ReadFrames
    single_slice: bool = False

    def __len__(self) -> int:
        return len(self.index.values)

    def frames(self, numbers: Sequence[int], *, constant: bool = False) -> Iterator[Volume]:
        """Read frames one after the other.

        Args:
            numbers: Which, ascending, from 0.
            constant: Accept frames of equal values everywhere, e.g. empty masks.

        Raises:
            TomoSegError: As `TomoSegLib.imaging.io.read_volume`; the message names the frame.
        """
        for number, array in zip(numbers, self._read(numbers), strict=True):
            volume = Volume(array, self.geometry, f"{self.name}, frame {number}")
            check_volume(volume, single_slice=self.single_slice, constant=constant)
            yield volume


def open_sequence(path: Path | str) -> VolumeSequence | None:
    """The sequence in a file, or None where it holds something else, a single volume above all.

    Only headers are read. A DICOM series is not looked at here, because whether it is a sequence
    is known only when it has been sorted: see `open_dicom_sequence`.

    Raises:
        TomoSegError: ``volume-unreadable``, ``volume-truncated``, ``volume-too-large``,
            ``sequence-unsupported`` or one of the geometry's, as for `read_volume`.
    """
    path = Path(path)
    if not path.is_file():
        return None
    suffix = suffix_of(path)
    if suffix in NIFTI_SUFFIXES:
        return _open_nifti_sequence(path)
    if suffix in (".nrrd", ".nhdr"):
        from TomoSegLib.imaging.sequence_nrrd import open_nrrd_sequence

        return open_nrrd_sequence(path)
    return _open_metaimage_sequence(path) if suffix in ITK_SUFFIXES else None


def read_volume_or_sequence(
    path: Path | str, *, single_slice: bool = False
) -> Volume | VolumeSequence:
    """A volume with its voxels, or a sequence that is still in its file.

    Args:
        path: As for `TomoSegLib.imaging.io.read_volume`.
        single_slice: Accept grids of one slice.

    Raises:
        TomoSegError: As `TomoSegLib.imaging.io.read_volume` and `open_sequence`.
    """
    sequence = open_sequence(path)
    if sequence is not None:
        return replace(sequence, single_slice=single_slice)
    try:
        return read_volume(path, single_slice=single_slice)
    except TomoSegError as error:
        if error.code != "dicom-several-volumes":
            raise
        from TomoSegLib.imaging.dicom import split_path
        from TomoSegLib.imaging.sequence_dicom import open_dicom_sequence

        sequence = open_dicom_sequence(*split_path(Path(path)))
        if sequence is None:
            raise
        return replace(sequence, single_slice=single_slice)


def hash_sequence(sequence: VolumeSequence, numbers: Sequence[int]) -> str:
    """SHA-256 of the content of some frames, the same in every file format.

    Raises:
        TomoSegError: As `VolumeSequence.frames`.
    """
    digest = hashlib.sha256()
    for frame in sequence.frames(numbers):
        digest.update(bytes.fromhex(hash_volume(frame)))
    return digest.hexdigest()


def _open_nifti_sequence(path: Path) -> VolumeSequence | None:
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
    if unit in _NIFTI_TIME_UNITS or unit == "unknown":
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


def _open_metaimage_sequence(path: Path) -> VolumeSequence | None:
    with itk_reader(path) as reader:
        size = reader.GetSize()
        if len(size) != 4 or size[3] < 2 or reader.GetNumberOfComponents() != 1:
            return None
        start, step = reader.GetOrigin()[3], reader.GetSpacing()[3]
    check_size(size[:3], path.name)
    counted = (start, step) == (0.0, 1.0)
    index = FrameIndex.evenly("frame" if counted else "time", "", start, step, size[3])

    def frame(number: int) -> sitk.Image:
        with itk_reader(path) as reader:
            reader.SetExtractIndex([0, 0, 0, number])
            reader.SetExtractSize([*size[:3], 0])
            try:
                return reader.Execute()
            except RuntimeError as error:
                raise broken_file(path, "its voxels are not all there") from error

    def read(numbers: Sequence[int]) -> Iterator[npt.NDArray[np.generic]]:
        for number in numbers:
            yield sitk.GetArrayFromImage(frame(number))

    return VolumeSequence(path.name, geometry_of(frame(0)), index, read)


def chosen_frames(text: str | None, sequence: VolumeSequence) -> list[int]:
    """The numbers of the frames that ``START:STOP[:STEP]`` or a single number means.

    Args:
        text: Half-open like a Python slice, from 0; None for all frames.
        sequence: The sequence.

    Raises:
        TomoSegError: ``frames-outside`` where there is no such frame.
    """
    count = len(sequence)
    if text is None:
        return list(range(count))
    if ":" not in text:
        numbers = [int(text)] if int(text) < count else []
    else:
        start, stop, step = ([*map(_number, text.split(":")), None])[:3]
        numbers = list(range(count))[start:stop:step]
        if stop is not None and stop > count:
            numbers = []
    if not numbers:
        raise TomoSegError(
            "frames-outside",
            f"'{sequence.name}' has {count} frames, and '{text}' names others.",
            f"Frames are counted from 0: give START:STOP within 0:{count}, or one number.",
        )
    return numbers


def _number(text: str) -> int | None:
    return int(text) if text else None


def skip(stream: IO[bytes] | gzip.GzipFile, count: int) -> None:
    """Read so many bytes and forget them.

    Raises:
        EOFError: There are fewer.
    """
    while count:
        piece = stream.read(min(count, 1 << 20))
        if not piece:
            raise EOFError("it ends too early")
        count -= len(piece)
