"""``tomoseg pretrain sar``: networks that learn before they see a label."""

from __future__ import annotations

import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, get_args

import typer

from TomoSegLib.cli import option
from TomoSegLib.cli.training import progress_bars, stopped, stopping
from TomoSegLib.cli.values import (
    loader_processes,
    numbers_of,
    one_of,
    range_of,
    warnings_in_one_line,
)

pretrain_app = typer.Typer(help="Train networks without labels.", no_args_is_help=True)


@pretrain_app.command("sar")
def pretrain_sar(
    manifest: Annotated[
        list[Path],
        typer.Option(
            "--manifest",
            metavar="CSV",
            help="image, modality; optional dataset, group, split. May be repeated.",
        ),
    ],
    output: option.RunFolder,
    task: Annotated[
        str,
        typer.Option(
            help="sar, sar-no-adversary, sar-no-scale, sar-large, sar-medium, sar-small, "
            "models-genesis, patch-location, jigsaw, rotation or cpc."
        ),
    ] = "sar",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    batch_size: Annotated[int, typer.Option(min=2, help="Cubes of a step.")] = 16,
    features: Annotated[
        str, typer.Option(help="Channels of the U-Net's five levels and its last convolutions.")
    ] = "32,64,128,256,512,32",
    cube: Annotated[
        str, typer.Option(metavar="IxJxK", help="Voxels of a cube; multiples of 16.")
    ] = "64x64x32",
    scales: Annotated[str, typer.Option(help="Crops as fractions of a volume's sides.")] = (
        "1/2,1/4,1/8"
    ),
    cubes: Annotated[
        list[str],
        typer.Option(
            metavar="[DATASET=]N:N:N",
            help="Cubes of each scale and volume; may be repeated for data sets.",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    spacing: option.VoxelSize = 1.0,
    ct_window: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Hounsfield units that become 0 and 1.")
    ] = "-1000:1000",
    mr_percentiles: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="Percentiles of an MR volume likewise.")
    ] = "0.5:99.5",
    modality: Annotated[str | None, typer.Option(help="CT or MR, of rows that do not say.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the cubes, for several runs to share."),
    ] = None,
    nonlinear: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Restoration: changed intensities, a share."),
    ] = 0.9,
    shuffle: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Restoration: shuffled voxels, a share."),
    ] = 0.5,
    paint: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Restoration: parts painted over, a share."),
    ] = 0.9,
    inner: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of it that paints boxes, not all but some windows."
        ),
    ] = 0.2,
    optimizer: Annotated[
        str, typer.Option(help="Of U-Net and heads: sgd, the paper's, or adam for short runs.")
    ] = "sgd",
    learning_rates: Annotated[
        str, typer.Option(help="Of U-Net, heads and discriminator; adam wants about 0.001.")
    ] = "1,0.1,0.001",
    momentum: Annotated[float, typer.Option(min=0.0, max=0.999, help="Of SGD.")] = 0.9,
    restoration_weight: Annotated[float, typer.Option(min=0.0, help="The paper's beta.")] = 10.0,
    scale_weight: Annotated[float, typer.Option(min=0.0, help="The paper's alpha.")] = 1.0,
    adversary_weight: Annotated[
        float, typer.Option(min=0.0, help="Of the adversarial loss in the encoder's.")
    ] = 1.0,
    game: Annotated[
        str, typer.Option(help="Min-max game: alternating or gradient-reversal.")
    ] = "alternating",
    objective: Annotated[
        str, typer.Option(help="The encoder's side if alternating: minimax or uniform.")
    ] = "minimax",
    discriminator_steps: Annotated[
        int, typer.Option(min=1, help="The discriminator's turns in a step, if alternating.")
    ] = 1,
    clip: Annotated[float, typer.Option(min=0.0, help="Largest gradient norm; 0: none.")] = 0.0,
    schedule: Annotated[
        str,
        typer.Option(help="Of the learning rates: plateau, or cosine to zero, for short runs."),
    ] = "plateau",
    plateau_factor: option.PlateauFactor = 0.5,
    plateau_patience: option.PlateauPatience = 10,
    validate_every: option.ValidateEvery = 500,
    validation_cubes: Annotated[int, typer.Option(min=1, help="Cubes of a validation.")] = 512,
    precision: option.PrecisionName = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that prepare cubes; default: none on a CPU, else all."),
    ] = None,
    device: option.Device = "auto",
    threads: option.Threads = None,
    seed: option.Seed = 0,
    description: Annotated[str, typer.Option(help="Of the volumes, for the record.")] = "",
    license: Annotated[str, typer.Option(help="Licence of the weights.")] = "unspecified",
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The volumes are simulated; the record says so.")
    ] = False,
    overwrite: option.StartAgain = False,
) -> int:
    """Pre-train a 3D U-Net on unlabelled volumes: scale-aware restoration and its baselines.

    What was stopped or killed goes on where it was when the same command is given again.
    """
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.pretraining.adversary import Game, Objective
    from TomoSegLib.pretraining.cubes import CubeOptions
    from TomoSegLib.pretraining.options import OptimizerName, PretrainingOptions, Schedule
    from TomoSegLib.pretraining.run import Pretraining, pretrain
    from TomoSegLib.pretraining.transforms import GenesisTransforms
    from TomoSegLib.training.precision import Precision

    for name, value, kind in (
        ("game", game, Game),
        ("optimizer", optimizer, OptimizerName),
        ("objective", objective, Objective),
        ("schedule", schedule, Schedule),
        ("precision", precision, Precision),
    ):
        one_of(name, value, get_args(kind))
    shape = numbers_of("cube", cube.lower(), "x", 3, int)
    rates = numbers_of("learning-rates", learning_rates, ",", 3, float)
    counts: dict[str, tuple[int, ...]] = {}
    for item in cubes:
        dataset, _, numbers = item.rpartition("=")
        counts[dataset] = numbers_of("cubes", numbers, ":", None, int)
    cube_options = CubeOptions(
        shape=(shape[2], shape[1], shape[0]),
        scales=numbers_of("scales", scales, ",", None, lambda text: float(Fraction(text))),
        counts=counts.pop("", CubeOptions().counts),
        dataset_counts=counts,
        spacing_mm=spacing,
        ct_window=range_of("ct-window", ct_window),
        mr_percentiles=range_of("mr-percentiles", mr_percentiles),
        seed=seed,
    )
    options = PretrainingOptions(
        steps=steps,
        batch_size=batch_size,
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rates=(rates[0], rates[1], rates[2]),
        momentum=momentum,
        weights={
            "restoration": restoration_weight,
            "scale": scale_weight,
            "adversary": adversary_weight,
        },
        game=game,  # type: ignore[arg-type]
        objective=objective,  # type: ignore[arg-type]
        discriminator_steps=discriminator_steps,
        clip=clip,
        schedule=schedule,  # type: ignore[arg-type]
        plateau_factor=plateau_factor,
        plateau_patience=plateau_patience,
        validate_every=validate_every,
        validation_cubes=validation_cubes,
        precision=precision,  # type: ignore[arg-type]
        seed=seed,
    )
    chosen = choose_device(device)
    what = Pretraining(
        tuple(manifest),
        output,
        task,
        options,
        cube_options,
        numbers_of("features", features, ",", 6, int),
        modality,
        cache,
        loader_processes(workers, chosen),
        chosen,
        threads,
        overwrite,
        GenesisTransforms(nonlinear=nonlinear, shuffle=shuffle, paint=paint, inner=inner),
        description,
        license,
        simulated,
        shlex.join(["tomoseg", *sys.argv[1:]]),
    )
    with progress_bars() as tell, stopping() as stop, warnings_in_one_line():
        finished = pretrain(what, tell, stop.is_set)
    if not finished:
        return stopped(output)
    print(f"weights in  {output}")
    return 0
