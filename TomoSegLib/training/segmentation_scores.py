"""How well a segmenter does on cases that it was not trained on, on the scans' own grids."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.preprocessing import prepare
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.training.segmentation_data import read_case
from TomoSegLib.training.segmentation_manifest import LabelledCase, LabelSpec


@dataclass(frozen=True)
class Score:
    """One label in one case.

    Attributes:
        case: The case's name.
        label: The label's name.
        volume_ml: Volume of the reference.
        predicted_ml: Volume of the segmentation.
        dice: Their Dice; NaN if the case has none of the label.
    """

    case: str
    label: str
    volume_ml: float
    predicted_ml: float
    dice: float


def score_cases(
    model: ModelFolder,
    cases: Sequence[LabelledCase],
    labels: Sequence[LabelSpec],
    device: str = "cpu",
    on_case: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Segment cases as ``tomoseg run`` does, and compare with their label maps.

    Args:
        model: The segmenter.
        cases: The cases.
        labels: Its labels, in the order of its card.
        device: Where it runs.
        on_case: Receives cases done and in all.
    """
    from TomoSegLib.models.segmenter import load_segmenter
    from TomoSegLib.segmentation.inference import predict
    from TomoSegLib.segmentation.labelmap import to_source

    segmenter = load_segmenter(model, device)
    scores: list[Score] = []
    for done, case in enumerate(cases, 1):
        volumes, reference = read_case(case, labels, in_plane=model.card.preprocessing.in_plane)
        scan = prepare(volumes, model.card.preprocessing)
        found = predict(scan, segmenter)
        _, labelmap = to_source(
            found.probabilities, scan.geometry, scan.source, scan.source_foreground, model.card
        )
        voxel_ml = scan.source.voxel_volume_ml
        for number, label in enumerate(labels, 1):
            mask, true = labelmap == label.values[0], reference == number
            both, sizes = int((mask & true).sum()), (int(true.sum()), int(mask.sum()))
            dice = 2 * both / sum(sizes) if sizes[0] else float("nan")
            scores.append(
                Score(case.id, label.name, sizes[0] * voxel_ml, sizes[1] * voxel_ml, dice)
            )
        if on_case is not None:
            on_case(done, len(cases))
    return scores


def mean_dice(scores: Sequence[Score], label: str) -> float:
    """Mean Dice of a label over the cases that have it; NaN without any."""
    values = [score.dice for score in scores if score.label == label and not np.isnan(score.dice)]
    return float(np.mean(values)) if values else float("nan")


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Write one row a case and label."""
    names = [field.name for field in fields(Score)]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(
            [score.case, score.label, *(f"{getattr(score, n):.4f}" for n in names[2:])]
            for score in scores
        )
