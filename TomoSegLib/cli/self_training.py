"""``tomoseg train segmenter``: a segmenter from a heatmap model, without a mask."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from TomoSegLib.cli import option
from TomoSegLib.cli.training import progress_bars, stopped, stopping
from TomoSegLib.cli.values import numbers_of, warnings_in_one_line


def train_segmenter(
    teacher: Annotated[
        str,
        typer.Option(
            "--from-heatmaps", metavar="MODEL", help="Name or folder of the heatmap model."
        ),
    ],
    manifest: Annotated[
        Path,
        typer.Option(
            "--manifest", metavar="CSV", help="path, label (0 or 1), split. Masks are not read."
        ),
    ],
    output: option.RunFolder,
    rounds: Annotated[
        int, typer.Option(min=1, max=9, help="From the second on it learns from itself.")
    ] = 1,
    refine: Annotated[
        bool, typer.Option("--refine/--no-refine", help="Follow the image's borders first.")
    ] = True,
    start: option.StartFrom = "scratch",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of a round.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Patches of a step.")] = 4,
    patch: option.Patch = "64x64x64",
    features: option.UNetFeatures = None,
    spacing: option.VoxelSize = 2.0,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Unsure to so many mm from the heatmap's border.")
    ] = 1.5,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Of Adam.")] = 1e-3,
    augmentation: option.Augmentation = 1.0,
    rotation: option.Rotation = 0.0,
    zoom: option.Zoom = 1.0,
    validate_every: option.ValidateEvery = 100,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw patches.")] = 0,
    device: option.Device = "auto",
    threads: option.Threads = None,
    seed: option.Seed = 0,
    overwrite: option.StartAgain = False,
) -> int:
    """Train a 3D segmenter on what a heatmap model is sure of; the model comes to OUTPUT/model.

    Only volumes, labels (yes or no) and splits of the manifest are used. Of the validations the
    best by agreement with the validation volumes' own pseudo-labels is kept. What was stopped goes
    on where it was when the same command is given again.
    """
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.training.pseudo_labels import Certainty
    from TomoSegLib.training.segmentation_trainer import FinetuningOptions
    from TomoSegLib.training.self_training import SelfTraining, self_train

    shape = numbers_of("patch", patch.lower(), "x", 3, int)
    what = SelfTraining(
        manifest=manifest,
        teacher=teacher,
        output=output,
        rounds=rounds,
        refined=refine,
        certainty=Certainty(margin_mm=margin),
        start=start,
        spacing_mm=spacing,
        features=None if features is None else numbers_of("features", features, ",", 6, int),
        options=FinetuningOptions(
            steps=steps,
            batch_size=batch_size,
            patch=(shape[2], shape[1], shape[0]),
            loss="noise-tolerant",
            learning_rate=learning_rate,
            validate_every=validate_every,
            augmentation=augmentation,
            rotation=rotation,
            zoom=zoom,
            seed=seed,
        ),
        name=name,
        command=shlex.join(["tomoseg", *sys.argv[1:]]),
        workers=workers,
        device=str(choose_device(device)),
        threads=threads,
        overwrite=overwrite,
    )
    with progress_bars() as tell, stopping() as stop, warnings_in_one_line():
        model = self_train(what, tell, stop.is_set)
    if model is None:
        return stopped(output)
    for metric, value in model.card.metrics.items():
        print(f"{metric:48s} {value}")
    print(f"model in    {model.path}")
    return 0
