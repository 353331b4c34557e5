"""Lines and distances in closed form agree with what brute force finds in space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.studies.image_plane import (
    ImagePlane,
    IntersectingLine,
    NoLine,
    distance_field,
    intersecting_line,
    relative_locations,
    sine_between,
    stack_positions,
)

TOLERANCE_MM = 0.01


def oblique(seed: int, shape: tuple[int, int] | None = None) -> ImagePlane:
    """An oblique, anisotropic image near the origin; every other one is left-handed."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=rng).as_matrix()
    spacing = rng.uniform(0.6, 2.4, 2)
    shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60))) if shape is None else shape
    steps = rotation[:, 0] * spacing[0], rotation[:, 1] * spacing[1] * (-1) ** seed
    center = rng.normal(0, 12, 3)
    origin = center - steps[0] * (shape[1] - 1) / 2 - steps[1] * (shape[0] - 1) / 2
    return ImagePlane(origin, *steps, shape)


def brute_force_crossings(plane: ImagePlane, other: ImagePlane) -> np.ndarray:
    """Points of the image's rim that lie on the other plane, by root finding, ``(N, 3)``."""
    found = []
    corners = plane.corners
    for start, stop in zip(corners, np.roll(corners, -1, axis=0), strict=True):

        def height(t: float, a: np.ndarray = start, b: np.ndarray = stop) -> float:
            return float(np.dot(a + t * (b - a) - other.origin, other.normal))

        if height(0) * height(1) < 0:
            t = brentq(height, 0, 1, xtol=1e-14)
            found.append(start + t * (stop - start))
    return np.array(found).reshape(-1, 3)


seeds = st.integers(0, 10**6)


@given(seeds, seeds)
@settings(max_examples=100, deadline=None)
def test_endpoints_are_where_the_other_plane_crosses_the_rim(first: int, second: int) -> None:
    plane, other = oblique(first), oblique(second)
    assume(sine_between(plane, other) > 0.1)
    crossings = brute_force_crossings(plane, other)
    line = intersecting_line(plane, other)
    if len(crossings) == 0:
        assert isinstance(line, NoLine) and line.code == "outside-view"
        return
    # Sample what is between: does any of it lie within the other image?
    t = np.linspace(0, 1, 2001)[:, None]
    within = other.lps_to_pixel(crossings[0] + t * (crossings[1] - crossings[0]))
    limit = np.array(other.shape[::-1]) - 1
    hit = bool(np.any(np.all((within >= 0) & (within <= limit), axis=1)))
    if isinstance(line, NoLine):
        assert line.code == "outside-other" and not hit
        return
    separation = np.linalg.norm(line.endpoints_mm[:, None] - crossings[None], axis=-1)
    assert separation.min(axis=1).max() < TOLERANCE_MM
    assert separation.min(axis=0).max() < TOLERANCE_MM
    np.testing.assert_allclose(
        plane.pixel_to_lps(line.endpoints_px), line.endpoints_mm, atol=TOLERANCE_MM
    )
    assert np.all(line.endpoints_px > -1e-6)
    assert np.all(line.endpoints_px < np.array(plane.shape[::-1]) - 1 + 1e-6)


@given(seeds, seeds)
@settings(max_examples=20, deadline=None)
def test_distances_are_those_of_the_nearest_of_many_points_of_the_line(
    first: int, second: int
) -> None:
    plane, other = oblique(first, (4, 5)), oblique(second, (4, 5))
    assume(sine_between(plane, other) > 0.1)
    # A point of both planes and the direction of their line, by solving three equations.
    along = np.cross(plane.normal, other.normal)
    along /= np.linalg.norm(along)
    equations = np.stack([plane.normal, other.normal, along])
    right = [plane.normal @ plane.origin, other.normal @ other.origin, along @ plane.center]
    point = np.linalg.solve(equations, right)
    many = point + np.linspace(-60, 60, 40001)[:, None] * along
    field = distance_field(plane, other)
    for row, column in np.ndindex(plane.shape):
        x = plane.pixel_to_lps((column, row))
        assert np.linalg.norm(many - x, axis=1).min() == pytest.approx(
            field[row, column], abs=TOLERANCE_MM
        )


@given(seeds, seeds, seeds)
@settings(max_examples=50, deadline=None)
def test_moving_the_patient_moves_the_line_with_it(first: int, second: int, motion: int) -> None:
    plane, other = oblique(first), oblique(second)
    rng = np.random.default_rng(motion)
    turn, shift = Rotation.random(random_state=rng).as_matrix(), rng.normal(0, 100, 3)

    def moved(item: ImagePlane) -> ImagePlane:
        return ImagePlane(
            turn @ item.origin + shift, turn @ item.column_step, turn @ item.row_step, item.shape
        )

    before, after = intersecting_line(plane, other), intersecting_line(moved(plane), moved(other))
    assert type(before) is type(after)
    if isinstance(before, IntersectingLine) and isinstance(after, IntersectingLine):
        np.testing.assert_allclose(after.endpoints_px, before.endpoints_px, atol=1e-6)
        np.testing.assert_allclose(
            after.endpoints_mm, before.endpoints_mm @ turn.T + shift, atol=1e-6
        )


def axial(z: float = 0.0, shape: tuple[int, int] = (40, 60)) -> ImagePlane:
    return ImagePlane(np.array([-30.0, -20.0, z]), np.eye(3)[0], np.eye(3)[1], shape)


def tilted(degrees: float, x: float = 0.0) -> ImagePlane:
    """A plane that meets the axial one at an angle, along the line of that x."""
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    steps = turn[:, 0] * 2, np.array([0.0, 1.5, 0.0])
    origin = np.array([x, 0, 0]) - steps[0] * 20 - steps[1] * 15
    return ImagePlane(origin, *steps, (31, 41))


@pytest.mark.parametrize(("degrees", "there"), [(0, False), (5.7, False), (5.8, True), (90, True)])
def test_planes_that_meet_at_less_than_a_sine_of_a_tenth_have_no_line(
    degrees: float, there: bool
) -> None:
    line = intersecting_line(axial(), tilted(degrees))
    assert isinstance(line, IntersectingLine) == there
    if isinstance(line, NoLine):
        assert line.code == "near-parallel" and f"{degrees:.1f} degrees" in line.reason
    else:
        np.testing.assert_allclose(line.endpoints_mm, [[0, -20, 0], [0, 19, 0]], atol=1e-9)
        np.testing.assert_allclose(line.endpoints_px, [[30, 0], [30, 39]], atol=1e-9)


def test_a_line_along_the_last_column_is_there_and_half_a_pixel_further_is_not() -> None:
    assert isinstance(intersecting_line(axial(), tilted(90, 29.0)), IntersectingLine)
    line = intersecting_line(axial(), tilted(90, 29.5))
    assert isinstance(line, NoLine) and line.code == "outside-view"


def test_an_image_that_ends_before_it_reaches_the_other_has_no_line() -> None:
    line = intersecting_line(axial(z=41), tilted(90))
    assert isinstance(line, NoLine) and line.code == "outside-other"
    assert isinstance(intersecting_line(axial(z=39), tilted(90)), IntersectingLine)


def test_identical_planes_have_no_distance_field() -> None:
    with pytest.raises(ValueError, match="parallel"):
        distance_field(axial(), axial(z=10))


def test_a_slice_of_a_grid_lies_where_the_grid_says(any_geometry: Geometry) -> None:
    k = any_geometry.shape[0] - 2
    plane = ImagePlane.of_slice(any_geometry, k)
    rows, columns = plane.shape
    pixels = np.array([(0, 0), (columns - 1, 3), (2, rows - 1)])
    expected = any_geometry.index_to_lps([(c, r, k) for c, r in pixels])
    np.testing.assert_allclose(plane.pixel_to_lps(pixels), expected, atol=1e-9)
    np.testing.assert_allclose(plane.lps_to_pixel(expected), pixels, atol=1e-6)
    np.testing.assert_allclose(plane.corners.mean(axis=0), plane.center, atol=1e-9)


def test_places_follow_positions_not_indices() -> None:
    uneven = [40.0, 0.0, 10.0, 12.0]
    np.testing.assert_allclose(relative_locations(uneven), [1, 0, 0.25, 0.3])
    np.testing.assert_allclose(relative_locations(uneven, base_first=False), [0, 1, 0.75, 0.7])
    np.testing.assert_allclose(relative_locations(uneven, symmetric=True), [1, 1, 0.5, 0.4])
    with pytest.raises(ValueError, match="single position"):
        relative_locations([3.0])
    with pytest.raises(ValueError, match="single position"):
        relative_locations([])


def test_positions_are_measured_along_the_normal() -> None:
    first = oblique(3)
    shifts = np.array([0.0, 8.0, 17.5])
    # Shifted within the plane as well, as breath holds do.
    planes = [
        ImagePlane(
            first.origin + s * first.normal + 3 * s * first.column_step,
            first.column_step,
            first.row_step,
            first.shape,
        )
        for s in shifts
    ]
    positions = stack_positions(planes)
    np.testing.assert_allclose(positions - positions[0], shifts, atol=1e-9)
