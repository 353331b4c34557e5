"""Filter order, cutoff and threshold are chosen as they should be where the answer is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from TomoSegLib.datasets.manifest import SINGLE, Case
from TomoSegLib.evaluation.prepared import PreparedCase, prepare_case
from TomoSegLib.heatmaps.mask import find_threshold, plateau
from TomoSegLib.heatmaps.pipeline import compute_heatmap
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.loading import LoadedEncoder, load_encoder
from TomoSegLib.models.tiny_blob import build
from TomoSegLib.training import calibration
from TomoSegLib.training.calibration import CUTOFFS, ORDERS, calibrate, choose_threshold

DIRECTIONS = "fibonacci:24"
VOXEL_ML = 0.05


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> LoadedEncoder:
    """Its logit is the bright area: linear, so the plane Radon transform's inverse suits it."""
    return load_encoder(build(tmp_path_factory.mktemp("model") / "tiny-blob"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    """Balls with a large and a small bright blob each."""
    folder = tmp_path_factory.mktemp("cases")
    geometry = Geometry.from_parts((30, 30, 30), (2.0, 2.0, 2.0))
    points = np.stack(np.indices(geometry.shape)[::-1], axis=-1) * 2.0 - 29.0
    found = []
    for number, (large, small) in enumerate((((9, 0, -6), (-10, 6, 8)), ((-8, -8, 0), (8, 9, 9)))):
        noise = np.random.default_rng(number).normal(0, 4, geometry.shape)
        array = np.where(np.linalg.norm(points, axis=-1) < 27, 100 + noise, 0)
        mask = np.linalg.norm(points - large, axis=-1) < 9
        mask |= np.linalg.norm(points - small, axis=-1) < 5
        array[mask] += 100
        image_path, mask_path = folder / f"{number}.nrrd", folder / f"{number}-mask.nrrd"
        write_volume(Volume(array.astype(np.int16), geometry, "ball"), image_path)
        write_volume(Volume(mask.astype(np.uint8), geometry, "mask"), mask_path)
        found.append((str(number), image_path, mask_path))
    from TomoSegLib.models.card import ModelCard
    from TomoSegLib.models.tiny_blob import card_fields

    card = ModelCard.model_validate({**card_fields(), "files": {"weights.safetensors": "0" * 64}})
    return [prepare_case(Case(i, {SINGLE: p}, 1, "val", m), card) for i, p, m in found]


def test_a_linear_response_calls_for_the_exact_inverse(
    encoder: LoadedEncoder, cases: list[PreparedCase]
) -> None:
    told: list[tuple[int, int]] = []
    chosen = calibrate(cases, encoder, encoder.card, "tonno", DIRECTIONS, lambda *n: told.append(n))
    assert chosen.settings.filter_order == 2.0
    assert chosen.settings.directions == DIRECTIONS
    assert chosen.dice > 0.85
    assert chosen.settings.threshold is not None
    assert told == [(1, 2), (2, 2)]
    assert {(t["filter_order"], t["cutoff"]) for t in chosen.tried} == {
        (order, cutoff) for order in ORDERS for cutoff in CUTOFFS
    }
    by_order = [max(t["dice"] for t in chosen.tried if t["filter_order"] == o) for o in ORDERS]
    assert by_order == sorted(by_order)  # the closer to the inverse, the better
    assert by_order[0] + 0.03 < by_order[-1] == round(chosen.dice, 4)


def test_the_dice_is_that_of_a_mask_made_with_the_chosen_settings(
    encoder: LoadedEncoder, cases: list[PreparedCase]
) -> None:
    chosen = calibrate(cases, encoder, encoder.card, "tonno", DIRECTIONS)
    threshold = chosen.settings.threshold
    assert threshold is not None
    dice = []
    for case in cases:
        grid, inside = case.model_input.geometry, case.model_input.foreground
        heatmap = compute_heatmap(
            case.model_input, encoder, encoder.card, "tonno", chosen.settings, target=grid
        ).heatmap
        level = find_threshold(heatmap, inside, threshold, grid.voxel_volume_ml)
        mask, reference = (heatmap > level) & inside, case.reference_on_model_grid()
        dice.append(2 * (mask & reference).sum() / (mask.sum() + (reference & inside).sum()))
    assert np.mean(dice) == pytest.approx(chosen.dice, abs=0.01)


def test_candidates_that_share_responses_equal_heatmaps_made_from_the_start(
    encoder: LoadedEncoder, cases: list[PreparedCase]
) -> None:
    case = cases[0]
    base = encoder.card.settings("tonno").model_copy(update={"directions": "fibonacci:8"})
    found = calibration._candidates(case, encoder, encoder.card, "tonno", base)
    compared = 0
    for settings, heatmap in found:
        if (settings.filter_order, settings.cutoff) not in ((0.5, 0.3), (2.0, 1.0)):
            continue
        whole = compute_heatmap(
            case.model_input,
            encoder,
            encoder.card,
            "tonno",
            settings,
            target=case.model_input.geometry,
        ).heatmap
        np.testing.assert_allclose(heatmap, whole, atol=1e-3 * np.abs(whole).max())
        compared += 1
    assert compared == 2


@pytest.mark.parametrize("method", ["cam", "averaged-cam"])
def test_methods_that_filter_nothing_have_one_candidate(
    method: str, encoder: LoadedEncoder, cases: list[PreparedCase]
) -> None:
    chosen = calibrate(cases[:1], encoder, encoder.card, method, "orthogonal")  # type: ignore[arg-type]
    assert len(chosen.tried) == 1
    assert chosen.settings.threshold is not None
    assert chosen.dice > 0.5


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    return float(2 * (mask & reference).sum() / max(mask.sum() + reference.sum(), 1))


def heatmaps(scales: list[float], noise: float = 0.3) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    found = []
    for scale in scales:
        reference = generator.random(2000) < 0.1
        values = reference + noise * generator.normal(0, 1, 2000)
        found.append(((scale * values).astype(np.float32), reference))
    return found


def test_heatmaps_of_one_scale_get_an_absolute_threshold() -> None:
    cases = heatmaps([10.0] * 6)
    threshold, score = choose_threshold(cases, VOXEL_ML)
    assert threshold.kind == "absolute"
    assert 4 < threshold.value < 9
    found = np.mean([dice(values > threshold.value, reference) for values, reference in cases])
    assert score == pytest.approx(found, abs=5e-3)
    for other in np.linspace(1, 15, 30):
        assert np.mean([dice(v > other, r) for v, r in cases]) <= score + 0.01


def test_heatmaps_of_very_different_scales_get_a_threshold_relative_to_the_plateau() -> None:
    cases = heatmaps([1.0, 10.0, 100.0, 1000.0], noise=0.1)
    threshold, score = choose_threshold(cases, VOXEL_ML)
    assert threshold.kind == "plateau"
    assert 0 < threshold.value < 1
    found = [dice(v > threshold.value * plateau(v, VOXEL_ML), r) for v, r in cases]
    assert score == pytest.approx(np.mean(found), abs=5e-3)
    assert score > 0.95


def test_a_heatmap_without_anything_above_zero_is_no_error() -> None:
    values = np.full(50, -1.0, dtype=np.float32)
    threshold, score = choose_threshold([(values, np.arange(50) < 5)], VOXEL_ML)
    assert np.isfinite(threshold.value)
    assert 0 <= score <= 1
