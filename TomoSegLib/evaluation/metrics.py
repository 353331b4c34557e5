"""How good a heatmap and a mask are, case by case, where the lesion is known.

Arrays have axes ``[k, j, i]`` and lie on one grid. A case is judged within its *region*: the
foreground in which the method looked, together with every voxel of the reference mask. What the
foreground misses of the lesion therefore counts as missed, and the air around the patient does
not inflate specificity.

Where the reference is empty (a negative case) Dice, average precision, HD95 and the pointing game
have no meaning and are NaN; such cases count in the volume AUC and in pooled F1, where their false
positives hurt. Where the reference is not empty but the mask is, Dice is 0 and HD95 is the diagonal
of the grid, the convention of the BraTS challenge: predicting nothing must not pay.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

from TomoSegLib.imaging.volume import Geometry

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a mask against a reference within a region.

    Counts of several cases may be added, which gives pooled (micro-averaged) figures.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); NaN where the reference is empty."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); NaN where the reference fills the region."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN where the mask is empty."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity; NaN where either is."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN where the reference is empty.

        Of one case it is the Dice coefficient; of pooled counts it is F1 over all voxels.
        """
        if self.true_positive + self.false_negative == 0:
            return float("nan")
        both = 2 * self.true_positive
        return _ratio(both, both + self.false_positive + self.false_negative)


def overlap(mask: BoolArray, reference: BoolArray, region: BoolArray) -> Overlap:
    """Counts of ``mask`` against ``reference`` within ``region``, all ``(k, j, i)``."""
    mask, reference = mask[region], reference[region]
    both = int(np.count_nonzero(mask & reference))
    predicted, true = int(np.count_nonzero(mask)), int(np.count_nonzero(reference))
    return Overlap(both, predicted - both, true - both, mask.size - predicted - true + both)


@dataclass(frozen=True)
class Ranking:
    """How well a heatmap ranks a case's voxels, whatever threshold is chosen.

    Attributes:
        average_precision: sum over thresholds of (recall step) x precision, with tied voxels
            entering together and no interpolation.
        best_dice: Dice at the threshold that suits this case best. An *oracle*: nobody can choose
            it without the reference.
        best_threshold: That threshold; the mask is where the heatmap is at or above it.
    """

    average_precision: float
    best_dice: float
    best_threshold: float


def ranking(heatmap: FloatArray, reference: BoolArray, region: BoolArray) -> Ranking:
    """Rank the voxels of ``region`` by ``heatmap`` and compare with ``reference``.

    The definition of average precision is that of scikit-learn and MONAI (the tests compare with
    MONAI's); MONAI's loop over voxels takes seconds a volume, this takes one sort.

    Args:
        heatmap: ``(k, j, i)``, higher where a lesion is more likely, finite within the region.
        reference: ``(k, j, i)``; where it is empty every figure is NaN.
        region: ``(k, j, i)``, the voxels that count.
    """
    score, true = heatmap[region], reference[region]
    positives = int(np.count_nonzero(true))
    if positives == 0:
        return Ranking(float("nan"), float("nan"), float("nan"))
    order = np.argsort(score)[::-1]
    score = score[order]
    last_of_tie = np.append(score[1:] != score[:-1], True)
    hits = np.cumsum(true[order], dtype=np.int64)[last_of_tie]
    predicted = np.flatnonzero(last_of_tie) + 1
    steps = np.diff(hits, prepend=0)
    dice = 2 * hits / (predicted + positives)
    best = int(np.argmax(dice))
    return Ranking(
        average_precision=float(np.sum(steps * (hits / predicted)) / positives),
        best_dice=float(dice[best]),
        best_threshold=float(score[last_of_tie][best]),
    )


def pointing_hit(heatmap: FloatArray, reference: BoolArray, region: BoolArray) -> float:
    """Pointing game: the share of the heatmap's maxima within ``region`` that lie in ``reference``.

    1 or 0 for a single maximum; a heatmap that is flat cannot win by where its voxels happen to
    be stored. NaN where the reference is empty. No tolerance around the reference.
    """
    if not reference.any():
        return float("nan")
    score = heatmap[region]
    return float(np.mean(reference[region][score == score.max()]))


def hausdorff_95_mm(mask: BoolArray, reference: BoolArray, geometry: Geometry) -> float:
    """95th percentile of the distances between the surfaces, mm: the greater of both directions.

    Computed by MONAI on voxel borders. NaN where the reference is empty; the diagonal of the grid
    where only the mask is.
    """
    if not reference.any():
        return float("nan")
    if not mask.any():
        return float(np.linalg.norm(np.array(geometry.size) * geometry.spacing))
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    box = _bounding_box(mask | reference)
    pair = [
        torch.from_numpy(np.ascontiguousarray(array[box]))[None, None]
        for array in (mask, reference)
    ]
    with warnings.catch_warnings():
        # MONAI 1.6 warns of its own use of an argument that MONAI 1.7 will not have.
        warnings.filterwarnings("ignore", "monai.metrics.utils", FutureWarning)
        distance = compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=geometry.spacing[::-1].tolist()
        )
    return float(distance)


def volume_auc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """Area under the ROC curve of a score a volume: P(positive > negative) + P(equal) / 2.

    The Mann-Whitney statistic from the scores' ranks; NaN with one class only.
    """
    label, score = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    positives = int(np.count_nonzero(label == 1))
    pairs = positives * (label.size - positives)
    if pairs == 0:
        return float("nan")
    ranks = scipy.stats.rankdata(score)[label == 1].sum()
    return float((ranks - positives * (positives + 1) / 2) / pairs)


@dataclass(frozen=True)
class Estimate:
    """A figure over cases with its confidence interval.

    Attributes:
        value: The figure over all cases where it has a meaning.
        lower: Lower limit of the interval; NaN with fewer than two cases.
        upper: Upper limit.
        cases: Number of cases behind it.
    """

    value: float
    lower: float
    upper: float
    cases: int


def bootstrap(
    statistic: Callable[[npt.NDArray[np.intp]], float],
    cases: int,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """Percentile bootstrap over cases.

    Cases are taken as independent. Simulated cases that share a base anatomy are not quite, so
    their intervals say how the figure varies over more simulations, not over more people.

    Args:
        statistic: Figure of the cases with the given indices (repeats occur); resamples in which
            it is NaN, such as an AUC of one class, are left out.
        cases: Number of cases.
        seed: Seed of the resampling.
        confidence: Coverage of the interval.
        resamples: Number of resamples.
    """
    everything = np.arange(cases)
    value = float(statistic(everything)) if cases else float("nan")
    if cases < 2 or np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), cases)
    generator = np.random.default_rng(seed)
    values = np.array([statistic(generator.integers(cases, size=cases)) for _ in range(resamples)])
    tail = (1 - confidence) / 2
    lower, upper = np.nanquantile(values, [tail, 1 - tail])
    return Estimate(value, float(lower), float(upper), cases)


def mean_estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean over the cases where a figure is not NaN, with its bootstrap interval."""
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return bootstrap(lambda index: float(array[index].mean()), array.size, seed=seed)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _bounding_box(array: BoolArray) -> tuple[slice, ...]:
    """Smallest box with every true voxel, and one voxel around it so that borders stay borders."""
    box = []
    for axis in range(array.ndim):
        others = tuple(a for a in range(array.ndim) if a != axis)
        inside = np.flatnonzero(array.any(axis=others))
        box.append(slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2))
    return tuple(box)
