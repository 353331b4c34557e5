"""The table of a study's views, which people correct and give back.

CSV with a line for each view. ``name``, ``kind``, ``use`` and ``base`` may be changed; the other
columns tell what the view is. A file ``views.csv`` in a study's folder is used on its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path
from TomoSegLib.studies.recognition import base_first
from TomoSegLib.studies.study import KINDS, Problem, Study, View

FILE_NAME = "views.csv"
COLUMNS = ("id", "name", "kind", "use", "base", "slices", "phases", "description", "file")
_NEEDED = ("id", "name", "kind", "use", "base")
_LARGEST_BYTES = 1 << 20
_LONGEST_NAME = 255  # as of the files that views are named after


def write_table(study: Study, path: Path) -> None:
    """Write the views of a study as a table, those that are not used included.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for view in (*study.views, *study.unused):
        writer.writerow(
            [
                view.id,
                view.name,
                view.kind,
                "no" if view in study.unused else "yes",
                "first" if view.base_first else "last",
                len(view.planes),
                view.phases,
                _harmless(view.description),
                _harmless(view.sources[0][0].path.name),
            ]
        )
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def set_kinds(study: Study, kinds: Mapping[str, str], path: Path) -> None:
    """Write a study's table with other kinds of views.

    Args:
        study: The study.
        kinds: The kind of each view, by its id; the others stay.
        path: The table.
    """
    views = [
        replace(
            view,
            kind=(kind := kinds.get(view.id, view.kind)),
            base_first=base_first(kind, view.planes),
        )
        for view in study.views
    ]
    write_table(replace(study, views=tuple(views)), path)


def apply_table(study: Study, path: Path) -> Study:
    """The study with its views named, typed, turned and left out as a table says.

    Views that the table does not mention stay as they are.

    Raises:
        TomoSegError: ``views-invalid``.
    """
    rows = _read(path)
    problems = list(study.problems)
    views: list[View] = []
    unused: list[View] = []
    known = {view.id for view in study.views}
    for identifier in rows:
        if identifier not in known:
            problems.append(
                Problem("views-unknown", f"the study has no view '{identifier}'", (path.name,))
            )
    for view in study.views:
        row = rows.get(view.id)
        if row is None:
            views.append(view)
        else:
            corrected = replace(
                view,
                name=row["name"] or view.name,
                kind=row["kind"],
                base_first=row["base"] != "last",
            )
            (views if row["use"] == "yes" else unused).append(corrected)
    names = [view.name for view in views]
    for name in names:
        if names.count(name) > 1:
            raise _invalid(path, f"two views are called '{name}'", "Give each its own name.")
    if not views:
        raise _invalid(path, "no view is left", "Write 'yes' under 'use' for at least one.")
    return Study(study.name, study.folder, tuple(views), tuple(problems), tuple(unused))


def _read(path: Path) -> dict[str, Mapping[str, str]]:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise _invalid(path, "it is larger than 1 MiB", "Give a table of views.")
        text = content.decode("utf-8-sig")
        # Spreadsheets of many countries write semicolons.
        first = text.split("\n", 1)[0]
        delimiter = ";" if first.count(";") > first.count(",") else ","
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        lines = list(reader)
        header = [name.strip().lower() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _invalid(path, f"it cannot be read: {error}", "Save it as CSV in UTF-8.") from error
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        columns = ", ".join(missing)
        raise _invalid(path, f"it has no column {columns}", "Start from the one that was written.")
    rows: dict[str, Mapping[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        row = {
            name: str(line.get(original) or "").strip()
            for name, original in zip(header, reader.fieldnames or (), strict=True)
        }
        for column, choices in (("kind", KINDS), ("use", ("yes", "no")), ("base", _ENDS)):
            row[column] = row[column].lower()
            if row[column] not in choices:
                raise _invalid(
                    path,
                    f"line {number} says '{row[column]}' under '{column}'",
                    f"Choose one of {', '.join(choice or 'nothing' for choice in choices)}.",
                )
        if len(row["name"]) > _LONGEST_NAME or any(
            not c.isprintable() or c in "/\\" for c in row["name"]
        ):
            raise _invalid(path, f"line {number} has no usable name", "Use a short plain name.")
        if row["id"] in rows:
            raise _invalid(path, f"line {number} repeats a view", "Keep one line for each view.")
        rows[row["id"]] = row
    return rows


_ENDS = ("first", "last", "")


def _harmless(text: str) -> str:
    """Text of a header in one line, that no spreadsheet takes for a formula."""
    text = "".join(character if character.isprintable() else " " for character in text)[:200]
    return f" {text}" if text[:1] in "=+-@" else text


def _invalid(path: Path, what: str, hint: str) -> TomoSegError:
    return TomoSegError("views-invalid", f"'{path.name}' is no table of views: {what}.", hint)
