"""Heads that simulated volumes are made from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from TomoSegLib.datasets import anatomy as anatomies
from TomoSegLib.datasets.anatomy import Anatomy, load_anatomy
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume


def assert_sound(anatomy: Anatomy) -> None:
    total = anatomy.tissues.sum(axis=0)
    np.testing.assert_allclose(total[anatomy.brain], 1, atol=1e-6)
    assert not total[~anatomy.brain].any()
    assert not anatomy.detail[~anatomy.brain].any()
    assert anatomy.tissues.min() >= 0


def test_tissue_fractions_sum_to_one_in_the_brain_and_to_nothing_outside(
    head_files: tuple[Path, Path],
) -> None:
    assert_sound(load_anatomy("head", head_files[0]))


def test_bright_voxels_are_white_matter_dark_ones_csf_and_those_between_are_grey(
    head_files: tuple[Path, Path],
) -> None:
    image = read_volume(head_files[0]).array
    anatomy = load_anatomy("head", head_files[0])
    for tissue, low, high in ((0, 15, 38), (1, 70, 80), (2, 105, 140)):
        mean = anatomy.tissues[:, (image > low) & (image < high)].mean(axis=1)
        assert mean[tissue] > 0.8, (tissue, mean)


def test_corners_enclose_the_brain_in_lps(head_files: tuple[Path, Path]) -> None:
    anatomy = load_anatomy("head", head_files[0])
    extent = np.abs(np.diff(anatomy.corners, axis=0))[0]
    # The head is an ellipsoid of half axes 64, 78, 62 mm on voxels of 3.5 mm.
    np.testing.assert_allclose(extent, [128, 156, 124], atol=2 * 3.5)


def test_holes_in_the_brain_belong_to_it(tmp_path: Path, head_files: tuple[Path, Path]) -> None:
    volume = read_volume(head_files[0])
    array = volume.array.copy()
    array[22, 27, 23] = 0
    write_volume(volume.with_array(array), tmp_path / "holed.nii.gz")
    anatomy = load_anatomy("head", tmp_path / "holed.nii.gz")
    assert anatomy.brain[22, 27, 23]
    assert anatomy.tissues[0, 22, 27, 23] == 1  # dark, hence CSF


@pytest.mark.parametrize("name", ["colin27", "mni152", "unheard-of"])
def test_an_anatomy_that_is_not_there_is_an_error_that_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anatomies, "_COLIN_PLACES", (Path("nowhere/ch2bet.nii.gz"),))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TomoSegError) as caught:
        load_anatomy(name)
    assert caught.value.code == "anatomy-not-found"
    assert name in caught.value.message
    hints = {"colin27": "mricron-data", "mni152": "tomoseg[simulate]", "unheard-of": "NAME=FILE"}
    assert hints[name] in caught.value.hint


def test_a_mask_is_no_anatomy(tmp_path: Path) -> None:
    array = np.zeros((12, 12, 12), dtype=np.uint8)
    array[2:-2, 2:-2, 2:-2] = 1
    path = tmp_path / "mask.nii.gz"
    write_volume(Volume(array, Geometry.from_parts(array.shape, (2, 2, 2)), "mask"), path)
    with pytest.raises(TomoSegError) as caught:
        load_anatomy("mask", path)
    assert caught.value.code == "anatomy-unsuitable"


@pytest.mark.parametrize("name", anatomies.KNOWN_ANATOMIES)
def test_a_known_head_is_a_head(name: str) -> None:
    try:
        anatomy = load_anatomy(name)
    except TomoSegError as error:
        assert error.code == "anatomy-not-found"
        pytest.skip(f"{error.message} {error.hint}")
    assert_sound(anatomy)
    voxel_ml = float(np.prod(anatomy.geometry.spacing)) / 1000
    assert 1000 < anatomy.brain.sum() * voxel_ml < 2300
