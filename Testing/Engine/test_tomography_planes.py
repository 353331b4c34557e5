"""Plane stacks and sampling on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.orientation import plane_frame
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import Slices
from TomoSegLib.tomography.planes import (
    foreground_runs,
    plane_stack,
    plane_stacks,
    sample_planes,
)


@pytest.fixture
def oblique() -> Geometry:
    """Oblique, left-handed and anisotropic."""
    rotation = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    direction = rotation @ np.diag([1.0, 1.0, -1.0])
    return Geometry.from_parts((24, 30, 36), (1.1, 0.9, 1.7), direction, (-20.0, 13.0, 40.0))


def random_normals(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_slices_equal_those_of_scipy_on_an_oblique_grid(oblique: Geometry) -> None:
    array = np.random.default_rng(1).standard_normal((2, *oblique.shape))
    normals = random_normals(4)
    frames = [plane_frame(n) for n in normals]
    u, v = (np.array([frame[axis] for frame in frames]) for axis in (0, 1))
    centers = oblique.center + 3.0 * normals
    height, width, spacing = 21, 26, 1.3

    sampled = sample_planes(
        torch.from_numpy(array), oblique, centers, u, v, spacing, (height, width), -2.0
    ).numpy()

    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    for plane in range(4):
        points = (
            centers[plane]
            + (columns[..., None] - (width - 1) / 2) * spacing * u[plane]
            + (rows[..., None] - (height - 1) / 2) * spacing * v[plane]
        )
        index = np.moveaxis(oblique.lps_to_index(points)[..., ::-1], -1, 0)
        for channel in range(2):
            expected = ndimage.map_coordinates(
                array[channel], index, order=1, mode="grid-constant", cval=-2.0
            )
            np.testing.assert_allclose(sampled[plane, channel], expected, atol=1e-9)


def test_float32_slices_are_as_exact_as_float32_allows(oblique: Geometry) -> None:
    ramp = oblique.index_to_lps(np.stack(np.indices(oblique.shape)[::-1], axis=-1)).sum(-1)
    stack = plane_stack((1, 2, 3), oblique, np.ones(oblique.shape, bool), Slices(spacing_mm=1.0))
    exact = stack.sample(torch.from_numpy(ramp)[None], oblique)
    single = stack.sample(torch.from_numpy(ramp)[None].float(), oblique)
    inside = exact.abs() > 1.0
    assert (exact - single).abs()[inside].max() < 2e-3


def test_sampling_a_part_of_a_stack_equals_that_part_of_the_whole(oblique: Geometry) -> None:
    image = torch.rand(1, *oblique.shape, generator=torch.Generator().manual_seed(0))
    stack = plane_stack((1, -1, 0.5), oblique, np.ones(oblique.shape, bool), Slices())
    whole = stack.sample(image, oblique, background=1.0)
    assert torch.equal(stack.sample(image, oblique, 3, 7, 1.0), whole[3:7])
    chosen = np.array([1, 5, 6])
    assert torch.equal(stack.sample_slices(image, oblique, chosen, 1.0), whole[chosen])


def test_gradients_reach_the_image() -> None:
    geometry = Geometry.from_parts((6, 6, 6), (1, 1, 1))
    image = torch.rand(1, 6, 6, 6, dtype=torch.float64, requires_grad=True)
    sample_planes(image, geometry, [geometry.center], (1, 0, 0), (0, 1, 0), 1.0, (6, 6), 3.0).sum()
    planes = sample_planes(image, geometry, [(2.5, 2.5, 2.0)], (1, 0, 0), (0, 1, 0), 1.0, (6, 6))
    planes.sum().backward()
    assert image.grad is not None
    assert torch.allclose(image.grad[0, 2], torch.ones(6, 6, dtype=torch.float64))


def test_an_axial_slice_is_the_array_slice_with_left_and_posterior_growing() -> None:
    geometry = Geometry.from_parts((8, 16, 16), (2, 2, 2))
    image = torch.rand(1, *geometry.shape, generator=torch.Generator().manual_seed(0))
    stack = plane_stack((0, 0, 1), geometry, np.ones(geometry.shape, bool), Slices(multiple=16))
    assert stack.shape == (16, 16)
    np.testing.assert_array_equal(stack.u, (1, 0, 0))
    np.testing.assert_array_equal(stack.v, (0, 1, 0))
    slices = stack.sample(image, geometry)
    s = stack.offsets[4] + stack.center[2]
    below = int(np.floor(s / 2))
    weight = s / 2 - below
    expected = (1 - weight) * image[0, below] + weight * image[0, below + 1]
    assert torch.allclose(slices[4, 0], expected, atol=1e-5)


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 1, 0), (0, 0, 1), *random_normals(20)])
def test_frames_are_orthonormal_and_the_same_for_the_opposite_normal(normal: np.ndarray) -> None:
    n = np.asarray(normal, dtype=float)
    u, v = plane_frame(n)
    frame = np.stack([u, v, n])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(plane_frame(-n), (u, v), atol=1e-12)


def test_stacks_share_one_centre_along_every_normal(oblique: Geometry) -> None:
    foreground = np.zeros(oblique.shape, bool)
    foreground[5:12, 4:20, 10:30] = True
    foreground[5, 4, 0] = True
    center = foreground_runs(foreground, oblique).center
    np.testing.assert_allclose(center, oblique.index_to_lps((14.5, 11.5, 8.0)))
    for stack in plane_stacks(random_normals(12), oblique, foreground, Slices()):
        assert abs(stack.normal @ (stack.center - center)) < 1e-9


def test_a_fitted_stack_shows_the_whole_foreground_and_ends_in_empty_slices(
    oblique: Geometry,
) -> None:
    random = np.random.default_rng(3)
    foreground = ndimage.gaussian_filter(random.standard_normal(oblique.shape), 3) > 0.02
    image = torch.from_numpy(foreground[None].astype(np.float64))
    slices = Slices(spacing_mm=1.5, distance_mm=1.2, multiple=8)
    for stack in plane_stacks(random_normals(10), oblique, foreground, slices):
        planes = stack.sample(image, oblique)[:, 0].numpy()
        # Nothing of the foreground is lost: the sum over all pixels is its volume.
        volume = planes.sum() * 1.5 * 1.5 * 1.2
        assert volume == pytest.approx(foreground.sum() * 1000 * oblique.voxel_volume_ml, rel=0.02)
        assert planes[[0, -1]].max() == 0
        assert stack.shape[0] % 8 == stack.shape[1] % 8 == 0


def test_occupied_slices_are_those_that_show_foreground(oblique: Geometry) -> None:
    foreground = np.zeros(oblique.shape, bool)
    foreground[3:6, 4:9, 5:9] = True
    foreground[15:17, 20:24, 3:5] = True
    image = torch.from_numpy(foreground[None].astype(np.float64))
    slices = Slices(spacing_mm=0.25, distance_mm=1.0, multiple=1)
    for stack in plane_stacks(random_normals(10), oblique, foreground, slices):
        shown = stack.sample(image, oblique).amax(dim=(1, 2, 3)).numpy() > 0
        occupied = stack.occupied(foreground, oblique)
        # Never is a slice left out that shows something; an extra one shows next to nothing.
        assert not np.any(shown & ~occupied)
        assert np.sum(occupied & ~shown) <= 4
        assert not occupied.all()


def test_a_fixed_slice_size_is_kept(oblique: Geometry) -> None:
    stack = plane_stack((0, 1, 1), oblique, np.ones(oblique.shape, bool), Slices(size=48))
    assert stack.shape == (48, 48)
    assert stack.sample(torch.zeros(3, *oblique.shape), oblique, 0, 2).shape == (2, 3, 48, 48)


def test_an_empty_foreground_is_an_error(oblique: Geometry) -> None:
    with pytest.raises(TomoSegError) as caught:
        plane_stack((0, 0, 1), oblique, np.zeros(oblique.shape, bool), Slices())
    assert caught.value.code == "foreground-empty"
