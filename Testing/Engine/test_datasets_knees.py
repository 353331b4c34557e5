"""Simulated knees are three stacks of one knee whose ends look alike."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from TomoSegLib.cli import main
from TomoSegLib.datasets.knees import KneeRecipe, knee_tissue, simulate_knee
from TomoSegLib.studies.reading import read_study


def test_a_knee_has_its_parts() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-60, 61, 2.0)] * 3, indexing="ij"), axis=-1)
    tissue = knee_tissue(grid, np.ones(6))
    share = np.bincount(tissue.ravel(), minlength=8) / tissue.size
    assert np.all(share > 0.002)
    # Medial and lateral halves look alike, front and back do not.
    mirrored = np.mean(tissue == tissue[::-1])
    assert mirrored > 0.9 > np.mean(tissue == tissue[:, ::-1])


def test_studies_read_with_symmetric_locations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulate", "knees", "-o", str(tmp_path), "--studies", "1", "--side", "24"]
    assert main(command) == 0
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    study = read_study(tmp_path / rows[0]["study"])
    assert not study.problems
    assert sorted(view.kind for view in study.views) == ["axial", "coronal", "sagittal"]
    for view in study.views:
        locations = view.locations()
        assert locations is not None
        np.testing.assert_allclose(locations, locations[::-1], atol=1e-4)
        assert locations[0] == pytest.approx(1) and locations.min() < 0.08
    assert main([*command, "--seed", "4"]) == 2
    assert "output-exists" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_knee_and_another_does_not() -> None:
    recipe = KneeRecipe(side=16, slices=(3, 3))
    one, again, other = (simulate_knee(0, seed, recipe) for seed in (1, 1, 2))
    assert all(np.array_equal(a.images, b.images) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0].images, other[0].images)
