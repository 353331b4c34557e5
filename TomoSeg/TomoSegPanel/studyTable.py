"""The table of a study's views, which people correct: between the engine, the panel and a file."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

TABLE_FILE = "views.csv"
"""Name of the table of views; the engine uses the one in a study's own folder."""

_COLUMNS = ("id", "name", "kind", "use", "base")


def kindTitles() -> dict[str, str]:
    """What a view can be, as the engine knows it, and for people."""
    return {
        "short-axis": _("Short axis"),
        "2-chamber": _("2-chamber"),
        "3-chamber": _("3-chamber"),
        "4-chamber": _("4-chamber"),
        "sagittal": _("Sagittal"),
        "coronal": _("Coronal"),
        "axial": _("Axial"),
        "unknown": _("Not recognised"),
    }


def tableRows(data: dict[str, Any]) -> list[dict[str, str]]:
    """The table of an inspected study's views, those that are not used included."""
    return [
        {name: str(view[name]) for name in _COLUMNS if name != "use"} | {"use": use}
        for use, views in (("yes", data["views"]), ("no", data["unused"]))
        for view in views
    ]


def tableText(rows: Sequence[dict[str, str]]) -> str:
    """A table of views as the engine reads it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def writeTable(path: Path, text: str) -> None:
    """Write a table so that it appears whole or not at all.

    Raises:
        OSError: It cannot be written; what was there is still there.
    """
    temporary = path.with_name(f".tomoseg-{uuid.uuid4().hex}.{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
