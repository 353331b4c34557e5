"""From cases to a method: one row a case and method, and means with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.evaluation.metrics import (
    Estimate,
    Overlap,
    bootstrap,
    hausdorff_95_mm,
    mean_estimate,
    overlap,
    pointing_hit,
    ranking,
    volume_auc,
)
from TomoSegLib.imaging.volume import Geometry

BoolArray = npt.NDArray[np.bool_]
NAN = float("nan")

MEANS = (
    "dice",
    "average_precision",
    "hd95_mm",
    "pointing_game",
    "sensitivity",
    "specificity",
    "precision",
    "balanced_accuracy",
    "oracle_dice",
)
"""Figures of a case that are averaged over cases."""


@dataclass(frozen=True)
class CaseResult:
    """One method on one case: a row of ``cases.csv``.

    Attributes:
        case: Name of the case.
        label: 1 or 0, from the manifest.
        method: Name of the method.
        score: The volume's score, the heatmap's maximum within the foreground.
        threshold: The heatmap value at which the mask begins.
        reference_ml: Volume of the reference mask, mL; NaN where there is none.
        mask_ml: Volume of the mask, mL.
        dice: Also the case's own F1.
        average_precision: Of the heatmap, within the foreground.
        hd95_mm: 95th percentile of the distances between the surfaces.
        pointing_game: 1 where the heatmap's maximum lies in the reference.
        sensitivity: Voxelwise.
        specificity: Voxelwise, within the foreground.
        precision: Voxelwise; NaN where mask or reference is empty.
        balanced_accuracy: Mean of sensitivity and specificity.
        oracle_dice: Dice at the threshold that would have suited this case best.
        oracle_threshold: That threshold.
        true_positive: Voxels; NaN, as the next three, where there is no reference.
        false_positive: Voxels.
        false_negative: Voxels.
        true_negative: Voxels.
        seconds: Time that heatmap and mask took.
    """

    case: str
    label: int
    method: str
    score: float
    threshold: float
    reference_ml: float = NAN
    mask_ml: float = NAN
    dice: float = NAN
    average_precision: float = NAN
    hd95_mm: float = NAN
    pointing_game: float = NAN
    sensitivity: float = NAN
    specificity: float = NAN
    precision: float = NAN
    balanced_accuracy: float = NAN
    oracle_dice: float = NAN
    oracle_threshold: float = NAN
    true_positive: float = NAN
    false_positive: float = NAN
    false_negative: float = NAN
    true_negative: float = NAN
    seconds: float = NAN

    @property
    def counts(self) -> Overlap | None:
        """Voxel counts, or None where there is no reference."""
        if math.isnan(self.true_positive):
            return None
        return Overlap(
            int(self.true_positive),
            int(self.false_positive),
            int(self.false_negative),
            int(self.true_negative),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV: NaN becomes None."""
        return {key: _finite(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaseResult:
        """The inverse of `as_dict`."""
        restored: dict[str, Any] = {
            f.name: NAN if values[f.name] is None else values[f.name] for f in fields(cls)
        }
        return cls(**restored)


def judge(
    *,
    case: str,
    label: int,
    method: str,
    heatmap: npt.NDArray[np.float32],
    mask: BoolArray,
    threshold: float,
    foreground: BoolArray,
    reference: BoolArray | None,
    geometry: Geometry,
    seconds: float = NAN,
) -> CaseResult:
    """All figures of one method on one case.

    Args:
        case: Name of the case.
        label: 1 or 0.
        method: Name of the method.
        heatmap: ``(k, j, i)``.
        mask: ``(k, j, i)``.
        threshold: The heatmap value at which the mask begins.
        foreground: ``(k, j, i)``, where the method looked.
        reference: ``(k, j, i)``, where the lesion is: empty for a negative case, None where
            nobody has drawn it.
        geometry: The grid of all of them.
        seconds: Time that heatmap and mask took.
    """
    score = float(heatmap[foreground].max()) if foreground.any() else NAN
    mask_ml = int(np.count_nonzero(mask)) * geometry.voxel_volume_ml
    known = CaseResult(case, label, method, score, threshold, mask_ml=mask_ml, seconds=seconds)
    if reference is None:
        return known
    region = foreground | reference
    # What lies outside the foreground was not looked at: it comes last in every ranking.
    ranked = np.where(foreground, heatmap, -np.inf) if reference.any() else heatmap
    rank = ranking(ranked, reference, region)
    counts = overlap(mask, reference, region)
    return replace(
        known,
        reference_ml=int(np.count_nonzero(reference)) * geometry.voxel_volume_ml,
        dice=counts.f1,
        average_precision=rank.average_precision,
        hd95_mm=hausdorff_95_mm(mask, reference, geometry),
        pointing_game=pointing_hit(ranked, reference, region),
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
        # of a negative case it could only be 0, or nothing
        precision=counts.precision if reference.any() else NAN,
        balanced_accuracy=counts.balanced_accuracy,
        oracle_dice=rank.best_dice,
        oracle_threshold=rank.best_threshold,
        true_positive=counts.true_positive,
        false_positive=counts.false_positive,
        false_negative=counts.false_negative,
        true_negative=counts.true_negative,
    )


def summarize(results: Sequence[CaseResult], *, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """Figures of each method with 95 % intervals from a bootstrap over cases.

    Returns:
        By method, by figure: those of `MEANS`, averaged over the cases where they have a meaning;
        ``f1_pooled`` and ``balanced_accuracy_pooled`` over the voxels of all cases, negatives
        included; ``volume_auc`` of the score; ``seconds``, the mean time a case.
    """
    summary: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(result.method for result in results):
        rows = [result for result in results if result.method == method]
        figures = {
            name: mean_estimate([getattr(row, name) for row in rows], seed=seed) for name in MEANS
        }
        figures["f1_pooled"] = _pooled(rows, "f1", seed)
        figures["balanced_accuracy_pooled"] = _pooled(rows, "balanced_accuracy", seed)
        figures["volume_auc"] = _volume_auc(rows, seed)
        figures["seconds"] = mean_estimate([row.seconds for row in rows], seed=seed)
        summary[method] = figures
    return summary


def differences(
    results: Sequence[CaseResult],
    against: str,
    *,
    figures: Sequence[str] = ("dice", "average_precision", "oracle_dice"),
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """Mean paired difference of each method to one of them, case by case, with intervals.

    The interval of a paired difference is what tells whether one method is better: those of the
    two means overlap whenever cases differ more than methods do.
    """
    base = {row.case: row for row in results if row.method == against}
    compared: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(row.method for row in results if row.method != against):
        pairs = [
            (row, base[row.case]) for row in results if row.method == method and row.case in base
        ]
        compared[method] = {
            name: mean_estimate([getattr(a, name) - getattr(b, name) for a, b in pairs], seed=seed)
            for name in figures
        }
    return compared


def estimates_as_dict(
    estimates: Mapping[str, Mapping[str, Estimate]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """For JSON: NaN becomes None."""
    return {
        method: {
            name: {key: _finite(value) for key, value in asdict(estimate).items()}
            for name, estimate in figures.items()
        }
        for method, figures in estimates.items()
    }


def _pooled(rows: Sequence[CaseResult], figure: str, seed: int) -> Estimate:
    counts = [row.counts for row in rows if row.counts is not None]
    table = np.array([list(asdict(c).values()) for c in counts], dtype=np.int64).reshape(-1, 4)

    def pooled(index: npt.NDArray[np.intp]) -> float:
        total = Overlap(*(int(n) for n in table[index].sum(axis=0)))
        value: float = getattr(total, figure)
        return value

    return bootstrap(pooled, len(table), seed=seed)


def _volume_auc(rows: Sequence[CaseResult], seed: int) -> Estimate:
    labels = np.array([row.label for row in rows])
    scores = np.array([row.score for row in rows])
    return bootstrap(
        lambda index: volume_auc(labels[index].tolist(), scores[index].tolist()),
        len(rows),
        seed=seed,
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
