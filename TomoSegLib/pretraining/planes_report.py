"""How well planes were learned: error of lines in degrees and mm, of places, and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.volume import FloatArray
from TomoSegLib.networks.unet2d import LocationNetwork
from TomoSegLib.pretraining.planes_data import PlaneDataset, PlaneExample
from TomoSegLib.pretraining.planes_targets import (
    PlaneOptions,
    crop_plane,
    fit_line,
    line_error,
    line_of,
)
from TomoSegLib.studies.study import Float32Array

_LARGEST_AVERAGE = 60
_COLORS = ("#56b4e9", "#e69f00", "#cc79a7", "#00d59a", "#f0e442", "#ff6b4a", "#b8a1ff")


def predict(
    network: LocationNetwork,
    examples: Sequence[PlaneExample],
    options: PlaneOptions,
    *,
    orientation: bool,
    batch_size: int = 8,
) -> tuple[list[Float32Array | None], list[float]]:
    """Heatmaps ``(C, S, S)`` (None without the orientation task) and locations of images."""
    device = next(network.parameters()).device
    data = PlaneDataset(examples, options)
    maps: list[Float32Array | None] = []
    places: list[float] = []
    network.eval()
    with torch.no_grad():
        for start in range(0, len(examples), batch_size):
            indices = range(start, min(start + batch_size, len(examples)))
            images = torch.stack([data[(0, index)]["image"] for index in indices]).to(device)
            if orientation:
                found, located = network(images)
                maps += list(found.float().cpu().numpy())
            else:
                located = network.locate(images)
                maps += [None] * len(indices)
            places += located.float().cpu().tolist()
    return maps, places


def measure(
    maps: Sequence[Float32Array | None],
    places: Sequence[float] | None,
    examples: Sequence[PlaneExample],
    train: Sequence[PlaneExample],
    kinds: Sequence[str],
    options: PlaneOptions,
) -> dict[str, Any]:
    """Errors over images, beside those of a guess that looks at no image.

    The guess for a line is the line of the mean heatmap of the training images of the same kind;
    for a location, the mean of the training images.

    Args:
        maps: As `predict` gives them.
        places: Likewise; None without the location task.
        examples: The images.
        train: The training images; without any there is no guess.
        kinds: Channels of the heatmaps.
        options: See `PlaneOptions`.

    Returns:
        ``lines``: for each "KIND by OTHER" the number, and mean and standard deviation of
        degrees and mm, also of the guess; ``location`` likewise, as a fraction of the stack.
    """
    half = options.side * options.spacing_mm / 2
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    guesses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    prior: dict[tuple[str, int], FloatArray | None] = {}
    for example, heatmaps in zip(examples, maps, strict=True):
        if heatmaps is None:
            continue
        plane = crop_plane(example.plane, options)
        for channel, other in enumerate(example.cutting):
            if other is None:
                continue
            true = line_of(plane, other)
            if not _within(true, half):
                continue
            name = f"{example.kind} by {kinds[channel]}"
            found = fit_line(heatmaps[channel], options.sigma_mm, options.spacing_mm)
            errors[name].append(line_error(found, true, half))
            key = (example.kind, channel)
            if key not in prior:
                prior[key] = _mean_line(train, *key, options)
            guess = prior[key]
            if guess is not None:
                guesses[name].append(line_error(guess, true, half))
    report: dict[str, Any] = {}
    if errors:
        names = sorted(errors)
        report["lines"] = {n: _line_figures(errors[n], guesses[n]) for n in names}
        report["lines"]["all"] = _line_figures(
            [e for n in names for e in errors[n]], [g for n in names for g in guesses[n]]
        )
    located = [n for n, example in enumerate(examples) if example.location is not None]
    known = [e.location for e in train if e.location is not None]
    if places is not None and located:
        truth = np.array([examples[n].location for n in located], dtype=np.float64)
        report["location"] = {
            "images": len(located),
            "error": _spread(np.abs(np.array([places[n] for n in located]) - truth)),
        }
        if known:
            report["location"]["error_of_guess"] = _spread(np.abs(np.mean(known) - truth))
    return report


def draw_predictions(
    maps: Sequence[Float32Array | None],
    places: Sequence[float] | None,
    examples: Sequence[PlaneExample],
    kinds: Sequence[str],
    options: PlaneOptions,
    path: Path,
) -> None:
    """Draw images with the lines predicted (dashed) beside the true ones, and the heatmaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = PlaneDataset(examples, options)
    count = len(examples)
    figure = Figure(figsize=(2.3 * count + 0.2, 5.6), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, count, squeeze=False)
    for n, (example, heatmaps) in enumerate(zip(examples, maps, strict=True)):
        image = data[(0, n)]["image"][0].numpy()
        low, high = np.percentile(image, (1, 99.5))
        for row in range(2):
            axes[row, n].imshow(image, cmap="gray", vmin=low, vmax=high)
            axes[row, n].set_axis_off()
            axes[row, n].set_xlim(-0.5, options.side - 0.5)
            axes[row, n].set_ylim(options.side - 0.5, -0.5)
        plane = crop_plane(example.plane, options)
        title = f"{example.study}\n{example.view}"
        if example.location is not None and places is not None:
            title += f"  location {places[n]:.2f} ({example.location:.2f})"
        axes[0, n].set_title(title, color="#e8e8e8", fontsize=7)
        overlay = np.zeros((*image.shape, 4))
        for channel, other in enumerate(example.cutting):
            if other is None:
                continue
            color = _COLORS[channel % len(_COLORS)]
            _draw_line(axes[0, n], line_of(plane, other), options, color, "-")
            if heatmaps is not None:
                found = fit_line(heatmaps[channel], options.sigma_mm, options.spacing_mm)
                _draw_line(axes[0, n], found, options, color, "--")
                rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
                strength = heatmaps[channel].clip(0, 1)[..., None]
                overlay[..., :3] = np.maximum(overlay[..., :3], strength * rgb)
                overlay[..., 3] = np.maximum(overlay[..., 3], 0.7 * strength[..., 0])
        axes[1, n].imshow(overlay.clip(0, 1))
    title = "true lines solid, predicted dashed; below: predicted heatmaps"
    figure.suptitle(title, color="#e8e8e8", fontsize=8)
    for channel, kind in enumerate(kinds):
        figure.text((channel + 0.5) / len(kinds), 0.004, kind, fontsize=8, ha="center",
                    color=_COLORS[channel % len(_COLORS)])  # fmt: skip
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, facecolor="black", format="png")


def _draw_line(axes: Any, line: FloatArray, options: PlaneOptions, color: str, style: str) -> None:
    half = options.side * options.spacing_mm / 2
    along = np.array([-line[1], line[0]])
    ends = line[2] * line[:2] + np.array([[-2.0], [2.0]]) * half * along
    pixels = ends / options.spacing_mm + (options.side - 1) / 2
    axes.plot(pixels[:, 0], pixels[:, 1], style, color=color, linewidth=1.2)


def _within(line: FloatArray, half: float) -> bool:
    """Whether a line passes through the crop: not all corners lie on one side of it."""
    corners = half * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    sides = corners @ line[:2] - line[2]
    return bool(sides.min() < 0 < sides.max())


def _mean_line(
    train: Sequence[PlaneExample], kind: str, channel: int, options: PlaneOptions
) -> FloatArray | None:
    chosen = [n for n, e in enumerate(train) if e.kind == kind and e.cutting[channel] is not None]
    if not chosen:
        return None
    chosen = chosen[:: -(-len(chosen) // _LARGEST_AVERAGE)]
    data = PlaneDataset(train, options)
    total = np.zeros((options.side, options.side))
    for n in chosen:
        total += data[(0, n)]["heatmaps"][channel].numpy()
    return fit_line(total / total.max(), options.sigma_mm, options.spacing_mm)


def _line_figures(
    errors: Sequence[tuple[float, float]], guesses: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {"lines": len(errors)}
    for prefix, values in (("", errors), ("guess_", guesses)):
        if values:
            degrees, mm = np.array(values).T
            figures[f"{prefix}degrees"], figures[f"{prefix}mm"] = _spread(degrees), _spread(mm)
    return figures


def _spread(values: FloatArray) -> dict[str, float]:
    return {
        "mean": round(float(values.mean()), 4),
        "standard_deviation": round(float(values.std()), 4),
        "median": round(float(np.median(values)), 4),
    }
