"""What models are for, and which command uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import ModelCard

Task = Literal["heatmap", "segmentation", "classification"]

TASK_NAMES: dict[Task, str] = {
    "heatmap": "heatmaps",
    "segmentation": "segmentation",
    "classification": "classification",
}
"""As messages call them."""


def wrong_task(card: ModelCard, *wanted: Task) -> TomoSegError:
    """The error ``model-task`` for a model that is for something else than is wanted."""
    command = "classify" if card.task == "classification" else "run"
    others = " or ".join(TASK_NAMES[task] for task in wanted)
    return TomoSegError(
        "model-task",
        f"The model {card.name} is for {TASK_NAMES[card.task]}, not for {others}.",
        f"Use it with 'tomoseg {command}', or choose another: 'tomoseg models list' shows all.",
    )


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Names of the columns of a table with the probability of each class."""
    return [f"probability {name}" for name in classes]
