"""The transforms of Models Genesis against the authors' way of doing them, written out here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from TomoSegLib.pretraining.transforms import (
    GenesisTransforms,
    flip,
    inner_painting,
    nonlinear_intensity,
    outer_painting,
    shuffle_blocks,
)

SHAPE = (20, 30, 40)


def random_cube(seed=0, shape=(1, *SHAPE)):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def plain_shuffle(cube, rng, blocks):
    """Block after block, as published: read from the original, written to the copy."""
    result = cube.copy()
    for _ in range(blocks):
        sides = [int(rng.integers(1, n // 10 + 1)) for n in cube.shape[1:]]
        start = [
            int(rng.integers(0, n - s + 1)) for n, s in zip(cube.shape[1:], sides, strict=True)
        ]
        box = (0, *(slice(a, a + s) for a, s in zip(start, sides, strict=True)))
        window = cube[box].flatten()
        rng.shuffle(window)
        result[box] = window.reshape(sides)
    return result


def plain_bezier(cube, rng):
    """The published curve: sorted abscissas, ordinates sorted half of the time."""
    points = np.array([[0, 0], rng.random(2), rng.random(2), [1, 1]])
    t = np.linspace(0.0, 1.0, 5000)
    # The weights in this order let the curve begin at the last point, (1, 1).
    weights = np.array([t**3, 3 * t**2 * (1 - t), 3 * t * (1 - t) ** 2, (1 - t) ** 3])
    x, y = points.T @ weights
    if rng.random() < 0.5:
        return np.interp(cube, np.sort(x), y)
    return np.interp(cube, np.sort(x), np.sort(y))


def displacements(shuffle, repeats, blocks):
    """Displacements ``(N, 3)`` of all voxels of cubes that hold their own indices."""
    index = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    here = np.indices(SHAPE).reshape(3, -1)
    found = []
    for seed in range(repeats):
        moved = shuffle(index, np.random.default_rng(seed), blocks)
        source = np.array(np.unravel_index(moved.astype(int).ravel(), SHAPE))
        found.append((source - here).T)
    return np.concatenate(found)


def test_every_block_is_permuted_within_itself():
    cube = random_cube()
    moved = shuffle_blocks(cube, np.random.default_rng(1), blocks=1)
    changed = np.argwhere(moved[0] != cube[0])
    assert 0 < len(changed) <= 2 * 3 * 4
    box = tuple(slice(a, b + 1) for a, b in zip(changed.min(0), changed.max(0), strict=True))
    assert np.array_equal(np.sort(moved[0][box], axis=None), np.sort(cube[0][box], axis=None))


def test_shuffling_has_the_displacements_of_the_plain_loop():
    repeats, blocks = 6, 1500
    ours = displacements(shuffle_blocks, repeats, blocks)
    plain = displacements(plain_shuffle, repeats, blocks)
    limits = np.array(SHAPE) // 10
    for axis in range(3):
        values = np.arange(-limits[axis] + 1, limits[axis])
        a, b = ([np.count_nonzero(d[:, axis] == v) for v in values] for d in (ours, plain))
        assert sum(a) == len(ours) and sum(b) == len(plain)  # nothing moves further
        # Voxels of a block move together, so they are no independent draws: compare shares.
        np.testing.assert_allclose(np.divide(a, sum(a)), np.divide(b, sum(b)), atol=0.012)
    stays = [np.mean((d == 0).all(axis=1)) for d in (ours, plain)]
    assert abs(stays[0] - stays[1]) < 0.012


def test_of_overlapping_blocks_the_later_is_seen_so_that_voxels_may_occur_twice():
    cube = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    unique = [
        len(np.unique(f(cube, np.random.default_rng(3), 3000))) / cube.size
        for f in (shuffle_blocks, plain_shuffle)
    ]
    assert unique[0] < 0.9
    assert unique[0] == pytest.approx(unique[1], abs=0.02)


def test_all_channels_are_shuffled_and_mapped_alike():
    one = random_cube()
    two = np.concatenate([one, 1 - one])
    moved = shuffle_blocks(two, np.random.default_rng(0), 500)
    np.testing.assert_allclose(moved[0], 1 - moved[1], atol=1e-6)
    mapped = nonlinear_intensity(np.concatenate([one, one]), np.random.default_rng(0))
    assert np.array_equal(mapped[0], mapped[1])


def test_intensity_maps_are_those_of_the_plain_curve():
    ramp = np.linspace(0, 1, 21, dtype=np.float32).reshape(1, 1, 1, -1)
    ours = [nonlinear_intensity(ramp, np.random.default_rng(s)).ravel() for s in range(1500)]
    plain = [plain_bezier(ramp, np.random.default_rng(s + 10_000)).ravel() for s in range(1500)]
    for place in (0, 3, 10, 17, 20):
        a, b = (np.array([curve[place] for curve in curves]) for curves in (ours, plain))
        assert stats.ks_2samp(a, b).pvalue > 0.005
    rising = [np.all(np.diff(curve) >= -1e-6) for curve in ours]
    assert np.mean(rising) == pytest.approx(0.5, abs=0.05)
    falling = [curve[0] > 0.99 and curve[-1] < 0.01 for curve in ours]
    assert np.array_equal(np.logical_or(rising, falling), np.ones(1500, bool))


def test_inner_painting_replaces_boxes_by_noise_and_keeps_the_margin():
    cube = np.full((2, *SHAPE), 2.0, np.float32)  # noise is below 1
    shares = []
    for seed in range(200):
        painted = inner_painting(cube, np.random.default_rng(seed))
        noise = painted < 1
        assert np.array_equal(noise[0], noise[1])
        assert not noise[:, :3].any() and not noise[..., -3:].any()
        shares.append(noise.mean())
    # One box covers 1/27 of the cube at most and 1/216 at least, five boxes five times that.
    assert 0 < np.mean(shares) < 5 / 27
    assert max(shares) < 5 / 27 + 1e-6


def test_outer_painting_keeps_windows_of_the_cube_and_fills_the_rest():
    cube = np.full((1, *SHAPE), 2.0, np.float32)
    kept = []
    for seed in range(200):
        painted = outer_painting(cube, np.random.default_rng(seed))
        window = painted[0] == 2.0
        assert window.any() and not window[:3].any() and not window[:, :, -3:].any()
        kept.append(window.mean())
    assert 0.05 < min(kept) and np.mean(kept) > (3 / 7) ** 3


@pytest.mark.parametrize("transform", [inner_painting, outer_painting])
def test_painting_leaves_small_cubes_possible(transform):
    for side in (6, 8, 11):
        cube = random_cube(shape=(1, side, side, side))
        assert transform(cube, np.random.default_rng(side)).shape == cube.shape


def test_flips_happen_as_often_as_they_should():
    cube = random_cube(shape=(1, 2, 2, 2))
    unflipped = sum(
        np.array_equal(flip(cube, np.random.default_rng(seed), 0.4), cube) for seed in range(3000)
    )
    # None at all, or twice along the same axis (the third time then stops or is another matter).
    expected = 0.6 + 0.4 * 0.4 * 0.6 / 3
    assert unflipped / 3000 == pytest.approx(expected, abs=0.03)


def test_the_whole_chain_is_a_pure_function_of_cube_and_seed():
    cube = random_cube()
    before = cube.copy()
    first = GenesisTransforms()(cube, np.random.default_rng(5))
    second = GenesisTransforms()(cube, np.random.default_rng(5))
    other = GenesisTransforms()(cube, np.random.default_rng(6))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(cube, before)
    assert first[0].dtype == np.float32 and first[0].shape == cube.shape


def test_without_any_transform_there_is_nothing_to_restore():
    image, target = GenesisTransforms(0, 0, 0, 0)(random_cube(), np.random.default_rng(0))
    assert np.array_equal(image, random_cube()) and np.array_equal(target, image)
