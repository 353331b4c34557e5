"""A picture of a scan with its heatmap and mask that a radiologist can judge.

Slices are shown in the patient's orthogonal planes, resampled to square pixels, in radiological
convention: axial and coronal slices with the patient's right at the left of the picture, sagittal
slices with the front at the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.foreground import BoolArray, nonzero_mask
from TomoSegLib.imaging.itk import resample, sitk_image
from TomoSegLib.imaging.preprocessing import Float32Array
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Label

_COLUMNS = 3
INCHES_PER_PANEL = 1.9
DPI = 150
INK = "#e8e8e8"
_CONTOUR = "#00e5ff"
_COLORMAP = "inferno"
# Largest number of display voxels along a side; what is finer is not seen at this size.
_LARGEST_SIDE = 300


@dataclass(frozen=True)
class View:
    """One anatomical plane of an LPS display grid ``[z, y, x]`` and how it is laid on paper."""

    name: str
    axis: int  # of the array [z, y, x], across the slices
    letters: tuple[str, str, str, str]  # left, right, top, bottom

    def cut(self, layer: sitk.Image, grid: Geometry, index: int, outside: float) -> Float32Array:
        """A slice of the display grid, rows from top to bottom and columns from left to right.

        In LPS x runs to the patient's left, which is the right of the picture; y runs to the back,
        which is the picture's bottom (axial) or right (sagittal); z runs to the head, its top.
        """
        shape, first = list(grid.shape), [0.0, 0.0, 0.0]
        shape[self.axis], first[2 - self.axis] = 1, float(index)
        affine = grid.affine.copy()
        affine[:3, 3] = grid.index_to_lps(first)
        thin = Geometry((shape[0], shape[1], shape[2]), affine)
        # Not smoothed: display pixels are hardly larger than voxels.
        slab = sitk.GetArrayFromImage(resample(layer, thin, sitk.sitkLinear, outside))
        plane = slab.take(0, axis=self.axis).astype(np.float32)
        return plane if self.axis == 0 else plane[::-1]


@dataclass(frozen=True)
class Outline:
    """A structure whose border is drawn."""

    name: str
    color: Any
    layer: sitk.Image


VIEWS = (
    View("axial", 0, ("R", "L", "A", "P")),
    View("coronal", 1, ("R", "L", "S", "I")),
    View("sagittal", 2, ("A", "P", "S", "I")),
)


def montage(
    volume: Volume,
    heatmap: npt.NDArray[Any] | None,
    mask: npt.NDArray[Any] | None,
    path: Path,
    *,
    title: str,
    footer: str,
    foreground: npt.NDArray[np.bool_] | None = None,
    threshold: float | None = None,
    labels: Sequence[Label] = (),
) -> None:
    """Draw axial, coronal and sagittal slices, each plain and with heatmap and mask, as PNG.

    The slices run through the mask's extent, or around the heatmap's peak, or through the middle.
    The heatmap is drawn from a third of its 99.9th percentile upwards, more opaque where it is
    stronger; the mask is an outline.

    Args:
        volume: The scan.
        heatmap: ``[k, j, i]`` values on its grid, or None.
        mask: ``[k, j, i]`` non-zero inside, on its grid, or None.
        labels: What the mask's values are, to be drawn each in its colour; by default one outline
            is drawn around all of them.
        path: The PNG file.
        title: The line above.
        footer: Small print below.
        foreground: ``[k, j, i]`` bool: where grey levels matter; they are stretched over its
            percentiles. Default: whatever is not background.
        threshold: Heatmap value to mark on the colour bar.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grid = display_grid(volume)
    low, high = display_window(volume.array, foreground)
    levels = None if heatmap is None else heatmap_range(heatmap)
    centers, spans = slice_positions(heatmap, mask, volume.geometry, grid)
    image_layer = sitk_image(volume.array, volume.geometry)
    heatmap_layer = None if heatmap is None else sitk_image(heatmap, volume.geometry)
    outlines = outlines_of(mask, labels, volume.geometry)

    paired = heatmap is not None or mask is not None
    columns = _COLUMNS * (2 if paired else 1)
    sizes = np.array(grid.shape, dtype=float)
    heights = np.array([sizes[1], sizes[0], sizes[0]])
    widths = np.array([sizes[2], sizes[2], sizes[1]])
    # Every row is scaled to the same width per panel, so that its height follows.
    panel = INCHES_PER_PANEL
    row_inches = panel * heights / widths.max()
    top, bottom, gap = 0.45, 0.8, 0.04
    figure = Figure(
        figsize=(columns * (panel + gap) + 0.3, float(row_inches.sum()) + top + bottom + 0.1),
        facecolor="black",
    )
    FigureCanvasAgg(figure)
    width_in, height_in = figure.get_size_inches()
    figure.text(
        0.15 / width_in,
        1 - 0.14 / height_in,
        title,
        color=INK,
        fontsize=10,
        va="top",
        weight="bold",
    )
    figure.text(0.15 / width_in, 0.1 / height_in, footer, color="#9a9a9a", fontsize=6, va="bottom")

    color_image = None
    y_in = height_in - top
    for view, row_height, row_width in zip(VIEWS, row_inches, widths, strict=True):
        y_in -= row_height + gap
        for column in range(_COLUMNS):
            position = _position(centers[view.axis], spans[view.axis], column)
            index = int(np.clip(round(position), 0, grid.shape[view.axis] - 1))
            for overlaid in (False, True) if paired else (False,):
                slot = column * (2 if paired else 1) + int(overlaid)
                axes = figure.add_axes(
                    (
                        (0.15 + slot * (panel + gap)) / width_in,
                        y_in / height_in,
                        panel / width_in,
                        row_height / height_in,
                    )
                )
                draw_image(axes, view.cut(image_layer, grid, index, low), low, high)
                # All rows share one scale of millimetres: narrower planes are centred.
                spare = (widths.max() - row_width) / 2
                axes.set_xlim(-0.5 - spare, row_width - 0.5 + spare)
                if overlaid:
                    if heatmap_layer is not None and levels is not None:
                        plane = view.cut(heatmap_layer, grid, index, 0.0)
                        color_image = draw_heatmap(axes, plane, levels)
                    for outline in outlines:
                        plane = view.cut(outline.layer, grid, index, 0.0)
                        if plane.max() >= 0.5 > plane.min():
                            axes.contour(
                                plane, levels=[0.5], colors=[outline.color], linewidths=0.8
                            )
                else:
                    draw_orientation(axes, view, grid, index, scale_bar=column == 0)
    text = f"{volume.name}: grey {low:.4g} to {high:.4g}; the patient's right is at the left"
    draw_legend(figure, color_image, outlines, threshold, text)
    with atomic_path(path) as temporary:
        # Twice as fast as the default level, and hardly larger.
        figure.savefig(temporary, dpi=DPI, facecolor="black", pil_kwargs={"compress_level": 2})


def outlines_of(
    mask: npt.NDArray[Any] | None, labels: Sequence[Label], geometry: Geometry
) -> list[Outline]:
    """Each label's border, or one around everything where there are no labels."""
    if mask is None:
        return []

    # As floats, so that interpolation gives fractions and the outline at one half is smooth.
    def layer(inside: BoolArray) -> sitk.Image:
        return sitk_image(inside.astype(np.float32), geometry)

    if not labels:
        return [Outline("mask", _CONTOUR, layer(mask != 0))]
    return [
        Outline(label.name, label.color, layer(mask == label.value))
        for label in labels
        if (mask == label.value).any()
    ]


def display_grid(volume: Volume) -> Geometry:
    """An isotropic grid along the patient's axes (x left, y back, z head) around the object."""
    geometry = volume.geometry
    corners = _object_corners(volume)
    first, last = corners.min(axis=0), corners.max(axis=0)
    spacing = max(float(geometry.spacing.min()), float((last - first).max()) / _LARGEST_SIDE)
    size = np.maximum(np.ceil((last - first) / spacing).astype(int), 1)
    origin = (first + last) / 2 - (size - 1) / 2 * spacing
    return Geometry.from_parts(
        (int(size[2]), int(size[1]), int(size[0])), [spacing] * 3, None, origin
    )


def display_window(
    array: npt.NDArray[Any], foreground: npt.NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Black and white: the 0.5th and 99.8th percentile of the foreground."""
    step = _stride(array.size)
    coarse = array[::step, ::step, ::step]
    if foreground is None:
        values = coarse[nonzero_mask(coarse)]
    else:
        values = coarse[foreground[::step, ::step, ::step]]
    if values.size == 0:
        values = coarse.ravel()
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.8]))
    if array.dtype.kind in "if" and float(array.min()) <= -900 and low < -500:
        # Hounsfield units: soft tissue in the middle, lung and bone still drawn.
        return max(low, -1000.0), min(high, 600.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def heatmap_range(heatmap: npt.NDArray[Any]) -> tuple[float, float]:
    """Values at which the overlay begins and saturates."""
    step = _stride(heatmap.size)
    positive = heatmap[::step, ::step, ::step]
    positive = positive[positive > 0]
    if positive.size == 0:
        return 0.0, 1.0
    top = float(np.percentile(positive, 99.9))
    return top / 3, top


def _object_corners(volume: Volume) -> npt.NDArray[np.float64]:
    """Corners of the box of voxels that are not background, outer edges, LPS mm."""
    mask = nonzero_mask(volume.array)
    ends = []
    for axis in (2, 1, 0):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        n = mask.shape[axis]
        margin = 0.03 * n
        first, last = (occupied[0], occupied[-1]) if occupied.size else (0, n - 1)
        ends.append((max(first - 0.5 - margin, -0.5), min(last + 0.5 + margin, n - 0.5)))
    return volume.geometry.index_to_lps(
        [(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]]
    )


def slice_positions(
    heatmap: npt.NDArray[Any] | None,
    mask: npt.NDArray[Any] | None,
    geometry: Geometry,
    grid: Geometry,
) -> tuple[Sequence[float], Sequence[float]]:
    """Centre and extent of the slices to show along z, y, x, in display voxels."""
    inside: BoolArray | None = None
    if mask is not None and mask.any():
        inside = mask != 0
    elif heatmap is not None and heatmap.max() > 0:
        inside = heatmap >= 0.5 * heatmap.max()
    if inside is None:
        return [(n - 1) / 2 for n in grid.shape], [0.5 * n for n in grid.shape]
    # A sparse look is enough, unless it misses what is small.
    step = _stride(inside.size)
    if inside[::step, ::step, ::step].any():
        inside = inside[::step, ::step, ::step]
    else:
        step = 1
    voxels = np.argwhere(_largest(inside))[:, ::-1] * step
    positions = grid.lps_to_index(geometry.index_to_lps(voxels))[:, ::-1]
    return positions.mean(axis=0).tolist(), (np.ptp(positions, axis=0) + 1).tolist()


def _stride(size: int) -> int:
    """Stride at which about two million of ``size`` voxels are left."""
    return max(1, round((size / 2e6) ** (1 / 3)))


def _largest(mask: BoolArray) -> BoolArray:
    from skimage.measure import label

    labels = label(mask)
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def _position(center: float, span: float, column: int) -> float:
    """Three slices: before, through and behind the centre, within the extent."""
    return center + (column - 1) * 0.3 * span


def draw_image(axes: Any, plane: Float32Array, low: float, high: float) -> None:
    """Grey levels."""
    axes.imshow(plane, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    axes.set_axis_off()


def draw_heatmap(axes: Any, plane: Float32Array, levels: tuple[float, float]) -> Any:
    """The heatmap over an image; returns what a colour bar explains."""
    begin, top = levels
    # Opacity rises from nothing at the beginning of the scale: no hard edge where none is.
    alpha = np.clip((plane - begin) / max(top - begin, 1e-12), 0, 1) ** 0.7 * 0.55
    return axes.imshow(
        plane, cmap=_COLORMAP, vmin=begin, vmax=top, alpha=alpha, interpolation="bilinear"
    )


def draw_orientation(axes: Any, view: View, grid: Geometry, index: int, *, scale_bar: bool) -> None:
    """Letters for the sides of the patient, the place of the slice and, if wanted, a scale bar."""
    style: dict[str, Any] = _text_style() | {"fontsize": 7, "transform": axes.transAxes}
    left, right, top, bottom = view.letters
    axes.text(0.02, 0.5, left, ha="left", va="center", **style)
    axes.text(0.98, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.98, top, ha="center", va="top", **style)
    axes.text(0.5, 0.02, bottom, ha="center", va="bottom", **style)
    position = grid.origin[2 - view.axis] + index * grid.spacing[0]
    letter = ("SI", "PA", "LR")[view.axis][int(position < 0)]
    axes.text(
        0.02,
        0.98,
        f"{letter} {abs(position):.0f} mm",
        ha="left",
        va="top",
        **style | {"fontsize": 6},
    )
    if scale_bar:
        width, height = (abs(a - b) for a, b in (axes.get_xlim(), axes.get_ylim()))
        length_mm = 50.0 if width * grid.spacing[0] > 120 else 10.0
        length = length_mm / grid.spacing[0]
        x0, y0 = axes.get_xlim()[0] + 0.03 * width, max(axes.get_ylim()) - 0.05 * height
        axes.plot([x0, x0 + length], [y0, y0], color=INK, linewidth=1.5, solid_capstyle="butt")
        axes.text(x0, y0 - 0.015 * height, f"{length_mm:g} mm", va="bottom", **_text_style())


def _text_style() -> dict[str, Any]:
    """Light letters with a dark rim, legible on any grey."""
    from matplotlib.patheffects import withStroke

    rim = withStroke(linewidth=1.5, foreground="black")
    return {"color": INK, "fontsize": 6, "path_effects": [rim]}


def draw_legend(
    figure: Any,
    color_image: Any,
    outlines: Sequence[Outline],
    threshold: float | None,
    text: str,
) -> None:
    """What the colours mean, and a line of text."""
    width_in, height_in = figure.get_size_inches()
    left = 0.15
    if color_image is not None:
        bar = figure.add_axes((left / width_in, 0.6 / height_in, 2.2 / width_in, 0.09 / height_in))
        scale = figure.colorbar(color_image, cax=bar, orientation="horizontal")
        scale.solids.set_alpha(1)
        scale.ax.tick_params(colors=INK, labelsize=6, length=2, pad=1)
        scale.outline.set_edgecolor("#606060")
        if threshold is not None:
            scale.ax.axvline(threshold, color=_CONTOUR, linewidth=1.2)
        figure.text(
            (left + 2.3) / width_in, 0.6 / height_in, "heatmap", color=INK, fontsize=7, va="bottom"
        )
        left += 3.0
    for outline in outlines:
        name = f"\u2014 {outline.name}"
        figure.text(
            left / width_in, 0.6 / height_in, name, color=outline.color, fontsize=7, va="bottom"
        )
        left += 0.25 + 0.07 * len(name)
    figure.text(0.15 / width_in, 0.26 / height_in, text, color=INK, fontsize=6, va="bottom")
