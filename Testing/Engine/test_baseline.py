"""The intensity baseline finds what it should, and its settings are really the best."""

from __future__ import annotations

import numpy as np
import pytest

from TomoSegLib.evaluation.baseline import (
    SIGMAS_MM,
    THRESHOLDS,
    IntensityBaseline,
    choose_baseline,
    largest_component,
)
from TomoSegLib.evaluation.metrics import BoolArray, overlap
from TomoSegLib.imaging.preprocessing import ModelInput
from TomoSegLib.imaging.volume import Geometry

GRID = Geometry.from_parts((24, 26, 28), (2.0, 2.0, 2.0))


def head(seed: int, contrast: float = 2.0, channels: int = 1) -> tuple[ModelInput, BoolArray]:
    """Noise in a ball, with a brighter ball in it, in the last channel."""
    generator = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij")
    foreground = (k - 12) ** 2 + (j - 13) ** 2 + (i - 14) ** 2 < 11**2
    a, b, c = generator.integers(9, 16, 3)
    lesion = ((k - a) ** 2 + (j - b) ** 2 + (i - c) ** 2 < 4**2) & foreground
    image = generator.normal(0, 1, (channels, *GRID.shape)).astype(np.float32)
    image[-1] += contrast * lesion
    image[:, ~foreground] = 0
    return ModelInput(image, foreground, GRID, GRID, foreground), lesion


@pytest.mark.parametrize("contrast", [2.0, -2.0])
def test_bright_and_dark_lesions_are_found(contrast: float) -> None:
    baseline = choose_baseline(head(seed, contrast) for seed in range(3))
    assert baseline.sign == np.sign(contrast)
    assert baseline.sigma_mm > 0, "noise has to be smoothed away"
    unseen, lesion = head(9, contrast)
    mask, threshold = baseline.mask(baseline.heatmap(unseen), unseen.foreground)
    assert threshold == baseline.threshold
    assert overlap(mask, lesion, unseen.foreground).f1 > 0.8


def test_the_choice_has_the_best_mean_dice_of_all_and_says_so() -> None:
    cases = [head(seed, 1.5) for seed in range(2)]
    chosen = choose_baseline(cases)
    best = 0.0
    for sign in (1, -1):
        for sigma in SIGMAS_MM:
            for threshold in THRESHOLDS:
                trial = IntensityBaseline(0, sign, sigma, threshold)
                dice = [
                    overlap(trial.mask(trial.heatmap(x), x.foreground)[0], truth, x.foreground).f1
                    for x, truth in cases
                ]
                best = max(best, float(np.mean(dice)))
    assert chosen.validation_dice == pytest.approx(best)
    assert chosen.validation_cases == 2


def test_the_channel_that_shows_the_lesion_is_chosen() -> None:
    assert choose_baseline([head(0, 3.0, channels=2)]).channel == 1


def test_without_validation_cases_otsu_decides() -> None:
    model_input, lesion = head(1, 4.0)
    baseline = choose_baseline([(model_input, np.zeros_like(lesion))])
    assert (baseline.threshold, baseline.validation_cases) == (None, 0)
    mask, threshold = baseline.mask(baseline.heatmap(model_input), model_input.foreground)
    assert overlap(mask, lesion, model_input.foreground).f1 > 0.6
    assert np.isfinite(threshold)


def test_smoothing_takes_nothing_from_outside_the_foreground() -> None:
    model_input, _ = head(2, 0.0)
    flat = np.where(model_input.foreground, 1.0, 0.0).astype(np.float32)[None]
    flat[0][model_input.foreground] += (
        np.float32(1e-3) * model_input.image[0][model_input.foreground]
    )
    outside = flat.copy()
    outside[:, ~model_input.foreground] = 1000
    baseline = IntensityBaseline(sigma_mm=4.0)
    one, other = (
        baseline.heatmap(ModelInput(i, model_input.foreground, GRID, GRID, model_input.foreground))
        for i in (flat, outside)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_largest_component_is_one_and_the_largest() -> None:
    mask = np.zeros((5, 5, 9), dtype=bool)
    mask[1, 1, 1:3] = True
    mask[3, 3, 4:8] = True
    expected = np.zeros_like(mask)
    expected[3, 3, 4:8] = True
    np.testing.assert_array_equal(largest_component(mask), expected)
    np.testing.assert_array_equal(largest_component(expected), expected)
    assert not largest_component(np.zeros_like(mask)).any()
