"""The main job on the simulated scan that ships with the project, end to end, twice.

    make demo
    python Testing/demo.py [--model flair-lesion] [--output Demo] [--no-panel]

First it gives the command that a user would give, lets it write its results, and compares the mask
with the lesion that was put there. Then it does the same with the panel for 3D Slicer, in a
stand-in application (``panel_demo.py``): in a window where there is a display, without one
otherwise. Results of an earlier demo in the same folder are replaced.
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
PANEL_FILES = {
    "panel/": "pictures: the whole application before, during and after the run, every section",
    "scene.mrb": "the scene, for 3D Slicer: scan, heatmap, segment, figures and settings",
}
#: Ends with 0 where the panel can be shown as things are; its last line says why not.
PROBE = """
import importlib.util, sys
absent = [name for name in ("slicer", "PySide6") if importlib.util.find_spec(name) is None]
if absent:
    sys.exit("they are not installed for this Python: " + ", ".join(absent))
from PySide6.QtWidgets import QApplication
import slicer
QApplication([])
"""


def main() -> int:
    """Run the job, compare, and say where everything is; the exit status is the job's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="flair-lesion", help="name or folder of a model")
    parser.add_argument("--output", type=Path, default=ROOT / "Demo", help="folder of the results")
    parser.add_argument("--directions", help="direction set, in place of the model's")
    parser.add_argument("--no-panel", action="store_true", help="leave out the panel for 3D Slicer")
    options = parser.parse_args()
    output: Path = options.output.absolute()
    status = run_engine(options, output)
    if status == 0 and not options.no_panel:
        status = run_panel(options, output)
    return status


def run_engine(options: argparse.Namespace, output: Path) -> int:
    """The job by command; returns its exit status."""

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


def run_panel(options: argparse.Namespace, output: Path) -> int:
    """The job by the panel; returns 0 as well where this machine cannot show it, and says so."""
    print("\nThe same with the panel for 3D Slicer, in a stand-in application.")
    arguments = ["--output", output, "--model", options.model]
    if options.directions:
        arguments += ["--directions", options.directions]
    if os.sep in options.model:
        print("It was left out: the panel lists models by name that ship or were imported.")
        return 0
    environment = dict(os.environ)
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & environment.keys():
        environment.setdefault("QT_QPA_PLATFORM", "offscreen")
    problem = why_no_panel(environment)
    if problem and environment.get("QT_QPA_PLATFORM") != "offscreen":
        environment["QT_QPA_PLATFORM"] = "offscreen"  # a display that does not answer, perhaps
        problem = why_no_panel(environment)
    if not problem and environment.get("QT_QPA_PLATFORM") == "offscreen":
        print("No display is used: no window opens, the pictures are the same.")
    if problem:
        print(
            f"It cannot be shown here, and was left out: {problem}\n"
            "It needs slicer-core and PySide6, which exist for Python 3.10 to 3.13 on Linux "
            "(x86-64), Windows and macOS (Apple silicon), and on Linux the libraries of OpenGL "
            "and EGL (Debian: apt install libgl1 libegl1)."
        )
        return 0
    start = time.perf_counter()
    demo = [sys.executable, ROOT / "Testing" / "panel_demo.py", *arguments]
    status = subprocess.run(demo, env=environment).returncode
    if status:
        return status
    print(f"That took {time.perf_counter() - start:.0f} s. Files in {output}:")
    for name, meaning in PANEL_FILES.items():
        print(f"  {name:15s} {meaning}")
    scene = os.path.relpath(output / "scene.mrb")
    print(
        "To go on with it in the stand-in, where there is a display:\n"
        f"  {os.path.relpath(sys.executable)} {os.path.relpath(ROOT)}/Testing/Host/run_host.py "
        f"--module {os.path.relpath(ROOT)}/TomoSeg/TomoSeg.py --scene {scene}"
    )
    return 0


def why_no_panel(environment: dict[str, str]) -> str:
    """Why the stand-in cannot start in that environment; "" where it can."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "it did not start within two minutes"
    if probe.returncode == 0:
        return ""
    lines = probe.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with status {probe.returncode}"


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
