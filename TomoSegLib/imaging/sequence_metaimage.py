"""Sequences as MetaImage files with four axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from TomoSegLib.imaging.checks import broken_file, check_size
from TomoSegLib.imaging.itk import geometry_of, itk_reader
from TomoSegLib.imaging.sequence import FrameIndex, VolumeSequence


def open_metaimage_sequence(path: Path) -> VolumeSequence | None:
    """The sequence in a MetaImage file with four axes, or None where it holds something else.

    Raises:
        TomoSegError: See `TomoSegLib.imaging.io.open_sequence`.
    """
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
