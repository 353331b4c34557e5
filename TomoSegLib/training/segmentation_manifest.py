"""Which labelled volumes a segmenter learns from, and what their label maps mean."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from TomoSegLib.datasets.manifest import (
    SINGLE,
    SPLITS,
    Split,
    named_columns,
    read_rows,
    refuse_columns,
    refuse_missing_files,
)
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.file_state import file_of

_PREFIX = "image_"


@dataclass(frozen=True)
class LabelSpec:
    """One structure to segment.

    Attributes:
        name: Its name.
        values: Values of the label maps that mean it; the first is its value in results.
    """

    name: str
    values: tuple[int, ...]


def parse_labels(text: str) -> list[LabelSpec]:
    """Read ``NAME=VALUE,NAME=VALUE+VALUE,...``.

    Raises:
        TomoSegError: ``labels-invalid``.
    """
    labels: list[LabelSpec] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*([^=]{1,128}?)\s*=\s*(\d{1,3}(?:\s*\+\s*\d{1,3})*)\s*", item)
        values = tuple(int(v) for v in match[2].split("+")) if match else ()
        if match is None or not all(1 <= value <= 255 for value in values):
            raise TomoSegError(
                "labels-invalid",
                f"'{item}' in --labels is not NAME=VALUE.",
                "Example: --labels organ=1,tumour=2+3; values lie between 1 and 255.",
            )
        labels.append(LabelSpec(match[1], values))
    everything = [value for label in labels for value in label.values]
    names = [label.name for label in labels]
    if len(set(everything)) < len(everything) or len(set(names)) < len(names):
        raise TomoSegError(
            "labels-invalid",
            f"A name or value occurs twice in --labels {text}.",
            "Every value belongs to one name; several values are joined by '+'.",
        )
    return labels


@dataclass(frozen=True)
class LabelledCase:
    """One row of the manifest.

    Attributes:
        id: Its name: its first image as it is written.
        paths: Volumes of the channels, in their order.
        label: The label map.
        split: train, val or test.
        group: The patient, or what else cases share.
        modality: As it is written; may be empty.
    """

    id: str
    paths: tuple[Path, ...]
    label: Path
    split: Split
    group: str
    modality: str = ""


def read_labelled(path: Path) -> tuple[tuple[str, ...], list[LabelledCase]]:
    """Read a manifest with the columns ``image`` (or ``image_<channel>``), ``label``, ``split``.

    ``group`` (the patient), ``modality`` and ``id`` are optional, other columns are ignored.

    Returns:
        The channels' names, and the cases in the order of the rows.

    Raises:
        TomoSegError: ``manifest-not-found``, ``manifest-unreadable``, ``manifest-columns``,
            ``manifest-split``, ``manifest-duplicate``, ``manifest-leak``,
            ``manifest-missing-files``, ``manifest-split-empty``.
    """
    header, rows = read_rows(path)
    columns = image_columns(path, header, "label")
    folder = Path(os.path.abspath(path.parent))
    cases = []
    for line, row in rows:
        split = split_of(path, line, row)
        written = [row[column] for column in columns.values()]
        if not all(written) or not row["label"]:
            raise TomoSegError(
                "manifest-missing-files",
                f"{path.name}, line {line}: a volume or the label map is not named.",
                "Every case needs a volume for every channel, and a label map.",
            )
        name = row.get("id") or written[0]
        cases.append(
            LabelledCase(
                name,
                tuple(folder / file for file in written),
                folder / row["label"],
                split,
                row.get("group") or name,
                row.get("modality", ""),
            )
        )
    refuse_unsound(path, cases, [file for case in cases for file in (*case.paths, case.label)])
    return tuple(columns), cases


def image_columns(path: Path, header: Sequence[str], known: str) -> dict[str, str]:
    """The column of each channel's images, by the channel's name.

    Args:
        path: The manifest.
        header: Names of its columns.
        known: The column that says what is known of a case.

    Returns:
        In the order of the header.

    Raises:
        TomoSegError: ``manifest-columns``.
    """
    others = ("image", known, "split", "group", "modality", "id")
    columns, problems = named_columns(header, _PREFIX, others)
    problems += [f"{name} is missing" for name in (known, "split") if name not in header]
    if "image" in header and columns:
        problems.append("image and image_<channel> are both there")
    elif "image" in header:
        columns = {SINGLE: "image"}
    elif not columns:
        problems.append("image is missing")
    refuse_columns(
        path,
        header,
        problems,
        f"It needs image (or image_<channel> for each channel), {known} and split.",
    )
    return columns


def split_of(path: Path, line: int, row: Mapping[str, str]) -> Split:
    """What a row's case is for.

    Raises:
        TomoSegError: ``manifest-split``.
    """
    split = row["split"]
    if split not in SPLITS:
        raise TomoSegError(
            "manifest-split",
            f"{path.name}, line {line}: the split is {split!r}.",
            f"A split is one of {', '.join(SPLITS)}.",
        )
    return split


class KnownCase(Protocol):
    """What every kind of case has; see `LabelledCase`."""

    @property
    def id(self) -> str: ...
    @property
    def split(self) -> Split: ...
    @property
    def group(self) -> str: ...
    @property
    def paths(self) -> tuple[Path, ...]: ...


def refuse_unsound(path: Path, cases: Sequence[KnownCase], files: Sequence[Path]) -> None:
    """Refuse what no training can be sound with.

    Args:
        path: The manifest.
        cases: Its cases.
        files: All files that it names.

    Raises:
        TomoSegError: ``manifest-duplicate``, ``manifest-split-empty``, ``manifest-leak``,
            ``manifest-missing-files``.
    """
    twice = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if twice:
        raise TomoSegError(
            "manifest-duplicate",
            f"{path.name} has {twice[0]} in several rows.",
            "Keep one row for each case.",
        )
    if not any(case.split == "train" for case in cases):
        raise TomoSegError(
            "manifest-split-empty",
            f"{path.name} has no case in split train.",
            "Give some cases that split.",
        )
    trained = {case.group for case in cases if case.split == "train"}
    leaks = [case.group for case in cases if case.split != "train" and case.group in trained]
    if leaks:
        raise TomoSegError(
            "manifest-leak",
            f"{path.name} has {leaks[0]} in training and another split.",
            "Put all cases of a patient into one split: otherwise the figures are too good.",
        )
    used_by: dict[str, KnownCase] = {}
    for case in cases:
        for volume in case.paths:
            # Several volumes of one file are one examination; series of one folder need not be.
            file = file_of(volume)
            key = file if file.is_file() else volume
            other = used_by.setdefault(os.path.normpath(key), case)
            if other.split != case.split:
                raise TomoSegError(
                    "manifest-leak",
                    f"{path.name} has {volume.name} in splits {other.split} and {case.split}.",
                    "Keep it in one of them: otherwise the figures are too good.",
                )
    refuse_missing_files(path.name, files)


def fraction_of(cases: Sequence[LabelledCase], fraction: Fraction, seed: int) -> list[LabelledCase]:
    """A share of the training cases, whole groups by chance, at least one group.

    With the same seed a smaller share is a part of a larger one.
    """
    groups = sorted({case.group for case in cases})
    count = max(1, round(float(fraction * len(groups))))
    order = np.random.default_rng((seed, 7)).permutation(len(groups))
    chosen = {groups[n] for n in order[:count].tolist()}
    return [case for case in cases if case.group in chosen]
