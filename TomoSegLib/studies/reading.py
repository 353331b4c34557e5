"""Reading a study, whatever its files are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from TomoSegLib.errors import TomoSegError, shown_name
from TomoSegLib.imaging.checks import READABLE
from TomoSegLib.studies.dicom_images import has_dicom
from TomoSegLib.studies.dicom_study import read_dicom_views
from TomoSegLib.studies.file_study import read_file_views, study_files
from TomoSegLib.studies.recognition import looks_turned
from TomoSegLib.studies.study import KNEE_KINDS, Problem, Study
from TomoSegLib.studies.table import FILE_NAME, apply_table


def read_study(
    folder: Path | str,
    table: Path | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> Study:
    """Read a patient's views from a folder of DICOM files, or of NIfTI, NRRD or MetaImage files.

    What cannot be used is left out and listed in the study's problems; pixels are read later,
    when they are asked for.

    Args:
        folder: DICOM is searched in the folders below as well, other files are not.
        table: A corrected table of views, see `TomoSegLib.studies.table`. Default: the
            ``views.csv`` in the folder, if there is one.
        on_read: Called with the number of files read and of all.

    Raises:
        TomoSegError: ``study-not-found``, ``study-empty``, ``study-mixed-patients`` or
            ``views-invalid``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TomoSegError(
            "study-not-found",
            f"There is no folder '{folder}'.",
            "Give the folder of one patient's study.",
        )
    if has_dicom(folder):
        views, problems = read_dicom_views(folder, on_read)
        if study_files(folder):
            names = tuple(shown_name(path.name) for path in study_files(folder))
            problems.append(Problem("not-used", "not read beside DICOM files", names))
    else:
        views, problems = read_file_views(folder)
    if not views:
        reasons = "; ".join(str(problem) for problem in problems[:5])
        raise TomoSegError(
            "study-empty",
            f"'{folder}' contains no view that can be used" + (f": {reasons}." if reasons else "."),
            f"Give a folder with one patient's views: DICOM files or {READABLE}.",
        )
    study = Study(shown_name(folder.resolve().name), folder, tuple(views), tuple(problems))
    if table is None and (folder / FILE_NAME).is_file():
        table = folder / FILE_NAME
    if table is not None:
        study = apply_table(study, table)
    return replace(study, problems=(*study.problems, *_limits(study)))


def _limits(study: Study) -> list[Problem]:
    """What the views that are there do not allow."""
    problems = []
    if len(study.views) == 1:
        only = study.views[0]
        problems.append(
            Problem(
                "single-view",
                "the study has a single view: there is nothing that could cut it",
                (shown_name(only.sources[0][0].path.name),),
            )
        )
    for view in study.views:
        if view.kind == "short-axis" and looks_turned(view.planes[0]):
            problems.append(
                Problem(
                    "contradictory-geometry",
                    f"the stack '{view.name}' would fit a heart if the patient were turned front "
                    "to back: its matrix was probably written in LPS where RAS was meant. Lines "
                    "between views are right all the same; left and right, front and back are "
                    "not, and base and apex are a guess",
                    (shown_name(view.sources[0][0].path.name),),
                )
            )
        if view.kind in ("short-axis", *KNEE_KINDS) and len(view.planes) == 1:
            problems.append(
                Problem(
                    "single-slice",
                    f"the stack '{view.name}' has one slice: it has no relative location",
                    (shown_name(view.sources[0][0].path.name),),
                )
            )
    return problems
