"""``manifest.csv``: which volumes there are, what is known of each, and what each is used for.

One row a case, comma-separated, UTF-8, with a header. Columns, in any order:

* ``path``: the volume file (or DICOM folder) of a case with one channel; or, for several channels,
  one column ``path_<channel>`` each, e.g. ``path_flair``, ``path_t1c``.
* ``label``: 1 where the volume shows what is looked for, 0 where it does not.
* ``split``: ``train``, ``val`` or ``test``.
* ``mask`` (optional): a label map of what is looked for, on any grid; every value above zero
  counts. Never used for training, only for calibration and evaluation.
* ``group`` (optional): what cases share when they are not independent: the patient, or the
  anatomy that simulated cases were made from. A group in training and another split is an error.
* ``id`` (optional): unique name of the case; by default its first path as it is written.

Paths are relative to the manifest's own folder, or absolute. Other columns are ignored.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.file_state import file_of
from TomoSegLib.models.card import MOST_CHANNELS, NAME

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = get_args(Split)
SINGLE = "image"
"""Name of the only channel of a manifest that has a plain ``path`` column."""

_PREFIX = "path_"
_NAMED_IN_MESSAGE = 3


@dataclass(frozen=True)
class Case:
    """One row of a manifest, its paths resolved.

    Attributes:
        id: Unique name of the case in its manifest.
        paths: Path of each channel's volume, by the channel's name.
        label: 1 if the volume shows what is looked for, else 0.
        split: What the case is used for.
        mask: Path of its label map, if there is one.
        group: What dependent cases share; its own id where the manifest has none.
    """

    id: str
    paths: Mapping[str, Path]
    label: int
    split: Split
    mask: Path | None = None
    group: str = ""

    def channel_paths(self, channels: Sequence[str]) -> list[Path]:
        """Paths of the named channels, in their order.

        A manifest with one plain ``path`` fits any model with one channel, whatever its name.

        Raises:
            TomoSegError: ``manifest-channels`` if the case lacks one of them.
        """
        if len(channels) == 1 and set(self.paths) == {SINGLE}:
            return [self.paths[SINGLE]]
        missing = [name for name in channels if name not in self.paths]
        if missing:
            raise TomoSegError(
                "manifest-channels",
                f"Case {self.id!r} has no volume for channel {', '.join(missing)}.",
                "The model needs a column "
                + ", ".join(_PREFIX + name for name in channels)
                + " in the manifest.",
            )
        return [self.paths[name] for name in channels]


@dataclass(frozen=True)
class Manifest:
    """The cases of a manifest, in the order of its rows.

    Attributes:
        path: The CSV file.
        channels: Names of the channels that every case has.
        cases: One entry a row.
    """

    path: Path
    channels: tuple[str, ...]
    cases: tuple[Case, ...]

    def split(self, *names: Split, both_classes: bool = False) -> list[Case]:
        """The cases of the named splits, in the order of the rows.

        Args:
            names: One or several splits.
            both_classes: Whether a split with positives alone or negatives alone is an error, as
                it is for training a classifier.

        Raises:
            TomoSegError: ``manifest-split-empty`` or ``manifest-one-class``.
        """
        wanted = " and ".join(names)
        cases = [case for case in self.cases if case.split in names]
        if not cases:
            present = ", ".join(sorted({case.split for case in self.cases}))
            raise TomoSegError(
                "manifest-split-empty",
                f"{self.path.name} has no case in split {wanted} (it has {present}).",
                "Give some cases that split, or ask for another one.",
            )
        labels = {case.label for case in cases}
        if both_classes and len(labels) == 1:
            raise TomoSegError(
                "manifest-one-class",
                f"All {len(cases)} cases of split {wanted} in {self.path.name} "
                f"have label {labels.pop()}.",
                "A classifier needs volumes with and without the finding: add the other kind.",
            )
        return cases


def read_manifest(path: Path, *, check_files: bool = True) -> Manifest:
    """Read and check a manifest.

    Args:
        path: The CSV file.
        check_files: Whether every volume and mask must exist now.

    Raises:
        TomoSegError: ``manifest-not-found``, ``manifest-unreadable``, ``manifest-columns``,
            ``manifest-empty``, ``manifest-label``, ``manifest-split``, ``manifest-path``,
            ``manifest-duplicate``, ``manifest-leak`` or ``manifest-missing-files``.
    """
    path = Path(path)
    header, rows = read_rows(path)
    columns = _channel_columns(path, header)
    if not rows:
        raise TomoSegError(
            "manifest-empty",
            f"{path.name} has a header and no case.",
            "Add one row a volume.",
        )
    cases = tuple(_parse(path, line, row, columns) for line, row in rows)
    _refuse_repeats(path, cases)
    _refuse_leaks(path, cases)
    if check_files:
        refuse_missing_files(
            path.name, (f for c in cases for f in (*c.paths.values(), c.mask) if f)
        )
    return Manifest(path, tuple(columns), cases)


def write_manifest(path: Path, cases: Iterable[Case]) -> None:
    """Write a manifest, atomically; files below its folder are named relative to it.

    Args:
        path: The CSV file; its folder exists.
        cases: Cases with the same channels each. Those of a single channel named ``SINGLE``
            become a plain ``path`` column.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    path = Path(path)
    cases = list(cases)
    channels = list(cases[0].paths) if cases else [SINGLE]
    columns = {name: "path" if channels == [SINGLE] else _PREFIX + name for name in channels}
    folder = path.parent.resolve()

    def written(file: Path | None) -> str:
        if file is None:
            return ""
        absolute = Path(os.path.abspath(file))
        return (
            absolute.relative_to(folder).as_posix()
            if absolute.is_relative_to(folder)
            else str(absolute)
        )

    # Imported here: who only reads manifests needs no library for volumes.
    from TomoSegLib.files import atomic_path

    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", *columns.values(), "label", "split", "mask", "group"])
        for case in cases:
            files = [written(case.paths[name]) for name in channels]
            writer.writerow(
                [case.id, *files, case.label, case.split, written(case.mask), case.group]
            )


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows of a table with their line numbers; blank lines are skipped.

    Raises:
        TomoSegError: ``manifest-not-found`` or ``manifest-unreadable``.
    """
    if not path.is_file():
        raise TomoSegError(
            "manifest-not-found",
            f"There is no manifest {path}.",
            "Check the path; a manifest is a CSV file, one row a case.",
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = []
            for values in reader:
                if not any(value.strip() for value in values):
                    continue
                if len(values) != len(header):
                    raise csv.Error(
                        f"line {reader.line_num} has {len(values)} values for {len(header)} columns"
                    )
                row = dict(zip(header, (value.strip() for value in values), strict=True))
                rows.append((reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TomoSegError(
            "manifest-unreadable",
            f"{path.name} cannot be read as a comma-separated table: {error}.",
            "Save it as CSV in UTF-8, with commas, and quotes around values that contain commas.",
        ) from error
    return header, rows


def named_columns(
    header: Sequence[str], prefix: str, others: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """The columns of several channels.

    Args:
        header: Names of a manifest's columns.
        prefix: What such names begin with.
        others: Names of the other columns that mean something.

    Returns:
        Each channel's column by the channel's name, in small letters as models have it; and what is
        wrong with names, said so that it can stand in an error.
    """
    columns: dict[str, str] = {}
    used = [name for name in header if name in others or name.startswith(prefix)]
    problems = [f"{name} occurs {n} times" for name, n in Counter(used).items() if n > 1]
    for column in header:
        if not column.startswith(prefix):
            continue
        name = column[len(prefix) :].lower()
        if not name:
            problems.append(f"{column} names no channel")
        elif not re.fullmatch(NAME, name):
            problems.append(f"{column} is no name of a channel: use letters, digits, '.', '-', '_'")
        elif columns.setdefault(name, column) != column:
            problems.append(f"{columns[name]} and {column} are one channel: case does not count")
    if len(columns) > MOST_CHANNELS:
        problems.append(f"{len(columns)} channels are more than {MOST_CHANNELS}")
    return columns, problems


def _channel_columns(path: Path, header: list[str]) -> dict[str, str]:
    """Column of each channel, by the channel's name."""
    others = ("path", "label", "split", "mask", "group", "id")
    columns, problems = named_columns(header, _PREFIX, others)
    problems += [f"{name} is missing" for name in ("label", "split") if name not in header]
    if "path" in header and columns:
        problems.append("path and path_<channel> are both there")
    elif "path" in header:
        columns = {SINGLE: "path"}
    elif not columns:
        problems.append("path is missing")
    refuse_columns(
        path,
        header,
        problems,
        "It needs path (or path_<channel> for each channel), label and split; mask, group and id "
        "are optional.",
    )
    return columns


def refuse_columns(path: Path, header: Sequence[str], problems: Sequence[str], hint: str) -> None:
    """Raise ``manifest-columns`` where there are problems with a manifest's header.

    Args:
        path: The manifest.
        header: Names of its columns.
        problems: What is wrong with them.
        hint: What would be right.
    """
    if problems:
        separated = any(separator in "".join(header) for separator in ";\t")
        raise TomoSegError(
            "manifest-columns",
            f"The header of {path.name} is not that of a manifest: {', '.join(problems)}.",
            "Separate the columns by commas." if separated else hint,
        )


def _parse(path: Path, line: int, row: Mapping[str, str], columns: Mapping[str, str]) -> Case:
    where = f"{path.name}, line {line}"
    if row["label"] not in ("0", "1"):
        raise TomoSegError(
            "manifest-label",
            f"{where}: the label is {row['label']!r}.",
            "A label is 1 (the volume shows what is looked for) or 0 (it does not).",
        )
    if row["split"] not in SPLITS:
        raise TomoSegError(
            "manifest-split",
            f"{where}: the split is {row['split']!r}.",
            f"A split is one of {', '.join(SPLITS)}.",
        )
    empty = [column for column in columns.values() if not row[column]]
    if empty:
        raise TomoSegError(
            "manifest-path",
            f"{where}: {', '.join(empty)} is empty.",
            "Every case needs a volume for every channel.",
        )
    # os.path.abspath, unlike Path.resolve, leaves links alone: names in messages stay familiar
    folder = Path(os.path.abspath(path.parent))
    identity = row.get("id") or row[next(iter(columns.values()))]
    return Case(
        id=identity,
        paths={name: folder / row[column] for name, column in columns.items()},
        label=int(row["label"]),
        split=row["split"],
        mask=folder / row["mask"] if row.get("mask") else None,
        group=row.get("group") or identity,
    )


def _refuse_repeats(path: Path, cases: Sequence[Case]) -> None:
    keys: dict[str, Callable[[Case], object]] = {
        "id": lambda case: case.id,
        "volume": lambda case: tuple(os.path.normpath(file) for file in case.paths.values()),
    }
    for what, key in keys.items():
        counts = Counter(key(case) for case in cases)
        repeated = [case.id for case in cases if counts[key(case)] > 1]
        if repeated:
            raise TomoSegError(
                "manifest-duplicate",
                f"{path.name} has the same {what} in several rows: {_some(repeated)}.",
                "Keep one row for each case.",
            )


def _refuse_leaks(path: Path, cases: Sequence[Case]) -> None:
    """What was trained on must not be measured on.

    Validation and test data may share a group: simulated sets with two heads have no third.
    """
    splits: dict[str, set[str]] = {}
    for case in cases:
        splits.setdefault(case.group, set()).add(case.split)
    leaks = [group for group, names in splits.items() if "train" in names and len(names) > 1]
    if leaks:
        raise TomoSegError(
            "manifest-leak",
            f"{path.name} has the same group in training and other splits: {_some(leaks)}.",
            "Put all cases of a patient or base anatomy into one split: otherwise the figures on "
            "validation and test data are too good.",
        )


def refuse_missing_files(manifest: str, files: Iterable[Path]) -> None:
    """Refuse a manifest, called so, whose files are not all there; ``::`` may follow each.

    Raises:
        TomoSegError: ``manifest-missing-files``.
    """
    files = list(files)
    missing = [str(file) for file in files if not file_of(file).exists()]
    if missing:
        raise TomoSegError(
            "manifest-missing-files",
            f"{len(missing)} of the {len(files)} files in {manifest} are not there: "
            f"{_some(missing)}.",
            "Paths are relative to the manifest's folder: move it, or correct them.",
        )


def _some(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = len(unique) - _NAMED_IN_MESSAGE
    return ", ".join(unique[:_NAMED_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
