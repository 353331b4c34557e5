"""Many hearts from one, and their beat: where each point of a simulated heart is in the CT.

All maps go backwards, from a point of the simulated heart to the point of the CT whose tissue it
shows. Lengths are mm of the ventricle's frame (see `hearts_anatomy`).

A cavity widens or contracts around its axis as an incompressible flow does: within each slice
``r'^2 = r^2 - k R^2`` outside the cavity's mean radius R, so that the area of the wall, and with
it the thickening of a wall that contracts, comes out right; inside, lengths are scaled. The base
descends towards the apex, which stays. Together with a smooth random displacement this is a
plausible heart, not a mechanical model of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.datasets.hearts_anatomy import (
    LEFT_VENTRICLE,
    RIGHT_VENTRICLE,
    SPACING_MM,
    HeartAnatomy,
)
from TomoSegLib.imaging.volume import FloatArray

_NODES_MM = 12.0
_HALF_MM = 190.0


@dataclass(frozen=True, eq=False)
class Cavity:
    """A cavity's axis and mean radius along z, to contract around.

    Attributes:
        z: ``(N,)`` ascending, mm.
        center: ``(N, 2)`` x and y.
        radius: ``(N,)``, zero where it ends.
    """

    z: FloatArray
    center: FloatArray
    radius: FloatArray

    @classmethod
    def of_label(cls, anatomy: HeartAnatomy, label: int) -> Cavity:
        """Measured in the CT; above the valves it fades out."""
        x, y, z = anatomy.coordinates()
        area, centers = np.zeros(len(z)), np.zeros((len(z), 2))
        for k in np.flatnonzero((anatomy.labels == label).any(axis=(1, 2))):
            j, i = np.nonzero(anatomy.labels[k] == label)
            area[k], centers[k] = len(i) * SPACING_MM**2, (x[i].mean(), y[j].mean())
        there = np.flatnonzero(area)
        for axis in range(2):
            centers[:, axis] = np.interp(z, z[there], centers[there, axis])
        centers = ndimage.gaussian_filter1d(centers, 4, axis=0)
        radius = np.sqrt(area / np.pi)
        above = z < z[there[0]]
        radius[above] = radius[there[0] + 2] * np.exp(-(((z[above] - z[there[0]]) / 18.0) ** 2))
        return cls(z, centers, ndimage.gaussian_filter1d(radius, 2))


@dataclass(frozen=True, eq=False)
class Heart:
    """One simulated heart: how it differs from the CT, and how it beats.

    Attributes:
        left: The left ventricle's cavity in the CT.
        right: The right ventricle's.
        size: How much of a cavity's cross-section is lost (or, negative, gained) at end
            diastole, for left and right.
        contraction: What is lost further at end systole, likewise.
        shortening: How far the base descends at end systole, mm.
        length: From base to apex, mm.
        displacement: ``(3, n, n, n)`` smooth random displacement on nodes, mm.
        stretch: How much longer than the CT's it is along x, y and z, as factors.
    """

    left: Cavity
    right: Cavity
    size: tuple[float, float]
    contraction: tuple[float, float]
    shortening: float
    length: float
    displacement: npt.NDArray[np.float32]
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def source(self, points: FloatArray, phase: float) -> FloatArray:
        """Points ``(..., 3)`` of this heart at a phase of the cycle (0 to 1) in the CT."""
        points = points / self.stretch
        points = points + displaced(points, self.displacement)
        systole = contraction_at(phase)
        if systole > 0:
            points = self._raised(points, systole * self.shortening)
            for cavity, amount in zip((self.left, self.right), self.contraction, strict=True):
                points = _widened(points, cavity, amount * systole)
        for cavity, amount in zip((self.left, self.right), self.size, strict=True):
            points = _widened(points, cavity, amount)
        return points

    def _raised(self, points: FloatArray, descent: float) -> FloatArray:
        """Undo the descent of the base: solved by fixed-point iteration."""
        x, y, z = np.moveaxis(points, -1, 0)
        away = np.exp(-(((x + 10) ** 2 + y**2) / 60.0**2))
        source = z
        for _ in range(4):
            share = np.where(
                source > 0,
                np.clip(1 - source / self.length, 0, 1),
                np.exp(-((source / 50.0) ** 2)),
            )
            source = z - descent * share * away
        return np.stack([x, y, source], axis=-1)


def contraction_at(phase: float) -> float:
    """How far systole has come at a phase: 0 at end diastole, 1 at end systole (0.36)."""
    phase = phase % 1.0
    if phase < 0.36:
        return float(np.sin(np.pi / 2 * phase / 0.36) ** 2)
    if phase < 0.8:
        return float(np.cos(np.pi / 2 * (phase - 0.36) / 0.44) ** 2)
    return 0.0


def random_displacement(rng: np.random.Generator, amplitude_mm: float) -> npt.NDArray[np.float32]:
    """``(3, n, n, n)`` smooth noise on nodes; standard deviation ``amplitude_mm``."""
    count = int(2 * _HALF_MM / _NODES_MM) + 1
    noise = rng.normal(size=(3, count, count, count))
    noise = np.stack([ndimage.gaussian_filter(part, 2.2, mode="reflect") for part in noise])
    return (noise * (amplitude_mm / noise.std())).astype(np.float32)


def displaced(points: FloatArray, displacement: npt.NDArray[np.float32]) -> FloatArray:
    """The displacement ``(..., 3)`` at points, mm, of a field as `random_displacement` draws it."""
    nodes = (points + _HALF_MM) / _NODES_MM
    coordinates = [nodes[..., axis] for axis in range(3)]
    return np.stack(
        [
            ndimage.map_coordinates(part, coordinates, order=1, mode="nearest")
            for part in displacement
        ],
        axis=-1,
    )


def make_heart(
    anatomy: HeartAnatomy, rng: np.random.Generator, ranges: Mapping[str, tuple[float, float]]
) -> Heart:
    """Draw a heart: ``ranges`` has (low, high) of what `Heart` is made of."""

    def draw(name: str) -> float:
        return float(rng.uniform(*ranges[name]))

    return Heart(
        Cavity.of_label(anatomy, LEFT_VENTRICLE),
        Cavity.of_label(anatomy, RIGHT_VENTRICLE),
        (draw("left_size"), draw("right_size")),
        (draw("left_contraction"), draw("right_contraction")),
        draw("shortening_mm"),
        anatomy.length,
        random_displacement(rng, draw("displacement_mm")),
        (draw("stretch"), draw("stretch"), draw("stretch")),
    )


def _widened(points: FloatArray, cavity: Cavity, amount: float) -> FloatArray:
    """Undo a contraction by ``amount`` of the cavity's cross-section."""
    z = points[..., 2]
    radius = np.interp(z, cavity.z, cavity.radius)
    center = np.stack(
        [np.interp(z, cavity.z, cavity.center[:, axis]) for axis in range(2)], axis=-1
    )
    offset = points[..., :2] - center
    squared = (offset**2).sum(axis=-1)
    # Outside, areas are kept; inside, lengths are scaled; at the cavity's rim both agree.
    rim = (1 - amount) * radius**2
    outside = np.sqrt(np.maximum(squared + amount * radius**2, 0) / np.maximum(squared, 1e-6))
    factor = np.where(squared > rim, outside, 1 / np.sqrt(1 - amount))
    factor = np.where(radius > 0.5, factor, 1.0)
    return np.concatenate([center + offset * factor[..., None], points[..., 2:]], axis=-1)
