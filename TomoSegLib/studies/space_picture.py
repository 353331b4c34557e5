"""A picture of all planes of a study where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.pictures import (
    DIM,
    DPI,
    INK,
    Images,
    dark_rim,
    grey_window,
    other_views,
    view_colors,
)
from TomoSegLib.studies.study import Float32Array, Study, View

# Quads a side of an image.
_TILES = 96


def draw_space(study: Study, images: Images, path: Path) -> None:
    """Draw the middle slices of all views where they lie in the patient, from two sides, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

    colors = view_colors(study)
    shown = other_views(study, None)
    figure = Figure(figsize=(11, 6.2), facecolor="black")
    FigureCanvasAgg(figure)
    corners = np.concatenate([view.middle_plane.corners for view in shown])
    center, half = (corners.min(0) + corners.max(0)) / 2, float(np.ptp(corners, axis=0).max()) / 2
    quads, faces = [], []
    for view in shown:
        window = grey_window(images[view.name])
        tiles, grey = _tiles(view.middle_plane, images[view.name][view.middle], window)
        quads.append(tiles)
        faces.append(grey)
    for number, (azimuth, elevation) in enumerate(_sights(shown)):
        axes: Any = figure.add_axes((0.5 * number, 0.04, 0.5, 0.9), projection="3d")
        axes.set_facecolor("black")
        # One collection: its faces are sorted by depth, so that planes pass through each other.
        axes.add_collection3d(
            Poly3DCollection(
                np.concatenate(quads),
                facecolors=np.concatenate(faces),
                edgecolors="none",
                linewidths=0,
                antialiased=False,
            )  # fmt: skip
        )
        for view in shown:
            rim = view.middle_plane.corners
            rim = np.concatenate([rim, rim[:1]])
            axes.add_collection3d(
                Line3DCollection([rim], colors=[colors[view.name]], linewidths=1.6)
            )
            if len(view.planes) > 1:
                rims = [np.concatenate([p.corners, p.corners[:1]]) for p in view.planes]
                axes.add_collection3d(
                    Line3DCollection(rims, colors=[colors[view.name]], linewidths=0.4, alpha=0.6)
                )
            # At the corner that is highest: there the fewest other things are.
            place = rim[np.argmax(rim[:, 2])]
            axes.text(*place, view.name, color=colors[view.name], fontsize=8, ha="center",
                      va="bottom", path_effects=dark_rim(), clip_on=False)  # fmt: skip
        for setter, middle in zip(
            (axes.set_xlim, axes.set_ylim, axes.set_zlim), center, strict=True
        ):
            setter(middle - half, middle + half)
        axes.set_box_aspect((1, 1, 1), zoom=1.15)
        axes.view_init(elev=elevation, azim=azimuth)
        axes.set_axis_off()
        _draw_axes(axes, center, half)
    figure.text(0.02, 0.97, f"{study.name}: planes in the patient", color=INK, fontsize=11,
                va="top", weight="bold")  # fmt: skip
    figure.text(0.02, 0.02, "L left, P back (posterior), H head; thin frames are the other slices "
                "of a stack", color=DIM, fontsize=7)  # fmt: skip
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="black", format="png")


def _sights(views: Sequence[View]) -> list[tuple[float, float]]:
    """Two azimuths and elevations, degrees, from which no plane is seen edge-on."""
    normals = np.array([view.middle_plane.normal for view in views])
    found: list[tuple[float, float]] = []
    for _ in range(2):
        best, sight = -1.0, (-60.0, 20.0)
        for azimuth in range(-170, 180, 10):
            for elevation in (10, 20, 30, 40):
                if any(40 > abs((azimuth - a + 180) % 360 - 180) for a, _ in found):
                    continue
                a, e = np.radians((azimuth, elevation))
                toward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
                # Seen from the front where that is as good: the patient's front is at -y.
                score = float(np.abs(normals @ toward).min()) - 0.15 * float(toward[1])
                if score > best:
                    best, sight = score, (float(azimuth), float(elevation))
        found.append(sight)
    return found


def _tiles(
    plane: ImagePlane, image: Float32Array | None, window: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """An image as small quadrilaterals ``(N, 4, 3)`` in space, and their grey ``(N, 4)`` RGBA."""
    rows, columns = plane.shape
    across = np.linspace(-0.5, columns - 0.5, min(_TILES, columns) + 1)
    down = np.linspace(-0.5, rows - 0.5, min(_TILES, rows) + 1)
    points = plane.pixel_to_lps(np.stack(np.meshgrid(across, down), axis=-1))
    quads = np.stack([points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], axis=2)
    middle_r = ((down[1:] + down[:-1]) / 2).round().astype(int).clip(0, rows - 1)
    middle_c = ((across[1:] + across[:-1]) / 2).round().astype(int).clip(0, columns - 1)
    if image is None:
        grey = np.full((len(middle_r), len(middle_c)), 0.2)
    else:
        grey = (image[np.ix_(middle_r, middle_c)] - window[0]) / (window[1] - window[0])
        grey = grey.clip(0, 1) ** 0.8
    colors = np.stack([grey, grey, grey, np.full_like(grey, 0.94)], axis=-1)
    return quads.reshape(-1, 4, 3), colors.reshape(-1, 4)


def _draw_axes(axes: Any, center: FloatArray, half: float) -> None:
    """A small tripod of the patient's axes in a corner of the box."""
    start = center - 0.98 * half
    for direction, letter in zip(np.eye(3), "LPH", strict=True):
        end = start + 0.3 * half * direction
        axes.plot(*np.stack([start, end]).T, color=DIM, linewidth=1)
        axes.text(*(start + 0.38 * half * direction), letter, color=DIM, fontsize=8)
