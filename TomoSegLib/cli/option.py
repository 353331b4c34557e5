"""Options that several commands which train or simulate have; their defaults are the commands'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run; goes on if it is there.")
]
ValidateEvery = Annotated[
    int, typer.Option(min=1, help="Steps between validations and checkpoints.")
]
PlateauFactor = Annotated[
    float, typer.Option(min=0.01, max=0.99, help="Of the learning rate on a plateau.")
]
PlateauPatience = Annotated[
    int, typer.Option(min=0, help="Validations without a gain before that.")
]
PrecisionName = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Patch = Annotated[str, typer.Option(metavar="IxJxK", help="Voxels of a patch; multiples of 16.")]
StartFrom = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="DIR|NAME|FILE|scratch",
        help="Folder of a pre-training, or name of one that ships, or safetensors of its network.",
    ),
]
UNetFeatures = Annotated[
    str | None, typer.Option(help="Channels of the U-Net; default: those of --from.")
]
Augmentation = Annotated[
    float, typer.Option(min=0.0, help="Strength of changes of intensity; 0: none.")
]
Rotation = Annotated[
    float, typer.Option(min=0.0, max=180.0, help="Largest random turn of patches, degrees.")
]
Zoom = Annotated[
    float, typer.Option(min=1.0, max=2.0, help="Largest random zoom of patches along each axis.")
]
VoxelSize = Annotated[float, typer.Option(min=0.1, max=20.0, help="Voxel size, mm.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]
Channels = Annotated[
    list[str],
    typer.Option(metavar="NAME=FILE", help="Another channel of the model; may be repeated."),
]
Frames = Annotated[
    str | None,
    typer.Option(
        metavar="START:STOP[:STEP]", help="Of a sequence, only these frames, from 0 (half-open)."
    ),
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
StartAgain = Annotated[bool, typer.Option("--overwrite", help="Start again.")]
