"""Filter order, cutoff and threshold of each method, chosen on validation data.

How a logit grows with the area of a finding decides which order of the inversion's filter suits
it, and only data can tell: every candidate is run on validation volumes with masks, and the one
whose masks overlap best at one common threshold is kept. All of it happens on the model's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from TomoSegLib.evaluation.prepared import PreparedCase
from TomoSegLib.heatmaps.mask import plateau
from TomoSegLib.heatmaps.pipeline import compute_heatmap
from TomoSegLib.heatmaps.tonno import filtered
from TomoSegLib.models.card import Method, MethodSettings, ModelCard, Threshold
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.tomography.reconstruction import Backprojector

Float32Array = npt.NDArray[np.float32]

ORDERS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
CUTOFFS = (0.3, 0.6, 1.0)
TOMOGRAPHIC = ((0.25, 1.0), (0.5, 0.6), (1.0, 0.6))
"""Candidates for Tomographic CAM, for each of which all slices are encoded again."""

LEVELS = 200
"""Number of thresholds tried between the lowest and the highest that make sense."""

PLATEAU_GAIN = 0.02
"""A threshold relative to the heatmap's own plateau finds something in every volume, in healthy
ones too: it is chosen only if it beats the best absolute one by so much Dice."""


@dataclass(frozen=True)
class Calibrated:
    """What was chosen for a method, and how well it did.

    Attributes:
        settings: For the card.
        dice: Mean Dice of the positive validation volumes at the threshold.
        tried: Mean Dice of every candidate, for the record.
    """

    settings: MethodSettings
    dice: float
    tried: list[dict[str, Any]]


def calibrate(
    cases: Sequence[PreparedCase],
    encoder: LoadedEncoder,
    card: ModelCard,
    method: Method,
    directions: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Choose a method's settings on validation cases.

    Args:
        cases: Positive cases with their masks.
        encoder: The trained encoder.
        card: Its card; its settings of the method give window and rectification.
        method: The method.
        directions: Direction set for the choice and for the card.
        on_progress: Receives cases done and in all.

    Returns:
        The settings with the highest mean Dice.
    """
    base = card.settings(method).model_copy(update={"directions": directions})
    found: dict[tuple[float, float], list[tuple[Float32Array, npt.NDArray[np.bool_]]]] = {}
    for number, case in enumerate(cases):
        reference = case.reference_on_model_grid()
        assert reference is not None
        inside = case.model_input.foreground
        for settings, heatmap in _candidates(case, encoder, card, method, base):
            key = (settings.filter_order, settings.cutoff)
            found.setdefault(key, []).append((heatmap[inside], reference[inside]))
        if on_progress is not None:
            on_progress(number + 1, len(cases))
    tried: list[dict[str, Any]] = []
    best: tuple[float, MethodSettings] | None = None
    for (order, cutoff), values in found.items():
        threshold, dice = choose_threshold(values, card.preprocessing.spacing_mm**3 / 1000)
        tried.append({"filter_order": order, "cutoff": cutoff, "dice": round(dice, 4)})
        if best is None or dice > best[0]:
            update = {"filter_order": order, "cutoff": cutoff, "threshold": threshold}
            best = dice, base.model_copy(update=update)
    assert best is not None
    return Calibrated(best[1], best[0], tried)


def choose_threshold(
    cases: Sequence[tuple[Float32Array, npt.NDArray[np.bool_]]], voxel_ml: float
) -> tuple[Threshold, float]:
    """The threshold with the highest mean Dice over cases, absolute or relative to the plateau.

    Args:
        cases: Heatmap values ``(N,)`` of each case's foreground, with the reference ``(N,)``.
        voxel_ml: Size of a voxel.

    Returns:
        The threshold and the mean Dice.
    """
    curves = [_DiceCurve(values, reference) for values, reference in cases]
    peaks = np.array([curve.peak for curve in curves])
    top = float(np.percentile(peaks, 90))
    fractions = np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]
    absolute = np.mean([curve.at(fractions * top) for curve in curves], axis=0)
    plateaus = [plateau(values, voxel_ml) for values, _ in cases]
    plateaus = [level if level > 0 else np.inf for level in plateaus]  # nothing is found there
    relative = np.mean(
        [c.at(fractions * level) for c, level in zip(curves, plateaus, strict=True)], axis=0
    )
    if relative.max() > absolute.max() + PLATEAU_GAIN:
        value = float(fractions[relative.argmax()])
        return Threshold(kind="plateau", value=round(value, 4)), float(relative.max())
    value = float(fractions[absolute.argmax()] * top)
    return Threshold(kind="absolute", value=float(f"{value:.4g}")), float(absolute.max())


class _DiceCurve:
    """The Dice of a heatmap's mask as a function of the threshold."""

    def __init__(self, values: Float32Array, reference: npt.NDArray[np.bool_]) -> None:
        order = np.argsort(values)
        self._values = values[order]
        inside = np.concatenate([[0], np.cumsum(reference[order])])
        self._above = inside[-1] - inside  # reference voxels from the n-th lowest value on
        self._total = int(inside[-1])
        self.peak = float(self._values[-1])

    def at(self, thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Dice of the voxels strictly above each threshold."""
        first = np.searchsorted(self._values, thresholds, side="right")
        size = len(self._values) - first
        dice: npt.NDArray[np.float64] = 2 * self._above[first] / np.maximum(size + self._total, 1)
        return dice


def _candidates(
    case: PreparedCase,
    encoder: LoadedEncoder,
    card: ModelCard,
    method: Method,
    base: MethodSettings,
) -> Iterator[tuple[MethodSettings, Float32Array]]:
    """The case's heatmap on the model's grid with each candidate's settings."""
    if method in ("cam", "averaged-cam"):  # nothing is filtered
        candidates = [base]
    else:
        candidates = [
            base.model_copy(update={"filter_order": order, "cutoff": cutoff})
            for order in ORDERS
            for cutoff in CUTOFFS
            if method == "tonno" or (order, cutoff) in TOMOGRAPHIC
        ]
    grid = case.model_input.geometry
    first = compute_heatmap(case.model_input, encoder, card, method, candidates[0], target=grid)
    yield candidates[0], first.heatmap
    for settings in candidates[1:]:
        if method != "tonno":
            again = compute_heatmap(case.model_input, encoder, card, method, settings, target=grid)
            yield settings, again.heatmap
            continue
        # The responses stay the same: only filter and backprojection are done again. Every stack
        # begins with the response to an empty slice.
        above_empty = torch.from_numpy(first.responses - first.responses[:, :1])
        profiles = filtered(above_empty, settings, card.slices.distance_mm)
        backprojector = Backprojector(grid, first.center, agreement=False)
        directions = first.directions
        for profile, normal, weight in zip(
            profiles, directions.vectors, directions.weights, strict=True
        ):
            backprojector.add(profile, first.offsets, normal, float(weight))
        yield settings, backprojector.heatmap().numpy() * case.model_input.foreground
