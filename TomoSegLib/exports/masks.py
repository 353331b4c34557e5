"""What exports of one mask and of many share: the masks, names of files, surfaces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from TomoSegLib.errors import TomoSegError
from TomoSegLib.exports.surface import surface, write_stl
from TomoSegLib.exports.terminology import terminology_of
from TomoSegLib.files import make_folder
from TomoSegLib.imaging.segmentation import read_segmentation
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.jobs.result import Record, file_hash
from TomoSegLib.models.card import Label

Format = Literal["dicom-seg", "stl", "csv"]

STATISTICS_NAME = "statistics.csv"


@dataclass
class Exported:
    """What was written, and what the user should know of it."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def claim_folder(output: Path, names: Sequence[str], overwrite: bool) -> None:
    """Make the folder, and refuse to replace files in it that may not be replaced.

    Raises:
        TomoSegError: ``output-unwritable`` or ``output-exists``.
    """
    make_folder(output, "Choose a folder in which you may write.")
    if not overwrite and (there := [name for name in names if (output / name).exists()]):
        raise TomoSegError(
            "output-exists",
            f"The folder {output} already has '{there[0]}'.",
            "Choose another --output, or allow files to be replaced with --overwrite.",
        )


def read_mask(folder: Path, name: str, result: Record) -> tuple[Volume, list[Label]]:
    """A run's mask, if it is the one that the run has written.

    Raises:
        TomoSegError: ``result-changed``, or as `read_segmentation`.
    """
    path = folder / name
    if not path.is_file() or file_hash(path) != result.files.get(name):
        raise TomoSegError(
            "result-changed",
            f"The mask {path} is not the one that the run has written.",
            "Run it again: 'tomoseg rerun' does exactly the same.",
        )
    return read_segmentation(path)


def surface_names(labels: Sequence[Label]) -> dict[int, str]:
    """File name by index of the label; the label's name is hostile until it is reduced to words."""
    names: dict[int, str] = {}
    for index, label in enumerate(labels):
        words = re.sub(r"[^\w-]+", "-", label.name).strip("-_").lower()[:60] or "segment"
        name = f"{words}.stl"
        names[index] = f"{words}-{label.value}.stl" if name in names.values() else name
    return names


def write_surfaces(
    output: Path,
    segmentation: Volume,
    labels: Sequence[Label],
    names: Mapping[int, str],
    done: Exported,
) -> None:
    """Write a surface of each label, and note which are empty.

    Args:
        output: The folder.
        segmentation: The label map.
        labels: What its values mean.
        names: File names by index of the label.
        done: Receives the files.
    """
    for index, name in names.items():
        label = labels[index]
        mask = segmentation.array == label.value
        if not mask.any():
            done.notes.append(f"The segment '{label.name}' is empty: no {name}.")
            continue
        vertices, triangles = surface(mask, segmentation.geometry)
        write_stl(output / name, vertices, triangles, label.name, terminology_of(label))
        done.files.append(output / name)
