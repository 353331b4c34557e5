"""Simulated lesions: what is known about them holds, and nothing else gives their label away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from TomoSegLib.datasets import lesions
from TomoSegLib.datasets.anatomy import Anatomy, load_anatomy
from TomoSegLib.datasets.lesions import SimulatedCase, simulate_case
from TomoSegLib.datasets.random_fields import (
    ellipsoid_distance,
    gaussian_blur,
    random_rotation,
    smooth_noise,
)
from TomoSegLib.datasets.recipes import Recipe, T1cRecipe
from TomoSegLib.training.weak_supervision import area_under_curve

COARSE = Recipe(spacing_mm=6.0)
COARSE_T1C = T1cRecipe(spacing_mm=6.0)
PAIRS = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def head(head_files: tuple[Path, Path]) -> Anatomy:
    return load_anatomy("head", head_files[0])


@pytest.fixture(scope="module")
def pairs(head: Anatomy) -> list[tuple[SimulatedCase, SimulatedCase]]:
    """The same seeds without and with lesions."""
    return [
        (simulate_case(head, 0, seed, COARSE), simulate_case(head, 1, seed, COARSE))
        for seed in range(PAIRS)
    ]


Pairs = list[tuple[SimulatedCase, SimulatedCase]]


def test_a_seed_gives_the_same_volume_each_time_and_another_seed_another(
    head: Anatomy, pairs: Pairs
) -> None:
    again = simulate_case(head, 1, 3, COARSE)
    first = pairs[3][1]
    np.testing.assert_array_equal(again.image.array, first.image.array)
    np.testing.assert_array_equal(again.mask.array, first.mask.array)
    assert again.image.geometry.is_close(first.image.geometry)
    assert again.parameters == first.parameters
    other = pairs[4][1].image.array
    assert other.shape != again.image.array.shape or (other != again.image.array).any()


def test_the_world_s_randomness_neither_matters_nor_is_touched(head: Anatomy) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = simulate_case(head, 1, 5, COARSE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(simulate_case(head, 1, 5, COARSE).image.array, first.image.array)


def test_negative_volumes_have_an_empty_mask(pairs: Pairs) -> None:
    for negative, _ in pairs:
        assert negative.label == 0
        assert not negative.mask.array.any()
        assert negative.parameters["lesion_ml"] == 0
        assert "lesions" not in negative.parameters


def test_positive_volumes_have_one_to_three_lesions_within_the_brain(pairs: Pairs) -> None:
    counts = []
    for _, positive in pairs:
        mask = positive.mask.array > 0
        assert mask.any()
        assert not (mask & (positive.image.array == 0)).any()
        counts.append(positive.parameters["lesions"])
    assert set(counts) == {1, 2, 3}


def test_lesions_have_the_volume_that_the_recipe_asks_for(pairs: Pairs) -> None:
    voxel_ml = COARSE.spacing_mm**3 / 1000
    low, high = COARSE.lesion_volume_ml
    for _, positive in pairs:
        count = int(positive.parameters["lesions"])
        total = positive.mask.array.sum() * voxel_ml
        assert total == pytest.approx(positive.parameters["lesion_ml"], abs=1e-3)
        # At least four voxels, whatever the grid; lesions may overlap one another.
        assert min(low, 4 * voxel_ml) * 0.5 < total <= count * (high + voxel_ml)


@pytest.mark.parametrize("volume_ml", [2.0, 20.0, 80.0])
def test_a_single_lesion_has_its_volume_up_to_specks_that_are_removed(
    head: Anatomy, volume_ml: float
) -> None:
    recipe = Recipe(
        spacing_mm=4.0,
        lesion_counts=(1.0, 0.0, 0.0),
        lesion_volume_ml=(volume_ml, volume_ml * 1.0001),
    )
    found = [float(simulate_case(head, 1, s, recipe).parameters["lesion_ml"]) for s in range(6)]
    assert max(found) <= volume_ml + 0.07
    assert np.median(found) > 0.9 * volume_ml
    assert min(found) > 0.5 * volume_ml


def test_volumes_lie_on_an_isotropic_lps_grid_around_the_head(pairs: Pairs) -> None:
    for negative, _ in pairs[:8]:
        geometry = negative.image.geometry
        np.testing.assert_allclose(geometry.affine[:3, :3], np.eye(3) * 6.0)
        np.testing.assert_allclose(geometry.center, 0, atol=1e-9)
        border = negative.image.array.copy()
        border[1:-1, 1:-1, 1:-1] = 0
        assert (border > 0).mean() < 0.02  # not cut off


def test_both_labels_share_head_and_mass_effect(pairs: Pairs) -> None:
    pushed = 0
    for negative, positive in pairs:
        assert negative.image.geometry.is_close(positive.image.geometry)
        np.testing.assert_array_equal(negative.image.array > 0, positive.image.array > 0)
        push = negative.parameters.get("mass_effect_mm")
        assert push == positive.parameters.get("mass_effect_mm")
        pushed += push is not None
    assert 0.25 * PAIRS < pushed < 0.75 * PAIRS


@pytest.mark.parametrize("recipe", [COARSE, COARSE_T1C], ids=["flair", "t1c"])
def test_before_acquisition_both_labels_differ_at_lesions_alone(
    head: Anatomy, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    """Tissue contrast, mass effect, vessels, oedema on T1c, spots and rims are the same."""
    before: list[torch.Tensor] = []

    def keep(image: torch.Tensor, *_: object) -> torch.Tensor:
        before.append(image)
        return image.clamp_min(0)

    monkeypatch.setattr(lesions, "_acquired", keep)
    for seed in range(8):
        before.clear()
        simulate_case(head, 0, seed, recipe)
        mask = simulate_case(head, 1, seed, recipe).mask.array > 0
        # A lesion's border is soft: it fades within about two voxels.
        away = ~ndimage.binary_dilation(mask, iterations=3)
        negative, positive = (image.numpy() for image in before)
        np.testing.assert_allclose(positive[away], negative[away], atol=1e-5)
        assert np.abs(positive - negative)[mask].max() > 0.1


def test_a_core_on_t1c_that_enhances_as_a_ring_is_bright_at_its_rim_and_dark_inside(
    head: Anatomy,
) -> None:
    quiet = {"noise": (0.0, 0.0), "bias": (0.0, 0.0), "blur_mm": (0.0, 0.0), "vessels": (0, 0)}
    recipe = T1cRecipe(
        spacing_mm=3.0,
        lesion_counts=(1.0, 0.0, 0.0),
        lesion_volume_ml=(60.0, 61.0),
        ring=1.0,
        rim=(0.7, 0.7),
        inside=(0.3, 0.3),
        cystic=0.0,
        gaps=0.0,
        enhancement=(1.0, 1.0),
        slice_thickness_mm=(0.0, 0.0),
        **quiet,
    )
    for seed in range(4):
        case = simulate_case(head, 1, seed, recipe)
        mask, image = case.mask.array > 0, case.image.array.astype(float)
        inner = ndimage.binary_erosion(mask, iterations=4)
        rim = mask & ~ndimage.binary_erosion(mask, iterations=2)
        assert np.median(image[rim]) > 1.5 * np.median(image[inner])
        assert np.median(image[inner]) < np.median(image[(image > 0) & ~mask])


def test_the_enhancement_of_a_core_on_t1c_can_be_broken_into_fragments(head: Anatomy) -> None:
    def bright_part(gaps: float) -> float:
        recipe = T1cRecipe(
            spacing_mm=3.0,
            lesion_counts=(1.0, 0.0, 0.0),
            lesion_volume_ml=(60.0, 61.0),
            ring=0.0,
            cystic=1.0,
            enhancement=(1.0, 1.0),
            gaps=gaps,
            gap_level=(-0.5, -0.5),
        )
        case = simulate_case(head, 1, 1, recipe)
        mask, image = case.mask.array > 0, case.image.array.astype(float)
        return float((image[mask] > np.median(image[(image > 0) & ~mask])).mean())

    assert bright_part(gaps=0.0) > 0.9
    assert 0.05 < bright_part(gaps=1.0) < 0.6


def test_oedema_on_t1c_darkens_tissue_without_a_core_too(
    head: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[torch.Tensor] = []
    monkeypatch.setattr(
        lesions, "_acquired", lambda image, *_: before.append(image) or image.clamp_min(0)
    )
    for oedema in (0.0, 1.0):
        recipe = T1cRecipe(
            spacing_mm=6.0,
            oedema=oedema,
            vessels=(0, 0),
            veins=(0, 0),
            touching=0.0,
            choroid=0.0,
            surface_rim=(0.0, 0.0),
        )
        assert not simulate_case(head, 0, 3, recipe).mask.array.any()
    change = before[1] - before[0]
    assert float(change.max()) < 1e-5
    assert 0.001 < float((change < -0.03).float().mean()) < 0.5


def test_vessels_that_run_through_a_core_s_place_are_there_without_a_core_too(
    head: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[torch.Tensor] = []
    monkeypatch.setattr(
        lesions, "_acquired", lambda image, *_: before.append(image) or image.clamp_min(0)
    )
    for touching in (0.0, 1.0):
        recipe = T1cRecipe(
            spacing_mm=6.0,
            touching=touching,
            lesion_counts=(1.0, 0.0, 0.0),
            oedema=0.0,
            vessels=(0, 0),
            veins=(0, 0),
            choroid=0.0,
            surface_rim=(0.0, 0.0),
        )
        mask = simulate_case(head, 1, 5, recipe).mask.array > 0
        simulate_case(head, 0, 5, recipe)
    change = (before[3] - before[1]).numpy()
    assert change.min() > -1e-5
    assert change[mask].max() > 0.05
    assert change[~mask].max() > 0.05


def test_mass_effect_moves_tissue_and_leaves_the_brain_s_outline(head: Anatomy) -> None:
    always, never = Recipe(spacing_mm=6.0, mass_effect=1.0), Recipe(spacing_mm=6.0, mass_effect=0)
    pushed, still = simulate_case(head, 0, 2, always), simulate_case(head, 0, 2, never)
    np.testing.assert_array_equal(pushed.image.array > 0, still.image.array > 0)
    assert float(pushed.parameters["mass_effect_mm"]) > 0
    assert "mass_effect_mm" not in still.parameters


def features(case: SimulatedCase) -> dict[str, float]:
    """What a classifier without any idea of a lesion could look at."""
    image = case.image.array.astype(np.float64)
    inside = image[image > 0]
    return {
        "mean": inside.mean(),
        "minimum": inside.min(),
        "brain volume": float(inside.size),
        "grid": float(image.size),
        "entropy of the histogram": _entropy(inside / np.median(inside)),
        "low quartile by median": np.percentile(inside, 25) / np.median(inside),
        "elongation": _elongation(image > 0),
    }


def _entropy(values: npt.NDArray[np.float64]) -> float:
    # Only the darker half: bright voxels may differ as far as lesions do.
    share = np.histogram(values, bins=20, range=(0, 1))[0] / values.size
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def _elongation(mask: npt.NDArray[np.bool_]) -> float:
    spread = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
    return float(spread[2] / spread[0])


def test_neither_intensities_nor_shape_give_the_label_away(head: Anatomy) -> None:
    """Different seeds for both labels, as in a data set: simple features rank them by chance."""
    count = 48
    cases = [simulate_case(head, n % 2, 1000 + n, COARSE) for n in range(2 * count)]
    labels = torch.tensor([case.label for case in cases])
    found = [features(case) for case in cases]
    # Three standard deviations of the AUC of 48 against 48 by chance.
    bound = 3 * np.sqrt((2 * count + 1) / (12 * count**2))
    for name in found[0]:
        auc = area_under_curve(torch.tensor([f[name] for f in found]), labels)
        assert abs(auc - 0.5) < bound, f"{name}: AUC {auc:.2f}"


def test_bright_voxels_are_no_more_of_a_give_away_than_lesions_make_them(head: Anatomy) -> None:
    """With lesions away, the brightest voxels of positives and negatives are alike."""

    def bright(case: SimulatedCase) -> float:
        image = case.image.array.astype(np.float64)
        near = ndimage.binary_dilation(case.mask.array > 0, iterations=2)
        inside = image[(image > 0) & ~near]
        return float((inside > 1.6 * np.median(inside)).mean())

    count = 40
    cases = [simulate_case(head, n % 2, 2000 + n, COARSE) for n in range(2 * count)]
    labels = torch.tensor([case.label for case in cases])
    auc = area_under_curve(torch.tensor([bright(case) for case in cases]), labels)
    assert abs(auc - 0.5) < 3 * np.sqrt((2 * count + 1) / (12 * count**2)), auc


def test_intensities_are_positive_in_the_brain_and_zero_outside(pairs: Pairs) -> None:
    for case in (*pairs[0], *pairs[1]):
        assert case.image.array.dtype == np.int16
        assert case.image.array.min() == 0
        assert 1000 < (case.image.array > 0).sum() * 0.216 < 2500  # mL


def test_smooth_noise_has_unit_variance_and_its_wavelength() -> None:
    generator = torch.Generator().manual_seed(0)
    field = smooth_noise((40, 40, 40), 10.0, generator)[0]
    assert float(field.std()) == pytest.approx(1, abs=1e-3)
    neighbours = float((field[1:] * field[:-1]).mean() / (field**2).mean())
    assert neighbours > 0.9
    far = float((field[20:] * field[:-20]).mean() / (field**2).mean())
    assert abs(far) < 0.3


def test_blur_of_a_point_is_a_gaussian_of_that_sigma() -> None:
    image = torch.zeros(1, 21, 21, 21)
    image[0, 10, 10, 10] = 1
    blurred = gaussian_blur(image, (2.0, 1.0, 0.0))[0].numpy()
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    ramp = np.arange(21) - 10.0
    assert (blurred.sum(axis=(1, 2)) * ramp**2).sum() == pytest.approx(4, rel=0.05)
    assert (blurred.sum(axis=(0, 2)) * ramp**2).sum() == pytest.approx(1, rel=0.05)
    assert np.count_nonzero(blurred.sum(axis=(0, 1))) == 1


def test_ellipsoid_distance_is_one_at_the_ends_of_its_axes() -> None:
    axes = random_rotation(torch.Generator().manual_seed(1))
    np.testing.assert_allclose((axes @ axes.T).numpy(), np.eye(3), atol=1e-5)
    assert float(torch.det(axes)) == pytest.approx(1, abs=1e-5)
    radii = torch.tensor([3.0, 5.0, 2.0])
    for axis, radius in zip(axes, radii, strict=True):
        center = torch.tensor([8.0, 9.0, 10.0])
        # The grid's voxel (8, 9, 10) seen from a centre one radius away along the axis.
        found = ellipsoid_distance((17, 19, 21), center - radius * axis, axes, radii)[8, 9, 10]
        assert float(found) == pytest.approx(1, abs=1e-5)


def test_a_limited_rotation_turns_by_no_more_than_its_limit() -> None:
    generator = torch.Generator().manual_seed(0)
    angles = []
    for _ in range(50):
        matrix = random_rotation(generator, 0.35).double().numpy()
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
        angles.append(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))
    assert 0.25 < max(angles) <= 0.35 + 1e-3
