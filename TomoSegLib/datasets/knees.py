"""A data set of simulated knees, for relative locations that are symmetric about the middle.

A knee of simple bodies (ellipsoids, cones, cylinders), drawn anew, turned and smoothly bent for
each patient, and scanned as sagittal, coronal and axial stacks with proton-density-like contrast.
It is a caricature of a knee and says so in every file: it serves to test and to show the tasks
where both ends of a stack look alike.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from TomoSegLib.datasets.hearts import MANIFEST, claim_folder
from TomoSegLib.datasets.hearts_dicom import write_views
from TomoSegLib.datasets.hearts_motion import displaced, random_displacement
from TomoSegLib.datasets.hearts_scan import ScannedView
from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.orientation import plane_frame
from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.studies.image_plane import ImagePlane

RECIPE_VERSION = 1

AIR, FAT, MUSCLE, MARROW, CORTEX, CARTILAGE, LIGAMENT, FLUID = range(8)
# Mean and standard deviation, over scans, of proton-density-like signals; chosen, not measured.
_SIGNALS = np.array(
    [(0, 0), (170, 12), (85, 8), (140, 14), (12, 4), (115, 8), (18, 5), (200, 15)], dtype=np.float64
)
_NORMALS = {"sagittal": (1, 0, 0), "coronal": (0, 1, 0), "axial": (0, 0, 1)}


@dataclass(frozen=True)
class KneeRecipe:
    """Ranges of a knee and its scan; (low, high) of uniform draws unless said otherwise.

    Attributes:
        side: Pixels of the square images.
        field_mm: Field of view.
        slices: Of each stack.
        step_mm: From slice to slice.
        zoom: Of all lengths.
        turn_degrees: Standard deviation of the knee's orientation, and of the planned planes'.
        displacement_mm: Standard deviation of the smooth random bending.
        noise: Standard deviation of the noise in both channels, where fat is about 170.
    """

    side: int = 160
    field_mm: tuple[float, float] = (150.0, 175.0)
    slices: tuple[int, int] = (14, 20)
    step_mm: tuple[float, float] = (4.0, 5.5)
    zoom: tuple[float, float] = (0.9, 1.12)
    turn_degrees: float = 4.0
    displacement_mm: tuple[float, float] = (1.0, 2.0)
    noise: tuple[float, float] = (2.0, 6.0)


def simulate_knees(
    output: Path,
    count: int,
    recipe: KneeRecipe | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Simulate studies of right knees as DICOM, and write the manifest last.

    What was stopped goes on where it was.

    Returns:
        Path of ``manifest.csv``.

    Raises:
        TomoSegError: ``output-exists`` or ``output-unwritable``.
    """
    recipe = KneeRecipe() if recipe is None else recipe
    claim_folder(
        output,
        {"simulated": True, "recipe_version": RECIPE_VERSION, "seed": seed, "knee": asdict(recipe)},
    )
    rows = []
    for number in range(count):
        name = f"knee-{number:04d}"
        study = output / "studies" / name
        if not study.exists():
            temporary = study.with_name(f".{name}.{os.getpid()}")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            views = simulate_knee(number, seed, recipe)
            write_views(views, temporary, f"SIM-KNEE-{seed}-{number:04d}", body_part="KNEE")
            os.replace(temporary, study)
        rows.append({"id": name, "study": f"studies/{name}", "seed": seed})
        if on_progress is not None:
            on_progress(number + 1, count)
    text = io.StringIO()
    writer = csv.DictWriter(text, ("id", "study", "seed"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(output / MANIFEST) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return output / MANIFEST


def simulate_knee(number: int, seed: int, recipe: KneeRecipe) -> list[ScannedView]:
    """The three stacks of one knee."""
    rng = np.random.default_rng((RECIPE_VERSION, seed, number, 7))
    turn = Rotation.from_rotvec(np.radians(rng.normal(0, recipe.turn_degrees, 3))).as_matrix()
    zoom = float(rng.uniform(*recipe.zoom))
    bend = random_displacement(rng, float(rng.uniform(*recipe.displacement_mm)))
    # Shapes differ a little from person to person.
    shape = rng.normal(1, 0.06, 6)
    signals = np.maximum(rng.normal(_SIGNALS[:, 0], _SIGNALS[:, 1]), 0)
    noise = float(rng.uniform(*recipe.noise))
    bias = rng.normal(0, 0.15, 3)
    center = rng.normal(0, 20, 3)
    pixel = float(rng.uniform(*recipe.field_mm)) / recipe.side
    views = []
    for kind, axis in _NORMALS.items():
        tilt = Rotation.from_rotvec(np.radians(rng.normal(0, recipe.turn_degrees, 3)))
        normal = tilt.apply(turn @ np.array(axis, dtype=np.float64))
        step = float(rng.uniform(*recipe.step_mm))
        count = int(rng.integers(recipe.slices[0], recipe.slices[1] + 1))
        u, v = plane_frame(normal)
        half = (recipe.side - 1) / 2 * pixel
        middle = center + rng.normal(0, 3, 3)
        side = (recipe.side, recipe.side)
        planes = [
            ImagePlane(
                middle + (n - (count - 1) / 2) * step * normal - half * (u + v),
                u * pixel,
                v * pixel,
                side,
            )
            for n in range(count)
        ]
        view = ScannedView(kind, planes, 0.8 * step)
        view.images = np.empty((1, count, *side), np.uint16)
        view.labels = np.zeros((1, count, *side), np.uint8)
        rows, columns = np.indices(side)
        for index, plane in enumerate(planes):
            points = plane.pixel_to_lps(np.stack([columns, rows], axis=-1))
            image = np.zeros(side)
            for part in (-1, 0, 1):  # through the slice
                through = points + part * view.thickness_mm / 3 * normal
                local = (through - center) @ turn / zoom
                image += signals[knee_tissue(local + displaced(local, bend), shape)]
            image = ndimage.gaussian_filter(image / 3, 0.6)
            image *= np.exp(((points - center) / 100.0) @ bias)
            image = np.hypot(image + rng.normal(0, noise, side), rng.normal(0, noise, side))
            view.images[0, index] = np.round(4 * image).clip(0, 65535)
        views.append(view)
    return views


def knee_tissue(points: FloatArray, shape: FloatArray) -> npt.NDArray[np.uint8]:
    """What is at points ``(..., 3)`` of a right knee, mm: x left (medial), y back, z up.

    Args:
        points: From the middle of the joint.
        shape: ``(6,)`` factors about 1: widths of femur, tibia, patella, leg, joint and muscle.
    """
    x, y, z = np.moveaxis(points, -1, 0)
    femur, tibia, patella, leg, joint, muscle = shape

    def ellipsoid(
        center: tuple[float, float, float], radii: tuple[float, float, float]
    ) -> FloatArray:
        """Below 1 inside."""
        return np.sqrt(
            ((x - center[0]) / radii[0]) ** 2
            + ((y - center[1]) / radii[1]) ** 2
            + ((z - center[2]) / radii[2]) ** 2
        )

    tissue = np.zeros(x.shape, np.uint8)
    round_leg = np.hypot(x / (58 * leg), y / (62 * leg)) + 0.0012 * np.abs(z)
    tissue[round_leg < 1.03] = FAT
    behind = np.hypot(x / (42 * muscle), (y - 22) / (30 * muscle))
    tissue[(behind < 1) & (np.abs(z) > 8)] = MUSCLE
    front = np.hypot(x / (36 * muscle), (y + 18) / (26 * muscle))
    tissue[(front < 1) & (z > 38)] = MUSCLE
    # Vessels behind the joint, on the middle line.
    tissue[np.hypot(x + 2, y - 38) < 5] = FLUID

    shaft = np.hypot(x, y) / (15 * femur)
    condyles = np.minimum(
        ellipsoid((21 * femur, 4, 17), (16 * femur, 27 * femur, 19)),
        ellipsoid((-22 * femur, 2, 17), (17 * femur, 28 * femur, 20)),
    )
    neck = ellipsoid((0, -2, 30), (32 * femur, 20 * femur, 22))
    thigh = np.minimum(np.minimum(condyles, neck), np.where(z > 25, shaft, 9.0))
    taper = np.clip((-z - 4) / 45, 0, 1)
    plateau = np.hypot(x / (38 - 21 * taper) / tibia, (y - 2) / (25 - 8 * taper) / tibia)
    shin = np.where(z < -6, plateau, 9.0)
    fibula = np.where(z < -16, np.hypot(x + 36 * tibia, y - 18) / 7.5, 9.0)
    cap = ellipsoid((0, -36, 24), (20 * patella, 9 * patella, 20 * patella))

    gap = (np.abs(x) < 36) & (np.abs(y - 3) < 24) & (z > -7) & (z < 3)
    tissue[gap] = FLUID
    tissue[(condyles < 1 + 0.13 * joint) & (z < 26)] = CARTILAGE
    tissue[(plateau < 0.97) & (z <= -3.5) & (z >= -6)] = CARTILAGE
    ring = np.minimum(np.hypot(x - 21, y - 3), np.hypot(x + 21, y - 3))
    tissue[(np.abs(ring - 14) < 4.5) & (np.abs(z + 1) < 3.0) & (condyles >= 1)] = LIGAMENT
    # Cruciates cross in the notch; the patellar tendon and the quadriceps' in front.
    slope = (z - 6) / 16
    for end, side in ((12.0, 4.0), (-12.0, -4.0)):
        along = (np.hypot(x - side * slope, y - 6 - end * slope) < 4.0) & (z > -6) & (z < 22)
        tissue[along] = LIGAMENT
    tendon = (np.abs(x) < 12) & (np.abs(y + 40 - 0.12 * (20 - z)) < 2.6) & (z > -28) & (z < 60)
    tissue[tendon] = LIGAMENT
    for bone in (thigh, shin, fibula, cap):
        tissue[bone < 1] = CORTEX
        tissue[bone < 0.92] = MARROW
    tissue[np.abs(points).max(axis=-1) > 150] = AIR
    return tissue
