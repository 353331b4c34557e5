"""``tomoseg planes`` and ``tomoseg pretrain planes``: studies of several views."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from TomoSegLib.cli import option
from TomoSegLib.cli.training import progress_bars, stopped, stopping

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


@planes_app.command("predict")
def predict_planes(
    study: Annotated[
        Path, typer.Argument(help="Folder of one patient's views.", show_default=False)
    ],
    pretrained: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of a 'tomoseg pretrain planes'.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    views: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="A corrected views.csv; default: the study's own."),
    ] = None,
    phases: Annotated[int, typer.Option(min=1, help="Time points of a cine view.")] = 1,
    device: option.Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
) -> int:
    """Predict where views cut each other from the images alone, and measure the error."""
    from TomoSegLib.cli.values import warnings_in_one_line
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.pretraining.planes_predict import predict_study

    with warnings_in_one_line():
        report = predict_study(
            study,
            pretrained,
            output,
            table=views,
            phases=phases,
            device=str(choose_device(device)),
            overwrite=overwrite,
        )
    _print_errors(report, "the study")
    print(f"results in  {output}")
    return 0


@planes_app.command("studies")
def make_studies(
    layout: Annotated[str, typer.Argument(help="acdc, mnms2, dsbcc, fastmri or mrnet.")],
    folder: Annotated[Path, typer.Argument(help="Folder in which the data set was unpacked.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the studies.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace studies that are there.")
    ] = False,
) -> int:
    """Make studies for 'tomoseg pretrain planes' of a public data set, without copying images.

    Only MRNet's and fastMRI's arrays are written anew. A study that cannot be made is left out.
    """
    from TomoSegLib.datasets.plane_adapters import (
        PLANE_LAYOUTS,
        check_output,
        find_plane_studies,
        make_study,
    )
    from TomoSegLib.errors import TomoSegError

    found = find_plane_studies(layout, folder)
    check_output(folder, output)
    if not overwrite and (there := [s for s in found if (output / s.name).exists()]):
        raise TomoSegError(
            "output-exists",
            f"There is already something at {output / there[0].name}.",
            "Choose another --output, or give --overwrite.",
        )
    made, failure = 0, None
    for study in found:
        try:
            make_study(study, output)
            made += 1
        except TomoSegError as error:
            if error.code not in ("dataset-incomplete", "study-empty", "study-mixed-patients"):
                raise
            failure = error
            print(f"tomoseg: warning [{error.code}]: {error.message}", file=sys.stderr)
    if failure is not None and not made:
        raise failure
    print(f"{made} studies of {PLANE_LAYOUTS[layout].title} in {output}")
    if note := PLANE_LAYOUTS[layout].note:
        print(f"note        {note}")
    return 0


def pretrain_planes(
    studies: Annotated[
        Path,
        typer.Option(
            "--studies", metavar="DIR", help="Folder with a folder of views for each patient."
        ),
    ],
    output: option.RunFolder,
    tasks: Annotated[
        str,
        typer.Option(
            help="orientation, location, or both with a comma; or rotation or restoration, the "
            "baselines."
        ),
    ] = "orientation,location",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=1e-7, help="Of Adam.")] = 1e-3,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            "--network",
            help="unet, resnet10, resnet18, resnet34, resnet50 or efficientnet-lite0.",
        ),
    ] = "unet",
    start: Annotated[
        str, typer.Option("--from", help="imagenet: efficientnet-lite0 begins with its weights.")
    ] = "",
    features: Annotated[
        str, typer.Option(help="Channels of the U-Net's five levels and its last convolutions.")
    ] = "64,128,256,512,1024,64",
    spacing: Annotated[float, typer.Option(min=0.2, max=10.0, help="Pixel size, mm.")] = 1.26,
    side: Annotated[int, typer.Option(min=16, help="Pixels of the square crop.")] = 224,
    sigma: Annotated[float, typer.Option(min=0.5, help="Of the heatmaps, mm.")] = 7.6,
    rotation: Annotated[
        float, typer.Option(min=0.0, max=180.0, help="Augmentation: largest turn, degrees.")
    ] = 25.0,
    zoom: Annotated[float, typer.Option(min=1.0, max=3.0, help="Largest zoom.")] = 1.15,
    shift: Annotated[float, typer.Option(min=0.0, help="Largest shift, mm.")] = 15.0,
    flip: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability of a mirror image.")
    ] = 0.5,
    phases: Annotated[int, typer.Option(min=1, help="Time points of a cine view.")] = 2,
    validation: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the studies kept for validation.")
    ] = 0.2,
    validate_every: option.ValidateEvery = 200,
    precision: option.PrecisionName = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare images.")] = 0,
    device: option.Device = "auto",
    threads: option.Threads = None,
    seed: option.Seed = 0,
    overwrite: option.StartAgain = False,
) -> int:
    """Pre-train a 2D network on where views cut each other and on slices' places in a stack.

    What was stopped or killed goes on where it was when the same command is given again.
    """
    from TomoSegLib.cli.values import numbers_of, one_of, warnings_in_one_line
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.pretraining.planes_run import PlanePretraining
    from TomoSegLib.pretraining.planes_run import pretrain_planes as pretrain
    from TomoSegLib.pretraining.planes_targets import PlaneOptions
    from TomoSegLib.pretraining.planes_training import PlaneTraining
    from TomoSegLib.training.precision import Precision

    one_of("precision", precision, get_args(Precision))
    what = PlanePretraining(
        studies,
        output,
        PlaneTraining(
            tasks=tuple(name.strip() for name in tasks.split(",")),
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validate_every=validate_every,
            precision=precision,  # type: ignore[arg-type]
            seed=seed,
        ),
        PlaneOptions(
            spacing_mm=spacing,
            side=side,
            sigma_mm=sigma,
            rotation=rotation,
            zoom=zoom,
            shift_mm=shift,
            flip=flip,
        ),
        encoder,
        numbers_of("features", features, ",", 6, int),
        phases,
        validation,
        workers,
        str(choose_device(device)),
        threads,
        overwrite,
        start,
    )
    with progress_bars() as tell, stopping() as stop, warnings_in_one_line():
        report = pretrain(what, tell, stop.is_set)
    if report is None:
        return stopped(output)
    _print_errors(report, f"{report['images']} images")
    print(f"weights in  {output}")
    return 0


def _print_errors(report: Mapping[str, Any], of: str) -> None:
    for name, figures in report.get("lines", {}).items():
        print(
            f"{name:28s} {figures['degrees']['mean']:6.2f} degrees {figures['mm']['mean']:6.2f} mm"
            f"  ({figures['lines']} lines of {of})"
        )
    if "location" in report:
        error = report["location"]["error"]["mean"]
        print(f"{'location':28s} {error:6.3f} of the stack")
    if "rotation" in report:
        figures = report["rotation"]
        print(
            f"{'rotation':28s} {figures['accuracy']:6.1%} right, "
            f"{figures['accuracy_of_guess']:.0%} by chance"
        )
    if "restoration" in report:
        figures = report["restoration"]
        print(
            f"{'restoration':28s} {figures['mean_squared_error']:6.3f} mean squared error, "
            f"{figures['of_transformed']:.3f} of the transformed images"
        )
