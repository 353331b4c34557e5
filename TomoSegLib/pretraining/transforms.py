"""The image transforms of Models Genesis, from which a network learns to restore.

Zhou et al., "Models Genesis", Medical Image Analysis 67 (2021) 101840, with the parameters of the
authors' published configuration: flips, local pixel shuffling, non-linear intensity, and inner or
outer painting. Arrays are ``(C, K, J, I)`` float32 in [0, 1]. Every function is pure: it leaves its
input alone, and all that is random comes from the generator it is given.

Local shuffling copies 10,000 small blocks one after another in the original, which takes longer
than a training step. Here all voxels of all blocks are permuted by one sort: same distribution, no
loop (`Testing/Benchmarks/genesis_transforms.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import comb

Float32Array = npt.NDArray[np.float32]

BLOCKS = 10_000
"""Blocks that are shuffled in a cube."""

_BLOCK_SHIFT = 49  # leaves 14 bits for the number of a block
_MARGIN = 3  # voxels between a painted window and the border
_AGAIN = 0.95  # probability of another window, up to `_WINDOWS`
_WINDOWS = 5
_CURVE_POINTS = 1_000


@dataclass(frozen=True)
class GenesisTransforms:
    """How often each transform is applied.

    Attributes:
        flip: Probability of a flip, and of each further one up to three, along random axes.
        shuffle: Of local pixel shuffling.
        nonlinear: Of a non-linear change of intensity.
        paint: Of painting.
        inner: Of inner painting where there is painting; otherwise it is outer.
        blocks: Blocks that are shuffled.
    """

    flip: float = 0.4
    shuffle: float = 0.5
    nonlinear: float = 0.9
    paint: float = 0.9
    inner: float = 0.2
    blocks: int = BLOCKS

    def __call__(
        self, cube: Float32Array, rng: np.random.Generator
    ) -> tuple[Float32Array, Float32Array]:
        """A transformed cube and the one to restore from it, which is flipped alike.

        Args:
            cube: ``(C, K, J, I)`` in [0, 1].
            rng: Source of all randomness.

        Returns:
            Input and target of the restoration, both shaped like ``cube``.
        """
        target = flip(cube, rng, self.flip)
        image = target
        if rng.random() < self.shuffle:
            image = shuffle_blocks(image, rng, self.blocks)
        if rng.random() < self.nonlinear:
            image = nonlinear_intensity(image, rng)
        if rng.random() < self.paint:
            image = (
                inner_painting(image, rng)
                if rng.random() < self.inner
                else outer_painting(image, rng)
            )
        return image, target


def flip(cube: Float32Array, rng: np.random.Generator, probability: float = 0.4) -> Float32Array:
    """Flip along random spatial axes: with a probability once, then again, up to three times."""
    for _ in range(3):
        if rng.random() >= probability:
            break
        cube = np.flip(cube, axis=1 + int(rng.integers(3)))
    return np.ascontiguousarray(cube)


def shuffle_blocks(
    cube: Float32Array, rng: np.random.Generator, blocks: int = BLOCKS
) -> Float32Array:
    """Local pixel shuffling: permute the voxels within many small blocks at random places.

    Sides are uniform between one voxel and a tenth of the cube's. Blocks are read from the
    original cube, so no voxel moves further than a block's side; of blocks that overlap the later
    one is seen. All channels are permuted alike.

    Args:
        cube: ``(C, K, J, I)`` with sides below 4096 voxels.
        rng: Source of all randomness.
        blocks: Their number, at most 16,384.
    """
    shape = np.array(cube.shape[1:])
    largest = np.maximum(shape // 10, 1)
    chance = rng.random((2, blocks, 3))
    sides = 1 + (chance[0] * largest).astype(np.int64)
    corner = (chance[1] * (shape - sides + 1)).astype(np.int64)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    table, starts = _block_offsets(cube.shape[1:], tuple(largest.tolist()))
    counts = sides.prod(axis=1)
    # The voxels of all blocks, one block after the other, as indices into the flat cube, with the
    # number of the block in the bits above.
    kind = starts[np.ravel_multi_index(tuple((sides - 1).T), tuple(largest))]
    place = np.repeat(kind - np.cumsum(counts) + counts, counts)
    place += np.arange(len(place))
    voxels = table.take(place)
    voxels += np.repeat((np.arange(blocks) << _BLOCK_SHIFT) + corner @ strides, counts)
    # With random bits between the two, one sort permutes the voxels of every block.
    bits = max(1, int(shape.prod() - 1).bit_length())
    keys = rng.integers(0, 1 << min(32, _BLOCK_SHIFT - bits), len(voxels), np.uint32).astype(int)
    keys <<= bits
    keys |= voxels
    keys.sort()
    mask = (1 << bits) - 1
    target, source = voxels & mask, keys & mask
    flat = cube.reshape(len(cube), -1)
    result = flat.copy()
    # Where an index is repeated the last value stays: that of the later block.
    for channel in range(len(cube)):
        result[channel][target] = flat[channel].take(source)
    return result.reshape(cube.shape)


@lru_cache(maxsize=8)
def _block_offsets(
    shape: tuple[int, ...], largest: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets into a flat cube of the voxels of every size of block, and where each size starts."""
    parts, starts, total = [], [], 0
    for sides in np.ndindex(*largest):
        box = np.indices([side + 1 for side in sides]).reshape(3, -1)
        parts.append(np.ravel_multi_index(tuple(box), tuple(shape)))
        starts.append(total)
        total += box.shape[1]
    return np.concatenate(parts).astype(np.int64), np.array(starts)


def nonlinear_intensity(cube: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Map intensities by a cubic Bezier curve between (0, 0) and (1, 1) with random inner points.

    Half of the maps rise monotonically; the others are inverted. All channels get the same one.
    """
    inner = rng.random((2, 2))
    points = np.concatenate([[[0.0, 0.0]], inner, [[1.0, 1.0]]])
    t = np.linspace(0, 1, _CURVE_POINTS)
    order = np.arange(4)
    bernstein = comb(3, order) * t[:, None] ** order * (1 - t[:, None]) ** (3 - order)
    x, y = (bernstein @ points).T
    # The authors sort the abscissas in any case. The curve runs from 1 to 0, so that unless the
    # ordinates are sorted too the map falls.
    y = y[::-1] if rng.random() < 0.5 else np.sort(y)
    return np.interp(cube, np.sort(x), y).astype(np.float32)


def inner_painting(cube: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Fill up to five boxes, of a sixth to a third of each side, with uniform noise."""
    result = cube.copy()
    shape = np.array(cube.shape[1:])
    for _ in range(_WINDOWS):
        if rng.random() >= _AGAIN:
            break
        box, sides = _window(shape, shape // 6, shape // 3, rng)
        result[box] = rng.random(sides, dtype=np.float32)
    return result


def outer_painting(cube: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Uniform noise everywhere but in up to five windows of 3/7 to 4/7 of each side."""
    result = rng.random(cube.shape, dtype=np.float32)
    shape = np.array(cube.shape[1:])
    for number in range(_WINDOWS):
        if number and rng.random() >= _AGAIN:
            break
        # The authors draw what the window leaves free.
        box, _ = _window(shape, shape - 4 * shape // 7, shape - 3 * shape // 7, rng)
        result[box] = cube[box]
    return result


def _window(
    shape: npt.NDArray[np.int64],
    smallest: npt.NDArray[np.int64],
    largest: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """A random box in all channels, and its sides; small cubes have less margin to the border."""
    sides = rng.integers(np.maximum(smallest, 1), np.maximum(largest, 1) + 1)
    margin = np.minimum(_MARGIN, (shape - sides) // 2)
    start = rng.integers(margin, shape - sides - margin + 1)
    inside = (slice(int(a), int(a + n)) for a, n in zip(start, sides, strict=True))
    return (slice(None), *inside), tuple(int(n) for n in sides)
