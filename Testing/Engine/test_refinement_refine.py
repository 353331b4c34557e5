"""Refinement: from a heatmap's soft border to the image's own."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import MaskSettings, RefinementSettings
from TomoSegLib.refinement import solvers
from TomoSegLib.refinement.refine import refine, refined_mask

METHODS = ("threshold", "random-walker", "geodesic", "graph-cut")
SPACING = (1.0, 1.5, 3.0)


def scene(shape=(16, 40, 48), spacing=SPACING, contrast=3.0, noise=0.5, cavity=0.3):
    """A bright ellipsoid with a cavity in noise, and a soft heatmap that is shifted off it."""
    geometry = Geometry.from_parts(shape, spacing)
    position = geometry.index_to_lps(np.argwhere(np.ones(shape))[:, ::-1]).reshape(*shape, 3)
    distance = np.linalg.norm((position - geometry.center) / (12, 12, 9), axis=-1)
    lesion = distance < 1
    noise_field = np.random.default_rng(0).normal(0, noise, shape)
    image = (noise_field + contrast * lesion * (distance > cavity)).astype(np.float32)
    center = geometry.center + (3, 0, 0)
    far = np.linalg.norm((position - center) / (12, 12, 9), axis=-1)
    heatmap = np.exp(-(far**2)).astype(np.float32)
    agreement = np.clip(heatmap, 0, 1)
    return geometry, image, heatmap, agreement, lesion


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1)


def settings(method="random-walker", **changes):
    if method == "graph-cut":
        pytest.importorskip("maxflow", reason="PyMaxflow is not installed")
    return RefinementSettings(method=method, **changes)


@pytest.mark.parametrize("method", METHODS)
def test_the_border_follows_the_image_and_not_the_heatmap(method):
    geometry, image, heatmap, agreement, lesion = scene()
    before = dice(heatmap > 0.55, lesion)
    mask = refine(image, heatmap, agreement, geometry, settings(method), threshold=0.55)
    assert before < 0.8
    assert dice(mask, lesion) > (0.9 if method == "threshold" else 0.95)


@pytest.mark.parametrize("method", METHODS)
def test_dark_lesions_are_found_as_bright_ones(method):
    geometry, image, heatmap, agreement, lesion = scene()
    bright = refine(image, heatmap, agreement, geometry, settings(method), threshold=0.55)
    dark = refine(100 - image, heatmap, agreement, geometry, settings(method), threshold=0.55)
    assert dice(bright, dark) > 0.98


def test_the_units_of_image_and_heatmap_do_not_matter():
    geometry, image, heatmap, agreement, _ = scene()
    one = refine(image, heatmap, agreement, geometry, settings(), threshold=0.55)
    other = refine(
        image * 1000 + 20000, heatmap * 8, agreement, geometry, settings(), threshold=4.4
    )
    assert dice(one, other) > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_where_the_image_shows_nothing_the_mask_stays_near_the_heatmaps(method):
    geometry, image, heatmap, agreement, _ = scene(contrast=0.0)
    mask = refine(image, heatmap, agreement, geometry, settings(method), threshold=0.55)
    assert dice(mask, heatmap > 0.55) > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_vessel_that_leads_out_of_a_lesion_is_followed_no_further_than_the_reach(method):
    geometry, image, heatmap, agreement, lesion = scene()
    k, j = (n // 2 for n in geometry.shape[:2])
    vessel = np.zeros_like(lesion)
    vessel[k, j - 1 : j + 2, :] = True  # through the lesion, and as bright
    image[vessel] = 3.0
    heatmap = np.maximum(heatmap, 0.3 * vessel).astype(np.float32)
    distance = ndimage.distance_transform_edt(heatmap < 0.55, sampling=geometry.spacing[::-1])
    reached = {}
    for reach in (4.0, 100.0):
        mask = refine(
            image, heatmap, agreement, geometry, settings(method, reach_mm=reach), threshold=0.55
        )
        assert dice(mask & ~vessel, lesion & ~vessel) > 0.8
        reached[reach] = float(distance[mask].max())
    assert reached[4.0] <= 4.0 < 8.0 < reached[100.0]


def test_the_inside_of_a_broken_rim_belongs_to_the_mask_if_its_gaps_are_to_be_closed():
    geometry = Geometry.from_parts((31, 31, 31), (1.0, 1.0, 1.0))
    distance = np.linalg.norm(np.indices(geometry.shape) - 15, axis=0)
    ball = distance < 10
    rim = ball & (distance >= 6)
    rim[14:17, 14:17, 16:] = False  # a hole of 3 mm: it is no cavity
    heatmap = rim.astype(np.float32)
    open_, closed = (
        refine(heatmap * 5, heatmap, heatmap, geometry, settings(closing_mm=mm), threshold=0.5)
        for mm in (0.0, 4.0)
    )
    assert dice(open_, rim) > 0.95 and not open_[distance < 5].any()
    assert dice(closed, ball) > 0.95 and closed[distance < 5].all()


def test_closing_does_not_see_the_border_of_the_volume():
    geometry = Geometry.from_parts((12, 12, 12), (1.0, 1.0, 1.0))
    heatmap = np.zeros(geometry.shape, np.float32)
    heatmap[:4] = 1.0
    image = heatmap * 5
    mask = refine(image, heatmap, heatmap, geometry, settings(closing_mm=5.0), threshold=0.5)
    assert np.array_equal(mask, heatmap > 0)


def test_neighbours_have_a_say_in_noise():
    geometry, image, heatmap, agreement, lesion = scene(noise=1.5)
    kinds = [settings(m, smoothing_mm=0.0) for m in ("threshold", "random-walker")]
    alone, together = (
        dice(refine(image, heatmap, agreement, geometry, kind, threshold=0.55), lesion)
        for kind in kinds
    )
    assert together > alone + 0.05


def test_a_mm_of_border_counts_the_same_whatever_the_voxel_size():
    """The same scene on a grid of half the spacing gives the same mask."""
    geometry, image, heatmap, agreement, _ = scene(noise=0.3)
    coarse = refine(image, heatmap, agreement, geometry, settings(), threshold=0.55)
    affine = geometry.affine.copy()
    affine[:3, 2] /= 2
    affine[:3, 3] -= affine[:3, 2] / 2
    k, j, i = geometry.shape
    fine = Geometry((2 * k, j, i), affine)
    doubled = [np.repeat(a, 2, axis=0) for a in (image, heatmap, agreement)]
    mask = refine(*doubled, fine, settings(), threshold=0.55)
    assert dice(mask, np.repeat(coarse, 2, axis=0)) > 0.97


def test_cavities_are_filled_if_that_is_asked_for():
    geometry, image, heatmap, agreement, lesion = scene(noise=0.2)
    hollow = RefinementSettings(method="threshold", fill_holes=False, heat_weight=0)
    filled = hollow.model_copy(update={"fill_holes": True})
    holes = [
        np.count_nonzero(ndimage.binary_fill_holes(mask) & ~mask)
        for kind in (hollow, filled)
        for mask in [refine(image, heatmap, agreement, geometry, kind, threshold=0.55)]
    ]
    assert holes[0] > 0
    assert holes[1] == 0


def test_a_cold_heatmap_gives_an_empty_mask():
    geometry, image, heatmap, agreement, _ = scene()
    for threshold in (2.0, 0.0):
        cold = heatmap * (threshold > 0)
        mask = refine(image, cold, agreement, geometry, settings(), threshold=threshold)
        assert mask.shape == geometry.shape
        assert not mask.any()


def test_an_image_that_is_seed_everywhere_stays_whole():
    geometry, image, _, agreement, _ = scene()
    hot = np.full(geometry.shape, 10, np.float32)
    agreement = np.ones_like(agreement)
    mask = refine(image, hot, agreement, geometry, settings(), threshold=0.55)
    assert mask.all()


@pytest.mark.parametrize("method", METHODS)
def test_lesions_may_touch_the_volumes_border(method):
    geometry, image, heatmap, agreement, lesion = scene(cavity=0)
    cut = (slice(8, None), slice(20, None), slice(24, None))
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.index_to_lps((24, 20, 8))
    part = Geometry(image[cut].shape, affine)
    mask = refine(image[cut], heatmap[cut], agreement[cut], part, settings(method), threshold=0.55)
    assert mask[0, 0, 0]
    assert dice(mask, lesion[cut]) > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_may_be_one_voxel_thick(method, axis):
    geometry, image, heatmap, agreement, lesion = scene()
    middle = geometry.shape[axis] // 2
    thin = tuple(slice(middle, middle + 1) if a == axis else slice(None) for a in range(3))
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.index_to_lps([middle if a == axis else 0 for a in (2, 1, 0)])
    flat = Geometry(image[thin].shape, affine)
    mask = refine(
        image[thin], heatmap[thin], agreement[thin], flat, settings(method), threshold=0.55
    )
    assert dice(mask, lesion[thin]) > 0.9


def test_nothing_outside_foreground_and_region_is_in_the_mask():
    geometry, image, heatmap, agreement, _ = scene()
    foreground = np.zeros(geometry.shape, bool)
    foreground[:, :20] = True
    region = np.zeros(geometry.shape, bool)
    region[:, :, :26] = True
    mask = refine(
        image,
        heatmap,
        agreement,
        geometry,
        settings(),
        threshold=0.55,
        foreground=foreground,
        region=region,
    )
    assert mask.any()
    assert not (mask & ~(foreground & region)).any()


def test_a_stroke_finds_a_lesion_that_the_heatmap_has_missed():
    geometry, image, heatmap, agreement, lesion = scene()
    stroke = np.zeros(geometry.shape, bool)
    stroke[8, 18:22, 28:32] = True
    nowhere = np.zeros_like(heatmap)
    mask = refine(
        image, nowhere, agreement, geometry, settings(), threshold=0.55, extra_inside=stroke
    )
    assert mask[stroke].all()
    assert dice(mask, lesion) > 0.8


def test_a_stroke_takes_a_false_alarm_away():
    geometry, image, heatmap, agreement, lesion = scene()
    decoy = np.zeros(geometry.shape, bool)
    decoy[6:10, 16:24, 40:46] = True
    image, heatmap = image + 3 * (decoy & ~lesion), np.maximum(heatmap, decoy.astype(np.float32))
    arguments = (image, heatmap, agreement, geometry, settings())
    assert refine(*arguments, threshold=0.55)[decoy].mean() > 0.9
    stroke = np.zeros(geometry.shape, bool)
    stroke[6:10, 18:22, 41:45] = True
    mask = refine(*arguments, threshold=0.55, extra_outside=stroke)
    assert not mask[stroke].any()
    both = refine(*arguments, threshold=0.55, extra_outside=stroke, extra_inside=stroke)
    assert not both[stroke].any()


def test_a_crop_gives_the_same_as_the_whole_where_its_margin_is_wide():
    geometry, image, heatmap, agreement, _ = scene((30, 120, 160))
    whole = refine(image, heatmap, agreement, geometry, settings(), threshold=0.55)
    box = (slice(2, 28), slice(20, 100), slice(30, 130))
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.index_to_lps((30, 20, 2))
    part = refine(
        image[box],
        heatmap[box],
        agreement[box],
        Geometry(image[box].shape, affine),
        settings(),
        threshold=0.55,
    )
    assert dice(whole[box], part) > 0.99
    assert np.count_nonzero(whole) == np.count_nonzero(whole[box])


@pytest.mark.parametrize("method", ["random-walker", "geodesic", "graph-cut"])
def test_a_coarse_grid_first_gives_nearly_the_same(method, monkeypatch):
    geometry, image, heatmap, agreement, lesion = scene((40, 60, 60), (1, 1, 1))
    arguments = (image, heatmap, agreement, geometry, settings(method))
    direct = refine(*arguments, threshold=0.55)
    monkeypatch.setattr(solvers, "LARGEST_GRAPH", 5000)
    stepwise = refine(*arguments, threshold=0.55)
    assert dice(direct, stepwise) > 0.98


def test_a_geodesic_way_does_not_cross_an_edge_to_what_looks_alike():
    # Two bright balls with a dark gap: only the one with the seeds is meant.
    shape = (20, 30, 60)
    geometry = Geometry.from_parts(shape, (1, 1, 1))
    k, j, i = np.ogrid[:20, :30, :60]
    seeded = ((k - 10) ** 2 + (j - 15) ** 2 + (i - 20) ** 2) < 64
    other = ((k - 10) ** 2 + (j - 15) ** 2 + (i - 40) ** 2) < 64
    image = np.where(seeded | other, 3, 0).astype(np.float32)
    heatmap = np.exp(-((i - 20) ** 2 + (j - 15) ** 2 + (k - 10) ** 2) / 200).astype(np.float32)
    ways = settings("geodesic", boundary_mm=20.0, heat_weight=0.0, reach_mm=40.0, outside=0.01)
    mask = refine(image, heatmap, heatmap, geometry, ways, threshold=0.8)
    assert dice(mask & ~other, seeded) > 0.9
    assert np.count_nonzero(mask & other) < 0.1 * other.sum()


def test_small_parts_are_dropped_as_from_any_mask():
    geometry, image, heatmap, agreement, _ = scene()
    everywhere = np.ones(geometry.shape, bool)
    sizes = [
        np.count_nonzero(
            refined_mask(
                image,
                heatmap,
                agreement,
                geometry,
                settings(),
                MaskSettings(minimum_size_ml=smallest),
                threshold=0.55,
                foreground=everywhere,
            )
        )
        for smallest in (0.0, 1000.0)
    ]
    assert sizes[0] > 0
    assert sizes[1] == 0


def test_arrays_of_other_grids_are_refused():
    geometry, image, heatmap, agreement, _ = scene()
    with pytest.raises(TomoSegError) as caught:
        refine(image, heatmap[1:], agreement, geometry, settings(), threshold=0.55)
    assert caught.value.code == "refinement-geometry"
    assert "heatmap" in caught.value.message


def test_a_threshold_that_is_not_positive_is_refused():
    geometry, image, heatmap, agreement, _ = scene()
    with pytest.raises(TomoSegError) as caught:
        refine(image, heatmap, agreement, geometry, settings(), threshold=-0.1)
    assert caught.value.code == "refinement-threshold"


@pytest.mark.parametrize("broken", ["image", "heatmap"])
def test_values_that_are_no_numbers_are_refused(broken):
    geometry, image, heatmap, agreement, _ = scene()
    (image if broken == "image" else heatmap)[8, 20, 24] = np.nan
    with pytest.raises(TomoSegError) as caught:
        refine(image, heatmap, agreement, geometry, settings(), threshold=0.55)
    assert caught.value.code.endswith("-not-finite")


def test_a_missing_package_is_named(monkeypatch):
    geometry, image, heatmap, agreement, _ = scene()
    monkeypatch.setitem(__import__("sys").modules, "maxflow", None)
    cut = RefinementSettings(method="graph-cut")
    with pytest.raises(TomoSegError) as caught:
        refine(image, heatmap, agreement, geometry, cut, threshold=0.55)
    assert caught.value.code == "dependency-missing"
    assert "PyMaxflow" in caught.value.message


@pytest.mark.parametrize("method", ["random-walker", "geodesic"])
def test_it_takes_seconds_on_a_brain(method):
    shape = (155, 240, 240)
    geometry = Geometry.from_parts(shape, (1, 1, 1))
    k, j, i = np.ogrid[:155, :240, :240]
    distance = np.sqrt(((k - 80) / 25) ** 2 + ((j - 120) / 30) ** 2 + ((i - 100) / 30) ** 2)
    rng = np.random.default_rng(0)
    image = (rng.normal(0, 0.5, shape) + 2 * (distance < 1)).astype(np.float32)
    heatmap = np.exp(-(distance**2)).astype(np.float32)
    start = time.process_time()
    mask = refine(image, heatmap, heatmap, geometry, settings(method), threshold=0.5)
    assert time.process_time() - start < 30  # a few seconds on an idle core
    assert dice(mask, distance < 1) > 0.95
