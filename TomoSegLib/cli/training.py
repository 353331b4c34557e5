"""``tomoseg train`` and ``tomoseg simulate``: models and data sets of one's own."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, get_args

import typer

from TomoSegLib.cli import option
from TomoSegLib.datasets.recipes import Contrast
from TomoSegLib.errors import TomoSegError

EXIT_INTERRUPTED = 130

train_app = typer.Typer(help="Train models on your own data.", no_args_is_help=True)
simulate_app = typer.Typer(help="Make simulated data sets.", no_args_is_help=True)


@train_app.command("encoder")
def train_encoder(
    manifest: Annotated[
        Path,
        typer.Option(
            "--manifest", metavar="CSV", help="path, label (0 or 1), split; optional mask, group."
        ),
    ],
    template: Annotated[
        Path,
        typer.Option(
            metavar="JSON", help="The model's card without hashes; see Resources/Templates."
        ),
    ],
    output: option.RunFolder,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps at most.")] = 2000,
    volumes_per_step: Annotated[int, typer.Option(min=2, help="Volumes of a batch.")] = 16,
    slices_per_volume: Annotated[int, typer.Option(min=1, help="Slices of each.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 2e-3,
    augmentation: Annotated[float, typer.Option(min=0.0, help="Strength; 0 for none.")] = 1.0,
    noise_remedy: Annotated[
        str, typer.Option(help="Against label noise: none, mil, top-k or small-loss.")
    ] = "none",
    kept: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Fraction kept by top-k and small-loss.")
    ] = 0.5,
    local_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of the loss of every position's evidence.")
    ] = 0.0,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 200,
    patience: Annotated[
        int, typer.Option(min=1, help="Validations without a better AUC before it stops.")
    ] = 10,
    directions: Annotated[
        str, typer.Option(help="Direction set for calibration and for the card.")
    ] = "fibonacci:64",
    calibration_cases: Annotated[
        int, typer.Option(min=1, help="Validation volumes with masks used at most.")
    ] = 24,
    device: option.Device = "auto",
    threads: option.Threads = None,
    seed: option.Seed = 0,
    overwrite: option.StartAgain = False,
) -> int:
    """Train a 2D encoder from one yes or no per volume; the model comes to OUTPUT/model.

    A training that was stopped or killed goes on where it was when the same command is given
    again.
    """
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.training.encoder import EncoderTraining
    from TomoSegLib.training.encoder import train_encoder as train
    from TomoSegLib.training.weak_supervision import NoiseRemedy, TrainingOptions

    if noise_remedy not in get_args(NoiseRemedy):
        raise TomoSegError(
            "usage",
            f"'--noise-remedy {noise_remedy}' is not known.",
            f"Choose one of {', '.join(get_args(NoiseRemedy))}.",
        )
    options = TrainingOptions(
        steps=steps,
        volumes_per_step=volumes_per_step,
        slices_per_volume=slices_per_volume,
        learning_rate=learning_rate,
        augmentation=augmentation,
        noise_remedy=noise_remedy,  # type: ignore[arg-type]
        kept=kept,
        local_weight=local_weight,
        validate_every=validate_every,
        patience=patience,
        seed=seed,
    )
    what = EncoderTraining(
        manifest,
        output,
        _read_template(template),
        options,
        directions,
        calibration_cases,
        str(choose_device(device)),
        threads,
        overwrite,
    )
    with progress_bars() as tell, stopping() as stop:
        model = train(what, tell, stop.is_set)
    if model is None:
        return stopped(output)
    for name, settings in model.card.methods.items():
        threshold = settings.threshold
        level = "none" if threshold is None else f"{threshold.value:g} ({threshold.kind})"
        print(
            f"{name:16s} filter order {settings.filter_order:g}, cutoff {settings.cutoff:g}, "
            f"threshold {level}, "
            f"validation Dice {model.card.metrics.get(f'validation_dice_{name}', float('nan')):.3f}"
        )
    print(f"AUC of the validation volumes {model.card.metrics['validation_auc']:.3f}")
    print(f"model in    {model.path}")
    return 0


@simulate_app.command("lesions")
def simulate_lesions(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data set.")],
    train: Annotated[int, typer.Option(min=0, help="Training volumes.")] = 320,
    val: Annotated[int, typer.Option(min=0, help="Validation volumes.")] = 48,
    test: Annotated[int, typer.Option(min=0, help="Test volumes.")] = 48,
    train_anatomy: Annotated[str, typer.Option(help="Head of the training volumes.")] = "colin27",
    test_anatomy: Annotated[
        str, typer.Option(help="Head of the validation and test volumes.")
    ] = "mni152",
    anatomy: Annotated[
        list[str],
        typer.Option(metavar="NAME=FILE", help="A head's skull-stripped T1 scan; may be repeated."),
    ] = [],  # noqa: B006 - Typer copies it
    contrast: Annotated[
        Contrast, typer.Option(help="FLAIR, or T1 with contrast agent and enhancing cores.")
    ] = "flair",
    spacing: Annotated[float, typer.Option(min=0.5, max=5.0, help="Voxel size, mm.")] = 2.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seed: option.Seed = 0,
) -> int:
    """Simulate brain MR with and without lesions, from real heads.

    Nothing about them is clinical: they are simulated, and the manifest's folder says so.
    """
    from TomoSegLib.datasets.recipes import Recipe, T1cRecipe
    from TomoSegLib.datasets.simulate import Simulation, simulate_dataset

    files: dict[str, Path] = {}
    for item in anatomy:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise TomoSegError(
                "usage",
                f"'--anatomy {item}' is not NAME=FILE.",
                "Example: --anatomy colin27=ch2bet.nii.gz",
            )
        files[name] = Path(path)
    what = Simulation(
        output,
        {"train": train, "val": val, "test": test},
        {"train": train_anatomy, "val": test_anatomy, "test": test_anatomy},
        files,
        (T1cRecipe if contrast == "t1c" else Recipe)(spacing_mm=spacing),
        seed,
        workers,
    )
    try:
        with progress_bars() as tell:
            manifest = simulate_dataset(what, lambda done, total: tell("simulate", done, total, {}))
    except KeyboardInterrupt:  # volumes are written whole or not at all
        return stopped(output)
    print(f"manifest    {manifest}")
    return 0


def _read_template(path: Path) -> Mapping[str, Any]:
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TomoSegError(
            "template-invalid",
            f"{path} could not be read as JSON: {error}.",
            "Start from a file in Resources/Templates.",
        ) from None
    if not isinstance(template, dict):
        raise TomoSegError(
            "template-invalid",
            f"{path} is not a JSON object.",
            "Start from a file in Resources/Templates.",
        )
    return template


class _Bars:
    """A progress bar a stage; on a pipe, a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:10s}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._told: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items() if name != "step")
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(stage, total=total, figures="")
        self.bars.update(self._tasks[stage], completed=done, figures=text)
        tenth = done * 10 // max(total, 1)
        if not self.console.is_terminal and tenth > self._told.get(stage, 0):
            self._told[stage] = tenth
            self.console.print(f"{stage} {done}/{total} {text}".rstrip())


@contextlib.contextmanager
def progress_bars() -> Iterator[_Bars]:
    """A function that shows a stage's progress: stage, done, total and figures."""
    bars = _Bars()
    with bars.bars:
        yield bars


def stopped(output: Path) -> int:
    """Say how to go on; the exit status."""
    print(f"stopped; give the same command again to go on. So far in {output}")
    return EXIT_INTERRUPTED


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set: the step at hand is finished, then all is saved."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
