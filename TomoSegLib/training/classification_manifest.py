"""Which stacks a classifier learns from, and their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from TomoSegLib.datasets.manifest import Split, read_rows
from TomoSegLib.errors import TomoSegError
from TomoSegLib.training.segmentation_manifest import image_columns, refuse_unsound, split_of

_MOST_CLASSES = 255
_LONGEST_NAME = 128


@dataclass(frozen=True)
class ClassifiedCase:
    """One row of the manifest.

    Attributes:
        id: Its name: its first image as it is written.
        paths: Volumes of the channels, in their order.
        class_name: What the stack shows.
        split: train, val or test.
        group: The patient, or what else cases share.
        modality: As it is written; may be empty.
    """

    id: str
    paths: tuple[Path, ...]
    class_name: str
    split: Split
    group: str
    modality: str = ""


@dataclass(frozen=True)
class ClassifiedCases:
    """A manifest.

    Attributes:
        channels: Names of the channels.
        classes: Names of the classes that the training rows have, sorted.
        cases: In the order of the rows.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    cases: tuple[ClassifiedCase, ...]


def read_classified(path: Path) -> ClassifiedCases:
    """Read a manifest with the columns ``image`` (or ``image_<channel>``), ``class``, ``split``.

    ``group`` (the patient), ``modality`` and ``id`` are optional, other columns are ignored.

    Raises:
        TomoSegError: ``manifest-not-found``, ``manifest-unreadable``, ``manifest-columns``,
            ``manifest-split``, ``manifest-class``, ``manifest-one-class``,
            ``manifest-duplicate``, ``manifest-leak``, ``manifest-missing-files``,
            ``manifest-split-empty``.
    """
    header, rows = read_rows(path)
    columns = image_columns(path, header, "class")
    folder = Path(os.path.abspath(path.parent))
    cases = []
    for line, row in rows:
        split = split_of(path, line, row)
        written = [row[column] for column in columns.values()]
        if not all(written):
            raise TomoSegError(
                "manifest-missing-files",
                f"{path.name}, line {line}: a volume is not named.",
                "Every case needs a volume for every channel.",
            )
        _check_class(f"{path.name}, line {line}", row["class"])
        name = row.get("id") or written[0]
        cases.append(
            ClassifiedCase(
                name,
                tuple(folder / file for file in written),
                row["class"],
                split,
                row.get("group") or name,
                row.get("modality", ""),
            )
        )
    refuse_unsound(path, cases, [file for case in cases for file in case.paths])
    return ClassifiedCases(tuple(columns), _classes(path, cases), tuple(cases))


def _check_class(where: str, name: str) -> None:
    problem = ""
    if not name:
        problem = "the class is empty"
    elif len(name) > _LONGEST_NAME:
        problem = f"the class has more than {_LONGEST_NAME} letters"
    elif not name.isprintable():
        problem = f"the class {name!r} has letters that cannot be shown"
    if problem:
        raise TomoSegError(
            "manifest-class",
            f"{where}: {problem}.",
            "Give every case the name of its class, for example normal or dilated.",
        )


def _classes(path: Path, cases: Sequence[ClassifiedCase]) -> tuple[str, ...]:
    classes = sorted({case.class_name for case in cases if case.split == "train"})
    if len(classes) < 2:
        raise TomoSegError(
            "manifest-one-class",
            f"All cases of split train in {path.name} have the class {classes[0]}.",
            "A classifier needs cases of two classes or more: add those of another one.",
        )
    if len(classes) > _MOST_CLASSES:
        raise TomoSegError(
            "manifest-class",
            f"{path.name} has {len(classes)} classes; there can be {_MOST_CLASSES}.",
            "The column class holds names of classes, no values of each case: check it.",
        )
    for case in cases:
        if case.class_name not in classes:
            raise TomoSegError(
                "manifest-class",
                f"{path.name} has the class {case.class_name} in split {case.split} ({case.id}), "
                "and no case of it in split train.",
                f"Correct its name (the classes are {', '.join(classes[:10])}), or add cases of "
                "this class to split train.",
            )
    return tuple(classes)


def fraction_of_classes(
    cases: Sequence[ClassifiedCase], fraction: Fraction, seed: int
) -> list[ClassifiedCase]:
    """A share of the training cases of every class, whole groups by chance, one group at least.

    With the same seed a smaller share is a part of a larger one.
    """
    chosen: set[str] = set()
    for number, name in enumerate(sorted({case.class_name for case in cases})):
        groups = sorted({case.group for case in cases if case.class_name == name})
        count = max(1, round(float(fraction * len(groups))))
        order = np.random.default_rng((seed, 8, number)).permutation(len(groups))
        chosen |= {groups[n] for n in order[:count].tolist()}
    return [case for case in cases if case.group in chosen]
