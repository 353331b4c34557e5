"""The main job on the simulated scan that ships with the project, end to end.

    make demo
    python Testing/demo.py [--model flair-lesion] [--output Demo]

It gives the command that a user would give, lets it write its results, and compares the mask with
the lesion that was put there. Results of an earlier demo in the same folder are replaced.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCAN = ROOT / "Resources" / "Samples" / "simulated-flair.nii.gz"
TRUTH = SCAN.with_name("simulated-flair-mask.nii.gz")
FILES = {
    "overlay.png": "the picture: scan, heatmap and mask, in three orientations",
    "truth.png": "the picture to compare with: the lesion that was simulated",
    "heatmap.nrrd": "the heatmap, on the scan's own grid",
    "agreement.nrrd": "how far the directions agree, from 0 to 1",
    "mask.seg.nrrd": "the mask, as 3D Slicer's segmentation",
    "mask.nii.gz": "the mask, as a label map",
    "result.json": "what was done, with what, and hashes of all files",
}


def main() -> int:
    """Run the job, compare, and say where everything is; the exit status is the job's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="flair-lesion", help="name or folder of a model")
    parser.add_argument("--output", type=Path, default=ROOT / "Demo", help="folder of the results")
    parser.add_argument("--directions", help="direction set, in place of the model's")
    options = parser.parse_args()
    output: Path = options.output.absolute()

    tomoseg = shutil.which("tomoseg", path=str(Path(sys.executable).parent))
    if tomoseg is None:
        print("tomoseg is not installed here. Install it with: make install", file=sys.stderr)
        return 2
    arguments = ["run", os.path.relpath(SCAN), "--model", options.model]
    arguments += ["--output", os.path.relpath(output), "--overwrite"]
    if options.directions:
        arguments += ["--directions", options.directions]
    print("The scan is simulated: a real head's anatomy with a lesion painted into it.")
    print(f"$ {' '.join([os.path.relpath(tomoseg), *arguments])}", flush=True)
    start = time.perf_counter()
    status = subprocess.run([tomoseg, *arguments]).returncode
    if status:
        print("The demo has failed; the line above says why.", file=sys.stderr)
        return status
    seconds = time.perf_counter() - start

    print()
    print(compare(output))
    print(f"That took {seconds:.0f} s. Files in {output}:")
    for name, meaning in FILES.items():
        print(f"  {name:15s} {meaning}")
    return 0


def compare(output: Path) -> str:
    """Compare the mask with the simulated lesion and draw the latter; returns what to say."""
    # Here, so that a wrong argument is told before these seconds pass.
    import numpy as np

    from TomoSegLib.evaluation.metrics import overlap
    from TomoSegLib.imaging.io import read_volume
    from TomoSegLib.imaging.montage import montage

    truth, mask = read_volume(TRUTH), read_volume(output / "mask.nii.gz")
    found, there = mask.array > 0, truth.array > 0
    counts = overlap(found, there, np.ones_like(found))
    montage(
        read_volume(SCAN),
        None,
        truth.array,
        output / "truth.png",
        title="The simulated lesion",
        footer="simulated scan, not a patient",
    )
    ml = truth.geometry.voxel_volume_ml
    return (
        f"Simulated lesion {there.sum() * ml:.1f} mL, mask {found.sum() * ml:.1f} mL, "
        f"Dice of the two {counts.f1:.2f}.\n"
        "One simulated scan shows that the program works; it says nothing about patients."
    )


if __name__ == "__main__":
    sys.exit(main())
