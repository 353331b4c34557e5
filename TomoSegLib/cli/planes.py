"""``tomoseg planes``: studies of several views, and how their planes lie to each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

planes_app = typer.Typer(
    help="Look at studies of several views: how their planes cut each other.",
    no_args_is_help=True,
)


@planes_app.command("inspect")
def inspect_study(
    study: Annotated[
        Path,
        typer.Argument(
            help="Folder of one patient's views: DICOM, or NIfTI, NRRD or MetaImage files.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    views: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="A corrected views.csv; default: the study's own."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> int:
    """Draw each view with the lines where the others cut it, and all planes in 3D.

    Also writes the lines (lines.json), what the study holds (study.json), and a table of the
    views (views.csv) that can be corrected and given back with --views.
    """
    from TomoSegLib.cli.training import progress_bars
    from TomoSegLib.studies.inspection import inspect

    with progress_bars() as tell:
        found = inspect(
            study,
            output,
            views,
            overwrite=overwrite,
            on_progress=lambda stage, done, total: tell(stage, done, total, {}),
        )
    for view in found.study.views:
        slices = "1 slice" if len(view.planes) == 1 else f"{len(view.planes)} slices"
        phases = "" if view.phases == 1 else f" x {view.phases} phases"
        print(f"{view.name:20s} {view.kind:11s} {slices}{phases}")
    for problem in found.study.problems:
        print(f"tomoseg: warning [{problem.code}]: {problem}", file=sys.stderr)
    total = len(found.study.views) * (len(found.study.views) - 1)
    print(f"{found.lines} of {total} pairs of views have a line")
    print(f"results in  {output}")
    return 0
