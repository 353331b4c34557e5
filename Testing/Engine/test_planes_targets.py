"""Targets of the plane tasks stay right under every way of choosing pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from TomoSegLib.pretraining.planes_data import PlaneDataset, PlaneExample, read_examples
from TomoSegLib.pretraining.planes_targets import (
    PlaneOptions,
    crop_plane,
    cutting_views,
    fit_line,
    line_error,
    line_heatmap,
    line_of,
    sample_image,
    smoothed,
    standardised,
)
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.study import Study, View

OPTIONS = PlaneOptions(spacing_mm=2.0, side=64, rotation=60, zoom=1.3, shift_mm=15)


def oblique(seed: int, spacing: tuple[float, float] = (1.4, 1.9)) -> ImagePlane:
    """An image of 90 by 70 pixels about the origin."""
    axes = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    steps = axes[:, 0] * spacing[0], axes[:, 1] * spacing[1]
    return ImagePlane(-steps[0] * 44.5 - steps[1] * 34.5, *steps, (70, 90))


def wave(points: np.ndarray) -> np.ndarray:
    """A smooth function of the place in the patient."""
    return np.sin(points @ [0.05, -0.08, 0.06]) + np.cos(points @ [-0.04, 0.05, 0.09])


def pixels_of(plane: ImagePlane) -> np.ndarray:
    """``(rows, columns, 3)`` LPS mm."""
    rows, columns = np.indices(plane.shape)
    return plane.pixel_to_lps(np.stack([columns, rows], axis=-1))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(12))
def test_augmented_pixels_show_what_is_there_in_the_patient(seed: int) -> None:
    plane = oblique(seed)
    image = wave(pixels_of(plane))
    target = crop_plane(plane, OPTIONS, rng(seed))
    # It stays in the plane.
    assert np.abs(plane.signed_distance(target.corners)).max() < 1e-9
    found, inside = sample_image(image, plane, target)
    assert 0.2 < inside.mean() <= 1
    expected = wave(pixels_of(target))
    margin = plane.lps_to_pixel(pixels_of(target))
    well = np.all((margin > 1) & (margin < np.array([88, 68])), axis=-1)
    assert np.abs(found - expected)[well].max() < 0.01
    np.testing.assert_array_equal(found[~inside], 0)


@pytest.mark.parametrize("seed", range(12))
def test_the_target_of_augmented_pixels_is_the_augmented_target(seed: int) -> None:
    """Recomputed from the new geometry, and warped as an image is: the same."""
    plane, other = oblique(seed), oblique(seed + 100)
    # Much finer than the crop, so that warping costs nothing.
    fine = crop_plane(plane, replace(OPTIONS, spacing_mm=0.5, side=720))
    target = crop_plane(plane, OPTIONS, rng(seed))
    before = line_heatmap(fine, other, OPTIONS.sigma_mm)
    columns, rows = np.moveaxis(fine.lps_to_pixel(pixels_of(target)), -1, 0)
    warped = map_coordinates(before, [rows, columns], order=1, mode="nearest")
    well = (columns > 0) & (rows > 0) & (columns < 719) & (rows < 719)
    assert well.mean() > 0.9
    recomputed = line_heatmap(target, other, OPTIONS.sigma_mm)
    assert np.abs(recomputed - warped)[well].max() < 2e-3


def test_augmentation_turns_zooms_shifts_and_mirrors() -> None:
    plane = oblique(1)
    handedness, sizes, centers = set(), [], []
    for seed in range(30):
        crop = crop_plane(plane, OPTIONS, rng(seed))
        handedness.add(round(float(crop.normal @ plane.normal)))
        sizes.append(crop.spacing[0])
        centers.append(np.linalg.norm(crop.center - plane.center))
        assert crop.spacing[0] == pytest.approx(crop.spacing[1])
        assert crop.column_step @ crop.row_step == pytest.approx(0, abs=1e-9)
    assert handedness == {-1, 1}
    assert 2 / 1.3 <= min(sizes) < 1.7 and 2.3 < max(sizes) <= 2 * 1.3
    assert 5 < max(centers) <= 15 * np.sqrt(2)
    still = crop_plane(plane, OPTIONS)
    np.testing.assert_allclose(still.center, plane.center, atol=1e-9)
    # Its axes are the image's, one way or another.
    along = [plane.column_step / 1.4, plane.row_step / 1.9]
    cosines = np.abs(np.array([[step @ axis for axis in along] for step in still_axes(still)]))
    np.testing.assert_allclose(np.sort(cosines, axis=None), [0, 0, 2, 2], atol=1e-9)


def still_axes(plane: ImagePlane) -> tuple[np.ndarray, np.ndarray]:
    return plane.column_step, plane.row_step


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_is_the_same_however_the_file_stores_the_image(seed: int) -> None:
    plane = oblique(seed)
    columns, rows, origin = plane.column_step, plane.row_step, plane.origin
    last = origin + 89 * columns, origin + 69 * rows
    stored = [
        plane,
        ImagePlane(last[0], -columns, rows, (70, 90)),
        ImagePlane(last[1], columns, -rows, (70, 90)),
        ImagePlane(last[0] + last[1] - origin, -rows, -columns, (90, 70)),
        ImagePlane(origin, rows, columns, (90, 70)),
    ]
    for drawn in (None, 5):
        crops = [crop_plane(p, OPTIONS, None if drawn is None else rng(drawn)) for p in stored]
        for crop in crops[1:]:
            for name in ("origin", "column_step", "row_step"):
                np.testing.assert_allclose(getattr(crop, name), getattr(crops[0], name), atol=1e-9)


def test_the_heatmap_is_a_gaussian_of_the_distance_in_mm() -> None:
    plane = ImagePlane(np.zeros(3), np.array([0.5, 0, 0]), np.array([0, 3.0, 0]), (5, 41))
    upright = ImagePlane(np.array([10.0, 0, -5]), np.eye(3)[1], np.eye(3)[2], (9, 9))
    heatmap = line_heatmap(plane, upright, 7.6)
    x = np.arange(41) * 0.5
    np.testing.assert_allclose(heatmap[2], np.exp(-((x - 10) ** 2) / (2 * 7.6**2)), atol=1e-6)
    np.testing.assert_array_equal(heatmap[0], heatmap[4])


@pytest.mark.parametrize("seed", range(10))
def test_a_line_is_found_again_in_its_heatmap(seed: int) -> None:
    plane, other = crop_plane(oblique(seed), OPTIONS, rng(seed)), oblique(seed + 50)
    plane = ImagePlane(plane.origin - plane.center, plane.column_step, plane.row_step, plane.shape)
    heatmap = line_heatmap(plane, other, OPTIONS.sigma_mm)
    # Lengths on the crop are those of a pixel of that size, whatever the zoom.
    size = plane.spacing[0]
    found = fit_line(heatmap, OPTIONS.sigma_mm, size)
    degrees, mm = line_error(found, line_of(plane, other), size * 32)
    assert degrees < 0.02 and mm < 0.02
    noisy = heatmap + rng(seed).normal(0, 0.1, heatmap.shape)
    degrees, mm = line_error(fit_line(noisy, 7.6, size), line_of(plane, other), size * 32)
    assert degrees < 1 and mm < 1


def test_line_errors_are_angles_and_distances() -> None:
    true = np.array([1.0, 0.0, 5.0])
    assert line_error(true, true, 50) == pytest.approx((0, 0))
    assert line_error(-true, true, 50) == pytest.approx((0, 0))
    assert line_error(np.array([1.0, 0.0, 8.0]), true, 50) == pytest.approx((0, 3))
    turned = np.array([np.cos(0.1), np.sin(0.1), 5 * np.cos(0.1)])
    degrees, mm = line_error(turned, true, 50)
    assert degrees == pytest.approx(np.degrees(0.1))
    # The mean of |y| sin(0.1) over y in [-50, 50].
    assert mm == pytest.approx(25 * np.sin(0.1), rel=0.01)


def test_smoothing_keeps_what_coarser_pixels_can_show() -> None:
    plane = oblique(3, (0.6, 0.6))
    checkers = (np.indices(plane.shape).sum(axis=0) % 2).astype(np.float32)
    assert smoothed(checkers, plane, 2.4)[10:-10, 10:-10].std() < 0.05
    np.testing.assert_array_equal(smoothed(checkers, plane, 0.6), checkers)


def test_standardising_looks_only_inside() -> None:
    image = np.zeros((6, 6), np.float32)
    image[:, :3] = np.arange(18).reshape(6, 3) + 100
    inside = image > 0
    result = standardised(image, inside)
    assert result[inside].mean() == pytest.approx(0, abs=1e-5)
    assert result[inside].std() == pytest.approx(1, abs=1e-5)
    assert np.all(result[~inside] < -10)


class Pixels:
    """A source of pixels that shows the wave."""

    def __init__(self, plane: ImagePlane) -> None:
        self.plane, self.path = plane, Path("wave")

    def read(self) -> np.ndarray:
        return (wave(pixels_of(self.plane)) + 3).astype(np.float32)


def view(kind: str, planes: tuple[ImagePlane, ...], name: str = "", phases: int = 1) -> View:
    sources = tuple(tuple(Pixels(plane) for plane in planes) for _ in range(phases))
    return View(name or kind, name or kind, kind, planes, sources)


def stacked(plane: ImagePlane, offsets: tuple[float, ...]) -> tuple[ImagePlane, ...]:
    return tuple(
        ImagePlane(plane.origin + o * plane.normal, plane.column_step, plane.row_step, plane.shape)
        for o in offsets
    )


@pytest.fixture
def views() -> tuple[View, ...]:
    return (
        view("short-axis", stacked(oblique(1), (-20, 0, 30)), phases=5),
        view("4-chamber", (oblique(2),)),
        view("4-chamber", (oblique(3),), "retake"),
        view("2-chamber", stacked(oblique(4), (1000.0,)), "far away"),
    )


def test_a_slice_is_cut_by_other_kinds_that_meet_it(views: tuple[View, ...]) -> None:
    kinds = ("short-axis", "2-chamber", "4-chamber")
    found = cutting_views(views[0], 2, views, kinds)
    assert found == [None, None, views[1].planes[0]]
    # A long-axis view is cut by the stack's middle slice, not by its own kind.
    assert cutting_views(views[1], 0, views, kinds) == [views[0].planes[1], None, None]


def test_a_study_gives_its_images_with_targets(views: tuple[View, ...]) -> None:
    kinds = ("short-axis", "2-chamber", "4-chamber")
    study = Study("s", Path("s"), views)
    examples = read_examples(study, kinds, OPTIONS, 2)
    names = [(e.view, e.phase) for e in examples]
    assert names == [("short-axis", p) for _ in range(3) for p in (0, 2)] + [
        ("4-chamber", 0),
        ("retake", 0),
    ]
    assert [e.location for e in examples[:6:2]] == pytest.approx([0, 0.4, 1])
    assert examples[6].location is None


def test_items_are_targets_of_the_very_pixels(views: tuple[View, ...]) -> None:
    plane, other = views[0].planes[0], views[1].planes[0]
    image = (wave(pixels_of(plane)) + 3).astype(np.float16)
    example = PlaneExample("s", "v", "short-axis", 0, plane, image, (None, other), 0.25)
    data = PlaneDataset([example], OPTIONS, (7, 1))
    item, again, next_one = data[(3, 0)], data[(3, 0)], data[(4, 0)]
    assert all(bool((item[name] == again[name]).all()) for name in item)
    assert not bool((item["image"] == next_one["image"]).all())
    assert item["image"].shape == (1, 64, 64) and item["heatmaps"].shape == (2, 64, 64)
    assert item["known"].tolist() == [0, 1] and float(item["location"]) == 0.25
    assert not item["heatmaps"][0].any()
    target = crop_plane(plane, OPTIONS, np.random.default_rng((7, 1, 3)))
    np.testing.assert_array_equal(item["heatmaps"][1], line_heatmap(target, other, 7.6))
    plain = PlaneDataset([example], OPTIONS)
    assert bool((plain[(0, 0)]["image"] == plain[(9, 0)]["image"]).all())
    assert float(plain[(0, 0)]["image"].mean()) == pytest.approx(0, abs=0.2)
