"""``tomoseg export``: a run's mask in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from TomoSegLib.errors import TomoSegError

if TYPE_CHECKING:
    from TomoSegLib.exports.masks import Format


def export(
    result: Annotated[Path, typer.Argument(help="A folder of results of 'tomoseg run'.")],
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="DICOM Segmentation that refers to the source series."),
    ] = False,
    stl: Annotated[
        bool, typer.Option("--stl", help="A surface of each segment, in LPS mm.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Statistics of the segments.")] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The scan, or the DICOM series that it was made from; default: the run's input.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: that of the results.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
) -> int:
    """Write a run's mask as DICOM Segmentation, as surfaces (STL) or as a table of statistics."""
    wanted: dict[Format, bool] = {"dicom-seg": dicom_seg, "stl": stl, "csv": csv}
    formats = [name for name, is_wanted in wanted.items() if is_wanted]
    if not formats:
        raise TomoSegError(
            "usage",
            "No format is named.",
            "Give one or more of --dicom-seg, --stl and --csv.",
        )
    from TomoSegLib.exports.export import export_result

    done = export_result(result, formats, output=output, source=source, overwrite=overwrite)
    for note in done.notes:
        print(f"note        {note}")
    for path in done.files:
        print(f"written     {path}")
    return 0
