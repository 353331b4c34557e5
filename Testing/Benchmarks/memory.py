"""The most memory that a run on a large CT takes, with all its processes.

    python Testing/Benchmarks/memory.py [--model tiny-blob] [--side 512] [--method tonno]

A CT of 512 x 512 x 512 voxels of 0.8 mm (int16: a body with noise, in air with noise, with a dense
ball in it) is written to a temporary folder and given to the real command line. What counts is the
greatest sum of resident memory over the command and all processes that it starts, looked at every
20 ms (pages that they share are counted twice: on the safe side), or the greatest of a single one
as the system has recorded it, whichever is more. The exit status says whether the limit is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.result import read_result

LIMIT_BYTES = 6e9
SPACING_MM = 0.8


def main() -> int:
    """Measure, print, and say by the exit status whether the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny-blob", help="name or folder of a model")
    parser.add_argument("--method", default="tonno")
    parser.add_argument("--directions", default="fibonacci:64")
    parser.add_argument("--side", type=int, default=512, help="voxels along each axis")
    parser.add_argument("--suffix", default=".nii.gz", help="format of the CT's file")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / f"ct{options.suffix}"
        write_volume(ct(options.side), scan)
        results = Path(folder) / "results"
        command = [sys.executable, "-m", "TomoSegLib.cli", "run", str(scan), "--device", "cpu"]
        command += ["--model", options.model, "--method", options.method]
        command += ["--directions", options.directions, "--output", str(results)]
        start = time.perf_counter()
        together, status = watch(command)
        seconds = time.perf_counter() - start
        if status:
            print(f"the run has failed with exit status {status}", file=sys.stderr)
            return status
        found_ml = read_result(results).mask.volume_ml
    # Kilobytes on Linux; on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    single = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    peak = max(together, single)
    print(f"CT of {options.side}^3 voxels, {options.model}, {options.method}: {seconds:.0f} s")
    print(f"mask              {found_ml:6.1f} mL")
    print(f"largest process   {single / 1e9:6.2f} GB")
    print(f"all processes     {together / 1e9:6.2f} GB")
    verdict = "within" if peak < LIMIT_BYTES else "above"
    print(f"peak              {peak / 1e9:6.2f} GB ({verdict} {LIMIT_BYTES / 1e9:g} GB)")
    return int(peak >= LIMIT_BYTES)


def watch(command: list[str]) -> tuple[int, int]:
    """Run a command; the greatest sum of resident bytes of its processes, and its exit status."""
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += member.memory_info().rss
        peak = max(peak, total)
        time.sleep(0.02)
    return peak, process.returncode


def ct(side: int) -> Volume:
    """A cylinder of soft tissue in air, both noisy, with a dense ball in it; Hounsfield units."""
    geometry = Geometry.from_parts((side,) * 3, [SPACING_MM] * 3)
    generator = np.random.default_rng(0)
    array = np.empty(geometry.shape, dtype=np.int16)
    axis = (np.arange(side) - (side - 1) / 2) / (side / 2)
    across = (axis[:, None] / 0.7) ** 2 + (axis[None, :] / 0.9) ** 2
    ball = (axis[:, None] - 0.1) ** 2 + (axis[None, :] + 0.2) ** 2
    for plane, z in zip(array, axis, strict=True):
        values = np.where(across <= 1, 40.0, -1000.0)
        values[ball + z**2 <= 0.15**2] = 3000.0
        plane[:] = values + generator.normal(0, 20, values.shape)
    return Volume(array, geometry, "ct")


if __name__ == "__main__":
    sys.exit(main())
