"""Probabilities on a model's grid become a label map on the scan's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.itk import geometry_of
from TomoSegLib.imaging.preprocessing import model_grid
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.card import MaskSettings, ModelCard
from TomoSegLib.segmentation.labelmap import clean, to_source, write_probabilities


def make_card(values: tuple[int, ...], **window: Any) -> ModelCard:
    fields = tiny_blob.card_fields() | {"files": {"weights.safetensors": "0" * 64}}
    for name in ("slices", "method", "methods"):
        del fields[name]
    fields |= {
        "task": "segmentation",
        "labels": [{"name": f"structure {value}", "value": value} for value in values],
        "sliding_window": {"roi_size": (16, 16, 16), **window},
    }
    return ModelCard.model_validate(fields)


def points(geometry: Geometry) -> npt.NDArray[np.float64]:
    k, j, i = np.indices(geometry.shape)
    return geometry.index_to_lps(np.stack([i, j, k], axis=-1))


def half_space(geometry: Geometry, center: Any, normal: Any) -> npt.NDArray[np.float32]:
    """A probability that rises linearly through 1/2 at a plane: interpolation keeps it exactly."""
    distance = (points(geometry) - center) @ np.asarray(normal)
    return (0.5 + distance / 500).astype(np.float32)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAL"])
def test_each_voxel_of_the_scan_gets_the_label_of_its_place(
    any_geometry: Geometry, orientation: str
) -> None:
    inside = np.ones(any_geometry.shape, dtype=np.bool_)
    grid = model_grid(any_geometry, inside, 1.7, orientation)
    center = any_geometry.center + [0.3, -0.2, 0.4]
    normal = np.array([0.6, 0.48, -0.64])
    share = half_space(grid, center, normal)
    found, labelmap = to_source(
        np.stack([1 - share, share]), grid, any_geometry, inside, make_card((5,))
    )
    expected = half_space(any_geometry, center, normal)
    # The scan's outermost voxels are interpolated up to half a voxel beyond the model's grid.
    inner = tuple(slice(2, -2) for _ in range(3))
    np.testing.assert_allclose(found[..., 0][inner], expected[inner], atol=1e-4)
    sure = np.abs(expected - 0.5) > 1e-3
    assert set(np.unique(labelmap)) == {0, 5} and labelmap.dtype == np.uint8
    assert np.array_equal((labelmap == 5)[inner][sure[inner]], (expected > 0.5)[inner][sure[inner]])


GRID = Geometry.from_parts((3, 4, 5), (2.0, 2.0, 2.0))
EVERYWHERE = np.ones(GRID.shape, dtype=np.bool_)


def uniform(*shares: float) -> npt.NDArray[np.float32]:
    return np.stack([np.full(GRID.shape, share, np.float32) for share in shares])


@pytest.mark.parametrize(
    ("shares", "window", "value"),
    [
        ((0.5, 0.3, 0.2), {}, 0),
        ((0.3, 0.4, 0.3), {}, 4),
        ((0.2, 0.3, 0.5), {}, 2),
        ((0.5, 0.3, 0.2), {"outputs": [2, 4, 0]}, 2),
        ((0.2, 0.3, 0.5), {"outputs": [2, 4, 0]}, 0),
        ((0.4, 0.4, 0.2), {}, 0),  # the first of equals
        ((0.6, 0.3), {"activation": "sigmoid"}, 4),
        ((0.9, 0.6), {"activation": "sigmoid"}, 2),  # nested regions: the last one wins
        ((0.9, 0.6), {"activation": "sigmoid", "outputs": [2, 4]}, 4),
        ((0.9, 0.6), {"activation": "sigmoid", "threshold": 0.7}, 4),
        ((0.5, 0.5), {"activation": "sigmoid"}, 0),
    ],
)
def test_the_label_is_chosen_as_the_card_says(
    shares: tuple[float, ...], window: dict[str, Any], value: int
) -> None:
    card = make_card((4, 2), **window)
    found, labelmap = to_source(uniform(*shares), GRID, GRID, EVERYWHERE, card)
    assert np.unique(labelmap).tolist() == [value]
    by_value = dict(zip(card.outputs, shares, strict=True))
    for index, label in enumerate((4, 2)):  # components are in the order of the card's labels
        np.testing.assert_allclose(found[..., index], by_value[label], atol=1e-6)


def test_nothing_outside_belongs_to_a_label() -> None:
    inside = np.zeros(GRID.shape, dtype=np.bool_)
    inside[1, 1:3, 2:5] = True
    inside[2, 2, 2] = True
    found, labelmap = to_source(uniform(0.1, 0.9), GRID, GRID, inside, make_card((1,)))
    assert np.array_equal(labelmap == 1, inside)
    assert np.array_equal(found[..., 0] > 0, inside)


def test_each_labels_small_parts_are_removed_by_themselves() -> None:
    labels = make_card((1, 2)).labels
    labelmap = np.zeros((9, 9, 9), np.uint8)
    labelmap[:3, :3, :3] = 1
    labelmap[6, 6, 6] = 1
    labelmap[6:8, :2, 0] = 2
    labelmap[8, 8, 8] = 2
    shares = np.zeros((9, 9, 9, 2), np.float32)
    shares[6, 6, 6, 0] = shares[8, 8, 8, 1] = 1
    geometry = Geometry.from_parts((9, 9, 9), (10.0, 10.0, 10.0))  # 1 mL a voxel

    def sizes(**settings: Any) -> tuple[int, int]:
        result = labelmap.copy()
        clean(result, shares, labels, MaskSettings(**settings), geometry)
        return int((result == 1).sum()), int((result == 2).sum())

    assert sizes() == (28, 5)
    assert sizes(minimum_size_ml=2.0) == (27, 4)
    assert sizes(minimum_size_ml=5.0) == (27, 0)
    assert sizes(components="largest") == (27, 4)
    assert sizes(components="peak") == (1, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_probabilities_are_one_file_that_others_open(
    any_geometry: Geometry, count: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(count)
    shares = rng.random((*any_geometry.shape, count), dtype=np.float32)
    card = make_card(tuple(range(1, count + 1)))
    path = tmp_path / "Wahrscheinlichkeit ä.nrrd"
    write_probabilities(path, shares, any_geometry, card.labels)
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == count and image.GetDimension() == 3
    assert geometry_of(image).is_close(any_geometry)
    array = sitk.GetArrayFromImage(image).reshape(shares.shape)
    assert array.dtype == np.float32 and np.array_equal(array, shares)
    for n in range(count):
        assert image.GetMetaData(f"TomoSeg_Label{n}") == f"{n + 1} structure {n + 1}"
    if count == 1:
        assert np.array_equal(read_volume(path).array, shares[..., 0])
