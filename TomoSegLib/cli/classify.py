"""``tomoseg classify``: the class of stacks, by a model of the task classification."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from TomoSegLib.cli import option
from TomoSegLib.errors import TomoSegError

_SHOWN = 20


def classify(
    model: Annotated[str, typer.Option("--model", "-m", help="Name or folder of a model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    input: Annotated[
        str | None,
        typer.Argument(
            help="Stack or volume: NIfTI, NRRD, MetaImage, or a folder with a DICOM series; of a "
            "4D file or a cine series every frame, and their mean. Many: a CSV file with a column "
            "'path' or 'image', a folder of volume files, or of folders with a DICOM examination "
            "each.",
            show_default=False,
        ),
    ] = None,
    channel: option.Channels = [],  # noqa: B006 - Typer copies it
    frames: option.Frames = None,
    device: option.Device = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.")] = None,
    overwrite: option.Replace = False,
) -> int:
    """Stack in; its class out, with a probability of each class.

    OUTPUT gets result.json of one stack, cases/NAME.json of several, and classes.csv. Models are
    made by 'tomoseg finetune --task classification'.
    """
    from TomoSegLib.cli.commands import EXIT_CASES_FAILED
    from TomoSegLib.cli.console import JobFailed, follow_job
    from TomoSegLib.cli.values import named_files
    from TomoSegLib.jobs.document import ClassifyJob, parse_job

    document: dict[str, Any] = {
        "kind": "classify",
        "model": model,
        "cases": _cases(input, named_files("channel", channel)),
        "frames": frames,
        "device": device,
        "threads": threads,
        "output": str(output),
        "overwrite": overwrite,
    }
    parse_job(document)  # refuse at once what no worker is needed for
    try:
        outcome = follow_job(document)
    except JobFailed as failure:
        return failure.status
    assert outcome.path is not None
    _show(Path(outcome.path) / ClassifyJob.outputs[-1])
    failed = int(outcome.data["failed"])
    if len(document["cases"]) > 1:
        print(f"cases       {outcome.data['done']} done, {failed} failed")
    print(f"results in  {outcome.path}")
    return EXIT_CASES_FAILED if failed else 0


def _cases(first: str | None, channels: dict[str, str]) -> list[dict[str, Any]]:
    """Documents of the cases that the input holds."""
    from TomoSegLib.cli.values import warnings_in_one_line
    from TomoSegLib.imaging.file_state import file_of
    from TomoSegLib.jobs.batch_cases import case_name, find_cases

    if first is not None and not channels:
        with warnings_in_one_line():
            cases = find_cases(Path(first).expanduser())
        if cases is not None:
            return [dict(case) for case in cases]
    if first is None and not channels:
        raise TomoSegError(
            "usage",
            "No stack is named.",
            "Give a file, a folder, or a table: 'tomoseg classify --help'.",
        )
    path = file_of(first or next(iter(channels.values())))
    name = case_name(path.name)
    return [{"id": name, "input": first, "channels": channels}]


def _show(table: Path) -> None:
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in rows[0] if name.startswith("probability ")]
    for row in rows[:_SHOWN]:
        name = row["case"] + (f", frame {row['frame']}" if row["frame"] else "")
        if row["error"]:
            print(f"{name:<24} failed [{row['error']}]")
        else:
            each = (f"{c.removeprefix('probability ')} {float(row[c]):.3f}" for c in columns)
            print(f"{name:<24} {row['class']}   ({', '.join(each)})")
    if len(rows) > _SHOWN:
        print(f"... and {len(rows) - _SHOWN} more in {table}")
