"""Pictures of a study's views with the lines where the others cut them.

Images are turned by quarters and mirrored into the way they are read: long-axis views with the
front or the patient's right at the left of the picture, short-axis slices seen from the apex.
Files, NIfTI above all, hold them in any way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.studies.image_plane import ImagePlane, IntersectingLine, NoLine, intersecting_line
from TomoSegLib.studies.study import Float32Array, Study, View

INK = "#e8e8e8"
DIM = "#9a9a9a"
DPI = 150
# Distinct for most colour-blind people too (Okabe and Ito), bright on grey.
_COLORS = ("#56b4e9", "#e69f00", "#cc79a7", "#00d59a", "#f0e442", "#ff6b4a", "#b8a1ff", "#ffffff")
# LPS axes of columns and rows as read, by the axis closest to the normal: sagittal, coronal, axial.
_READ_ALONG = ((1, 2), (0, 2), (0, 1))
_GRID_COLUMNS = 4

Images = Mapping[str, Sequence[Float32Array | None]]


def view_colors(study: Study) -> dict[str, str]:
    """A colour for each view, by name; views in one place (phases) share one."""
    colors: dict[str, str] = {}
    seen: list[View] = []
    for view in study.views:
        twin = next((v for v in seen if _same_place(v.middle_plane, view.middle_plane)), None)
        if twin is None:
            colors[view.name] = _COLORS[len(seen) % len(_COLORS)]
            seen.append(view)
        else:
            colors[view.name] = colors[twin.name]
    return colors


def read_images(
    study: Study, on_read: Callable[[int, int], None] | None = None
) -> tuple[dict[str, list[Float32Array | None]], list[TomoSegError]]:
    """The first phase of every view's slices; None where pixels are damaged, with the reasons."""
    total = sum(len(view.planes) for view in study.views)
    images: dict[str, list[Float32Array | None]] = {}
    errors: list[TomoSegError] = []
    for view in study.views:
        images[view.name] = []
        for source, plane in zip(view.sources[0], view.planes, strict=True):
            pixels: Float32Array | None = None
            try:
                pixels = np.nan_to_num(source.read())
                if pixels.shape != plane.shape:
                    raise TomoSegError(
                        "volume-truncated",
                        f"'{source.path.name}' has another matrix than its header says.",
                        "Export it again.",
                    )
            except TomoSegError as error:
                errors.append(error)
                pixels = None
            images[view.name].append(pixels)
            if on_read is not None:
                on_read(sum(map(len, images.values())), total)
    return images, errors


def as_read(
    plane: ImagePlane, image: Float32Array | None
) -> tuple[ImagePlane, Float32Array | None]:
    """An image turned and mirrored to radiological convention, with the plane that goes with it.

    Of the eight ways to lay it on paper the one whose columns and rows run closest to the
    patient's left and back (axial), left and feet (coronal), or back and feet (sagittal).
    """
    columns, rows = np.eye(3)[list(_READ_ALONG[int(np.argmax(np.abs(plane.normal)))])]
    if abs(plane.column_step @ columns) < abs(plane.column_step @ rows):
        plane, image = plane.transposed(), None if image is None else image.T
    rows = -rows if rows[2] else rows  # down, towards the feet
    for axis, step, wanted in ((0, plane.row_step, rows), (1, plane.column_step, columns)):
        if step @ wanted < 0:
            plane = plane.flipped(axis)
            image = None if image is None else np.flip(image, axis)
    return plane, image


def draw_view(study: Study, view: View, images: Images, path: Path) -> None:
    """Draw a view with the lines of all others as PNG.

    A single image, or a stack's middle slice, is drawn large; the slices of a stack follow below,
    from base to apex where that is known, each with its own lines. Lines of a stack are thin but
    for its middle slice's.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colors = view_colors(study)
    others = other_views(study, view)
    stack = len(view.planes) > 1
    order = _reading_order(view) if stack else []
    grid_rows = -(-len(order) // _GRID_COLUMNS)
    plane, middle_image = as_read(view.middle_plane, images[view.name][view.middle])
    aspect = plane.shape[0] * plane.spacing[1] / (plane.shape[1] * plane.spacing[0])
    width, legend = 6.4, 0.2 + 0.2 * len(others)
    large = width * aspect
    small = (width - 0.06 * (_GRID_COLUMNS - 1)) / _GRID_COLUMNS
    height = 0.55 + large + legend + grid_rows * (small * aspect + 0.06)
    figure = Figure(figsize=(width + 0.3, height), facecolor="black")
    FigureCanvasAgg(figure)
    total_w, total_h = width + 0.3, height

    def axes_at(x: float, y: float, w: float) -> Any:
        """Axes at inches from the left and top."""
        bottom = (total_h - y - w * aspect) / total_h
        return figure.add_axes((x / total_w, bottom, w / total_w, w * aspect / total_h))

    title = f"{view.name}  ({view.kind})" if view.kind != view.name else view.name
    figure.text(0.15 / total_w, 1 - 0.14 / total_h, title, color=colors[view.name], fontsize=11,
                va="top", weight="bold")  # fmt: skip
    about = f"{plane.shape[1]} x {plane.shape[0]} pixels of {plane.spacing[0]:.2f} x "
    about += f"{plane.spacing[1]:.2f} mm"
    if stack:
        about += f"; slice {view.middle + 1} of {len(view.planes)}"
    figure.text(1 - 0.15 / total_w, 1 - 0.16 / total_h, about, color=DIM, fontsize=7,
                va="top", ha="right")  # fmt: skip
    main = axes_at(0.15, 0.45, width)
    window = grey_window(images[view.name])
    _draw_image(main, plane, middle_image, window)
    reasons = _draw_lines(main, plane, others, colors, large=True)
    _draw_letters(main, plane)
    _draw_scale(main, plane)
    y = 0.45 + large + 0.12
    for other in others:
        text = f"\u2014 {other.name}"
        if other.name in reasons:
            text = f"   {other.name}: no line, {reasons[other.name]}"
        figure.text(0.15 / total_w, 1 - y / total_h, text, fontsize=7, va="top",
                    color=DIM if other.name in reasons else colors[other.name])  # fmt: skip
        y += 0.2
    y += 0.1
    for number, index in enumerate(order):
        column, row = number % _GRID_COLUMNS, number // _GRID_COLUMNS
        axes = axes_at(0.15 + column * (small + 0.06), y + row * (small * aspect + 0.06), small)
        part, image = as_read(view.planes[index], images[view.name][index])
        _draw_image(axes, part, image, window)
        _draw_lines(axes, part, others, colors, large=False)
        _draw_slice_label(axes, view, index)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="black", format="png")


def _same_place(a: ImagePlane, b: ImagePlane) -> bool:
    return a.shape == b.shape and bool(np.abs(a.corners - b.corners).max() < 0.1)


def other_views(study: Study, view: View | None) -> list[View]:
    """The other views, one for each place: phases of one view cut along the same line.

    Of several in one place it is the one whose name ends as the view's does (``..._ed``).
    """
    found: list[View] = []
    for other in study.views:
        if other is view or (view and _same_place(other.middle_plane, view.middle_plane)):
            continue
        for n, there in enumerate(found):
            if _same_place(other.middle_plane, there.middle_plane):
                if view and _common_end(other, view) > _common_end(there, view):
                    found[n] = other
                break
        else:
            found.append(other)
    return found


def _common_end(a: View, b: View) -> int:
    return len(os.path.commonprefix([a.name[::-1], b.name[::-1]]))


def _reading_order(view: View) -> list[int]:
    locations = view.locations()
    if locations is None or view.kind != "short-axis":
        return list(range(len(view.planes)))
    return [int(index) for index in np.argsort(locations, kind="stable")]


def grey_window(images: Sequence[Float32Array | None]) -> tuple[float, float]:
    """Black and white of a view's images: percentiles of all of them."""
    there = [image.ravel()[::7] for image in images if image is not None]
    if not there:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(np.concatenate(there), (1, 99.3)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _draw_image(
    axes: Any, plane: ImagePlane, image: Float32Array | None, window: tuple[float, float]
) -> None:
    pixel_aspect = plane.spacing[1] / plane.spacing[0]
    if image is None:
        # Not as many zeros as the header claims pixels: that may be a lie, too.
        axes.text(0.5, 0.5, "pixels damaged", color=DIM, ha="center", transform=axes.transAxes)
        axes.set_aspect(pixel_aspect)
    else:
        axes.imshow(
            image, cmap="gray", vmin=window[0], vmax=window[1], aspect=pixel_aspect,
            interpolation="bilinear",
        )  # fmt: skip
    axes.set_xlim(-0.5, plane.shape[1] - 0.5)
    axes.set_ylim(plane.shape[0] - 0.5, -0.5)
    axes.set_axis_off()


def _draw_lines(
    axes: Any, plane: ImagePlane, others: Sequence[View], colors: Mapping[str, str], *, large: bool
) -> dict[str, str]:
    """Draw the others' lines; returns why some are not there."""
    reasons = {}
    for other in others:
        for index, cut in enumerate(other.planes):
            line = intersecting_line(plane, cut)
            middle = index == other.middle
            if isinstance(line, NoLine):
                if middle:
                    reasons[other.name] = line.reason
                continue
            if not (middle or large):
                continue
            (x0, y0), (x1, y1) = line.endpoints_px
            width = (1.5 if large else 0.8) if middle else 0.5
            axes.plot(
                [x0, x1], [y0, y1], color=colors[other.name], linewidth=width,
                alpha=0.95 if middle else 0.45, solid_capstyle="butt",
            )  # fmt: skip
            if middle and large:
                _label_line(axes, plane, line, other.name, colors[other.name])
    return reasons


def _label_line(
    axes: Any, plane: ImagePlane, line: IntersectingLine, name: str, color: str
) -> None:
    """The name along the line, near its upper end, inside the picture."""
    ends = line.endpoints_px[np.argsort(line.endpoints_px[:, 1], kind="stable")]
    place = ends[0] + 0.12 * (ends[1] - ends[0])
    step = (ends[1] - ends[0]) * np.array(plane.spacing)
    angle = float(np.degrees(np.arctan2(-step[1], step[0])))
    angle = (angle + 90) % 180 - 90
    axes.text(
        *place, name, color=color, fontsize=8, rotation=angle, rotation_mode="anchor",
        ha="center", va="bottom", path_effects=dark_rim(),
    )  # fmt: skip


def _letters(direction: FloatArray) -> str:
    """Where a direction (LPS) leads: the patient's sides, the main one first."""
    sides = []
    for axis in np.argsort(-np.abs(direction), kind="stable"):
        if abs(direction[axis]) > 0.35:
            sides.append("LPH"[axis] if direction[axis] > 0 else "RAF"[axis])
    return "".join(sides[:2])


def _draw_letters(axes: Any, plane: ImagePlane) -> None:
    across, down = plane.column_step / plane.spacing[0], plane.row_step / plane.spacing[1]
    for x, y, ha, va, direction in (
        (0.015, 0.5, "left", "center", -across),
        (0.985, 0.5, "right", "center", across),
        (0.5, 0.985, "center", "top", -down),
        (0.5, 0.015, "center", "bottom", down),
    ):
        axes.text(
            x, y, _letters(direction), color=INK, fontsize=9, ha=ha, va=va,
            transform=axes.transAxes, path_effects=dark_rim(),
        )  # fmt: skip


def _draw_scale(axes: Any, plane: ImagePlane) -> None:
    length = 50.0 if plane.shape[1] * plane.spacing[0] > 150 else 10.0
    x, y = 0.03 * plane.shape[1], 0.965 * plane.shape[0]
    axes.plot(
        [x, x + length / plane.spacing[0]], [y, y], color=INK, linewidth=2, solid_capstyle="butt"
    )
    axes.text(
        x, y - 0.012 * plane.shape[0], f"{length:g} mm", color=INK, fontsize=7, va="bottom",
        path_effects=dark_rim(),
    )  # fmt: skip


def _draw_slice_label(axes: Any, view: View, index: int) -> None:
    locations = view.locations()
    text = f"{index + 1}"
    if locations is not None:
        text += f"  \u2113 {locations[index]:.2f}"
    axes.text(
        0.03, 0.97, text, color=INK, fontsize=6, va="top", transform=axes.transAxes,
        path_effects=dark_rim(),
    )  # fmt: skip


def dark_rim() -> list[Any]:
    """A path effect that makes letters legible on any grey."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="black")]
