"""Foreground masks of scans as they come: z-scored, cropped, with a table, with a skull."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.foreground import (
    background_value,
    body_mask,
    foreground_mask,
    is_skull_stripped,
    nonzero_mask,
    resample_mask,
)
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.volume import Geometry, Volume

GRID = Geometry.from_parts((48, 60, 64), (3, 3, 3))


def ellipsoid(radii_mm: tuple[float, float, float]) -> np.ndarray:
    """Boolean ``[k, j, i]`` ellipsoid at the centre of the grid, radii along x, y, z."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij")
    offset = GRID.index_to_lps(np.stack([i, j, k], axis=-1)) - GRID.center
    return np.asarray(np.sum((offset / radii_mm) ** 2, axis=-1) <= 1)


def noise(mean: float, deviation: float) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, deviation, GRID.shape)


@pytest.mark.parametrize("background", [0.0, -3.1607306, 4095.0])
def test_whatever_constant_surrounds_the_object_is_background(background: float) -> None:
    brain = ellipsoid((60, 70, 60))
    array = np.where(brain, noise(50, 10), background).astype(np.float32)
    assert background_value(array) == pytest.approx(background)
    np.testing.assert_array_equal(nonzero_mask(array), brain)
    np.testing.assert_array_equal(foreground_mask(Volume(array, GRID), "brain"), brain)


def test_without_a_constant_background_everything_is_foreground() -> None:
    array = noise(0, 10).astype(np.float32)
    assert background_value(array) is None
    assert foreground_mask(Volume(array, GRID), "nonzero").all()
    assert foreground_mask(Volume(array, GRID), "none").all()


def test_the_body_is_found_with_its_lungs_and_without_the_table() -> None:
    body = ellipsoid((80, 65, 1000))
    lungs = ellipsoid((40, 40, 1000))
    array = np.where(body, 40.0, -1000.0)
    array[lungs] = -850
    array[:, -4, :] = 100
    array[:, :, :3] = -3024
    volume = Volume((array + noise(0, 10)).astype(np.int16), GRID)
    found = body_mask(volume)
    agreement = 2 * np.count_nonzero(found & body) / (found.sum() + body.sum())
    assert agreement > 0.95
    assert found[lungs].mean() > 0.99
    assert not found[:, -4, :8].any()


def test_a_head_is_not_taken_for_a_brain() -> None:
    head = ellipsoid((80, 85, 1000))
    array = np.where(head, noise(50, 10), 0).astype(np.float32)
    assert not is_skull_stripped(Volume(array, GRID))
    assert not is_skull_stripped(Volume(noise(0, 10), GRID))


def test_without_brain_extraction_a_whole_head_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "deepbet", None)
    with pytest.raises(TomoSegError) as caught:
        foreground_mask(Volume(noise(0, 10), GRID, "head.nii"), "brain")
    assert caught.value.code == "brain-extraction-missing"
    assert "tomoseg[brain]" in caught.value.hint


@pytest.mark.parametrize("step", [1, -1])
def test_a_mask_comes_to_another_grid(step: int) -> None:
    mask = ellipsoid((60, 70, 60))
    flipped = Volume(
        mask[::step].copy(),
        Geometry(
            GRID.shape,
            GRID.affine
            if step == 1
            else GRID.affine
            @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, GRID.shape[0] - 1], [0, 0, 0, 1.0]]),
        ),
    )
    np.testing.assert_array_equal(resample_mask(flipped, GRID), mask)


def test_real_tumour_patients_are_recognised_as_skull_stripped(shared_data: Path) -> None:
    for patient in ("pat0003", "pat0004"):
        folder = shared_data / "brats2013" / patient
        volume = read_volume(folder / "flair.nii.gz")
        brain = read_volume(folder / "brainmask.nii.gz").array > 0
        assert is_skull_stripped(volume)
        found = foreground_mask(volume, "brain")
        assert 2 * np.count_nonzero(found & brain) / (found.sum() + brain.sum()) > 0.98


def test_real_body_masks_hold_the_lesion_and_leave_the_air(shared_data: Path) -> None:
    for name, litres in (("brain1", (3.2, 4.6)), ("lung1", (8.0, 13.0))):
        volume = read_volume(shared_data / "pyradiomics" / f"{name}_image.nrrd")
        lesion = read_volume(shared_data / "pyradiomics" / f"{name}_label.nrrd").array > 0
        assert not is_skull_stripped(volume)
        mask = foreground_mask(volume, "body")
        assert mask[lesion].all()
        assert litres[0] < mask.sum() * volume.geometry.voxel_volume_ml / 1000 < litres[1]


@pytest.mark.skipif(
    importlib.util.find_spec("deepbet") is None, reason="the extra 'brain' is not installed"
)
def test_the_brain_of_a_real_whole_head_scan_is_extracted(shared_data: Path) -> None:
    volume = read_volume(shared_data / "pyradiomics" / "brain1_image.nrrd")
    lesion = read_volume(shared_data / "pyradiomics" / "brain1_label.nrrd").array > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask = foreground_mask(volume, "brain")
    assert 1200 < mask.sum() * volume.geometry.voxel_volume_ml < 2000
    assert mask[lesion].mean() > 0.95
