"""What a run will take: slices, memory, and time as far as runs before it tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer
import vtk

from TomoSegPanel.modelCards import Card
from TomoSegPanel.parameters import RunSettings

_BYTES_PER_VOXEL = 34.0
"""Of the volume, with one channel: what Testing/Benchmarks/memory.py measures, less the network."""


def sliceCount(volume: Any, card: Card, directions: np.ndarray) -> int:
    """The most slices that a run can have to look at.

    A box of edges ``e`` reaches ``sum |n . e|`` along a direction n; the foreground is no larger.

    Args:
        volume: The volume's node.
        card: The model's card.
        directions: ``(A, 3)`` unit vectors in RAS.
    """
    reach = np.abs(directions @ volumeEdges(volume)).sum(axis=1)
    return int(np.ceil(reach / card.sliceDistanceMm).sum())


def volumeEdges(volume: Any) -> np.ndarray:
    """The three edges of a volume as columns ``(3, 3)``, mm in RAS, before its transform."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    dimensions = np.array(volume.GetImageData().GetDimensions())
    return slicer.util.arrayFromVTKMatrix(matrix)[:3, :3] * dimensions


def memoryMb(volume: Any, card: Card) -> float:
    """Roughly the memory that a run takes besides torch and the network, MiB."""
    voxels = float(np.prod(volume.GetImageData().GetDimensions()))
    volume_mm3 = voxels * float(np.prod(volume.GetSpacing()))
    further = len(card.channels) - 1
    onModelGrid = volume_mm3 / card.spacingMm**3 * len(card.channels)
    return (voxels * (_BYTES_PER_VOXEL + 4 * further) + onModelGrid * 4 * 3) / 2**20


def _speedKey(settings: RunSettings) -> str:
    way = settings.usedMethod
    if way != "tonno":
        way += f"-{settings.camKind}"
    device = settings.device.replace(":", "-")
    return f"TomoSeg/SecondsPerSlice/{settings.card.name}/{way}/{device}"


def knownSecondsPerSlice(settings: RunSettings) -> float | None:
    """How long a slice took, when it was last measured with these settings; None where unknown."""
    value = qt.QSettings().value(_speedKey(settings))
    try:
        seconds = float(value) if value else None
    except (TypeError, ValueError):
        return None
    return seconds if seconds is not None and 0 < seconds < 3600 else None


def rememberSpeed(settings: RunSettings, secondsPerSlice: float) -> None:
    """Remember how long a slice took."""
    qt.QSettings().setValue(_speedKey(settings), str(secondsPerSlice))


def durationText(seconds: float) -> str:
    """A duration for people: ``40 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
