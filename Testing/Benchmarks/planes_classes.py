"""Classification in the bench of transfer from planes: hearts with a thin or a thick wall.

The class of an end-diastolic stack is whether the left ventricle's wall is thicker than the median
of the labelled studies. Thickness comes from the true labels: in every slice that has cavity and
wall, the difference of the radii of discs as large as both together and as the cavity alone; of a
heart, the median of its slices. Neither contrast nor position tells it; the anatomy has to be seen.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from transfer_report import finished, read_csv

from TomoSegLib.datasets.hearts_anatomy import LEFT_VENTRICLE, MYOCARDIUM
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.training.classification import finetune_classifier
from TomoSegLib.training.classification_plan import ClassifierTraining
from TomoSegLib.training.classification_trainer import ClassifierOptions
from TomoSegLib.training.segmentation_trainer import FinetuningOptions

CLASSES = "classes.csv"
FIGURES = {"balanced_accuracy": "Balanced accuracy", "auc": "AUC"}
_DIASTOLE = "-ed.nii.gz"
_SLICES = 6
_LEAST_ML = 0.5  # of cavity in a slice: less is the valve's plane or the apex


def wall_thickness_mm(labels: Volume) -> float:
    """Thickness of the left ventricle's wall in a short-axis stack's true labels."""
    i, j, k = labels.geometry.spacing
    thickness = []
    for plane in labels.array:
        cavity = np.count_nonzero(plane == LEFT_VENTRICLE) * i * j
        wall = np.count_nonzero(plane == MYOCARDIUM) * i * j
        if wall and cavity * k >= 1000 * _LEAST_ML:
            thickness.append(np.sqrt((cavity + wall) / np.pi) - np.sqrt(cavity / np.pi))
    return float(np.median(thickness))


def write_classes(folder: Path) -> None:
    """From ``stacks.csv``, which has the labels, to a manifest of the diastolic stacks' classes."""
    rows = [row for row in read_csv(folder / "stacks.csv") if row["image"].endswith(_DIASTOLE)]
    thickness = [wall_thickness_mm(read_volume(folder / row["label"])) for row in rows]
    training = [mm for mm, row in zip(thickness, rows, strict=True) if row["split"] == "train"]
    limit = float(np.median(training))
    found = [["image", "class", "split", "group", "modality", "wall_mm"]]
    for row, mm in zip(rows, thickness, strict=True):
        name = "thick" if mm > limit else "thin"
        found.append([row["image"], name, row["split"], row["group"], "MR", f"{mm:.2f}"])
    with (folder / CLASSES).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(found)


@dataclass(frozen=True)
class ClassBench:
    """What all fine-tunings have in common.

    Attributes:
        folder: Of the bench.
        labelled: Labelled studies in all.
        finetuning: Options of the segmentation, of which steps, batches, image size, augmentation,
            rotation and averaging are taken.
        spacing_mm: Pixel size.
        workers: Processes that draw slices.
        device: torch device.
    """

    folder: Path
    labelled: int
    finetuning: FinetuningOptions
    spacing_mm: float
    workers: int
    device: str

    def finetuned(
        self,
        name: str,
        start: str,
        seed: int,
        studies: int,
        features: tuple[int, ...] | None,
        tell: Callable[[str, int, int, Mapping[str, float]], None],
    ) -> Path:
        """Folder of a fine-tuning on so many studies of each class, at most all there are."""
        folder = self.folder / "finetuned-classes" / name
        base = self.finetuning
        options = ClassifierOptions(
            steps=base.steps,
            batch_size=base.batch_size,
            slices=_SLICES,
            size=base.patch[1:],
            validate_every=base.validate_every,
            flips=base.flips,
            augmentation=base.augmentation,
            rotation=base.rotation,  # but no zoom: the class is a length in mm
            averaged=base.averaged,
            seed=seed,
        )
        if not finished(folder, options.as_dict()):
            if not (self.folder / CLASSES).exists():
                write_classes(self.folder)
            what = ClassifierTraining(
                self.folder / CLASSES,
                folder,
                start=start,
                fraction=min(Fraction(1), Fraction(2 * studies, self.labelled)),
                options=options,
                spacing_mm=self.spacing_mm,
                features=features,
                workers=self.workers,
                device=self.device,
                command="python Testing/Benchmarks/planes_transfer.py --task classification",
            )
            finetune_classifier(what, tell)
        return folder


def class_rows(folder: Path) -> Sequence[dict[str, Any]]:
    """The figures of a fine-tuning, one a row."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [
        {"case": "all", "label": title, "value": "nan" if report[name] is None else report[name]}
        for name, title in FIGURES.items()
    ]
