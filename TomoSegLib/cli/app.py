"""The commands of ``tomoseg``, as Typer sees them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

import TomoSegLib
from TomoSegLib.cli import option
from TomoSegLib.cli.classify import classify
from TomoSegLib.cli.evaluate import evaluate
from TomoSegLib.cli.export import export
from TomoSegLib.cli.finetuning import finetune
from TomoSegLib.cli.hearts import simulate_hearts, simulate_knees
from TomoSegLib.cli.manifests import manifest
from TomoSegLib.cli.planes import planes_app, pretrain_planes
from TomoSegLib.cli.pretraining import pretrain_app
from TomoSegLib.cli.self_training import train_segmenter
from TomoSegLib.cli.training import simulate_app, train_app
from TomoSegLib.errors import TomoSegError

app = typer.Typer(
    name="tomoseg",
    help="Heatmaps and masks of lesions in 3D scans, by 2D networks and tomography.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(classify)
app.command()(evaluate)
app.command()(export)
app.command()(finetune)
app.command()(manifest)
models_app = typer.Typer(help="List, show, verify and import models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(planes_app, name="planes")
app.add_typer(pretrain_app, name="pretrain")
pretrain_app.command("planes")(pretrain_planes)
train_app.command("segmenter")(train_segmenter)
app.add_typer(train_app, name="train")
app.add_typer(simulate_app, name="simulate")
simulate_app.command("hearts")(simulate_hearts)
simulate_app.command("knees")(simulate_knees)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(show: bool) -> None:
    if show:
        print(f"tomoseg {TomoSegLib.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    output: Output,
    model: Annotated[str, typer.Option("--model", "-m", help="Name or folder of a model.")],
    input: Annotated[
        str | None,
        typer.Argument(
            help="Volume: NIfTI, NRRD, MetaImage, or a folder with a DICOM series; of a 4D file "
            "or a cine series every frame. Many: a CSV "
            "file with a column 'path', a folder of volume files, or of folders with a DICOM "
            "examination each.",
            show_default=False,
        ),
    ] = None,
    channel: option.Channels = [],  # noqa: B006 - Typer copies it
    foreground: Annotated[
        str | None, typer.Option(metavar="FILE", help="Mask of the part to look at.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="tonno, cam, averaged-cam or tomographic-cam; default: the model's."),
    ] = None,
    cam: Annotated[
        str | None, typer.Option(help="Kind of map: cam, gradcam, gradcam++ or layercam.")
    ] = None,
    rectified: Annotated[
        bool | None, typer.Option("--rectified/--signed", help="Clip activation maps at zero.")
    ] = None,
    directions: Annotated[
        str | None,
        typer.Option(help="fibonacci:N, icosahedral:N, orthogonal, axial, ... or a file."),
    ] = None,
    filter_order: Annotated[
        float | None, typer.Option(metavar="P", help="Filter |k|^P, from 0 to 2.")
    ] = None,
    cutoff: Annotated[
        float | None, typer.Option(help="Filter cutoff, fraction of Nyquist.")
    ] = None,
    window: Annotated[str | None, typer.Option(help="hann, cosine or none.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(help="card, otsu, percentile:Q or a value; default: the model's, if any."),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            help="Let the mask follow the image's borders: none, threshold, random-walker, "
            "geodesic or graph-cut; default: as the model's card says."
        ),
    ] = None,
    components: Annotated[
        str | None, typer.Option(help="Parts of the mask to keep: all, largest or peak.")
    ] = None,
    minimum_size: Annotated[
        float | None, typer.Option(metavar="ML", help="Drop smaller parts of the mask.")
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="I0:I1,J0:J1,K0:K1", help="Compute only this box of voxels (half-open)."
        ),
    ] = None,
    frames: option.Frames = None,
    device: option.Device = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Slices or windows per pass.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random numbers.")] = 0,
    previews: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for previews of the heatmap.")
    ] = None,
    overwrite: option.Replace = False,
) -> int:
    """Volume in; heatmap and mask out, or a segmentation, as the model's task is.

    Of a sequence (4D NIfTI, Slicer's .seq.nrrd, cine DICOM) every frame; sequences out.
    """
    from TomoSegLib.cli import commands
    from TomoSegLib.cli.values import named_files, warnings_in_one_line

    document: dict[str, Any] = {
        "kind": "run",
        "input": input,
        "channels": named_files("channel", channel),
        "foreground": foreground,
        "model": model,
        "method": method,
        "cam": cam,
        "rectified": rectified,
        "directions": directions,
        "filter_order": filter_order,
        "cutoff": cutoff,
        "window": window,
        "threshold": None if threshold is None else _number_or_word(threshold),
        "refine": refine,
        "components": components,
        "minimum_size_ml": minimum_size,
        "region": None if roi is None else _region(roi),
        "frames": frames,
        "device": device,
        "batch_size": batch_size,
        "threads": threads,
        "seed": seed,
        "output": str(output),
        "previews": None if previews is None else str(previews),
        "overwrite": overwrite,
    }
    if input is not None and not channel:
        from TomoSegLib.jobs.batch_cases import find_cases

        with warnings_in_one_line():
            cases = find_cases(Path(input).expanduser())
        if cases is not None:
            return commands.run_batch(document, cases)
    return commands.run(document)


@app.command()
def rerun(
    result: Annotated[Path, typer.Argument(help="A result.json, or the folder with one.")],
    output: Output,
    device: Annotated[
        str | None, typer.Option(help="Another device than the one of the first run.")
    ] = None,
    overwrite: option.Replace = False,
) -> int:
    """Run a job again exactly, and tell whether the same came out (else exit status 3)."""
    from TomoSegLib.cli import commands

    return commands.rerun(result, output, device, overwrite)


@app.command()
def doctor(as_json: AsJson = False) -> int:
    """Show what is really there: Python, torch, GPU, memory, models."""
    from TomoSegLib.cli import commands

    return commands.doctor(as_json)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> int:
    """List the models that can be used by name."""
    from TomoSegLib.cli import models

    return models.list_(as_json)


@models_app.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    as_json: AsJson = False,
) -> int:
    """Show a model's card."""
    from TomoSegLib.cli import models

    return models.show(model, as_json)


@models_app.command("verify")
def models_verify(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    as_json: AsJson = False,
) -> int:
    """Check a model's files against the hashes on its card, and load it."""
    from TomoSegLib.cli import models

    return models.verify(model, as_json)


@models_app.command("import")
def models_import(
    source: Annotated[Path, typer.Argument(help="Folder or zip archive of a model.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace one of that name.")] = False,
) -> int:
    """Add a model to your own, so that it can be used by name."""
    from TomoSegLib.cli import models

    return models.import_(source, replace)


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _region(text: str) -> dict[str, list[int]]:
    match = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if match is None:
        raise TomoSegError(
            "usage",
            f"'--roi {text}' is not I0:I1,J0:J1,K0:K1.",
            "Give voxel ranges along i, j and k, for example --roi 40:120,30:110,10:60.",
        )
    bounds = [int(number) for number in match.groups()]
    return {"start": bounds[0::2], "stop": bounds[1::2]}
