"""Filtered backprojection against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import Slices
from TomoSegLib.tomography.directions import DirectionSet, parse_directions, quadrature_weights
from TomoSegLib.tomography.planes import PlaneStack, plane_stacks
from TomoSegLib.tomography.reconstruction import Backprojector, filter_responses

SIGMA = 5.0
PLACE = np.array([3.0, -2.0, 4.0])
OFFSETS = np.arange(-40, 41) * 1.0
GRID = Geometry.from_parts((40, 44, 48), (1, 1, 1), origin=(-23, -21, -20))


def gaussian(geometry: Geometry, place: np.ndarray = PLACE) -> np.ndarray:
    """exp(-r^2 / (2 sigma^2)), amplitude 1."""
    points = geometry.index_to_lps(np.stack(np.indices(geometry.shape)[::-1], axis=-1))
    return np.exp(-((points - place) ** 2).sum(-1) / (2 * SIGMA**2))


def plane_integrals(
    directions: DirectionSet, offsets: np.ndarray = OFFSETS, place: np.ndarray = PLACE
) -> torch.Tensor:
    """The Gaussian's integrals over planes: 2 pi sigma^2 exp(-t^2 / (2 sigma^2))."""
    t = offsets - (directions.vectors @ place)[:, None]
    return torch.from_numpy(2 * np.pi * SIGMA**2 * np.exp(-(t**2) / (2 * SIGMA**2)))


def reconstruct(
    q: torch.Tensor,
    directions: DirectionSet,
    geometry: Geometry,
    offsets: np.ndarray = OFFSETS,
    center: tuple[float, float, float] = (0, 0, 0),
    **settings: object,
) -> Backprojector:
    filtered = filter_responses(q, offsets[1] - offsets[0], **settings)  # type: ignore[arg-type]
    backprojector = Backprojector(geometry, center)
    for profile, vector, weight in zip(
        filtered, directions.vectors, directions.weights, strict=True
    ):
        backprojector.add(profile, offsets, vector, weight)
    return backprojector


def uneven_directions() -> DirectionSet:
    """Twice as dense along z as along x and y."""
    random = np.random.default_rng(2)
    vectors = random.standard_normal((300, 3)) * (0.8, 0.8, 1.25)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return DirectionSet(vectors, quadrature_weights(vectors), "uneven")


@pytest.mark.parametrize(
    "directions",
    [parse_directions("fibonacci:200"), parse_directions("icosahedral:6"), uneven_directions()],
    ids=lambda d: d.name,
)
def test_a_gaussian_comes_back_in_absolute_scale(directions: DirectionSet) -> None:
    q = plane_integrals(directions)
    heatmap = reconstruct(q, directions, GRID, window="none").heatmap().numpy()
    error = heatmap - gaussian(GRID)
    assert heatmap.max() == pytest.approx(1.0, abs=0.01)
    # The undersampled sphere leaves a low background far from the Gaussian.
    assert np.sqrt((error**2).mean()) < 0.012
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (24, 19, 26)


def test_without_quadrature_weights_an_uneven_set_is_worse() -> None:
    directions = uneven_directions()
    equal = DirectionSet(directions.vectors, np.full(300, 1 / 300), "equal")
    q = plane_integrals(directions)
    errors = [
        np.sqrt(
            ((reconstruct(q, d, GRID, window="none").heatmap().numpy() - gaussian(GRID)) ** 2)
            .mean()
        )
        for d in (directions, equal)
    ]  # fmt: skip
    assert errors[0] < 0.8 * errors[1], errors


def test_the_scale_is_that_of_the_volume_for_slices_summed_from_a_volume() -> None:
    directions = parse_directions("fibonacci:100")
    image = torch.from_numpy(gaussian(GRID)[None]).float()
    slices = Slices(spacing_mm=1.0, distance_mm=1.0, multiple=1)
    backprojector = Backprojector(GRID, GRID.center)
    stacks = plane_stacks(directions.vectors, GRID, np.ones(GRID.shape, bool), slices)
    for stack, weight in zip(stacks, directions.weights, strict=True):
        q = stack.sample(image, GRID).sum(dim=(1, 2, 3)) * stack.spacing_mm**2
        filtered = filter_responses(q, 1.0, window="none", padding=0.0)
        backprojector.add(filtered, stack.offsets, stack.normal, weight)
    heatmap = backprojector.heatmap().numpy()
    inside = gaussian(GRID) > 0.5
    assert np.abs(heatmap - gaussian(GRID))[inside].max() < 0.03


def test_the_second_order_filter_is_the_negative_second_derivative() -> None:
    t = torch.arange(-64, 65, dtype=torch.float64) * 0.5
    q = torch.exp(-(t**2) / 18)
    expected = -(t**2 / 81 - 1 / 9) * q
    for distance, profile, truth in ((0.5, q, expected), (1.0, q[::2], expected[::2])):
        assert torch.allclose(filter_responses(profile, distance, window="none"), truth, atol=1e-4)


def test_order_zero_is_plain_backprojection_of_what_exceeds_emptiness() -> None:
    q = torch.rand(3, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    filtered = filter_responses(q, 2.0, order=0.0, window="none", padding=0.25)
    assert torch.allclose(filtered, q - 0.25, atol=1e-12)


def test_orders_compose_where_profiles_are_smooth() -> None:
    t = torch.arange(-200, 201, dtype=torch.float64)
    q = torch.exp(-(t**2) / 50)
    half = filter_responses(q, 1.0, order=0.5, window="none", padding=0.0)
    twice = filter_responses(half, 1.0, order=1.5, window="none", padding=0.0)
    # Away from the ends, where the tail of the first filter is cut off.
    at_once = filter_responses(q, 1.0, window="none")
    assert torch.allclose(twice[100:300], at_once[100:300], atol=2e-4)


def test_the_cutoff_and_windows_remove_high_frequencies() -> None:
    s = torch.arange(256, dtype=torch.float64)
    gain = {}
    for window in ("none", "cosine", "hann"):
        for frequency in (0.05, 0.2, 0.4):
            wave = torch.cos(2 * torch.pi * frequency * s) * torch.hann_window(
                256, periodic=False, dtype=torch.float64
            )
            filtered = filter_responses(wave, 1.0, order=0.0, cutoff=0.6, window=window)  # type: ignore[arg-type]
            gain[window, frequency] = float(filtered[128] / wave[128])
    for frequency in (0.05, 0.2):
        angle = np.pi / 2 * frequency / 0.3
        assert gain["none", frequency] == pytest.approx(1, abs=0.01)
        assert gain["cosine", frequency] == pytest.approx(np.cos(angle), abs=0.01)
        assert gain["hann", frequency] == pytest.approx(np.cos(angle) ** 2, abs=0.01)
    assert all(abs(gain[window, 0.4]) < 0.01 for window in ("none", "cosine", "hann"))


@pytest.mark.parametrize(("order", "cutoff"), [(-0.1, 1.0), (2.1, 1.0), (1.0, 0.0), (1.0, 1.5)])
def test_filter_settings_out_of_range_are_refused(order: float, cutoff: float) -> None:
    with pytest.raises(ValueError, match="order"):
        filter_responses(torch.zeros(8), 1.0, order=order, cutoff=cutoff)


def test_order_two_is_immune_to_offsets_and_trends_of_each_direction() -> None:
    directions = parse_directions("fibonacci:40")
    q = plane_integrals(directions)
    random = np.random.default_rng(0)
    offset = torch.from_numpy(random.uniform(-500, 500, (40, 1)))
    trend = torch.from_numpy(random.uniform(-20, 20, (40, 1)) * OFFSETS)
    plain = reconstruct(q, directions, GRID).heatmap()
    disturbed = reconstruct(q + offset + trend, directions, GRID).heatmap()
    assert (plain - disturbed).abs().max() < 1e-5
    # With order 1 only the offset goes.
    shifted = reconstruct(q + offset, directions, GRID, order=1.0).heatmap()
    assert torch.allclose(shifted, reconstruct(q, directions, GRID, order=1.0).heatmap(), atol=1e-4)


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 2.0])
def test_the_ends_of_a_stack_make_no_false_response(order: float) -> None:
    empty = 7.0
    q = torch.full((1, 41), empty, dtype=torch.float64)
    q[0, 18:23] += 1.0
    for padding in (empty, torch.tensor([[empty]]), "ends"):
        filtered = filter_responses(q, 1.0, order=order, padding=padding)  # type: ignore[arg-type]
        assert filtered[0, [0, 1, -2, -1]].abs().max() < 0.05 * filtered.abs().max()
    # Padding with zeros instead would: the step from 7 to 0.
    zeros = filter_responses(q, 1.0, order=order, padding=0.0)
    assert zeros[0, 0].abs() > filtered[0].abs().max()


def test_rotating_the_object_rotates_the_heatmap() -> None:
    directions = parse_directions("fibonacci:120")
    rotation = Rotation.from_euler("zyx", [35, 20, -50], degrees=True).as_matrix()
    places = [np.array([7.0, 2.0, -4.0]), np.array([-6.0, -3.0, 5.0])]

    # A rotated target grid sees the rotated object and directions exactly as before.
    def pair(turn: np.ndarray, normals: np.ndarray) -> torch.Tensor:
        turned = DirectionSet(normals, directions.weights, "turned")
        q = sum(plane_integrals(turned, place=turn @ place) for place in places)
        grid = Geometry.from_parts((31, 31, 31), (1, 1, 1), turn, turn @ np.full(3, -15.0))
        assert isinstance(q, torch.Tensor)
        return reconstruct(q, turned, grid).heatmap()

    straight = pair(np.eye(3), directions.vectors)
    assert (straight - pair(rotation, directions.vectors @ rotation.T)).abs().max() < 0.01
    # And with the directions left where they are, up to what is lost between them.
    assert (straight - pair(rotation, directions.vectors)).abs().max() < 0.06


def test_the_error_falls_with_the_number_of_directions() -> None:
    truth = gaussian(GRID)
    counts = (8, 16, 32, 64, 128, 256)
    errors = []
    for count in counts:
        directions = parse_directions(f"fibonacci:{count}")
        heatmap = reconstruct(plane_integrals(directions), directions, GRID, window="none")
        errors.append(float(np.sqrt(((heatmap.heatmap().numpy() - truth) ** 2).mean())))
    assert all(
        later < 0.85 * earlier for earlier, later in zip(errors, errors[1:], strict=False)
    ), errors
    assert errors[-1] < errors[0] / 10


@pytest.mark.parametrize("order", [2.0, 0.5])
def test_a_region_of_interest_gets_the_values_of_the_whole(order: float) -> None:
    directions = parse_directions("fibonacci:50")
    q = plane_integrals(directions)
    q += torch.randn(q.shape, generator=torch.Generator().manual_seed(0)) * 20
    rotation = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    whole = Geometry.from_parts((30, 36, 40), (1.0, 1.0, 1.5), rotation, (-20, -18, -20))
    affine = whole.affine.copy()
    affine[:3, 3] = whole.index_to_lps((11, 5, 7))
    part = Geometry((12, 20, 9), affine)
    center = tuple(whole.center)
    backprojectors = [
        reconstruct(q, directions, grid, center=center, order=order)  # type: ignore[arg-type]
        for grid in (whole, part)
    ]
    for name in ("heatmap", "agreement"):
        full, region = (getattr(b, name)() for b in backprojectors)
        crop = full[7:19, 5:25, 11:20]
        assert (crop - region).abs().max() <= 1e-6 * full.abs().max()


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, -1)])
def test_oblique_anisotropic_grids_get_the_same_field(flip: tuple[int, int, int]) -> None:
    directions = parse_directions("fibonacci:200")
    rotation = Rotation.from_euler("xyz", [25, -40, 15], degrees=True).as_matrix() @ np.diag(flip)
    spacing = np.array([0.7, 1.9, 3.1])
    shape = (9, 15, 40)
    origin = PLACE - rotation @ (spacing * (np.array(shape[::-1]) - 1) / 2)
    grid = Geometry.from_parts(shape, spacing, rotation, origin)
    heatmap = reconstruct(plane_integrals(directions), directions, grid, window="none").heatmap()
    error = heatmap.numpy() - gaussian(grid)
    assert np.abs(error).max() < 0.03


def test_backprojection_is_linear_interpolation_to_within_its_stated_rounding() -> None:
    random = np.random.default_rng(0)
    grid = Geometry.from_parts((17, 19, 23), (1.3, 0.9, 1.1), origin=(-14, -9, -9))
    offsets = np.arange(-9, 8) * 2.0 + 0.3
    points = grid.index_to_lps(np.stack(np.indices(grid.shape)[::-1], axis=-1))
    # The last three run along the rows of the grid, across them, and nearly across them.
    normals = [*parse_directions("fibonacci:12").vectors, (1, 0, 0), (0, 1, 0), (1e-4, 0, 1)]
    for normal in normals:
        n = np.asarray(normal) / np.linalg.norm(normal)
        profile = ndimage.gaussian_filter1d(random.standard_normal(len(offsets)), 1.0)
        backprojector = Backprojector(grid, (0, 0, 0))
        backprojector.add(profile, offsets, n, 0.3)
        expected = np.interp(points @ n, offsets, profile)
        steepest = np.abs(np.diff(profile)).max()
        result = backprojector.heatmap().numpy() * 2 * np.pi
        # A shift by 1/64 of the distance, and a little where the profile has its kinks.
        assert np.abs(result - expected).max() <= 1.25 * steepest / 64
        assert np.abs(result - expected).mean() <= 0.5 * steepest / 64


def test_many_directions_stream_in_any_number_of_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    directions = parse_directions("fibonacci:30")
    q = plane_integrals(directions)
    once = reconstruct(q, directions, GRID)
    monkeypatch.setattr(Backprojector, "_TABLE_BYTES", 2**16)
    monkeypatch.setattr(Backprojector, "_SLAB_VOXELS", 2**10)
    often = reconstruct(q, directions, GRID)
    assert torch.allclose(once.heatmap(), often.heatmap(), atol=1e-5)
    assert torch.allclose(once.agreement(), often.agreement(), atol=1e-4)


def test_a_preview_is_the_heatmap_of_the_directions_so_far() -> None:
    directions = parse_directions("fibonacci:64").in_progressive_order()
    filtered = filter_responses(plane_integrals(directions), 1.0)
    backprojector = Backprojector(GRID, (0, 0, 0))
    assert backprojector.preview().max() == 0
    peaks = []
    for profile, vector, weight in zip(
        filtered, directions.vectors, directions.weights, strict=True
    ):
        backprojector.add(profile, OFFSETS, vector, weight)
        peaks.append(backprojector.preview(2).max())
    np.testing.assert_array_equal(
        backprojector.preview(2), backprojector.heatmap().numpy()[::2, ::2, ::2]
    )
    # The scale is right from the start, not only at the end.
    assert peaks[15] == pytest.approx(peaks[-1], rel=0.1)


def test_agreement_is_one_where_directions_agree_and_low_where_they_do_not() -> None:
    directions = parse_directions("fibonacci:100")
    agreement = reconstruct(plane_integrals(directions), directions, GRID).agreement().numpy()
    assert agreement.min() >= 0
    assert agreement.max() <= 1
    assert agreement[24, 19, 26] > 0.98
    far = gaussian(GRID) < 1e-3
    assert np.median(agreement[far]) < 0.05
    noise = torch.randn(100, 81, generator=torch.Generator().manual_seed(0))
    assert reconstruct(noise, directions, GRID).agreement().max() < 0.35


def test_a_backprojector_without_squares_has_no_agreement() -> None:
    backprojector = Backprojector(GRID, (0, 0, 0), agreement=False)
    backprojector.add(np.ones(5), np.arange(5.0), (0, 0, 1), 1.0)
    assert backprojector.heatmap().max() > 0
    with pytest.raises(ValueError, match="squares"):
        backprojector.agreement()


class TestStacks:
    """Stacks of maps (class activation maps)."""

    slices = Slices(spacing_mm=1.0, distance_mm=1.5, multiple=4)

    def stack(self, normal: tuple[float, float, float]) -> PlaneStack:
        return plane_stacks([normal], GRID, np.ones(GRID.shape, bool), self.slices)[0]

    def test_a_map_constant_in_plane_gives_what_its_profile_gives(self) -> None:
        profiles, maps = (Backprojector(GRID, GRID.center) for _ in range(2))
        directions = parse_directions("fibonacci:12")
        generator = torch.Generator().manual_seed(0)
        for vector, weight in zip(directions.vectors, directions.weights, strict=True):
            stack = self.stack(vector)
            smooth = torch.randn(len(stack) + 8, generator=generator).unfold(0, 9, 1).mean(1)
            profiles.add(smooth, stack.offsets, stack.normal, weight)
            maps.add_stack(smooth[:, None, None].expand(-1, 7, 5), stack, weight)
        assert torch.allclose(profiles.heatmap(), maps.heatmap(), atol=1e-3)
        assert torch.allclose(profiles.agreement(), maps.agreement(), atol=0.02)

    @pytest.mark.parametrize("normal", [(0, 0, 1), (1, 0, 0), (1, -2, 0.7)])
    def test_maps_land_where_their_slices_were_sampled(
        self, normal: tuple[float, float, float]
    ) -> None:
        stack = self.stack(normal)
        image = torch.from_numpy(gaussian(GRID)[None])
        maps = torch.nn.functional.avg_pool2d(stack.sample(image, GRID), 4)[:, 0]
        backprojector = Backprojector(GRID, GRID.center)
        backprojector.add_stack(maps, stack, 1.0)
        result = backprojector.heatmap().numpy() * 2 * np.pi
        center = ndimage.center_of_mass(np.where(result > 0.1, result, 0))
        truth = ndimage.center_of_mass(gaussian(GRID))
        np.testing.assert_allclose(center, truth, atol=0.4)
        assert np.corrcoef(result.ravel(), gaussian(GRID).ravel())[0, 1] > 0.98

    def test_a_stride_and_first_pixel_describe_maps_that_are_not_flush(self) -> None:
        stack = self.stack((0, 0, 1))
        image = torch.from_numpy(gaussian(GRID)[None])
        maps = stack.sample(image, GRID)[:, 0, ::2, ::2]
        backprojector = Backprojector(GRID, GRID.center)
        backprojector.add_stack(maps, stack, 1.0, stride=(2, 2), first_pixel=(0, 0))
        result = backprojector.heatmap().numpy() * 2 * np.pi
        # Linear interpolation of a Gaussian loses h^2 / (8 sigma^2) per axis at its peak.
        assert np.abs(result - gaussian(GRID)).max() < 0.055

    def test_a_support_changes_nothing_inside_it(self) -> None:
        stack = self.stack((1, 2, 3))
        maps = torch.rand(len(stack), 6, 6, generator=torch.Generator().manual_seed(0))
        support = np.zeros(GRID.shape, bool)
        support[10:20, 8:30, 5:40] = True
        whole, part = (Backprojector(GRID, GRID.center) for _ in range(2))
        whole.add_stack(maps, stack, 1.0)
        part.add_stack(maps, stack, 1.0, support=support)
        assert torch.equal(whole.heatmap()[support], part.heatmap()[support])
        assert part.heatmap()[:, :8].abs().max() == 0
