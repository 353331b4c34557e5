"""What goes into a run and what comes out of it, as arrays that threads may read and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegPanel.mask import boundingBox
from TomoSegPanel.volumeFiles import readNrrd


@dataclass(frozen=True)
class ChannelData:
    """A volume as it goes to the worker: voxels ``[k, j, i]``, its matrix to RAS and its name."""

    array: np.ndarray
    ijkToRas: np.ndarray
    name: str = "volume"


@dataclass(frozen=True)
class MapData:
    """A map ``[k, j, i]`` on the first volume's grid, and its greatest value."""

    array: np.ndarray
    maximum: float

    @classmethod
    def read(cls, path: str | Path) -> MapData:
        """Read a map that the worker has written; for a thread."""
        array = readNrrd(path)
        return cls(array, float(array.max()))


@dataclass(frozen=True)
class LabelData:
    """The labels of a segmenter, cut to their bounding box.

    Attributes:
        array: ``[k, j, i]``; without voxels where no label was given.
        start: The voxel ``(i, j, k)`` of the first volume at which the box begins.
        shape: ``(K, J, I)`` of the whole.
        voxels: How many voxels each label has, by value.
    """

    array: np.ndarray
    start: tuple[int, int, int]
    shape: tuple[int, ...]
    voxels: dict[int, int]

    @classmethod
    def read(cls, path: str | Path) -> LabelData:
        """Read a label map that the worker has written; for a thread."""
        whole = readNrrd(path)
        box = boundingBox(whole)
        if box is None:
            return cls(whole[:0, :0, :0], (0, 0, 0), whole.shape, {})
        array = np.ascontiguousarray(whole[box])
        k, j, i = (part.start for part in box)
        values, counts = np.unique(array, return_counts=True)
        voxels = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}
        return cls(array, (i, j, k), whole.shape, voxels)


@dataclass(frozen=True)
class RunResult:
    """What came back: the maps or, of a model that makes segmentations, the labels; the record."""

    record: dict[str, Any]
    heatmap: MapData | None = None
    agreement: MapData | None = None
    labels: LabelData | None = None
