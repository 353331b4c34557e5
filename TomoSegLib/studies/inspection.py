"""What ``tomoseg planes inspect`` does: pictures, lines and tables of a study in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import make_folder
from TomoSegLib.studies.lines import LINES_FILE, STUDY_FILE, write_lines, write_study
from TomoSegLib.studies.pictures import Images, draw_view, read_images
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.space_picture import draw_space
from TomoSegLib.studies.study import Problem, Study, unique_names
from TomoSegLib.studies.table import FILE_NAME, write_table

SPACE_FILE = "planes.png"


@dataclass(frozen=True)
class Inspection:
    """What was found and written.

    Attributes:
        study: The study, with the problems of its pixels as well.
        lines: Number of lines in ``lines.json``.
        pictures: The files of the pictures, in the order of the views, and the one in 3D.
    """

    study: Study
    lines: int
    pictures: tuple[Path, ...]


def inspect(
    folder: Path,
    output: Path,
    table: Path | None = None,
    *,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Inspection:
    """Draw and write how a study's views lie to each other.

    Args:
        folder: The study, see `read_study`.
        output: Folder for ``lines.json``, ``study.json``, ``views.csv`` and the pictures.
        table: A corrected ``views.csv``.
        overwrite: Replace an inspection that is there.
        on_progress: Called with the stage (``read`` or ``draw``), done and total.

    Raises:
        TomoSegError: Those of `read_study`, ``output-exists``, ``output-no-space`` or
            ``output-unwritable``.
    """
    tell = on_progress or (lambda stage, done, total: None)
    if (output / LINES_FILE).exists() and not overwrite:
        raise TomoSegError(
            "output-exists",
            f"'{output}' already holds an inspection.",
            "Choose another --output, or give --overwrite.",
        )
    study = read_study(folder, table, lambda done, total: tell("read", done, total))
    make_folder(output)
    study, images = with_images(study)
    # Lines first: they need no pixels, and no picture can spoil them.
    count = write_tables(study, output)
    names = unique_names([_file_name(view.name) for view in study.views])
    total = len(study.views) + 1
    pictures = []
    for number, (view, name) in enumerate(zip(study.views, names, strict=True)):
        path = output / f"view-{name}.png"
        draw_view(study, view, images, path)
        pictures.append(path)
        tell("draw", number + 1, total)
    draw_space(study, images, output / SPACE_FILE)
    tell("draw", total, total)
    return Inspection(study, count, (*pictures, output / SPACE_FILE))


def with_images(
    study: Study, on_read: Callable[[int, int], None] | None = None
) -> tuple[Study, Images]:
    """The first phase of a study's images, and the study with what is wrong with them.

    Args:
        study: The study.
        on_read: Called with the number of images read and of all.
    """
    images, errors = read_images(study, on_read)
    damaged = tuple(Problem(error.code, error.message) for error in errors)
    return replace(study, problems=(*study.problems, *damaged)), images


def write_tables(study: Study, output: Path) -> int:
    """Write ``lines.json``, ``study.json`` and ``views.csv``; returns how many lines there are."""
    count = write_lines(study, output / LINES_FILE)
    write_study(study, output / STUDY_FILE)
    write_table(study, output / FILE_NAME)
    return count


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "view"
