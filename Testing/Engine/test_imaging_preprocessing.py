"""Preparing a scan for a network: grid, intensities and foreground."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.preprocessing import normalize, prepare, sample_on
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Intensity, Preprocessing

WINDOW = Intensity(method="window", lower=0, upper=1)


def spec(**values: Any) -> Preprocessing:
    """A card's preprocessing that changes nothing but what is asked for."""
    defaults: dict[str, Any] = {"spacing_mm": 1.0, "intensity": WINDOW, "foreground": "none"}
    return Preprocessing(**(defaults | values))


def points_of(geometry: Geometry) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    return geometry.index_to_lps(np.stack([i, j, k], axis=-1))


def ball(geometry: Geometry, radius_mm: float, offset: tuple[float, float, float]) -> np.ndarray:
    """A smooth-edged ball beside the grid's centre, in physical space."""
    distance = np.linalg.norm(points_of(geometry) - geometry.center - offset, axis=-1)
    return np.clip(radius_mm + 0.5 - distance, 0, 1).astype(np.float32)


def test_structures_stay_where_they_are_in_the_patient(any_geometry: Geometry) -> None:
    fine = Geometry.from_parts(
        tuple(int(n) for n in np.ceil(np.array(any_geometry.shape) * 4)),
        any_geometry.spacing / 2,
        any_geometry.direction,
        any_geometry.origin,
    )
    offset = (2.0, -1.0, 1.5)
    radius = 0.25 * float(min(np.array(fine.size) * fine.spacing))
    prepared = prepare([Volume(ball(fine, radius, offset), fine)], spec())
    weights = prepared.image[0]
    center = (points_of(prepared.geometry) * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
    np.testing.assert_allclose(center, fine.center + offset, atol=0.1)
    expected = 4 / 3 * np.pi * radius**3
    assert weights.sum() * prepared.geometry.voxel_volume_ml * 1000 == pytest.approx(
        expected, rel=0.1
    )


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLP", "AIR"])
def test_axes_run_as_the_card_says(
    orientation: str, any_geometry: Geometry, make_volume: Callable[..., Volume]
) -> None:
    prepared = prepare([make_volume(any_geometry, np.float32)], spec(orientation=orientation))
    ras = np.diag([-1, -1, 1, 1]) @ prepared.geometry.affine
    assert "".join(aff2axcodes(ras)) == orientation
    np.testing.assert_allclose(prepared.geometry.spacing, 1)
    # Permuted and flipped, never turned by a fraction: every axis is an axis of the source.
    along = np.abs(prepared.geometry.direction.T @ any_geometry.direction)
    np.testing.assert_allclose(along, np.round(along), atol=1e-6)


def test_the_grid_is_the_foregrounds_box_and_a_voxel_more() -> None:
    geometry = Geometry.from_parts((20, 24, 28), (1, 1, 1))
    array = np.zeros(geometry.shape, np.float32)
    array[4:10, 6:9, 10:22] = 1
    prepared = prepare([Volume(array, geometry)], spec(foreground="nonzero"))
    assert prepared.geometry.shape == (8, 5, 14)
    np.testing.assert_allclose(prepared.geometry.origin, [9, 5, 3])
    np.testing.assert_array_equal(prepared.image[0], np.pad(np.ones((6, 3, 12)), 1))
    np.testing.assert_array_equal(prepared.foreground, prepared.image[0] > 0)
    np.testing.assert_array_equal(prepared.source_foreground, array > 0)
    assert prepared.source is geometry


def test_without_resampling_the_values_are_exact(make_volume: Callable[..., Volume]) -> None:
    volume = make_volume("plain", np.int16)
    intensity = Intensity(method="window", lower=-5000, upper=5000)
    prepared = prepare([volume], spec(intensity=intensity))
    np.testing.assert_allclose(
        prepared.image[0, 1:-1, 1:-1, 1:-1], (volume.array + 5000.0) / 10000, atol=1e-6
    )
    assert prepared.foreground.sum() == volume.array.size


@pytest.mark.parametrize("background", [0.0, -3.16])
def test_the_rim_is_not_darkened_by_air(background: float) -> None:
    geometry = Geometry.from_parts((40, 40, 40), (1, 1, 1))
    inside = ball(geometry, 14, (0, 0, 0)) > 0.5
    noise = np.random.default_rng(0).normal(0, 1, geometry.shape)
    array = np.where(inside, 10 + noise, background).astype(np.float32)
    prepared = prepare(
        [Volume(array, geometry)],
        Preprocessing(spacing_mm=2.0, foreground="nonzero", intensity=Intensity(method="zscore")),
    )
    assert np.abs(prepared.image[0][prepared.foreground]).max() < 2
    np.testing.assert_array_equal(prepared.image[0][~prepared.foreground], 0)
    assert prepared.foreground.sum() * 8 == pytest.approx(inside.sum(), rel=0.03)


def test_fine_patterns_are_averaged_not_aliased() -> None:
    geometry = Geometry.from_parts((48, 48, 48), (0.5, 0.5, 0.5))
    stripes = np.zeros(geometry.shape, np.float32)
    stripes[:, :, ::2] = 1
    prepared = prepare([Volume(stripes, geometry)], spec(spacing_mm=2.0))
    inner = prepared.image[0, 2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


def test_channels_on_other_grids_come_to_the_same_place(
    make_volume: Callable[..., Volume],
) -> None:
    first = Geometry.from_parts((40, 40, 40), (1, 1, 1))
    second = Geometry.from_parts((15, 60, 64), (0.8, 0.75, 3.0), origin=(-4, -2, -1))
    third = Geometry.from_parts((44, 44, 44), (1, 1, 1), np.diag([-1.0, 1, -1]), (41.0, -2, 41))
    at = first.center + (3, -4, 2)
    volumes = [
        Volume(ball(g, 8, tuple(at - g.center)), g, name)
        for g, name in ((first, "a"), (second, "b"), (third, "c"))
    ]
    prepared = prepare(volumes, spec())
    assert prepared.image.shape[0] == 3
    points = points_of(prepared.geometry)
    for channel in prepared.image:
        center = (points * channel[..., None]).sum(axis=(0, 1, 2)) / channel.sum()
        np.testing.assert_allclose(center, at, atol=0.15)


def test_channels_that_do_not_overlap_are_refused(make_volume: Callable[..., Volume]) -> None:
    near = make_volume("plain", np.float32)
    far = Volume(near.array, Geometry.from_parts((10, 12, 14), (1, 1, 1), None, (500, 0, 0)), "far")
    with pytest.raises(TomoSegError) as caught:
        prepare([near, far], spec())
    assert caught.value.code == "channels-apart"
    assert "far" in caught.value.message


def test_a_given_foreground_replaces_the_cards(make_volume: Callable[..., Volume]) -> None:
    volume = make_volume("oblique", np.float32)
    mask = np.zeros(volume.array.shape, np.uint8)
    mask[2:7, 3:9, 4:11] = 1
    prepared = prepare([volume], spec(foreground="body"), volume.with_array(mask))
    np.testing.assert_array_equal(prepared.source_foreground, mask == 1)
    with pytest.raises(TomoSegError) as caught:
        prepare([volume], spec(), volume.with_array(np.zeros_like(mask)))
    assert caught.value.code == "foreground-empty"


VALUES = np.random.default_rng(0).gamma(2.0, 150.0, 20000).astype(np.int16)


def test_zscore_has_mean_zero_and_deviation_one() -> None:
    mapping = normalize(VALUES, Intensity(method="zscore", lower=-100, upper=100))
    result = mapping.apply(VALUES)
    assert result.dtype == np.float32
    assert abs(result.mean()) < 1e-4
    assert result.std() == pytest.approx(1, abs=1e-4)


def test_robust_zscore_ignores_a_few_extreme_voxels() -> None:
    spoilt = VALUES.astype(np.float64)
    spoilt[:50] = 1e6
    clean = normalize(VALUES, Intensity())
    robust = normalize(spoilt, Intensity())
    assert robust.center == pytest.approx(clean.center, rel=0.01)
    assert robust.scale == pytest.approx(clean.scale, rel=0.01)
    # For a normal distribution it is the z-score.
    normal = np.random.default_rng(1).normal(40, 7, 100000)
    assert normalize(normal, Intensity()).scale == pytest.approx(7, rel=0.02)


def test_percentiles_and_windows_go_to_zero_and_one() -> None:
    percentile = normalize(VALUES, Intensity(method="percentile", lower=1, upper=99)).apply(VALUES)
    assert (percentile == 0).mean() == pytest.approx(0.01, abs=0.003)
    assert (percentile == 1).mean() == pytest.approx(0.01, abs=0.003)
    window = normalize(VALUES, Intensity(method="window", lower=-1000, upper=600))
    np.testing.assert_allclose(
        window.apply(np.array([-3000, -1000, -200, 600, 3000])), [0, 0, 0.5, 1, 1]
    )


@pytest.mark.parametrize("method", ["zscore", "robust-zscore", "percentile"])
def test_a_foreground_without_contrast_is_refused(method: Any) -> None:
    intensity = Intensity(method=method, lower=1, upper=99)
    with pytest.raises(TomoSegError) as caught:
        normalize(np.full(100, 7, np.int16), intensity, "mask.nii")
    assert caught.value.code == "foreground-constant"


def test_resampling_a_linear_function_is_exact(any_geometry: Geometry) -> None:
    slope = np.array([0.3, -0.2, 0.5])
    values = (points_of(any_geometry) @ slope).astype(np.float32)
    target = Geometry.from_parts(
        (4, 4, 4), any_geometry.spacing / 2, any_geometry.direction, any_geometry.center
    )
    result = sample_on(values, any_geometry, target)
    np.testing.assert_allclose(result, points_of(target) @ slope, rtol=1e-3, atol=1e-2)


def test_outside_the_grid_the_given_value_is_taken(any_geometry: Geometry) -> None:
    far = Geometry.from_parts((3, 3, 3), (1, 1, 1), None, any_geometry.center + 1000)
    result = sample_on(np.ones(any_geometry.shape), any_geometry, far, outside=-7)
    np.testing.assert_array_equal(result, -7)


def test_a_real_scan_with_thick_slices_is_prepared(shared_data: Path) -> None:
    volume = read_volume(shared_data / "pyradiomics" / "brain1_image.nrrd")
    lesion = read_volume(shared_data / "pyradiomics" / "brain1_label.nrrd")
    prepared = prepare([volume], Preprocessing(spacing_mm=2.0, foreground="body"))
    there = sample_on((lesion.array > 0).astype(np.uint8), lesion.geometry, prepared.geometry)
    # The tumour is bright, and it is where its label is.
    assert prepared.image[0][there > 0.5].mean() > prepared.image[0][prepared.foreground].mean()
    assert prepared.foreground[there > 0.5].all()


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_a_large_ct_is_prepared_in_little_memory() -> None:
    program = """
        import resource
        import numpy as np
        from TomoSegLib.imaging.preprocessing import prepare
        from TomoSegLib.imaging.volume import Geometry, Volume
        from TomoSegLib.models.card import Intensity, Preprocessing
        array = np.full((128, 512, 512), -1000, np.int16)
        array[20:-20, 80:-80, 60:-60] = 40
        array += np.arange(512, dtype=np.int16) % 50
        volume = Volume(array, Geometry.from_parts(array.shape, (0.7, 0.7, 0.7)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        window = Intensity(method="window", lower=-1000, upper=600)
        prepare([volume], Preprocessing(spacing_mm=2, intensity=window, foreground="none"))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    # A quarter of the 3 GB that a CT of 512^3 voxels may take.
    assert float(done.stdout) < 0.75
