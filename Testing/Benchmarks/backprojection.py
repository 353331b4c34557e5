"""Backprojection of profiles against the plain way of doing it, and its memory.

    python Testing/Benchmarks/backprojection.py [--directions 64] [--threads 2] [--repeat 5]
    python Testing/Benchmarks/backprojection.py --side 512 --repeat 1
    python Testing/Benchmarks/backprojection.py --device cuda

Directions are backprojected onto 240 x 240 x 155 voxels of 1 mm (or a cube), with the sum of
squares for the agreement. Against it stands the plain way in torch: for each direction s = n . x of
every voxel, two gathers and an interpolation, slab by slab. Both are repeated in turn, and the
smallest times count: other work on the machine only ever adds. The exit status says whether the
limit of 2 s (64 directions, 240 x 240 x 155) is kept.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from TomoSegLib.imaging.volume import FloatArray, Geometry
from TomoSegLib.tomography.directions import DirectionSet, parse_directions
from TomoSegLib.tomography.reconstruction import Backprojector, filter_responses

LIMIT_S = 2.0
DISTANCE_MM = 2.0


def main() -> int:
    """Measure, print, and say by the exit status whether the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--side", type=int, help="a cube of so many voxels of 0.7 mm instead")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    shape, spacing = ((155, 240, 240), 1.0) if options.side is None else ((options.side,) * 3, 0.7)
    geometry = Geometry.from_parts(shape, (spacing,) * 3)
    directions = parse_directions(f"fibonacci:{options.directions}").in_progressive_order()
    reach = float(np.linalg.norm(np.array(geometry.size) * spacing)) / 2
    steps = int(reach / DISTANCE_MM) + 1
    offsets = np.arange(-steps, steps + 1) * DISTANCE_MM
    noise = torch.randn((len(directions), len(offsets)), generator=torch.Generator().manual_seed(0))
    profiles = filter_responses(noise, DISTANCE_MM)

    tables: list[tuple[float, float]] = []
    gathers: list[tuple[float, float]] = []
    heatmaps: dict[str, Tensor] = {}

    def run_tables() -> None:
        heatmaps["tables"] = by_tables(geometry, directions, offsets, profiles, options)

    def run_gathers() -> None:
        heatmaps["gathers"] = by_gathers(geometry, directions, offsets, profiles, options)

    for _ in range(options.repeat):
        tables.append(_timed(run_tables))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if options.side is None:
            gathers.append(_timed(run_gathers))

    wall, cpu = np.min(tables, axis=0)
    updates = len(directions) * float(np.prod(shape))
    print(f"{len(directions)} directions on {shape} voxels, with the sum of squares")
    print(f"backprojection    {wall:7.3f} s, {cpu:7.3f} s of CPU, {updates / wall / 1e9:.2f} G/s")
    if gathers:
        plain_wall, plain_cpu = np.min(gathers, axis=0)
        print(f"plain way         {plain_wall:7.3f} s, {plain_cpu:7.3f} s of CPU")
        print(f"ratio             {wall / plain_wall:7.3f}   {cpu / plain_cpu:9.3f}")
        plain = heatmaps["gathers"]
        error = float((heatmaps["tables"] - plain).square().mean().sqrt() / plain.std())
        print(
            f"difference        {100 * error:7.3f} % of the heatmap's deviation (profiles: noise)"
        )
    arrays = 2 * 4 * float(np.prod(shape)) / 2**30
    print(f"memory at most    {memory:7.2f} GiB, of which accumulators {arrays:.2f} GiB")
    return 0 if options.side is not None or wall < LIMIT_S else 1


def by_tables(
    geometry: Geometry,
    directions: DirectionSet,
    offsets: FloatArray,
    profiles: Tensor,
    options: argparse.Namespace,
) -> Tensor:
    """The engine's way."""
    backprojector = Backprojector(geometry, geometry.center, device=options.device)
    for profile, normal, weight in zip(
        profiles, directions.vectors, directions.weights, strict=True
    ):
        backprojector.add(profile, offsets, normal, weight)
    return backprojector.heatmap()


def by_gathers(
    geometry: Geometry,
    directions: DirectionSet,
    offsets: FloatArray,
    profiles: Tensor,
    options: argparse.Namespace,
) -> Tensor:
    """The plain way: positions, two gathers and an interpolation per voxel and direction."""
    total = torch.zeros(geometry.shape, device=options.device)
    squares = torch.zeros_like(total)
    k, j, i = (torch.arange(n, device=options.device, dtype=torch.float32) for n in total.shape)
    last = len(offsets) - 1
    for begin in range(0, len(k), 8):
        slab = slice(begin, begin + 8)
        for profile, normal, weight in zip(
            profiles.to(options.device), directions.vectors, directions.weights, strict=True
        ):
            step = normal @ geometry.affine[:3, :3] / DISTANCE_MM
            start = (normal @ (geometry.origin - geometry.center) - offsets[0]) / DISTANCE_MM
            rows = float(step[2]) * k[slab, None] + float(step[1]) * j + float(start)
            position = (rows[..., None] + float(step[0]) * i).clamp_(0, last)
            below = position.floor().clamp_(max=last - 1)
            index = below.to(torch.int64)
            value = torch.lerp(profile[index], profile[index + 1], position.sub_(below))
            total[slab].add_(value, alpha=float(weight))
            squares[slab].addcmul_(value, value, value=float(weight))
    return total / (2 * torch.pi)


def _timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main())
