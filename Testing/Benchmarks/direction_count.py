"""How the error of filtered backprojection falls with the number of directions: CSV and PNG.

    python Testing/Benchmarks/direction_count.py --output FOLDER

A phantom of three balls (two bright, one half as bright) is reconstructed, with order 2 and a Hann
window, from its exact plane integrals, without noise. The error is the root mean square difference
relative to the phantom's; Dice is that of the phantom and the heatmap above its best threshold.
Fibonacci sets are compared with random directions, with and without quadrature weights.
"""

from __future__ import annotations

import argparse
import csv
from functools import cache
from pathlib import Path

import numpy as np
import torch

from TomoSegLib.imaging.volume import FloatArray, Geometry
from TomoSegLib.tomography.directions import DirectionSet, parse_directions, quadrature_weights
from TomoSegLib.tomography.reconstruction import Backprojector, filter_responses

COUNTS = (8, 16, 32, 64, 128, 256)
GRID = Geometry.from_parts((64, 64, 64), (1, 1, 1), origin=(-31.5, -31.5, -31.5))
OFFSETS = np.arange(-60, 61) * 1.0
BALLS = (((-9.0, 4.0, 6.0), 11.0, 1.0), ((12.0, -8.0, -4.0), 7.0, 1.0), ((6, 13, 12), 5.0, 0.5))


def main() -> None:
    """Measure, print and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    rows = []
    for count in COUNTS:
        scattered = random_directions(count)
        equal = DirectionSet(scattered.vectors, np.full(count, 1 / count), "")
        for name, directions in (
            ("fibonacci", parse_directions(f"fibonacci:{count}")),
            ("random, Voronoi weights", scattered),
            ("random, equal weights", equal),
        ):
            rows.append((name, count, *judge(directions)))
            print("{:26s}{:5d}  error {:.3f}  Dice {:.3f}".format(*rows[-1]))
    with (output / "direction_count.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("directions", "count", "relative_rms_error", "dice_at_best_threshold"))
        writer.writerows(rows)
    plot(rows, output / "direction_count.png")


def judge(directions: DirectionSet) -> tuple[float, float]:
    """Relative error and Dice at the best threshold."""
    filtered = filter_responses(torch.from_numpy(plane_integrals(directions.vectors)), 1.0)
    backprojector = Backprojector(GRID, (0, 0, 0), agreement=False)
    for profile, normal, weight in zip(
        filtered, directions.vectors, directions.weights, strict=True
    ):
        backprojector.add(profile, OFFSETS, normal, weight)
    heatmap, truth = backprojector.heatmap().numpy(), phantom()
    error = np.linalg.norm(heatmap - truth) / np.linalg.norm(truth)
    inside = truth > 0.25
    dice = max(
        2 * np.sum(inside & (heatmap > t)) / (inside.sum() + np.sum(heatmap > t))
        for t in np.linspace(0.05, 0.95, 19)
    )
    return float(error), float(dice)


@cache
def phantom() -> FloatArray:
    """The balls on the grid, averaged over 3 x 3 x 3 points a voxel."""
    voxel = np.stack(np.indices(GRID.shape)[::-1], axis=-1).astype(np.float64)
    total = np.zeros(GRID.shape)
    shifts = np.array([-1, 0, 1]) / 3
    for shift in np.stack(np.meshgrid(shifts, shifts, shifts), axis=-1).reshape(-1, 3):
        points = GRID.index_to_lps(voxel + shift)
        for place, radius, value in BALLS:
            total += value * (np.linalg.norm(points - place, axis=-1) < radius) / 27
    return total


def plane_integrals(normals: FloatArray) -> FloatArray:
    """Areas of the balls' sections, pi (r^2 - t^2)."""
    total = np.zeros((len(normals), len(OFFSETS)))
    for place, radius, value in BALLS:
        t = OFFSETS - (normals @ np.array(place, dtype=np.float64))[:, None]
        total += value * np.pi * np.clip(radius**2 - t**2, 0, None)
    return total


def random_directions(count: int) -> DirectionSet:
    """Uniformly random directions and their quadrature weights."""
    vectors = np.random.default_rng(count).standard_normal((count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return DirectionSet(vectors, quadrature_weights(vectors), "random")


def plot(rows: list[tuple[str, int, float, float]], path: Path) -> None:
    """Both curves for each kind of set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name in dict.fromkeys(row[0] for row in rows):
        counts, errors, dices = zip(*(row[1:] for row in rows if row[0] == name), strict=True)
        axes[0].loglog(counts, errors, "o-", label=name)
        axes[1].semilogx(counts, dices, "o-", label=name)
    for axis, label in zip(
        axes, ("relative error (RMS)", "Dice at the best threshold"), strict=True
    ):
        axis.set(xlabel="directions", ylabel=label, xticks=COUNTS, xticklabels=map(str, COUNTS))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.suptitle("Filtered backprojection of order 2: error against the number of directions")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
