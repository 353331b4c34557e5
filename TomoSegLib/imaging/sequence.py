"""Sequences: volumes of one grid, one after the other in time or by another index.

A sequence stays in its file and is read frame by frame, so that a long one needs no more memory
than one of its volumes. Where the frames come from:

* NIfTI with four axes, the fourth over the frames: `TomoSegLib.imaging.sequence_nifti`.
* NRRD as 3D Slicer writes sequences (``.seq.nrrd``): `TomoSegLib.imaging.sequence_nrrd`.
* MetaImage with four axes: `TomoSegLib.imaging.sequence_metaimage`.
* a DICOM series with several images at each position: `TomoSegLib.imaging.sequence_dicom`.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.checks import check_volume
from TomoSegLib.imaging.volume import Geometry, Volume, hash_volume


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


def hash_sequence(sequence: VolumeSequence, numbers: Sequence[int]) -> str:
    """SHA-256 of the content of some frames, the same in every file format.

    Raises:
        TomoSegError: As `VolumeSequence.frames`.
    """
    digest = hashlib.sha256()
    for frame in sequence.frames(numbers):
        digest.update(bytes.fromhex(hash_volume(frame)))
    return digest.hexdigest()


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
