"""The ways of refinement against each other: Dice, and seconds of a core.

    python Testing/Benchmarks/refinement.py --manifest Data/manifest.csv [--model flair-lesion] \\
        [--split val] [--set closing_mm=0 ...]

Every positive case of the split that has a mask gets the heatmap of the model's own method once;
then each method makes its mask, all with the parameters of the model's card. Choose methods on
validation cases, not on those that are tested.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np

from TomoSegLib.datasets.manifest import read_manifest
from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.prepared import prepare_case
from TomoSegLib.jobs.devices import choose_device
from TomoSegLib.models.card import RefinementMethod, RefinementSettings
from TomoSegLib.models.loading import load_encoder
from TomoSegLib.models.store import find_model
from TomoSegLib.refinement.calibration import example_of

METHODS = (None, *get_args(RefinementMethod))


def main() -> int:
    """Compute the heatmaps, refine each in every way, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="flair-lesion")
    parser.add_argument("--split", default="val")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of the refinement")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    model = find_model(options.model)
    encoder = load_encoder(model, choose_device(options.device))
    if not all("=" in part for part in options.set):
        parser.error("--set wants NAME=VALUE")
    changes = dict(part.split("=", 1) for part in options.set)
    kept = (model.card.refinement or RefinementSettings()).model_dump()
    cases = read_manifest(options.manifest).split(options.split)
    positives = [case for case in cases if case.label and case.mask is not None]
    if not positives:
        parser.error(f"no positive case of the split {options.split} has a mask")
    examples = []
    for number, case in enumerate(positives, 1):
        examples.append(example_of(prepare_case(case, model.card), encoder, model.card))
        print(f"{number}/{len(positives)} heatmaps", file=sys.stderr)
    print("| refinement | mean Dice | lowest | seconds, median | longest |\n|---|---|---|---|---|")
    for method in METHODS:
        settings = None
        if method is not None:
            settings = RefinementSettings.model_validate({**kept, **changes, "method": method})
        dice, seconds = [], []
        try:
            for example in examples:
                start = time.process_time()
                dice.append(example.dice(model.card, settings))
                seconds.append(time.process_time() - start)
        except TomoSegError as error:  # a package that is not installed
            print(f"{method}: {error.message}", file=sys.stderr)
            continue
        print(
            f"| {method or 'none'} | {np.mean(dice):.3f} | {min(dice):.2f} | "
            f"{np.median(seconds):.1f} | {max(seconds):.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
