"""A picture of a sequence: the same three slices of several of its frames, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.itk import sitk_image
from TomoSegLib.imaging.montage import (
    DPI,
    INCHES_PER_PANEL,
    INK,
    VIEWS,
    Outline,
    draw_heatmap,
    draw_image,
    draw_legend,
    draw_orientation,
    outlines_of,
)
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Label

MOST_FRAMES = 6
"""So many are drawn, spread over the sequence."""


@dataclass(frozen=True)
class FramePicture:
    """A frame to be drawn.

    Attributes:
        title: What is written above it.
        image: The scan.
        heatmap: ``[k, j, i]`` on its grid, or None.
        mask: ``[k, j, i]``, non-zero inside.
    """

    title: str
    image: Volume
    heatmap: npt.NDArray[Any] | None
    mask: npt.NDArray[Any]


def drawn_frames(count: int) -> list[int]:
    """Which of so many frames are drawn: the first, the last, and some between."""
    return sorted(set(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int)))


def frame_montage(
    frames: Iterable[FramePicture],
    path: Path,
    *,
    columns: int,
    grid: Geometry,
    centers: Sequence[float],
    window: tuple[float, float],
    levels: tuple[float, float] | None,
    title: str,
    footer: str,
    labels: Sequence[Label] = (),
) -> None:
    """Draw an axial, a coronal and a sagittal slice of each frame with heatmap and mask, as PNG.

    Slices and scales are the same for all frames, so that they can be compared.

    Args:
        frames: The frames; each is let go of when it has been drawn.
        path: The PNG file.
        columns: How many frames there are.
        grid: The display grid, see `TomoSegLib.imaging.montage.display_grid`.
        centers: The slices, in voxels of the grid along z, y, x.
        window: Values that are black and white.
        levels: Heatmap values at which the overlay begins and saturates.
        title: The line above.
        footer: Small print below.
        labels: What the mask's values are; by default one outline is drawn around all of them.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = np.array(grid.shape, dtype=float)
    heights = np.array([sizes[1], sizes[0], sizes[0]])
    widths = np.array([sizes[2], sizes[2], sizes[1]])
    panel, gap, top, bottom = INCHES_PER_PANEL, 0.04, 0.62, 0.8
    row_inches = panel * heights / widths.max()
    width_in = max(columns * (panel + gap) + 0.3, 6.0)
    height_in = float(row_inches.sum()) + top + bottom + 0.1
    figure = Figure(figsize=(width_in, height_in), facecolor="black")
    FigureCanvasAgg(figure)

    def write(x_in: float, y_in: float, text: str, **style: Any) -> None:
        figure.text(x_in / width_in, y_in / height_in, text, **style)

    write(0.15, height_in - 0.14, title, color=INK, fontsize=10, va="top", weight="bold")
    write(0.15, 0.1, footer, color="#9a9a9a", fontsize=6, va="bottom")
    color_image, seen, name = None, dict[str, Outline](), ""
    for column, frame in enumerate(frames):
        name = name or frame.image.name.rpartition(", frame")[0]
        x_in = 0.15 + column * (panel + gap)
        middle = x_in + panel / 2
        write(middle, height_in - top + 0.06, frame.title, color=INK, fontsize=7, ha="center")
        image_layer = sitk_image(frame.image.array, frame.image.geometry)
        heat_layer = None
        if frame.heatmap is not None:
            heat_layer = sitk_image(frame.heatmap, frame.image.geometry)
        outlines = outlines_of(frame.mask, labels, frame.image.geometry)
        seen |= {outline.name: outline for outline in outlines}
        y_in = height_in - top
        for view, row_height, row_width in zip(VIEWS, row_inches, widths, strict=True):
            y_in -= row_height + gap
            index = int(np.clip(round(centers[view.axis]), 0, grid.shape[view.axis] - 1))
            axes = figure.add_axes(
                (x_in / width_in, y_in / height_in, panel / width_in, row_height / height_in)
            )
            draw_image(axes, view.cut(image_layer, grid, index, window[0]), *window)
            spare = (widths.max() - row_width) / 2
            axes.set_xlim(-0.5 - spare, row_width - 0.5 + spare)
            if heat_layer is not None and levels is not None:
                plane = view.cut(heat_layer, grid, index, 0.0)
                color_image = draw_heatmap(axes, plane, levels)
            for outline in outlines:
                plane = view.cut(outline.layer, grid, index, 0.0)
                if plane.max() >= 0.5 > plane.min():
                    axes.contour(plane, levels=[0.5], colors=[outline.color], linewidths=0.8)
            if column == 0:
                draw_orientation(axes, view, grid, index, scale_bar=True)
    text = f"{name}: grey {window[0]:.4g} to {window[1]:.4g}; the patient's right is at the left"
    draw_legend(figure, color_image, list(seen.values()), None, text)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="black", pil_kwargs={"compress_level": 2})
