"""A study: a patient's views, each a stack of parallel images or a single one, with its phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from TomoSegLib.studies.image_plane import ImagePlane, relative_locations, stack_positions

Float32Array = npt.NDArray[np.float32]

CARDIAC_KINDS = ("short-axis", "2-chamber", "3-chamber", "4-chamber")
KNEE_KINDS = ("sagittal", "coronal", "axial")
UNKNOWN = "unknown"
KINDS = (*CARDIAC_KINDS, *KNEE_KINDS, UNKNOWN)


class PixelSource(Protocol):
    """Where one image's pixels are; read when they are needed."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self) -> Float32Array:
        """``(rows, columns)`` values, rescaled.

        Raises:
            TomoSegError: ``volume-truncated``, ``volume-unreadable`` and the like.
        """


@dataclass(frozen=True)
class Problem:
    """Something of a study that cannot be used, or only with care.

    Attributes:
        code: Stable identifier, e.g. ``missing-geometry``.
        message: What it is and what became of it.
        files: The files concerned, relative to the study's folder.
    """

    code: str
    message: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.files[:3])
        if len(self.files) > 3:
            shown += f" and {len(self.files) - 3} more"
        return f"{shown}: {self.message}" if shown else self.message


@dataclass(frozen=True, eq=False)
class View:
    """Parallel images of one kind: a stack, or a single plane.

    Attributes:
        id: What a table of views knows it by: series and part, or file.
        name: What people call it; unique within a study.
        kind: One of `KINDS`.
        planes: The slices, in the order of the file, or along the normal for DICOM.
        sources: ``[phase][slice]``: the pixels.
        base_first: Whether slice 0 is at the base.
        description: The scanner's words, or the file's name.
        frame_of_reference: Views with different ones were not taken in one coordinate system;
            empty if not known.
    """

    id: str
    name: str
    kind: str
    planes: tuple[ImagePlane, ...]
    sources: tuple[tuple[PixelSource, ...], ...]
    base_first: bool = True
    description: str = ""
    frame_of_reference: str = ""

    @property
    def phases(self) -> int:
        """Time points; 1 if it is not a cine view."""
        return len(self.sources)

    @property
    def middle(self) -> int:
        """Index of the slice that stands for the view: N // 2."""
        return len(self.planes) // 2

    @property
    def middle_plane(self) -> ImagePlane:
        """The plane that stands for the view where it cuts another."""
        return self.planes[self.middle]

    def locations(self) -> npt.NDArray[np.float64] | None:
        """Relative location of each slice, or None where it has no meaning.

        From base (0) to apex (1) in a short-axis stack; symmetric about the middle in the knee's
        stacks; None for long-axis and unknown views and for a single slice.
        """
        symmetric = self.kind in KNEE_KINDS
        if not symmetric and self.kind != "short-axis":
            return None
        positions = stack_positions(self.planes)
        if np.ptp(positions) <= 0:
            return None
        if positions[-1] < positions[0]:
            positions = -positions
        return relative_locations(positions, base_first=self.base_first, symmetric=symmetric)


@dataclass(frozen=True, eq=False)
class Study:
    """A patient's views.

    Attributes:
        name: The folder's name.
        folder: Where it was read from.
        views: At least one.
        problems: What could not be used.
        unused: Views that a table says not to use.
    """

    name: str
    folder: Path
    views: tuple[View, ...]
    problems: tuple[Problem, ...] = ()
    unused: tuple[View, ...] = ()


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with ``-2``, ``-3`` ... where one comes again."""
    taken: set[str] = set()
    result = []
    for name in names:
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate)
        result.append(candidate)
    return result
