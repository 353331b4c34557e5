"""Image planes in space, the lines in which they cut each other, and places within a stack.

Positions are LPS millimetres. A pixel is written ``(column, row)``, counted from zero, and whole
numbers are pixel centres; DICOM's ``PixelSpacing`` is (between rows, between columns) and is
turned round where files are read. An image reaches from the centre of its first to the centre of
its last pixel, ``0 <= column <= columns - 1``: where it has values, half a pixel less than its
printed edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from TomoSegLib.imaging.volume import FloatArray, Geometry

# Planes that meet at a smaller angle (5.7 degrees) have no line worth the name: a header's
# rounding moves it by centimetres.
SMALLEST_SINE = 0.1


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """One image in space.

    Attributes:
        origin: ``(3,)`` LPS mm, the centre of pixel (0, 0): ImagePositionPatient.
        column_step: ``(3,)`` mm, from a pixel to the next of its row (growing column index).
        row_step: ``(3,)`` mm, from a pixel to the one below it (growing row index).
        shape: ``(rows, columns)``.
    """

    origin: FloatArray
    column_step: FloatArray
    row_step: FloatArray
    shape: tuple[int, int]

    @classmethod
    def of_slice(cls, geometry: Geometry, k: int) -> ImagePlane:
        """Slice ``k`` of a voxel grid: columns along i, rows along j."""
        i, j = geometry.affine[:3, 0].copy(), geometry.affine[:3, 1].copy()
        return cls(geometry.index_to_lps((0, 0, k)), i, j, geometry.shape[1:])

    @cached_property
    def normal(self) -> FloatArray:
        """``(3,)`` unit vector, columns cross rows: DICOM's slice normal."""
        normal = np.cross(self.column_step, self.row_step)
        return normal / np.linalg.norm(normal)

    @cached_property
    def spacing(self) -> tuple[float, float]:
        """Pixel size along a row, and along a column, mm."""
        return float(np.linalg.norm(self.column_step)), float(np.linalg.norm(self.row_step))

    @cached_property
    def center(self) -> FloatArray:
        """``(3,)`` LPS mm, the middle of the image."""
        rows, columns = self.shape
        return self.pixel_to_lps(((columns - 1) / 2, (rows - 1) / 2))

    @cached_property
    def corners(self) -> FloatArray:
        """``(4, 3)`` LPS mm: the centres of the corner pixels, going round."""
        right, bottom = self.shape[1] - 1, self.shape[0] - 1
        return self.pixel_to_lps([(0, 0), (right, 0), (right, bottom), (0, bottom)])

    def pixel_to_lps(self, pixels: npt.ArrayLike) -> FloatArray:
        """LPS mm ``(..., 3)`` of pixels ``(..., 2)`` given as (column, row), also between them."""
        pixels = np.asarray(pixels, dtype=np.float64)
        return self.origin + pixels[..., :1] * self.column_step + pixels[..., 1:] * self.row_step

    def lps_to_pixel(self, points: npt.ArrayLike) -> FloatArray:
        """Pixels (column, row) ``(..., 2)`` at the feet of points ``(..., 3)`` LPS mm."""
        steps = np.stack([self.column_step, self.row_step], axis=1)
        return (np.asarray(points, dtype=np.float64) - self.origin) @ np.linalg.pinv(steps).T

    def transposed(self) -> ImagePlane:
        """The same image with rows and columns exchanged."""
        return ImagePlane(self.origin, self.row_step, self.column_step, self.shape[::-1])

    def flipped(self, axis: int) -> ImagePlane:
        """The same image with its rows (axis 0) or its columns (axis 1) in reverse."""
        last, steps = self.shape[axis] - 1, [self.row_step, self.column_step]
        origin = self.origin + last * steps[axis]
        steps[axis] = -steps[axis]
        return ImagePlane(origin, steps[1], steps[0], self.shape)

    def signed_distance(self, points: npt.ArrayLike) -> FloatArray:
        """Distances of points ``(..., 3)`` from the plane along its normal, mm."""
        return (np.asarray(points, dtype=np.float64) - self.origin) @ self.normal


@dataclass(frozen=True, eq=False)
class IntersectingLine:
    """Where another image's plane cuts an image.

    Attributes:
        endpoints_px: ``(2, 2)`` (column, row), the lesser column first, then the lesser row.
        endpoints_mm: ``(2, 3)`` the same points, LPS mm.
    """

    endpoints_px: FloatArray
    endpoints_mm: FloatArray


@dataclass(frozen=True)
class NoLine:
    """Why there is no line.

    Attributes:
        code: ``near-parallel``, ``outside-view`` or ``outside-other``.
        reason: For people.
    """

    code: str
    reason: str


def sine_between(plane: ImagePlane, other: ImagePlane) -> float:
    """Sine of the angle at which two planes meet: ``sqrt(1 - (n1 . n2)^2)``."""
    # As a cross product: for small angles the difference from one would lose its digits.
    return float(np.linalg.norm(np.cross(plane.normal, other.normal)))


def distance_field(plane: ImagePlane, other: ImagePlane) -> FloatArray:
    """Distance of every pixel from the line in which another plane cuts this one.

    ``d(x) = |n2 . (x - p2)| / sqrt(1 - (n1 . n2)^2)``: measured within the image, in mm.

    Args:
        plane: The image.
        other: The other plane, unbounded.

    Returns:
        ``(rows, columns)`` mm.

    Raises:
        ValueError: The planes are parallel.
    """
    sine = sine_between(plane, other)
    if sine < 1e-9:
        raise ValueError("parallel planes have no intersecting line")
    rows, columns = plane.shape
    height = (
        other.signed_distance(plane.origin)
        + np.arange(columns) * (plane.column_step @ other.normal)
        + np.arange(rows)[:, None] * (plane.row_step @ other.normal)
    )
    return np.abs(height) / sine


def intersecting_line(
    plane: ImagePlane, other: ImagePlane, smallest_sine: float = SMALLEST_SINE
) -> IntersectingLine | NoLine:
    """The line in which another image cuts this one, clipped to this one.

    It is left out where the planes are nearly parallel, where it misses this image, and where
    the part within this image misses the other image: there the two do not meet.

    Args:
        plane: The image in which the line lies.
        other: The image that cuts it.
        smallest_sine: Sine of the angle under which planes count as parallel.
    """
    sine = sine_between(plane, other)
    if sine < smallest_sine:
        angle = np.degrees(np.arcsin(sine))
        return NoLine(
            "near-parallel",
            f"the planes are nearly parallel: they meet at {angle:.1f} degrees, sine {sine:.3f}, "
            f"below {smallest_sine:g}",
        )
    # Height of the pixel (c, r) over the other plane: offset + gradient . (c, r).
    offset = float(other.signed_distance(plane.origin))
    gradient = np.array([plane.column_step @ other.normal, plane.row_step @ other.normal])
    start = -offset * gradient / (gradient @ gradient)
    along = np.array([-gradient[1], gradient[0]]) / np.linalg.norm(gradient)
    inside = _clipped(start, along, plane.shape)
    if inside is None:
        return NoLine("outside-view", "the line lies outside the image of the view")
    pixels = start + np.outer(inside, along)
    points = plane.pixel_to_lps(pixels)
    ends = other.lps_to_pixel(points)
    overlap = _clipped(ends[0], ends[1] - ends[0], other.shape)
    if overlap is None or overlap[1] < 0 or overlap[0] > 1:
        return NoLine("outside-other", "the line lies outside the image of the other view")
    # Rounded for the comparison only: an upright line's columns differ in the last digit.
    first, second = np.round(pixels, 6).tolist()
    order = [0, 1] if first <= second else [1, 0]
    return IntersectingLine(pixels[order], points[order])


def _clipped(
    start: FloatArray, along: FloatArray, shape: tuple[int, int]
) -> tuple[float, float] | None:
    """The stretch ``(t0, t1)`` of ``start + t along`` within an image (Liang and Barsky 1984).

    Args:
        start: ``(2,)`` (column, row).
        along: ``(2,)``.
        shape: ``(rows, columns)``.
    """
    low, high = -np.inf, np.inf
    for position, step, count in zip(start, along, shape[::-1], strict=True):
        if abs(step) < 1e-12:
            if not -1e-9 <= position <= count - 1 + 1e-9:
                return None
            continue
        ends = sorted((-position / step, (count - 1 - position) / step))
        low, high = max(low, ends[0]), min(high, ends[1])
    # A touched corner is no line.
    return (float(low), float(high)) if high - low > 1e-9 else None


def stack_positions(planes: Sequence[ImagePlane]) -> FloatArray:
    """Positions ``(N,)`` of parallel planes along the first one's normal, mm."""
    return np.array([plane.origin @ planes[0].normal for plane in planes])


def relative_locations(
    positions: npt.ArrayLike, *, base_first: bool = True, symmetric: bool = False
) -> FloatArray:
    """Places of a stack's slices, from positions, not indices: uneven stacks come out right.

    Args:
        positions: ``(N,)`` along the stack's normal, mm, in any order.
        base_first: Whether the slice of the least position is the base.
        symmetric: Slices on either side of the middle share a place, as in the knee:
            ``|2 t - 1|`` with t the position scaled to [0, 1]; 0 in the middle, 1 at both ends.

    Returns:
        ``(N,)`` in [0, 1]: 0 at the base, 1 at the apex.

    Raises:
        ValueError: All positions are the same, or there is only one.
    """
    positions = np.asarray(positions, dtype=np.float64)
    extent = float(np.ptp(positions)) if positions.size else 0.0
    if extent <= 0:
        raise ValueError("a single position has no place in a stack")
    t = (positions - positions.min()) / extent
    if symmetric:
        return np.abs(2 * t - 1)
    return t if base_first else 1 - t
