"""``tomoseg finetune``: from a few labelled volumes or stacks to a segmenter or classifier."""

from __future__ import annotations

import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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
from TomoSegLib.errors import TomoSegError

if TYPE_CHECKING:
    from TomoSegLib.models.folder import ModelFolder


_PATCH = "64x64x32"
_LOSS = "dice"
_OVERLAP = 0.5


def finetune(
    manifest: Annotated[
        Path,
        typer.Option(
            "--manifest",
            metavar="CSV",
            help="image (or image_<channel>), label or class, split; optional modality, group, id.",
        ),
    ],
    output: option.RunFolder,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...", help="What to segment; several values: NAME=VALUE+VALUE."
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="segmentation, or classification: the class of a whole stack, by a 2D network "
            "that looks at its slices."
        ),
    ] = "segmentation",
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="DIR|NAME|FILE|scratch|imagenet",
            help="Folder of a pre-training, or name of one that ships, or safetensors of its "
            "network; imagenet: 2D, encoder efficientnet-lite0.",
        ),
    ] = "scratch",
    dimensions: Annotated[
        int | None,
        typer.Option(
            min=2, max=3, help="2: every slice of a stack by itself; default: as --from, else 3."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Of a 2D network: unet, resnet10 to resnet50 or efficientnet-lite0; default: "
            "that of --from, else unet."
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|NAME",
            help="Network, voxel size and intensities of this pre-training, without its weights.",
        ),
    ] = None,
    fraction: Annotated[
        str,
        typer.Option(
            help="Share of the training cases that is used, e.g. 1/10; of each class, where there "
            "are classes."
        ),
    ] = "1",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, help="Patches or stacks of a step.")] = 4,
    patch: Annotated[
        str,
        typer.Option(
            metavar="IxJxK",
            help="Voxels of a patch; multiples of 16, or of 32 with another encoder than unet; "
            "2D: IxJx1, default 128x128x1; of a classifier the middle of slices, 224x224x1.",
        ),
    ] = _PATCH,
    slices: Annotated[
        int | None,
        typer.Option(min=1, help="Slices of a stack that a step of a classifier sees; default 8."),
    ] = None,
    features: option.UNetFeatures = None,
    loss: Annotated[
        str, typer.Option(help="dice, dice-ce, or noise-tolerant: the value 255 means unknown.")
    ] = _LOSS,
    learning_rate: Annotated[float, typer.Option(min=0.0, max=100.0, help="Of Adam.")] = 1e-3,
    last_layer_factor: Annotated[
        float,
        typer.Option(min=0.1, help="Learning rate of the last, new layer over the others'."),
    ] = 10.0,
    plateau_factor: option.PlateauFactor = 0.5,
    plateau_patience: option.PlateauPatience = 10,
    averaged: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the steps, the last ones, over which weights are averaged: steadier "
            "with few labels; 0: never.",
        ),
    ] = 0.0,
    validate_every: option.ValidateEvery = 100,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Of sliding windows, share of their sides.")
    ] = _OVERLAP,
    flips: Annotated[
        str, typer.Option(help="Axes that patches are flipped along; '' where sides matter.")
    ] = "ijk",
    augmentation: option.Augmentation = 1.0,
    rotation: option.Rotation = 0.0,
    zoom: option.Zoom = 1.0,
    modality: Annotated[
        str | None, typer.Option(help="CT or MR; default: the manifest's, else guessed.")
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=20.0,
            help="Voxel or pixel size, mm; default: that of --from, else 1, or 1.26 in 2D.",
        ),
    ] = None,
    intensity: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD:LOW:HIGH",
            help="zscore, robust-zscore, percentile or window; default: as --from was trained, "
            "else zscore:-5:5 for MR, window:-1000:1000 for CT.",
        ),
    ] = None,
    foreground: Annotated[
        str | None,
        typer.Option(help="nonzero, body, brain or none; default: nonzero for 3D MR, else none."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    license: Annotated[str, typer.Option(help="Licence of the model.")] = "unspecified",
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The volumes are simulated; the card says so.")
    ] = False,
    precision: option.PrecisionName = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that draw patches; default: none on a CPU, else all."),
    ] = None,
    device: option.Device = "auto",
    threads: option.Threads = None,
    seed: option.Seed = 0,
    overwrite: option.StartAgain = False,
) -> int:
    """Fine-tune a segmenter or classifier with few labels; the model comes to OUTPUT/model.

    What was stopped or killed goes on where it was when the same command is given again. Test
    cases are segmented at the end, and their Dice comes to OUTPUT/test.csv; or classified, and
    their classes come to OUTPUT/test.csv, accuracy, AUC and confusions to OUTPUT/report.md.
    """
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.training.finetuning_start import Foreground
    from TomoSegLib.training.precision import Precision

    one_of("task", task, ("segmentation", "classification"))
    one_of("precision", precision, get_args(Precision))
    if foreground is not None:
        one_of("foreground", foreground, get_args(Foreground))
    if set(flips) - set("ijk"):
        raise TomoSegError("usage", f"'--flips {flips}' is not known.", "Give some of ijk, or ''.")
    chosen = choose_device(device)
    what: dict[str, Any] = {
        "manifest": manifest,
        "output": output,
        "encoder": encoder,
        "start": start,
        "like": like,
        "fraction": numbers_of("fraction", fraction, ",", 1, Fraction)[0],
        "modality": None if modality is None else _modality(modality),
        "spacing_mm": spacing,
        "intensity": None if intensity is None else _intensity(intensity),
        "foreground": foreground,
        "features": None if features is None else numbers_of("features", features, ",", 6, int),
        "name": name,
        "license": license,
        "simulated": simulated,
        "command": shlex.join(["tomoseg", *sys.argv[1:]]),
        "workers": loader_processes(workers, chosen),
        "device": chosen,
        "threads": threads,
        "overwrite": overwrite,
    }
    options: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "last_layer_factor": last_layer_factor,
        "plateau_factor": plateau_factor,
        "plateau_patience": plateau_patience,
        "validate_every": validate_every,
        "flips": tuple(sorted({"kji".index(axis) for axis in flips})),
        "augmentation": augmentation,
        "rotation": rotation,
        "zoom": zoom,
        "averaged": averaged,
        "precision": precision,
        "seed": seed,
    }
    if task == "classification":
        others = {
            "labels": labels is not None,
            "dimensions 3": dimensions == 3,
            "loss": loss != _LOSS,
            "overlap": overlap != _OVERLAP,
        }
        if given := [option for option, is_given in others.items() if is_given]:
            raise TomoSegError(
                "usage",
                f"--{given[0]} is for segmentation, and --task is classification.",
                "Leave it out; classes come from the manifest's column class.",
            )
        if slices is not None:
            options["slices"] = slices
        return _classifier(what, options, None if patch == _PATCH else _voxels(patch))
    if slices is not None:
        raise TomoSegError("usage", "--slices is for --task classification.", "Leave it out.")
    if labels is None:
        raise TomoSegError(
            "usage",
            "--labels is missing: it says what to segment.",
            "Example: --labels organ=1,tumour=2+3; to classify stacks give --task classification.",
        )
    options |= {"patch": _voxels(patch), "loss": loss, "overlap": overlap}
    return _segmenter({**what, "dimensions": dimensions}, options, labels)


def _segmenter(what: dict[str, Any], options: dict[str, Any], labels: str) -> int:
    from TomoSegLib.training.finetune import finetune as run
    from TomoSegLib.training.segmentation_manifest import parse_labels
    from TomoSegLib.training.segmentation_plan import Finetuning
    from TomoSegLib.training.segmentation_trainer import FinetuningOptions, Loss

    one_of("loss", options["loss"], get_args(Loss))
    asked = Finetuning(**what, labels=parse_labels(labels), options=FinetuningOptions(**options))
    with progress_bars() as tell, stopping() as stop, warnings_in_one_line():
        model = run(asked, tell, stop.is_set)
    return stopped(asked.output) if model is None else _told(model)


def _classifier(
    what: dict[str, Any], options: dict[str, Any], patch: tuple[int, int, int] | None
) -> int:
    from TomoSegLib.training.classification import REPORT_TEXT, finetune_classifier
    from TomoSegLib.training.classification_plan import ClassifierTraining
    from TomoSegLib.training.classification_trainer import ClassifierOptions

    if patch is not None:
        if patch[0] != 1:
            raise TomoSegError(
                "usage",
                "A classifier looks at slices, each by itself.",
                "Give their middle as --patch IxJx1.",
            )
        options["size"] = patch[1:]
    asked = ClassifierTraining(**what, options=ClassifierOptions(**options))
    with progress_bars() as tell, stopping() as stop, warnings_in_one_line():
        model = finetune_classifier(asked, tell, stop.is_set)
    if model is None:
        return stopped(asked.output)
    status = _told(model)
    if "test stacks" in model.card.metrics:
        print(f"report in   {asked.output / REPORT_TEXT}")
    return status


def _told(model: ModelFolder) -> int:
    for metric, value in model.card.metrics.items():
        print(f"{metric:32s} {value}")
    print(f"model in    {model.path}")
    return 0


def _voxels(text: str) -> tuple[int, int, int]:
    """``IxJxK`` as ``(k, j, i)``."""
    i, j, k = numbers_of("patch", text.lower(), "x", 3, int)
    return k, j, i


def _modality(text: str) -> str:
    one_of("modality", text.upper(), ("CT", "MR"))
    return text.upper()


def _intensity(text: str) -> Any:
    from pydantic import ValidationError

    from TomoSegLib.models.card import Intensity

    method, _, limits = text.partition(":")
    low, high = range_of("intensity", limits) if limits else (-5.0, 5.0)
    try:
        return Intensity.model_validate({"method": method, "lower": low, "upper": high})
    except ValidationError:
        raise TomoSegError(
            "usage",
            f"'--intensity {text}' is not METHOD:LOW:HIGH.",
            "Examples: zscore:-5:5, window:-1000:1000, percentile:0.5:99.5.",
        ) from None
