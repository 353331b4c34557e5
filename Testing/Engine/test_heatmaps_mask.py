"""From a heatmap to a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.mask import heatmap_to_mask
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import MaskSettings, Threshold

GRID = Geometry.from_parts((20, 24, 28), (2.0, 2.0, 2.5))  # 0.01 mL a voxel


def three_lesions() -> tuple[Any, Any]:
    """100 voxels of height 2, 30 with the peak of 5, 4 of height 3; noise below 1 elsewhere."""
    heatmap = np.random.default_rng(0).uniform(0, 1, GRID.shape).astype(np.float32)
    heatmap[2:6, 2:7, 2:7] = 2
    heatmap[12:14, 12:15, 12:17] = 3
    heatmap[13, 13, 13] = 5
    heatmap[17, 2:4, 20:22] = 3
    foreground = np.zeros(GRID.shape, dtype=bool)
    foreground[1:-1, 1:-1, 1:-1] = True
    return heatmap, foreground


def mask_of(threshold: Any, calibrated: Threshold | None = None, **settings: Any) -> Any:
    heatmap, foreground = three_lesions()
    return heatmap_to_mask(
        heatmap, foreground, threshold, MaskSettings(**settings), GRID, calibrated=calibrated
    )


def test_a_number_is_a_threshold_that_mask_voxels_exceed() -> None:
    mask, used = mask_of(2.0)
    assert used == 2.0 and mask.dtype == np.uint8
    assert mask.sum() == 34
    assert mask_of("1.5")[0].sum() == 134


def test_the_cards_threshold_is_absolute_or_a_fraction_of_the_peak_in_the_foreground() -> None:
    assert mask_of("card", Threshold(value=1.5))[1] == 1.5
    assert mask_of("card", Threshold(kind="peak", value=0.5))[1] == 2.5
    heatmap, foreground = three_lesions()
    heatmap[0, 0, 0] = 100  # outside
    threshold = Threshold(kind="peak", value=0.5)
    assert heatmap_to_mask(heatmap, foreground, threshold, MaskSettings(), GRID)[1] == 2.5


def test_the_cards_threshold_may_be_a_fraction_of_the_hottest_five_millilitres_mean() -> None:
    generator = np.random.default_rng(0)
    heatmap = generator.uniform(0, 1, GRID.shape).astype(np.float32)
    heatmap[2:12, 2:12, 2:7] = 2  # 500 voxels: 5 mL
    foreground = np.ones(GRID.shape, dtype=bool)
    threshold = Threshold(kind="plateau", value=0.5)
    assert heatmap_to_mask(heatmap, foreground, threshold, MaskSettings(), GRID)[1] == 1.0
    heatmap[12, 12, 12] = 102  # one hot voxel of 500 moves it by a tenth, not fiftyfold
    level = heatmap_to_mask(heatmap, foreground, threshold, MaskSettings(), GRID)[1]
    assert level == pytest.approx(1.1)


def test_less_than_the_plateau_s_volume_is_averaged_as_a_whole() -> None:
    grid = Geometry.from_parts((4, 4, 4), (1.0, 1.0, 1.0))
    heatmap = np.arange(64, dtype=np.float32).reshape(grid.shape)
    threshold = Threshold(kind="plateau", value=1.0)
    mask, level = heatmap_to_mask(
        heatmap, np.ones(grid.shape, bool), threshold, MaskSettings(), grid
    )
    assert level == 31.5 and mask.sum() == 32


def test_a_heatmap_that_is_nowhere_positive_has_no_fraction_of_its_peak() -> None:
    heatmap = np.full(GRID.shape, -1, dtype=np.float32)
    heatmap[5, 5, 5] = -0.5
    mask, _ = heatmap_to_mask(
        heatmap,
        np.ones(GRID.shape, bool),
        Threshold(kind="peak", value=0.4),
        MaskSettings(),
        GRID,
    )
    assert not mask.any()


def test_otsu_separates_two_classes_of_the_foregrounds_values() -> None:
    heatmap, foreground = three_lesions()
    heatmap[foreground] = np.random.default_rng(1).normal(0, 0.1, int(foreground.sum()))
    heatmap[4:10, 4:10, 4:10] += 4
    heatmap[~foreground] = -1000  # must not count
    mask, used = heatmap_to_mask(heatmap, foreground, "otsu", MaskSettings(), GRID)
    assert 0.3 < used < 3.5
    assert mask.sum() == 6**3 and mask[4:10, 4:10, 4:10].all()


def test_a_percentile_leaves_that_share_of_the_foreground() -> None:
    heatmap, foreground = three_lesions()
    mask, used = mask_of("percentile:90")
    assert used == pytest.approx(float(np.percentile(heatmap[foreground], 90)))
    assert mask.sum() / foreground.sum() == pytest.approx(0.1, abs=0.001)
    assert not mask_of("percentile:100")[0].any()


@pytest.mark.parametrize("threshold", ["otsu", "percentile:50"])
def test_a_constant_heatmap_gives_an_empty_mask(threshold: str) -> None:
    heatmap = np.full(GRID.shape, 3, dtype=np.float32)
    mask, _ = heatmap_to_mask(heatmap, np.ones(GRID.shape, bool), threshold, MaskSettings(), GRID)
    assert not mask.any()


def test_the_mask_never_leaves_the_foreground() -> None:
    heatmap, foreground = three_lesions()
    for threshold in (-1.0, "otsu", "percentile:0"):
        mask, _ = heatmap_to_mask(heatmap, foreground, threshold, MaskSettings(), GRID)
        assert not mask[~foreground].any()


@pytest.mark.parametrize(
    ("components", "minimum_ml", "sizes"),
    [
        ("all", 0.0, [4, 30, 100]),
        ("all", 0.04, [4, 30, 100]),
        ("all", 0.05, [30, 100]),
        ("all", 0.31, [100]),
        ("all", 2.0, []),
        ("largest", 0.0, [100]),
        ("largest", 2.0, []),
        ("peak", 0.0, [30]),
        ("peak", 0.31, [100]),
        ("peak", 2.0, []),
    ],
)
def test_components_are_kept_by_size_and_choice(
    components: str, minimum_ml: float, sizes: list[int]
) -> None:
    from scipy import ndimage

    mask, _ = mask_of(1.5, components=components, minimum_size_ml=minimum_ml)
    labels, count = ndimage.label(mask)
    assert sorted(np.bincount(labels.ravel())[1:].tolist()) == sizes


def test_voxels_that_touch_at_corners_are_one_component() -> None:
    heatmap = np.zeros(GRID.shape, dtype=np.float32)
    for n in range(3, 12):
        heatmap[n, n, n] = 1
    mask, _ = heatmap_to_mask(
        heatmap,
        np.ones(GRID.shape, bool),
        0.5,
        MaskSettings(components="largest", minimum_size_ml=0.09),
        GRID,
    )
    assert mask.sum() == 9


@pytest.mark.parametrize(
    ("threshold", "code"),
    [
        ("card", "threshold-not-calibrated"),
        ("percentile:101", "threshold-invalid"),
        ("percentile:-1", "threshold-invalid"),
        ("percentile:many", "threshold-invalid"),
        ("percentile:nan", "threshold-invalid"),
        ("high", "threshold-invalid"),
        ("", "threshold-invalid"),
        (float("nan"), "threshold-invalid"),
        (float("inf"), "threshold-invalid"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_an_error(threshold: Any, code: str) -> None:
    with pytest.raises(TomoSegError) as caught:
        mask_of(threshold)
    assert caught.value.code == code


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_heatmap_that_is_not_finite_is_an_error(value: float) -> None:
    heatmap, foreground = three_lesions()
    heatmap[3, 3, 3] = value
    with pytest.raises(TomoSegError) as caught:
        heatmap_to_mask(heatmap, foreground, 1.0, MaskSettings(), GRID)
    assert caught.value.code == "heatmap-not-finite"


@pytest.mark.parametrize("threshold", ["otsu", "percentile:50", Threshold(kind="peak", value=0.5)])
def test_an_empty_foreground_has_no_threshold(threshold: Any) -> None:
    heatmap, foreground = three_lesions()
    with pytest.raises(TomoSegError) as caught:
        heatmap_to_mask(heatmap, foreground & False, threshold, MaskSettings(), GRID)
    assert caught.value.code == "foreground-empty"


def test_the_inputs_are_left_as_they_are() -> None:
    heatmap, foreground = three_lesions()
    before = heatmap.copy(), foreground.copy()
    heatmap_to_mask(heatmap, foreground, 1.5, MaskSettings(components="largest"), GRID)
    assert np.array_equal(heatmap, before[0]) and np.array_equal(foreground, before[1])
