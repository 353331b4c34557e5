"""A DICOM series with several images at each position, as a sequence of volumes.

Cine phases, above all. Sorting by place and time is that of studies; see
`TomoSegLib.studies.dicom_study`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.imaging.dicom import series_slices, volume_geometry, voxels
from TomoSegLib.imaging.sequence import FrameIndex, VolumeSequence
from TomoSegLib.studies.dicom_images import DicomImage, ProblemList, dicom_image
from TomoSegLib.studies.dicom_study import stack_slices

_KINDS = (("time", "ms"), ("phase", ""), ("instance", ""))


def open_dicom_sequence(path: Path, series_uid: str | None = None) -> VolumeSequence | None:
    """The sequence in a DICOM series, or None where there is one image at each position.

    Args:
        path: As for `TomoSegLib.imaging.dicom.read_series`.
        series_uid: Likewise.

    Raises:
        TomoSegError: As there, for the positions of one phase.
    """
    slices, name = series_slices(path, series_uid)
    problems = ProblemList()
    images = [dicom_image(item, item.path.name) for item in slices]
    at = stack_slices(images, problems, pairs=True)
    count = len(at[0])
    if count < 2:
        return None
    for problem in problems.listed():
        warnings.warn(
            TomoSegWarning(
                f"dicom-{problem.code}",
                f"'{name}': {problem.message}: {', '.join(problem.files[:3])}.",
            ),
            stacklevel=2,
        )
    phases = [[images_here[phase].slice for images_here in at] for phase in range(count)]
    geometry = volume_geometry(phases[0], name)

    def read(numbers: Sequence[int]) -> Iterator[npt.NDArray[np.generic]]:
        for number in numbers:
            yield voxels(phases[number], f"{name}, frame {number}")

    return VolumeSequence(name, geometry, _index(at[0], name), read)


def _index(first: Sequence[DicomImage], name: str) -> FrameIndex:
    """The times of the first slice's phases."""
    for kind, (title, unit) in enumerate(_KINDS):
        values = [image.times[kind] for image in first]
        texts = tuple(f"{value:.10g}" for value in values if value is not None)
        if len(texts) == len(first) and len(set(texts)) == len(first):
            if kind == 2:
                warnings.warn(
                    TomoSegWarning(
                        "dicom-frames-by-number",
                        f"The images of '{name}' at one position do not say when they were taken; "
                        "they are taken in the order of their numbers.",
                        "If they are echoes or b-values, each frame has another contrast.",
                    ),
                    stacklevel=3,
                )
            return FrameIndex(title, unit, texts)
    return FrameIndex.of_numbers(len(first))
