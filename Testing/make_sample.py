"""The simulated scan that the project ships, made again from its seed.

    python Testing/make_sample.py            # write Resources/Samples
    python Testing/make_sample.py --check    # make it, and compare with what is there

It needs the ICBM 2009a T1 template, which the PyPI package ``nilearn`` contains; where that is not
installed, name the file: ``--template mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz``.

The scan was chosen by rule, before any model had seen it: the first seed that `simulate lesions`
can never draw for training, validation or test (it numbers volumes below S * 10^7 + 3 * 10^6), and
one lesion of 20 to 40 mL of moderate contrast instead of the recipe's whole range. One thread is
used, so that sums are added in the same order everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from TomoSegLib.datasets.anatomy import anatomy_path, load_anatomy
from TomoSegLib.datasets.lesions import simulate_case
from TomoSegLib.datasets.recipes import Recipe
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import hash_volume

SAMPLES = Path(__file__).resolve().parents[1] / "Resources" / "Samples"
SEED = 4_242_424
RECIPE = Recipe(
    spacing_mm=1.0,
    lesion_volume_ml=(20.0, 40.0),
    lesion_counts=(1.0, 0.0, 0.0),
    oedema_gain=(0.5, 0.9),
    isointense=0.0,
)
IMAGE, MASK, RECORD = (
    "simulated-flair.nii.gz",
    "simulated-flair-mask.nii.gz",
    "simulated-flair.json",
)


def main() -> int:
    """Make the sample, or compare it with the one that ships (exit status 1 if it differs)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--template", type=Path, help="the ICBM 2009a T1 template")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    try:
        template = options.template or anatomy_path("mni152")
        if not options.check:
            make(template, SAMPLES)
            print(f"written: {SAMPLES}")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            return compare(make(template, Path(folder)), SAMPLES)
    except TomoSegError as error:
        print(error, file=sys.stderr)
        return 2


def make(template: Path, folder: Path) -> Path:
    """Simulate the volume and write it with its mask and its record; returns the folder."""
    torch.set_num_threads(1)
    case = simulate_case(load_anatomy("mni152", template), 1, SEED, RECIPE)
    write_volume(case.image, folder / IMAGE)
    write_volume(case.mask, folder / MASK)
    record = {
        "simulated": True,
        "description": "A simulated FLAIR-like volume with one simulated lesion on the anatomy of "
        "the ICBM 2009a template, and the lesion's mask. Not a scan of a patient.",
        "command": "python Testing/make_sample.py",
        "parameters": case.parameters,
        "recipe": asdict(RECIPE),
        "template": {
            "file": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
            "package": "nilearn (PyPI)",
            "sha256": _sha256(template),
            "license": "ICBM 152 template, McConnell Brain Imaging Centre; notice in NOTICE",
        },
        "files": {
            name: {
                "sha256": _sha256(folder / name),
                "voxels_and_grid_sha256": hash_volume(read_volume(folder / name)),
            }
            for name in (IMAGE, MASK)
        },
        "license": "Apache-2.0, with the template's notice in NOTICE",
    }
    text = json.dumps(record, indent=2) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", newline="\n")
    return folder


def compare(made: Path, shipped: Path) -> int:
    """Say of each file whether it is the same, to the byte or at least in its voxels."""
    worst = 0
    for name in (IMAGE, MASK):
        if _sha256(made / name) == _sha256(shipped / name):
            print(f"{name}: identical")
            continue
        here, there = (hash_volume(read_volume(folder / name)) for folder in (made, shipped))
        same = here == there
        print(f"{name}: {'same voxels, compressed differently' if same else 'DIFFERENT'}")
        worst = max(worst, int(not same))
    return worst


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
