"""What a study of several views holds, for a program that shows it: views as volumes, and lines.

The same as ``tomoseg planes inspect``, with volumes in the place of pictures; without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from TomoSegLib.imaging.io import write_volume
from TomoSegLib.jobs.document import InspectStudyJob
from TomoSegLib.jobs.events import ResultEvent
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.scratch import no_space_error
from TomoSegLib.studies.inspection import with_images, write_tables
from TomoSegLib.studies.lines import line_entries, study_record
from TomoSegLib.studies.pictures import as_read, other_views, view_colors
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.study import View
from TomoSegLib.studies.volumes import ViewVolume, view_volume

VOLUMES = "volumes"


def inspect_study(results: Path, job: InspectStudyJob, report: Reporter) -> ResultEvent:
    """Write tables and volumes into a working folder.

    What could not be used of the study is told in warnings.

    Returns:
        The event with ``study`` and ``views`` as in ``study.json``, each view also with ``id``,
        ``base`` (``first`` or ``last``), ``file``, ``color`` (``#rrggbb``), ``corners_mm`` (the
        corner pixels of its middle slice, LPS), ``read_along`` (LPS directions of columns and
        rows as the view is read), ``others`` (the views whose lines are worth drawing in it: of
        several in one place, one) and ``volume``: ``file`` in the output folder, ``ijk_to_lps``
        and ``first_slice``; ``unused``, the views that the table leaves out, as far as it
        concerns a table; and ``lines`` as in ``lines.json``.

    Raises:
        TomoSegError: Those of `read_study`, ``output-no-space`` or ``output-unwritable``.
    """
    output = Path(job.output)
    try:
        with report.collecting_warnings(), report.stage("read") as progress:
            table = None if job.views is None else Path(job.views)
            study = read_study(Path(job.study), table, progress)
        with report.stage("pixels") as progress:
            study, images = with_images(study, progress)
        for problem in study.problems:
            report.warn(problem.code, str(problem))
        colors, record = view_colors(study), study_record(study)
        (results / VOLUMES).mkdir()
        with report.stage("write", len(study.views)) as progress:
            for number, view in enumerate(study.views):
                made = view_volume(view, images[view.name])
                if made.problem is not None:
                    report.warn(made.problem.code, str(made.problem))
                file = f"{VOLUMES}/{number + 1}.nrrd"
                write_volume(made.volume, results / file)
                record["views"][number] |= {
                    **_row(view),
                    **_place(view),
                    "others": [other.name for other in other_views(study, view)],
                    "color": colors[view.name],
                    "volume": _grid(made, file),
                }
                progress(number + 1, len(study.views))
            write_tables(study, results)
    except OSError as error:
        if space := no_space_error(error, output):
            raise space from None
        raise
    unused = [{**_row(view), "name": view.name, "kind": view.kind} for view in study.unused]
    data = {
        "study": study.name,
        "views": record["views"],
        "unused": unused,
        "lines": line_entries(study),
    }
    return ResultEvent(str(output), data)


def _row(view: View) -> dict[str, Any]:
    """What a table of views says beside name and kind."""
    return {
        "id": view.id,
        "base": "first" if view.base_first else "last",
        "description": view.description,
        "slices": len(view.planes),
        "phases": view.phases,
        "spacing_mm": list(view.middle_plane.spacing),
        "file": view.sources[0][0].path.name,
    }


def _place(view: View) -> dict[str, Any]:
    """Where the middle slice lies, and how it is looked at."""
    read, _ = as_read(view.middle_plane, None)
    columns, rows = read.column_step / read.spacing[0], read.row_step / read.spacing[1]
    return {
        "corners_mm": view.middle_plane.corners.tolist(),
        "read_along": [columns.tolist(), rows.tolist()],
    }


def _grid(made: ViewVolume, file: str) -> dict[str, Any]:
    geometry = made.volume.geometry
    return {"file": file, "ijk_to_lps": geometry.affine.tolist(), "first_slice": made.first}
