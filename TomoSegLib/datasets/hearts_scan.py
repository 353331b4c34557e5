"""Scanning a simulated heart: planned views, breath holds, MR-like contrast, bias and noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from TomoSegLib.datasets.hearts_anatomy import (
    LEFT_VENTRICLE,
    MITRAL,
    TRICUSPID,
    HeartAnatomy,
    ventricle_frame,
)
from TomoSegLib.datasets.hearts_motion import Heart
from TomoSegLib.imaging.orientation import plane_frame
from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.studies.image_plane import ImagePlane

# Mean and standard deviation, over scans, of balanced SSFP signals: air, lung, fat, muscle, blood,
# bone, liver, spleen, wall of the heart. Chosen to look like cine MR; not measured.
_SIGNALS = np.array(
    [(0, 0), (10, 5), (150, 30), (52, 8), (180, 18), (35, 10), (72, 15), (85, 15), (58, 8)],
    dtype=np.float64,
)
_BRIGHT = 200.0  # a signal that another gamma leaves as it is
# Turns of the long-axis views about the long axis, see `studies.recognition`.
_TURNS = {"4-chamber": 0.0, "2-chamber": 60.0, "3-chamber": 120.0}
_STEP_MM = 2.5


@dataclass(frozen=True)
class ScanRecipe:
    """Ranges of a scan; all are (low, high) of uniform draws unless said otherwise.

    Attributes:
        side: Pixels of the square images.
        pixel_mm: Pixel size.
        thickness_mm: Slice thickness of all views.
        gap_mm: Between the short-axis slices.
        phases: Time points of a cycle.
        heart_rate: Beats a minute.
        plan_degrees: Standard deviation of the planned planes' tilt.
        plan_mm: Standard deviation of their offset.
        breath_mm: Standard deviation of each breath hold's shift along the body; half of it
            across.
        roll_degrees: Standard deviation of the images' turn in their plane: what is up.
        center_mm: Standard deviation of the middle of the short-axis images from the long axis.
        turn_degrees: Standard deviation of the heart's orientation in the chest.
        zoom: Of all lengths.
        gamma: Exponent of all signals: how strong the contrast of tissues is.
        bias: Standard deviation of the logarithm of the coil's sensitivity.
        noise: Standard deviation of the noise in both channels, where blood is about 180.
    """

    side: int = 192
    pixel_mm: tuple[float, float] = (1.5, 1.85)
    thickness_mm: tuple[float, float] = (6.0, 8.0)
    gap_mm: tuple[float, float] = (0.0, 3.0)
    phases: int = 8
    heart_rate: tuple[float, float] = (55.0, 85.0)
    plan_degrees: float = 4.0
    plan_mm: float = 2.0
    breath_mm: float = 2.0
    roll_degrees: float = 15.0
    center_mm: float = 9.0
    turn_degrees: float = 12.0
    zoom: tuple[float, float] = (0.95, 1.2)
    gamma: tuple[float, float] = (0.65, 1.5)
    bias: float = 0.3
    noise: tuple[float, float] = (2.0, 12.0)


@dataclass(eq=False)
class ScannedView:
    """A view as scanned.

    Attributes:
        kind: One of the heart's kinds of views.
        planes: Its slices as the header will say.
        thickness_mm: Of a slice.
        images: ``(phases, slices, rows, columns)`` uint16.
        labels: The same shape, uint8: what is really in each pixel, breath hold included.
    """

    kind: str
    planes: list[ImagePlane]
    thickness_mm: float
    images: npt.NDArray[np.uint16] = field(init=False)
    labels: npt.NDArray[np.uint8] = field(init=False)


class Scanner:
    """One scan of one heart.

    Args:
        anatomy: The CT taken apart.
        heart: Which heart.
        recipe: Ranges of the scan.
        rng: Source of all randomness.
    """

    def __init__(
        self, anatomy: HeartAnatomy, heart: Heart, recipe: ScanRecipe, rng: np.random.Generator
    ) -> None:
        self.anatomy, self.heart, self.recipe, self._rng = anatomy, heart, recipe, rng
        turn = Rotation.from_rotvec(np.radians(rng.normal(0, recipe.turn_degrees, 3))).as_matrix()
        self.frame = turn @ ventricle_frame()
        self.origin = MITRAL + rng.normal(0, 12, 3)
        self.zoom = float(rng.uniform(*recipe.zoom))
        self.heart_rate = float(rng.uniform(*recipe.heart_rate))
        signals = np.maximum(rng.normal(_SIGNALS[:, 0], _SIGNALS[:, 1]), 0)
        signals = _BRIGHT * (signals / _BRIGHT) ** rng.uniform(*recipe.gamma)
        detail = 10.0 * anatomy.detail
        self._signal = (signals.astype(np.float32)[anatomy.tissue] + detail).clip(0)
        self._noise = float(rng.uniform(*recipe.noise))
        self._bias = rng.normal(0, recipe.bias, 9)

    def frame_points(self, points: FloatArray) -> FloatArray:
        """LPS mm of the simulated patient in the ventricle's frame."""
        return (points - self.origin) @ self.frame / self.zoom

    def patient_points(self, points: FloatArray) -> FloatArray:
        """The other way round."""
        return self.origin + self.zoom * (points @ self.frame.T)

    def labels_at(self, points: FloatArray, phase: float) -> npt.NDArray[np.uint8]:
        """What is at points ``(..., 3)``, LPS mm, at a phase of the cycle."""
        source = self.heart.source(self.frame_points(points), phase)
        index = np.moveaxis(self.anatomy.index_of(source), -1, 0)
        return np.asarray(
            ndimage.map_coordinates(self.anatomy.labels, index[::-1], order=0, mode="constant")
        )

    def find_long_axis(self) -> tuple[FloatArray, FloatArray]:
        """Base and apex of the left ventricle at end diastole, LPS mm.

        They are where the CT's landmarks went: the middle of the mitral valve and the cavity's
        apex. The cavity's shape alone would not do, for a dilated one is as wide as it is long.
        """
        grid = np.stack(
            np.meshgrid(
                np.arange(-45, 46, _STEP_MM),
                np.arange(-45, 46, _STEP_MM),
                np.arange(-35, 115, _STEP_MM),
                indexing="ij",
            ),
            axis=-1,
        ).reshape(-1, 3)
        source = self.heart.source(grid, 0.0)
        found = []
        for landmark in (0.0, self.anatomy.length):
            away = np.linalg.norm(source - (0.0, 0.0, landmark), axis=1)
            near = np.argsort(away)[:8]  # the corners of the grid's cell, for less than its step
            found.append(self.patient_points(grid[near].mean(axis=0)))
        return found[0], found[1]

    def ventricle_volume_ml(self, phase: float, label: int = LEFT_VENTRICLE) -> float:
        """Volume of a cavity at a phase."""
        axes = [np.arange(low, high, _STEP_MM) for low, high in ((-105, 70), (-80, 90), (-35, 115))]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        count = np.count_nonzero(self.labels_at(self.patient_points(grid), phase) == label)
        return float(count * (_STEP_MM * self.zoom) ** 3 / 1000)

    def scan(self) -> list[ScannedView]:
        """A short-axis stack and the three long-axis views, planned on the long axis found."""
        base, apex = self.find_long_axis()
        axis = (apex - base) / np.linalg.norm(apex - base)
        thickness = float(self._rng.uniform(*self.recipe.thickness_mm))
        step = thickness + float(self._rng.uniform(*self.recipe.gap_mm))
        pixel = float(self._rng.uniform(*self.recipe.pixel_mm))
        middle = (base + apex) / 2
        normal = self._tilted(axis)
        # From one slice above the valve to one beyond the apex.
        length = float(np.linalg.norm(apex - base))
        count = int(np.ceil(length / step)) + 3
        start = base - 1.3 * step * axis
        centers = [
            start + n * step * normal + ((middle - start) @ normal) * (axis - normal)
            for n in range(count)
        ]
        offset = self._rng.normal(0, self.recipe.center_mm, 3)
        offset -= (offset @ normal) * normal
        roll = self._roll()
        short = ScannedView(
            "short-axis",
            [self._plane(c + offset, normal, pixel, roll) for c in centers],
            thickness,
        )
        views = [short]
        septal = self.patient_points(ventricle_frame().T @ (TRICUSPID - MITRAL)) - base
        reference = np.cross(axis, septal)
        reference /= np.linalg.norm(reference)
        for kind, degrees in _TURNS.items():
            turned = Rotation.from_rotvec(np.radians(degrees) * axis).apply(reference)
            normal = self._tilted(turned)
            center = middle + self._rng.normal(0, self.recipe.plan_mm) * normal
            center = center + self._rng.normal(0, 5) * axis
            plane = self._plane(center, normal, pixel, self._roll())
            views.append(ScannedView(kind, [plane], thickness))
        for view in views:
            self._acquire(view)
        return views

    def _tilted(self, normal: FloatArray) -> FloatArray:
        tilt = Rotation.from_rotvec(np.radians(self._rng.normal(0, self.recipe.plan_degrees, 3)))
        return np.asarray(tilt.apply(normal))

    def _roll(self) -> float:
        return float(self._rng.normal(0, self.recipe.roll_degrees))

    def _plane(
        self, center: FloatArray, normal: FloatArray, pixel: float, roll: float
    ) -> ImagePlane:
        """Square images about ``center``, turned about ``normal`` by ``roll`` degrees."""
        u, v = Rotation.from_rotvec(np.radians(roll) * normal).apply(plane_frame(normal))
        side = self.recipe.side
        origin = center - (side - 1) / 2 * pixel * (u + v)
        return ImagePlane(origin, u * pixel, v * pixel, (side, side))

    def _acquire(self, view: ScannedView) -> None:
        recipe, side = self.recipe, self.recipe.side
        shape = (recipe.phases, len(view.planes), side, side)
        view.images, view.labels = np.empty(shape, np.uint16), np.empty(shape, np.uint8)
        rows, columns = np.indices((side, side))
        pixels = np.stack([columns, rows], axis=-1)
        for index, plane in enumerate(view.planes):
            # Each slice is a breath hold: the body has moved, the header does not know.
            breath = self._rng.normal(0, recipe.breath_mm, 3) * (0.5, 0.5, 1.0)
            points = plane.pixel_to_lps(pixels) + breath
            bias = self._coil(plane.pixel_to_lps(pixels))
            for phase in range(recipe.phases):
                time = phase / recipe.phases
                image = np.zeros((side, side))
                for part in (-1, 0, 1):  # through the slice
                    shifted = points + part * view.thickness_mm / 3 * plane.normal
                    source = self.heart.source(self.frame_points(shifted), time)
                    index_ = np.moveaxis(self.anatomy.index_of(source), -1, 0)[::-1]
                    image += ndimage.map_coordinates(self._signal, index_, order=1, mode="constant")
                    if part == 0:
                        view.labels[phase, index] = ndimage.map_coordinates(
                            self.anatomy.labels, index_, order=0, mode="constant"
                        )
                image = ndimage.gaussian_filter(image / 3, 0.5) * bias
                real = image + self._rng.normal(0, self._noise, image.shape)
                imaginary = self._rng.normal(0, self._noise, image.shape)
                magnitude = np.hypot(real, imaginary)  # Rician
                view.images[phase, index] = np.round(4 * magnitude).clip(0, 65535)

    def _coil(self, points: FloatArray) -> FloatArray:
        """Sensitivity of the coil: a smooth function of the place, positive."""
        x, y, z = np.moveaxis((points - self.origin) / 150.0, -1, 0)
        terms = np.stack([x, y, z, x * y, x * z, y * z, x * x, y * y, z * z])
        return np.exp(np.tensordot(self._bias, np.clip(terms, -1.5, 1.5), axes=1))
