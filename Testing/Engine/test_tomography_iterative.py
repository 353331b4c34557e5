"""The plane-Radon transform, its adjoint and iterative reconstruction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import Slices
from TomoSegLib.tomography.directions import DirectionSet, parse_directions
from TomoSegLib.tomography.iterative import cgls, fista, remove_trends, sirt
from TomoSegLib.tomography.planes import plane_stacks
from TomoSegLib.tomography.radon import PlaneRadon
from TomoSegLib.tomography.reconstruction import Backprojector, filter_responses

GRID = Geometry.from_parts((22, 24, 26), (2, 2, 2), origin=(-25, -23, -21))


def phantom() -> torch.Tensor:
    """Two balls of different value."""
    points = GRID.index_to_lps(np.stack(np.indices(GRID.shape)[::-1], axis=-1))
    volume = 1.0 * (np.linalg.norm(points - (8, 4, -5), axis=-1) < 9)
    volume += 0.6 * (np.linalg.norm(points - (-9, -6, 6), axis=-1) < 7)
    return torch.from_numpy(ndimage.gaussian_filter(volume, 0.5))


def relative_error(volume: torch.Tensor) -> float:
    truth = phantom()
    return float(torch.linalg.norm(volume.double() - truth) / torch.linalg.norm(truth))


def filtered_backprojection(
    operator: PlaneRadon, q: torch.Tensor, directions: DirectionSet
) -> torch.Tensor:
    backprojector = Backprojector(GRID, operator.center)
    for profile, vector, weight in zip(
        filter_responses(q, operator.distance_mm),
        directions.vectors,
        directions.weights,
        strict=True,
    ):
        backprojector.add(profile, operator.offsets, vector, weight)
    return backprojector.heatmap()


@pytest.mark.parametrize("offsets", [None, np.arange(-6, 7) * 1.5])
@pytest.mark.parametrize("with_support", [False, True])
def test_forward_and_adjoint_are_transposes(offsets: np.ndarray | None, with_support: bool) -> None:
    rotation = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    grid = Geometry.from_parts((9, 11, 13), (1.1, 0.9, 2.3), rotation @ np.diag([1, -1, 1]))
    random = np.random.default_rng(0)
    support = random.random(grid.shape) < 0.5 if with_support else None
    operator = PlaneRadon(
        grid,
        parse_directions("icosahedral:2").vectors,
        offsets,
        support=support,
        dtype=torch.float64,
    )
    f = torch.from_numpy(random.standard_normal(grid.shape))
    q = torch.from_numpy(random.standard_normal(operator.shape))
    left, right = torch.sum(operator.forward(f) * q), torch.sum(f * operator.adjoint(q))
    assert abs(left - right) <= 1e-10 * (abs(left) + abs(right))
    assert abs(left) > 1


def test_plane_integrals_have_the_scale_of_sampled_and_summed_slices() -> None:
    image = torch.from_numpy(ndimage.gaussian_filter(phantom().numpy(), 2))
    directions = parse_directions("fibonacci:10")
    operator = PlaneRadon(GRID, directions.vectors, np.arange(-30, 31) * 2.0, dtype=torch.float64)
    q = operator.forward(image)
    assert torch.allclose(q.sum(dim=1) * 2.0, image.sum() * GRID.voxel_volume_ml * 1000, rtol=1e-9)
    slices = Slices(spacing_mm=1.0, distance_mm=2.0, multiple=1)
    stacks = plane_stacks(directions.vectors, GRID, np.ones(GRID.shape, bool), slices)
    for row, stack in zip(q, stacks, strict=True):
        sampled = stack.sample(image[None], GRID).sum(dim=(1, 2, 3))
        expected = np.interp(stack.offsets, operator.offsets, row.numpy())
        assert np.abs(sampled.numpy() - expected).max() < 0.03 * expected.max()


def test_trends_are_projected_out_orthogonally() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, 30, dtype=torch.float64, generator=generator)
    weights = torch.rand(4, 30, dtype=torch.float64, generator=generator)
    line = 3.0 + 2.0 * torch.arange(30, dtype=torch.float64)
    for w in (None, weights):
        once = remove_trends(q, "linear", w)
        assert torch.allclose(remove_trends(once, "linear", w), once)
        assert torch.allclose(remove_trends(q + line, "linear", w), once)
        assert torch.allclose(remove_trends(q + 5.0, "mean", w), remove_trends(q, "mean", w))
    assert torch.equal(remove_trends(q, "none"), q)


Solver = Callable[..., torch.Tensor]


@pytest.mark.parametrize(
    ("solver", "iterations", "bound"), [(cgls, 25, 0.3), (sirt, 80, 0.42), (fista, 40, 0.15)]
)
def test_solvers_converge_to_the_phantom_whatever_the_rows_offsets(
    solver: Solver, iterations: int, bound: float
) -> None:
    directions = parse_directions("fibonacci:60")
    operator = PlaneRadon(GRID, directions.vectors, distance_mm=2.0)
    q = operator.forward(phantom())
    q = q + torch.randn(60, 1, generator=torch.Generator().manual_seed(0)) * q.max()
    errors = [
        relative_error(solver(operator, q, iterations=n)) for n in (2, iterations // 4, iterations)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < bound, errors
    # What the projection is for.
    assert relative_error(solver(operator, q, iterations=iterations, detrend="none")) > errors[2]


def test_the_residual_of_cgls_never_grows() -> None:
    operator = PlaneRadon(GRID, parse_directions("fibonacci:20").vectors, distance_mm=2.0)
    q = operator.forward(phantom())
    residuals = [
        float(torch.linalg.norm(remove_trends(operator.forward(f) - q, "mean")))
        for f in (cgls(operator, q, iterations=n) for n in range(1, 7))
    ]
    assert all(b <= a * (1 + 1e-5) for a, b in zip(residuals, residuals[1:], strict=False))


def test_sirt_can_be_kept_non_negative() -> None:
    operator = PlaneRadon(GRID, parse_directions("fibonacci:12").vectors, distance_mm=2.0)
    q = operator.forward(phantom())
    assert sirt(operator, q, iterations=10).min() < 0
    assert sirt(operator, q, iterations=10, nonnegative=True).min() == 0


def test_with_few_directions_fista_beats_filtered_backprojection() -> None:
    directions = parse_directions("fibonacci:16")
    operator = PlaneRadon(GRID, directions.vectors, distance_mm=2.0)
    q = operator.forward(phantom())
    q = q + 0.02 * q.std() * torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    direct = relative_error(filtered_backprojection(operator, q, directions))
    nonnegative = fista(operator, q, iterations=60)
    smooth = fista(operator, q, iterations=60, tv=0.001)
    assert nonnegative.min() >= 0
    assert smooth.min() >= 0
    assert relative_error(nonnegative) < 0.7 * direct
    assert relative_error(smooth) < relative_error(nonnegative)


def test_progress_is_reported() -> None:
    operator = PlaneRadon(GRID, parse_directions("orthogonal").vectors, distance_mm=4.0)
    q = operator.forward(phantom())
    for solver in (cgls, sirt, fista):
        calls: list[tuple[int, int]] = []
        solver(operator, q, iterations=3, on_progress=lambda *call: calls.append(call))  # noqa: B023
        assert calls == [(1, 3), (2, 3), (3, 3)]
