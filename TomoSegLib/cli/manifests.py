"""``tomoseg manifest``: manifests of public data sets, from the folders they are published in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from TomoSegLib.cli.values import numbers_of
from TomoSegLib.errors import TomoSegError


def manifest(
    layout: Annotated[str, typer.Argument(help="luna16, lits, brats, msd, acdc or mnms2.")],
    folder: Annotated[Path, typer.Argument(help="Folder in which the data set was unpacked.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="CSV", help="The manifest.")],
    labelled: Annotated[
        bool,
        typer.Option("--labelled/--pool", help="For 'finetune', or for 'pretrain' (the default)."),
    ] = False,
    channel: Annotated[
        list[str], typer.Option(help="Channel of a labelled manifest; may be repeated.")
    ] = [],  # noqa: B006 - Typer copies it
    split: Annotated[
        str, typer.Option(metavar="TRAIN:VAL:TEST", help="Shares of the patients.")
    ] = "8:1:1",
    seed: Annotated[int, typer.Option(min=0, help="Of who comes into which split.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a manifest that is there.")
    ] = False,
) -> int:
    """List a public data set's volumes in a manifest for pre-training or fine-tuning.

    The same split and seed keep test patients out of both.
    """
    from TomoSegLib.datasets.adapters import (
        LAYOUTS,
        find_scans,
        labels_of,
        split_groups,
        write_labelled,
        write_pool,
    )

    shares = numbers_of("split", split, ":", 3, float)
    if min(shares) < 0 or shares[0] <= 0:
        raise TomoSegError(
            "usage", f"'--split {split}' leaves nothing to train on.", "Example: 8:1:1."
        )
    if output.exists() and not overwrite:
        raise TomoSegError(
            "output-exists",
            f"There is already something at {output}.",
            "Choose another --output, or give --overwrite.",
        )
    scans = find_scans(layout, folder)
    splits = split_groups(scans, shares, seed)
    if labelled:
        count = write_labelled(output, scans, splits, channel or None)
    else:
        count = write_pool(output, scans, splits, layout)
    print(f"{count} volumes of {LAYOUTS[layout].title} in {output}")
    if labelled and (labels := labels_of(layout, folder)):
        print(f"labels      --labels '{labels}'")
    return 0
