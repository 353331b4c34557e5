"""The evaluation's figure: how each method does over the cases, and what that looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.evaluation.metrics import Estimate
from TomoSegLib.evaluation.summary import CaseResult

Image = npt.NDArray[np.float32]

METHOD_NAMES: Mapping[str, str] = {
    "intensity": "Intensity threshold",
    "cam": "CAM, one orientation",
    "averaged-cam": "Averaged CAM",
    "tomographic-cam": "Tomographic CAM",
    "tonno": "ToNNO",
}
_COLORS: Mapping[str, str] = {
    "intensity": "0.55",
    "cam": "tab:orange",
    "averaged-cam": "tab:green",
    "tomographic-cam": "tab:blue",
    "tonno": "tab:purple",
}


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """The axial slice of a case that shows the most of the reference, for the gallery.

    Rows run to posterior and columns to the patient's left, so that the image is in radiological
    convention; pixels are square.

    Attributes:
        case: Name of the case.
        image: ``(H, W)`` first channel.
        reference: ``(H, W)`` in [0, 1].
        heatmaps: ``(H, W)`` of each method.
        masks: ``(H, W)`` in [0, 1], of each method.
    """

    case: str
    image: Image
    reference: Image
    heatmaps: Mapping[str, Image]
    masks: Mapping[str, Image]


def method_name(method: str) -> str:
    """What a method is called in figures."""
    base, _, more = method.partition("+")
    name = METHOD_NAMES.get(base, base)
    return f"{name}, {more}" if more else name


def draw_evaluation(
    results: Sequence[CaseResult],
    summary: Mapping[str, Mapping[str, Estimate]],
    thumbnails: Sequence[Thumbnail],
    path: Path,
    *,
    title: str,
    footer: str,
) -> None:
    """Write ``evaluation.png``: distributions above, a gallery of cases below.

    Args:
        results: All rows.
        summary: As from `summarize`.
        thumbnails: Cases for the gallery, one line each; may be empty.
        path: The PNG.
        title: What was evaluated.
        footer: What a reader must know, such as that data are simulated.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = [m for m in METHOD_NAMES if m in summary] + [
        m for m in summary if m not in METHOD_NAMES
    ]
    columns = len(methods) + 1
    tile = 1.9
    top, line = 3.4, tile + 0.1
    height = top + line * len(thumbnails) + 0.9
    figure = Figure(figsize=(max(9.0, tile * columns + 0.6), height), dpi=130)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    figure.text(0.01, 0.05 / height, footer, fontsize=7, color="0.35", va="bottom")
    upper = figure.add_gridspec(
        1, 2, left=0.07, right=0.99, top=1 - 0.6 / height, bottom=1 - (top - 0.2) / height
    )
    for place, (name, label) in enumerate(
        (("dice", "Dice at the method's threshold"), ("average_precision", "Average precision"))
    ):
        _distribution(figure.add_subplot(upper[0, place]), results, summary, methods, name, label)
    if thumbnails:
        lower = figure.add_gridspec(
            len(thumbnails),
            columns,
            left=0.01,
            right=0.99,
            top=1 - (top + 0.35) / height,
            bottom=0.3 / height,
            hspace=0.05,
            wspace=0.03,
        )
        for row, thumbnail in enumerate(thumbnails):
            _gallery_line(figure, lower, row, thumbnail, methods, results)
    figure.savefig(path, format="png")


def _distribution(
    axes: Any,
    results: Sequence[CaseResult],
    summary: Mapping[str, Mapping[str, Estimate]],
    methods: Sequence[str],
    name: str,
    label: str,
) -> None:
    """One dot a case, and the mean with its interval beside them."""
    for place, method in enumerate(methods):
        values = np.array(
            [
                value
                for row in results
                if row.method == method and not math.isnan(value := getattr(row, name))
            ]
        )
        color = _COLORS.get(method, "tab:red")
        jitter = np.random.default_rng(0).uniform(-0.18, 0.18, values.size)
        axes.scatter(place + jitter, values, s=9, color=color, alpha=0.45, linewidths=0)
        estimate = summary[method][name]
        if math.isnan(estimate.value):
            continue
        axes.plot([place - 0.28, place + 0.28], [estimate.value] * 2, color="black", lw=1.8)
        if not math.isnan(estimate.lower):
            axes.plot([place + 0.28] * 2, [estimate.lower, estimate.upper], color="black", lw=1.2)
        axes.annotate(
            f"{estimate.value:.2f}",
            (place + 0.32, estimate.value),
            fontsize=8,
            va="center",
            annotation_clip=False,
        )
    axes.set_xticks(range(len(methods)), [method_name(m).replace(", ", ",\n") for m in methods])
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(-0.5, len(methods) - 0.2)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title(label, fontsize=9)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _gallery_line(
    figure: Any,
    grid: Any,
    row: int,
    thumbnail: Thumbnail,
    methods: Sequence[str],
    results: Sequence[CaseResult],
) -> None:
    low, high = np.percentile(thumbnail.image, (1, 99.7))
    for column, method in enumerate([None, *methods]):
        axes = figure.add_subplot(grid[row, column])
        axes.imshow(thumbnail.image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        axes.set_axis_off()
        if method is not None and method in thumbnail.heatmaps:
            heatmap = thumbnail.heatmaps[method]
            peak = float(heatmap.max())
            if peak > 0:
                share = np.clip(heatmap / peak, 0, 1)
                axes.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * share)
            mask = thumbnail.masks[method]
            if mask.max() >= 0.5:
                axes.contour(mask, [0.5], colors="cyan", linewidths=0.9)
            dice = [r.dice for r in results if r.case == thumbnail.case and r.method == method]
            if dice and not math.isnan(dice[0]):
                _write(axes, f"Dice {dice[0]:.2f}", 0.97, "right")
        if thumbnail.reference.max() >= 0.5:
            axes.contour(thumbnail.reference, [0.5], colors="lime", linewidths=0.9)
        if column == 0:
            _write(axes, thumbnail.case[-34:], 0.03, "left")
        if row == 0:
            name = "Reference (green), mask (cyan)" if method is None else method_name(method)
            axes.set_title(name, fontsize=7)


def _write(axes: Any, text: str, x: float, align: str) -> None:
    axes.text(
        x, 0.03, text, transform=axes.transAxes, fontsize=6, color="white", ha=align, va="bottom"
    )
