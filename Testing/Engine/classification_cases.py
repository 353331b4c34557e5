"""Stacks with a class, for the tests of fine-tuning and of classifying."""

from __future__ import annotations

import csv

import numpy as np

from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume

FEATURES = (4, 4, 8, 8, 8, 4)
CLASSES = ("dilated", "normal")


def grid(slices, spacing=1.5):
    return Geometry.from_parts((slices, 40, 44), (spacing, spacing, 9.0), None, (12, -40, 7))


def stack(seed, name, slices=4):
    """A bright disc, large where the class is dilated; noise."""
    rng = np.random.default_rng(seed)
    j, i = np.mgrid[:40, :44]
    image = rng.normal(0, 0.3, (slices, 40, 44))
    for k in range(slices):
        radius = np.hypot(j - 20 - rng.uniform(-2, 2), i - 22 - rng.uniform(-2, 2))
        image[k] += 4.0 * (radius < (12 if name == "dilated" else 5) + rng.uniform(-1, 1))
    return Volume(image.astype(np.float32), grid(slices))


SPLITS = ("train", "train", "train", "val", "test", "test")


def write_cases(folder, splits=SPLITS, channels=("image",), slices=(4, 3, 1, 4, 5, 1)):
    """Six stacks of each class, as many of a split as it occurs, and their manifest."""
    folder.mkdir(exist_ok=True)
    rows = [[*channels, "class", "split", "group", "modality"]]
    for number, (split, count) in enumerate(zip(splits, slices, strict=True)):
        for index, name in enumerate(CLASSES):
            file = f"{name}-{number}.nii.gz"
            write_volume(stack(10 * number + index, name, count), folder / file)
            rows.append([*[file] * len(channels), name, split, f"{name}-{number}", "MR"])
    return write_manifest(folder, rows)


def write_manifest(folder, rows):
    with (folder / "classes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "classes.csv"


def read_manifest(path):
    with path.open(newline="") as stream:
        return list(csv.reader(stream))
