"""Metrics against closed forms, other implementations and the cases that go wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.metrics.average_precision import compute_average_precision
from monai.metrics.meandice import compute_dice
from monai.metrics.rocauc import compute_roc_auc

from TomoSegLib.evaluation.metrics import (
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
EVERYWHERE = np.ones((6, 7, 8), dtype=bool)


def random_case(seed: int) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """A heatmap with many ties, and a reference that it knows something of."""
    generator = np.random.default_rng(seed)
    reference = generator.random(EVERYWHERE.shape) < 0.2
    heatmap = np.round(generator.normal(size=reference.shape) + reference, 1)
    return heatmap.astype(np.float32), reference


@pytest.mark.parametrize("seed", range(5))
def test_overlap_and_ranking_agree_with_monai(seed: int) -> None:
    heatmap, reference = random_case(seed)
    mask = heatmap > 0.5
    pair = [torch.from_numpy(a)[None, None] for a in (mask, reference)]
    assert overlap(mask, reference, EVERYWHERE).f1 == pytest.approx(float(compute_dice(*pair)))
    expected = compute_average_precision(
        torch.from_numpy(heatmap).flatten(), torch.from_numpy(reference).flatten().float()
    )
    assert ranking(heatmap, reference, EVERYWHERE).average_precision == pytest.approx(expected)


def test_oracle_dice_is_that_of_the_best_of_all_thresholds() -> None:
    heatmap, reference = random_case(7)
    result = ranking(heatmap, reference, EVERYWHERE)
    dice = {t: overlap(heatmap >= t, reference, EVERYWHERE).f1 for t in np.unique(heatmap)}
    assert result.best_dice == pytest.approx(max(dice.values()))
    assert dice[np.float32(result.best_threshold)] == pytest.approx(result.best_dice)


def test_only_the_region_counts() -> None:
    heatmap, reference = random_case(3)
    region = np.zeros_like(EVERYWHERE)
    region[1:5, 2:6, 1:7] = True
    cut = (slice(1, 5), slice(2, 6), slice(1, 7))
    inside = np.ones((4, 4, 6), dtype=bool)
    mask = heatmap > 0.3
    assert overlap(mask, reference, region) == overlap(mask[cut], reference[cut], inside)
    assert ranking(heatmap, reference, region) == ranking(heatmap[cut], reference[cut], inside)


def test_counts_give_the_figures_by_hand_and_can_be_pooled() -> None:
    counts = Overlap(30, 10, 20, 940)
    assert counts.sensitivity == pytest.approx(0.6)
    assert counts.specificity == pytest.approx(940 / 950)
    assert counts.precision == pytest.approx(0.75)
    assert counts.balanced_accuracy == pytest.approx((0.6 + 940 / 950) / 2)
    assert counts.f1 == pytest.approx(60 / 90)
    negative = Overlap(0, 30, 0, 970)
    assert (counts + negative).f1 == pytest.approx(60 / 120), "false positives of negatives hurt"


def test_a_perfect_and_a_reversed_heatmap() -> None:
    _, reference = random_case(1)
    perfect = ranking(reference.astype(np.float32), reference, EVERYWHERE)
    assert (perfect.average_precision, perfect.best_dice) == (1.0, 1.0)
    prevalence = reference.mean()
    flat = ranking(np.zeros(reference.shape), reference, EVERYWHERE)
    assert flat.average_precision == pytest.approx(prevalence)
    assert ranking(-reference.astype(float), reference, EVERYWHERE).average_precision < 0.25


def test_empty_references_and_masks() -> None:
    heatmap, reference = random_case(2)
    nothing = np.zeros_like(reference)
    geometry = Geometry.from_parts(reference.shape, (1.0, 2.0, 3.0))
    for value in (
        overlap(reference, nothing, EVERYWHERE).f1,
        overlap(nothing, nothing, EVERYWHERE).f1,
        ranking(heatmap, nothing, EVERYWHERE).average_precision,
        pointing_hit(heatmap, nothing, EVERYWHERE),
        hausdorff_95_mm(reference, nothing, geometry),
    ):
        assert np.isnan(value)
    assert overlap(nothing, reference, EVERYWHERE).f1 == 0
    diagonal = np.sqrt(8.0**2 + 14.0**2 + 18.0**2)
    assert hausdorff_95_mm(nothing, reference, geometry) == pytest.approx(diagonal)


def test_hausdorff_distance_is_in_millimetres_along_each_axis() -> None:
    geometry = Geometry.from_parts((20, 20, 20), (0.5, 2.0, 3.0))  # along i, j, k
    reference = np.zeros((20, 20, 20), dtype=bool)
    reference[5:8, 5:8, 5:8] = True
    for axis, step in ((0, 3.0), (1, 2.0), (2, 0.5)):
        moved = np.roll(reference, 4, axis=axis)
        # voxels of the far face, a third of the surface, are all 4 steps away
        assert hausdorff_95_mm(moved, reference, geometry) == pytest.approx(4 * step, rel=1e-5)
    assert hausdorff_95_mm(reference, reference, geometry) == 0


def test_hausdorff_distance_at_the_border_of_the_grid() -> None:
    geometry = Geometry.from_parts((4, 4, 4), (1.0, 1.0, 1.0))
    whole = np.ones((4, 4, 4), dtype=bool)
    assert hausdorff_95_mm(whole, whole, geometry) == 0


def test_pointing_game_is_won_inside_and_never_by_a_flat_map() -> None:
    reference = np.zeros_like(EVERYWHERE)
    reference[2, 3, 4] = True
    heatmap = np.zeros(reference.shape)
    heatmap[2, 3, 4] = 1
    assert pointing_hit(heatmap, reference, EVERYWHERE) == 1
    heatmap[0, 0, 0] = 2
    assert pointing_hit(heatmap, reference, EVERYWHERE) == 0
    region = EVERYWHERE.copy()
    region[0, 0, 0] = False
    assert pointing_hit(heatmap, reference, region) == 1
    assert pointing_hit(np.zeros(reference.shape), reference, EVERYWHERE) < 0.01


def test_volume_auc_agrees_with_monai_and_needs_both_classes() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=60)
    scores = np.round(generator.normal(size=60) + labels, 1)
    expected = compute_roc_auc(torch.from_numpy(scores), torch.from_numpy(labels))
    assert volume_auc(labels.tolist(), scores.tolist()) == pytest.approx(expected)
    assert np.isnan(volume_auc([1, 1], [0.1, 0.2]))


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(100):
        sample = np.random.default_rng(trial).normal(size=40)
        estimate = mean_estimate(sample.tolist(), seed=trial)
        covered += estimate.lower <= 0 <= estimate.upper
    assert 86 <= covered <= 100


def test_bootstrap_is_seeded_and_leaves_out_cases_without_meaning() -> None:
    values = [0.1, float("nan"), 0.5, 0.9]
    estimate = mean_estimate(values, seed=3)
    assert (estimate.value, estimate.cases) == (pytest.approx(0.5), 3)
    assert estimate.lower < 0.5 < estimate.upper
    assert estimate == mean_estimate(values, seed=3)


def test_bootstrap_of_few_cases_has_no_interval() -> None:
    assert mean_estimate([]).cases == 0 and np.isnan(mean_estimate([]).value)
    one = mean_estimate([0.7])
    assert one.value == pytest.approx(0.7) and np.isnan(one.lower) and np.isnan(one.upper)


def test_resamples_without_meaning_are_left_out() -> None:
    labels, scores = [1, 0, 1], [0.9, 0.1, 0.8]

    def auc(index: npt.NDArray[np.intp]) -> float:
        return volume_auc([labels[i] for i in index], [scores[i] for i in index])

    estimate = bootstrap(auc, 3, resamples=200)
    assert (estimate.value, estimate.lower, estimate.upper) == (1.0, 1.0, 1.0)
