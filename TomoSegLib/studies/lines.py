"""The lines in which a study's views cut each other, and the file ``lines.json`` with them.

For every ordered pair of views the file holds one object, in the order of the views:
``{"view", "other", "endpoints_mm", "endpoints_px"}`` or ``{"view", "other", "reason"}``.

* The line is that of the two views' middle slices (index ``N // 2`` of N slices); which slices
  those are, and of which files, stands in ``study.json``.
* ``endpoints_mm``: two points ``[x, y, z]``, LPS mm.
* ``endpoints_px``: the same two points in the view's image, ``[column, row]``, counted from
  zero, whole numbers being pixel centres.
* The line is clipped to the view's image, from the centre of its first to the centre of its last
  pixel: ``0 <= column <= columns - 1`` and ``0 <= row <= rows - 1``.
* It is left out where the planes are nearly parallel (sine of their angle below 0.1), where it
  misses the view's image, or where what lies within that misses the other view's image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from TomoSegLib.errors import shown_name
from TomoSegLib.files import atomic_path
from TomoSegLib.studies.image_plane import IntersectingLine, NoLine, intersecting_line
from TomoSegLib.studies.study import Study, View

LINES_FILE = "lines.json"
STUDY_FILE = "study.json"


def pairs(study: Study) -> Iterator[tuple[View, View, IntersectingLine | NoLine]]:
    """Every ordered pair of views with the line in which the second cuts the first."""
    for view in study.views:
        for other in study.views:
            if other is not view:
                yield view, other, intersecting_line(view.middle_plane, other.middle_plane)


def line_entries(study: Study) -> list[dict[str, Any]]:
    """What ``lines.json`` holds."""
    entries: list[dict[str, Any]] = []
    for view, other, line in pairs(study):
        entry: dict[str, Any] = {"view": view.name, "other": other.name}
        if isinstance(line, NoLine):
            entry["reason"] = f"{line.code}: {line.reason}"
        else:
            # "+ 0.0" makes a rounded -0.0 a plain zero.
            entry["endpoints_mm"] = (line.endpoints_mm.round(6) + 0.0).tolist()
            entry["endpoints_px"] = (line.endpoints_px.round(6) + 0.0).tolist()
        entries.append(entry)
    return entries


def write_lines(study: Study, path: Path) -> int:
    """Write ``lines.json``; returns how many lines there are."""
    entries = line_entries(study)
    _write_json(entries, path)
    return sum("reason" not in entry for entry in entries)


def study_record(study: Study) -> dict[str, Any]:
    """What a study holds and what could not be used, as in ``study.json``."""
    views = []
    for view in study.views:
        plane, source = view.middle_plane, view.sources[0][view.middle]
        locations = view.locations()
        views.append(
            {
                "name": view.name,
                "kind": view.kind,
                "description": view.description,
                "slices": len(view.planes),
                "phases": view.phases,
                "middle_slice": view.middle,
                "middle_slice_file": shown_name(source.path.name),
                "rows": plane.shape[0],
                "columns": plane.shape[1],
                "spacing_mm": list(plane.spacing),
                "origin_mm": plane.origin.tolist(),
                "column_direction": (plane.column_step / plane.spacing[0]).tolist(),
                "row_direction": (plane.row_step / plane.spacing[1]).tolist(),
                "relative_locations": None if locations is None else locations.tolist(),
            }
        )
    problems = [
        {"code": problem.code, "message": problem.message, "files": list(problem.files)}
        for problem in study.problems
    ]
    return {
        "study": study.name,
        "coordinates": "LPS mm; pixels [column, row] from zero, whole numbers are pixel centres; "
        "spacing_mm along a row, then along a column; origin_mm is the centre of pixel [0, 0] of "
        "the middle slice",
        "views": views,
        "problems": problems,
    }


def write_study(study: Study, path: Path) -> None:
    """Write ``study.json``."""
    _write_json(study_record(study), path)


def _write_json(document: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
