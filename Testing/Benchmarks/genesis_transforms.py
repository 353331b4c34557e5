"""Local pixel shuffling and the whole chain of transforms against the plain loop over blocks.

    python Testing/Benchmarks/genesis_transforms.py [--shape 32 64 64] [--repeat 10]

Both are timed in turn on one core, and the medians count. The plain loop is the published way: for
each of 10,000 blocks six random numbers, a slice, a shuffle and a copy. The exit status says
whether shuffling is at least five times as fast.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from TomoSegLib.pretraining.transforms import (
    BLOCKS,
    Float32Array,
    GenesisTransforms,
    shuffle_blocks,
)

LEAST_RATIO = 5.0


def plain_shuffle(cube: Float32Array) -> Float32Array:
    """Block after block."""
    result = cube.copy()
    limits = [n // 10 for n in cube.shape[1:]]
    for _ in range(BLOCKS):
        sides = [random.randint(1, limit) for limit in limits]
        start = [random.randint(0, n - s) for n, s in zip(cube.shape[1:], sides, strict=True)]
        box = (0, *(slice(a, a + s) for a, s in zip(start, sides, strict=True)))
        window = cube[box].flatten()
        np.random.shuffle(window)  # noqa: NPY002 - as published
        result[box] = window.reshape(sides)
    return result


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> int:
    """Measure, print, and say by the exit status whether the ratio is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 64, 64), metavar=("K", "J", "I"))
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    cube = rng.random((1, *options.shape), dtype=np.float32)
    chain = GenesisTransforms()
    shuffle_blocks(cube, rng)  # fills the table of offsets
    times: dict[str, list[float]] = {"loop": [], "sort": [], "chain": []}
    for _ in range(options.repeat):
        times["loop"].append(seconds(lambda: plain_shuffle(cube)))
        times["sort"].append(seconds(lambda: shuffle_blocks(cube, rng)))
        times["chain"].append(seconds(lambda: [chain(cube, rng) for _ in range(10)]) / 10)
    loop, sort, whole = (statistics.median(values) for values in times.values())
    print(f"shuffling, plain loop   {1000 * loop:8.1f} ms a cube")
    print(f"shuffling, one sort     {1000 * sort:8.1f} ms a cube, {loop / sort:.1f} times as fast")
    print(f"all transforms, mean    {1000 * whole:8.1f} ms a cube, {1 / whole:.0f} cubes/s a core")
    return 0 if loop / sort >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
