"""The parameters of refinement, and whether to refine at all, chosen on validation data.

One parameter after the other takes the value with the best mean Dice; a value that is hardly
better than the one before is not worth leaving it. The others were found not to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.evaluation.metrics import overlap
from TomoSegLib.evaluation.prepared import PreparedCase
from TomoSegLib.heatmaps.mask import find_threshold
from TomoSegLib.heatmaps.pipeline import compute_heatmap
from TomoSegLib.models.card import ModelCard, RefinementSettings
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.refinement.refine import refined_mask

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

CANDIDATES: dict[str, tuple[float, ...]] = {
    "level": (0.3, 0.35, 0.4, 0.45, 0.5),
    "doubt": (0.5, 1.0, 2.0),
    "boundary_mm": (0.5, 1.0, 2.0),
    "closing_mm": (4.0, 8.0, 12.0),
}
GAIN = 0.002
"""Less Dice than this is chance."""


@dataclass(frozen=True, eq=False)
class Example:
    """A case whose heatmap has been computed; arrays are ``(k, j, i)`` on its own grid."""

    case: PreparedCase
    heatmap: Float32Array
    agreement: Float32Array
    threshold: float

    def dice(self, card: ModelCard, settings: RefinementSettings | None) -> float:
        """Of the refined mask with the reference; without settings, of the threshold's."""
        case = self.case
        foreground = case.model_input.source_foreground
        assert case.reference is not None
        if settings is None:
            mask = (self.heatmap > self.threshold) & foreground
        else:
            mask = refined_mask(
                case.image.array,
                self.heatmap,
                self.agreement,
                case.model_input.source,
                settings,
                card.mask,
                threshold=self.threshold,
                foreground=foreground,
            ).astype(bool)
        return overlap(mask, case.reference, foreground | case.reference).f1


def choose_refinement(
    cases: Sequence[PreparedCase],
    encoder: LoadedEncoder,
    card: ModelCard,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[RefinementSettings | None, dict[str, Any]]:
    """Choose a model's refinement on validation cases with masks.

    Args:
        cases: Positive cases with their masks.
        encoder: The trained encoder.
        card: Its card, with the calibrated threshold of its own method.
        on_progress: Receives cases whose heatmap is done, and in all.

    Returns:
        The settings, or None where masks are no better for them (lesions that are bright at their
        rim and dark inside have no intensity of their own); and for the record the mean Dice
        ``with`` and ``without`` them and of every candidate that was ``tried``.
    """
    examples = []
    for number, case in enumerate(cases, 1):
        examples.append(example_of(case, encoder, card))
        on_progress(number, len(cases))
    best = card.refinement or RefinementSettings()

    def mean_dice(settings: RefinementSettings | None) -> float:
        return float(np.mean([example.dice(card, settings) for example in examples]))

    before, dice = mean_dice(None), mean_dice(best)
    tried = [{**best.model_dump(mode="json"), "dice": round(dice, 4)}]
    for name, values in CANDIDATES.items():
        for value in values:
            if value == getattr(best, name):
                continue
            settings = best.model_copy(update={name: value})
            found = mean_dice(settings)
            tried.append({name: value, "dice": round(found, 4)})
            if found > dice + GAIN:
                best, dice = settings, found
    helps = dice > before + GAIN
    return best if helps else None, {
        "with": round(dice, 4),
        "without": round(before, 4),
        "tried": tried,
    }


def example_of(case: PreparedCase, encoder: LoadedEncoder, card: ModelCard) -> Example:
    """A case with the heatmap and the threshold of the card's own method."""
    settings = card.settings(card.method)
    found = compute_heatmap(case.model_input, encoder, card, card.method, settings)
    threshold = find_threshold(
        found.heatmap,
        case.model_input.source_foreground,
        "otsu" if settings.threshold is None else settings.threshold,
        case.model_input.source.voxel_volume_ml,
    )
    return Example(case, found.heatmap, found.agreement, threshold)
