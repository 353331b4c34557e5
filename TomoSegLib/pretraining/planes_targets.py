"""Targets of the plane tasks: where other views cut an image, and its place in its stack.

After Zhang et al., "Self-Supervised Learning for Medical Image Data with Anatomy-Oriented Imaging
Planes" (arXiv 2403.16499). Both come from the scanner's geometry alone. An image is cropped,
turned, zoomed and mirrored by choosing other pixels in its plane, so that what is true of the
planes stays true of the crop: targets are computed for the pixels that were chosen, never warped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from TomoSegLib.imaging.orientation import reading_axes
from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.studies.image_plane import (
    ImagePlane,
    IntersectingLine,
    distance_field,
    intersecting_line,
)
from TomoSegLib.studies.study import Float32Array, View


@dataclass(frozen=True)
class PlaneOptions:
    """How images and targets are made; the defaults are the paper's where it says anything.

    Attributes:
        spacing_mm: Pixel size after resampling.
        side: Pixels of the square crop about the image's middle.
        sigma_mm: Of the heatmaps: 6 pixels of 1.26 mm.
        rotation: Largest turn in the plane, degrees. The augmentation is this project's choice.
        zoom: Largest zoom, as a factor; its inverse is the least.
        shift_mm: Largest shift along each axis.
        flip: Probability of a mirror image.
        contrast: Largest change of contrast (gamma), as a factor.
        noise: Largest standard deviation of noise, in those of the image.
    """

    spacing_mm: float = 1.26
    side: int = 224
    sigma_mm: float = 7.6
    rotation: float = 25.0
    zoom: float = 1.15
    shift_mm: float = 15.0
    flip: float = 0.5
    contrast: float = 1.3
    noise: float = 0.1


def line_heatmap(plane: ImagePlane, other: ImagePlane, sigma_mm: float) -> Float32Array:
    """``exp(-d^2 / (2 sigma^2))`` of the distance d (mm) from the line of another plane.

    Returns:
        ``(rows, columns)``, 1 on the line.
    """
    distance = distance_field(plane, other)
    return np.exp(-0.5 * (distance / sigma_mm) ** 2).astype(np.float32)


def cutting_views(
    view: View, index: int, others: Sequence[View], kinds: Sequence[str]
) -> list[ImagePlane | None]:
    """The plane of each kind of view that cuts a slice, or None.

    A kind's first view with a line counts; a stack is represented by its middle slice. A view is
    not cut by its own kind.

    Args:
        view: The view.
        index: Its slice.
        others: All views of the study.
        kinds: The kinds asked for.
    """
    planes: list[ImagePlane | None] = []
    for kind in kinds:
        found = None
        for other in others:
            if other is view or other.kind != kind or kind == view.kind:
                continue
            line = intersecting_line(view.planes[index], other.middle_plane)
            if isinstance(line, IntersectingLine):
                found = other.middle_plane
                break
        planes.append(found)
    return planes


def crop_plane(
    plane: ImagePlane, options: PlaneOptions, rng: np.random.Generator | None = None
) -> ImagePlane:
    """The square of pixels about the middle of an image, in its plane.

    Columns and rows run as radiologists read them, however the file stores them.

    Args:
        plane: The image as acquired.
        options: Size, and how much it is varied.
        rng: Draws a turn, zoom, shift and mirror image; None for none.
    """
    u = plane.column_step / plane.spacing[0]
    v = plane.row_step / plane.spacing[1]
    v = v - (v @ u) * u  # perpendicular to the last digit
    stored = np.stack([u, v / np.linalg.norm(v)])
    axes = np.stack([sign * stored[number] for number, sign in reading_axes(*stored)])
    center, steps = plane.center, np.eye(2) * options.spacing_mm
    if rng is not None:
        angle = np.radians(rng.uniform(-1, 1) * options.rotation)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        zoom = options.zoom ** rng.uniform(-1, 1)
        mirror = np.diag([-1.0 if rng.random() < options.flip else 1.0, 1.0])
        steps = mirror @ turn * (options.spacing_mm / zoom)
        center = center + rng.uniform(-1, 1, 2) * options.shift_mm @ axes
    column_step, row_step = steps @ axes
    middle = (options.side - 1) / 2
    return ImagePlane(
        center - middle * (column_step + row_step),
        column_step,
        row_step,
        (options.side, options.side),
    )


def sample_image(
    image: npt.NDArray[np.floating], plane: ImagePlane, target: ImagePlane
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """An image on other pixels of its plane, bilinearly.

    Args:
        image: ``(rows, columns)`` on ``plane``.
        plane: Where it lies.
        target: The pixels wanted, in the same plane.

    Returns:
        ``target.shape`` values, zero outside the image, and where it is inside.
    """
    rows, columns = target.shape
    start = plane.lps_to_pixel(target.origin)
    across = plane.lps_to_pixel(target.origin + target.column_step) - start
    down = plane.lps_to_pixel(target.origin + target.row_step) - start
    pixels = (
        start + np.arange(columns)[None, :, None] * across + np.arange(rows)[:, None, None] * down
    )
    size = np.array(plane.shape[::-1])
    inside = np.all((pixels >= -0.5) & (pixels <= size - 0.5), axis=-1)
    # grid_sample's coordinate of pixel i out of n with align_corners=False.
    grid = torch.from_numpy(((2 * pixels + 1) / size - 1).astype(np.float32))
    source = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    sampled = F.grid_sample(
        source[None, None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0].numpy()
    return np.where(inside, sampled, np.float32(0)), inside


def smoothed(image: Float32Array, plane: ImagePlane, spacing_mm: float) -> Float32Array:
    """An image blurred as far as pixels of another size need, against aliasing."""
    from scipy.ndimage import gaussian_filter

    # A pixel's blur has the variance of a box of its size: what is lacking is added.
    sigma = [
        float(np.sqrt(max(0.0, (spacing_mm / own) ** 2 - 1) / 12)) for own in plane.spacing[::-1]
    ]
    return np.asarray(gaussian_filter(image, sigma), dtype=np.float32)


def standardised(image: Float32Array, inside: npt.NDArray[np.bool_]) -> Float32Array:
    """Zero mean and unit variance over what is inside; outside is as black as no signal."""
    values = image[inside]
    mean, deviation = (float(values.mean()), float(values.std())) if values.size else (0.0, 1.0)
    return ((image - mean) / max(deviation, 1e-6)).astype(np.float32)


def varied_contrast(
    image: Float32Array, options: PlaneOptions, rng: np.random.Generator
) -> Float32Array:
    """Another gamma and noise; the image is standardised before and after."""
    low, high = float(image.min()), float(image.max())
    gamma = options.contrast ** rng.uniform(-1, 1)
    scaled = ((image - low) / max(high - low, 1e-6)) ** gamma
    scaled = (scaled - scaled.mean()) / max(float(scaled.std()), 1e-6)
    noise = rng.normal(0, rng.uniform(0, options.noise), image.shape) if options.noise else 0.0
    return np.asarray(scaled + noise, dtype=np.float32)


def fit_line(heatmap: npt.NDArray[np.floating], sigma_mm: float, spacing_mm: float) -> FloatArray:
    """The line whose heatmap is closest to a given one.

    Begun with the main axis of the bright pixels, then least squares of the heatmap itself.

    Args:
        heatmap: ``(H, W)``.
        sigma_mm: Of the heatmap's ridge.
        spacing_mm: Pixel size.

    Returns:
        ``(3,)`` unit normal (nx, ny) and offset in mm, so that points with
        ``nx x + ny y = offset`` are on the line; x and y in mm from the crop's middle, along
        growing columns and rows.
    """
    from scipy.optimize import least_squares

    rows, columns = heatmap.shape
    y, x = np.meshgrid(
        (np.arange(rows) - (rows - 1) / 2) * spacing_mm,
        (np.arange(columns) - (columns - 1) / 2) * spacing_mm,
        indexing="ij",
    )
    points = np.stack([x.ravel(), y.ravel()])
    values = np.asarray(heatmap, dtype=np.float64).ravel()
    # From the ridge; from all of a map that has none, as an untrained network's.
    for floor in (0.5 * values.max(), values.min()):
        weight = np.clip(values - floor, 0, None) + 1e-12
        center = np.average(points, axis=1, weights=weight)
        spread, vectors = np.linalg.eigh(np.cov(points, aweights=weight, ddof=0))
        if spread[1] > (2 * spacing_mm) ** 2:
            break
    normal = vectors[:, 0]
    # Every other pixel is enough.
    xs, ys, values = (a[::2, ::2].ravel() for a in (x, y, np.asarray(heatmap, dtype=np.float64)))

    def misfit(p: FloatArray) -> FloatArray:
        distance = np.cos(p[0]) * xs + np.sin(p[0]) * ys - p[1]
        return np.exp(-0.5 * (distance / sigma_mm) ** 2) - values

    begin = [np.arctan2(normal[1], normal[0]), normal @ center]
    angle, offset = least_squares(misfit, begin, x_scale=(0.02, 1.0), max_nfev=30).x
    return np.array([np.cos(angle), np.sin(angle), offset])


def line_of(plane: ImagePlane, other: ImagePlane) -> FloatArray:
    """The line of another plane as `fit_line` gives it, in pixels' mm (a zoom is not undone)."""
    middle = other.signed_distance(plane.center)
    gradient = np.array(
        [plane.column_step @ other.normal, plane.row_step @ other.normal]
    ) / np.array(plane.spacing)
    length = float(np.linalg.norm(gradient))
    return np.array([*(gradient / length), -middle / length])


def line_error(found: FloatArray, true: FloatArray, half_mm: float) -> tuple[float, float]:
    """How far a line is from the true one.

    Args:
        found: As `fit_line` gives it.
        true: Likewise.
        half_mm: Half the side of the crop.

    Returns:
        The angle between them in degrees (0 to 90), and the mean distance in mm of the true
        line's points within the crop from the found line.
    """
    cosine = min(1.0, abs(float(found[:2] @ true[:2])))
    along = np.array([-true[1], true[0]])
    points = true[2] * true[:2] + np.linspace(-2, 2, 801)[:, None] * half_mm * along
    within = points[np.all(np.abs(points) <= half_mm, axis=1)]
    if len(within) == 0:  # the line misses the crop: its nearest point stands for it
        within = points[[np.argmin(np.abs(points).max(axis=1))]]
    distance = np.abs(within @ found[:2] - found[2]).mean()
    return float(np.degrees(np.arccos(cosine))), float(distance)
