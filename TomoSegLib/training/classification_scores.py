"""How well a classifier does on cases that it was not trained on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegLib.evaluation.metrics import volume_auc
from TomoSegLib.files import atomic_path
from TomoSegLib.models.tasks import probability_columns


@dataclass(frozen=True)
class ClassScore:
    """One case.

    Attributes:
        case: Its name.
        true: Number of its class, from 0.
        probabilities: Of each class.
    """

    case: str
    true: int
    probabilities: tuple[float, ...]

    @property
    def predicted(self) -> int:
        """Number of the most probable class."""
        return int(np.argmax(self.probabilities))


@dataclass(frozen=True)
class ClassReport:
    """Figures over cases.

    Attributes:
        classes: Names of the classes.
        confusion: ``confusion[t][p]``: cases of class t that were taken for p.
        recall: Share of each class's cases that were recognised; None for a class without cases.
        balanced_accuracy: Mean of the recalls.
        auc: Of each class against the rest; None where only one of both has cases.
        mean_auc: Their mean; None without any.
    """

    classes: tuple[str, ...]
    confusion: list[list[int]]
    recall: list[float | None]
    balanced_accuracy: float
    auc: list[float | None]
    mean_auc: float | None

    def as_dict(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {
            "cases": sum(map(sum, self.confusion)),
            "balanced_accuracy": self.balanced_accuracy,
            "auc": self.mean_auc,
            "classes": {
                name: {"cases": sum(row), "recall": recall, "auc": auc}
                for name, row, recall, auc in zip(
                    self.classes, self.confusion, self.recall, self.auc, strict=True
                )
            },
            "confusion": {
                name: dict(zip(self.classes, row, strict=True))
                for name, row in zip(self.classes, self.confusion, strict=True)
            },
        }


def balanced_accuracy(true: Sequence[int], predicted: Sequence[int]) -> float:
    """Mean, over the classes that have cases, of the share of cases that were recognised."""
    a, b = np.asarray(true), np.asarray(predicted)
    return float(np.mean([np.mean(b[a == number] == number) for number in np.unique(a)]))


def report_of(scores: Sequence[ClassScore], classes: Sequence[str]) -> ClassReport:
    """Figures over cases, of which there is at least one.

    The AUC is the Mann-Whitney statistic of each class's probability, one class against the rest,
    and the mean over classes counts each alike (scikit-learn's ``ovr``, ``macro``).
    """
    true = [score.true for score in scores]
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    for score in scores:
        confusion[score.true, score.predicted] += 1
    auc = [
        volume_auc(
            [int(number == n) for number in true], [score.probabilities[n] for score in scores]
        )
        for n in range(len(classes))
    ]
    known = [value for value in auc if not np.isnan(value)]
    return ClassReport(
        tuple(classes),
        confusion.tolist(),
        [float(row[n] / row.sum()) if row.sum() else None for n, row in enumerate(confusion)],
        balanced_accuracy(true, [score.predicted for score in scores]),
        [None if np.isnan(value) else value for value in auc],
        float(np.mean(known)) if known else None,
    )


def write_class_scores(scores: Sequence[ClassScore], classes: Sequence[str], path: Path) -> None:
    """Write one row a case: case, class, predicted, and the probability of each class."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["case", "class", "predicted", *probability_columns(classes)])
        writer.writerows(
            [
                score.case,
                classes[score.true],
                classes[score.predicted],
                *(f"{value:.6f}" for value in score.probabilities),
            ]
            for score in scores
        )


def write_report(report: ClassReport, path: Path) -> None:
    """Write the figures for people, in Markdown."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    def cell(name: str) -> str:
        return name.replace("|", "\\|")

    cases = sum(map(sum, report.confusion))
    lines = [
        "# Test cases",
        "",
        f"{cases} cases: balanced accuracy {report.balanced_accuracy:.3f}, AUC (mean of each class "
        f"against the rest) {shown(report.mean_auc)}.",
        "",
        f"| class | cases | recall | AUC | {' | '.join('as ' + cell(c) for c in report.classes)} |",
        f"|---|---|---|---|{'---|' * len(report.classes)}",
    ]
    for name, row, recall, auc in zip(
        report.classes, report.confusion, report.recall, report.auc, strict=True
    ):
        counts = " | ".join(map(str, row))
        lines.append(f"| {cell(name)} | {sum(row)} | {shown(recall)} | {shown(auc)} | {counts} |")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
