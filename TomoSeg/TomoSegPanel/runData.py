"""What goes into a run and what comes out of it, as arrays that threads may read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegPanel.mask import boundingBox
from TomoSegPanel.volumeFiles import FrameIndex, readNrrd, writeNrrd, writeSequence


@dataclass(frozen=True)
class ChannelData:
    """A volume as it goes to the worker: voxels ``[k, j, i]``, its matrix to RAS and its name.

    Of a sequence, ``frames`` are the voxels of each frame and ``index`` tells them apart.
    """

    array: np.ndarray
    ijkToRas: np.ndarray
    name: str = "volume"
    frames: Sequence[np.ndarray] = ()
    index: FrameIndex | None = None

    def write(self, folder: Path, name: str) -> Path:
        """Write it into a folder; for a thread."""
        if self.index is None:
            path = folder / f"{name}.nrrd"
            writeNrrd(path, self.array, self.ijkToRas)
        else:
            path = folder / f"{name}.seq.nrrd"
            writeSequence(path, self.frames, self.ijkToRas, self.index)
        return path


@dataclass(frozen=True)
class MapData:
    """A map ``[k, j, i]`` on the first volume's grid, and its greatest value."""

    array: np.ndarray
    maximum: float

    @classmethod
    def read(cls, path: str | Path) -> MapData:
        """Read a map that the worker has written; for a thread."""
        return cls.of(readNrrd(path))

    @classmethod
    def of(cls, array: np.ndarray) -> MapData:
        """A map of these voxels."""
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
    """What came back: the maps or, of a model that makes segmentations, the labels; the record.

    Of a sequence, ``frames`` are what came back of each frame: its labels, its maps where the
    model makes them, and its own record.
    """

    record: dict[str, Any]
    heatmap: MapData | None = None
    agreement: MapData | None = None
    labels: LabelData | None = None
    frames: Sequence[RunResult] = ()

    @classmethod
    def readSequence(cls, folder: Path, record: dict[str, Any]) -> RunResult:
        """Read the results of a sequence; for a thread."""
        records = frameRecords(record)
        heatmaps = agreements = None
        if record["task"] == "heatmap-sequence":
            heatmaps = readNrrd(folder / "heatmap.seq.nrrd")
            agreements = readNrrd(folder / "agreement.seq.nrrd")
        frames = []
        for place, each in enumerate(records):
            name = f"frame-{each['frame']['number']:04}.seg.nrrd"
            labels = LabelData.read(folder / "segmentations" / name)
            if heatmaps is None or agreements is None:
                frames.append(cls(each, labels=labels))
            else:
                maps = [MapData.of(array[place]) for array in (heatmaps, agreements)]
                frames.append(cls(each, *maps, labels))
        return cls(record, frames=frames)


def frameRecords(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The record of a run on a sequence as one of each frame; ``frame`` says which it is."""
    common = {key: value for key, value in record.items() if key not in ("frames", "directions")}
    common["task"] = str(record["task"]).removesuffix("-sequence")
    return [
        {
            **common,
            **{key: frame[key] for key in ("heatmap", "mask", "segments") if key in frame},
            "frame": {"number": int(frame["number"]), "value": str(frame["value"])},
        }
        for frame in record["frames"]
    ]
