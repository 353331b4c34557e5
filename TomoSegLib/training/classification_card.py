"""The model card of a classifier that was fine-tuned here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from TomoSegLib.models.card import Preprocessing


def classifier_card(
    *,
    name: str,
    title: str,
    modality: str,
    channels: Sequence[str],
    classes: Sequence[str],
    preprocessing: Preprocessing,
    network: Mapping[str, Any],
    size: tuple[int, int],
    training_data: Mapping[str, Any],
    license: str,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """The card's fields, without the hash of the weights.

    ``network`` is the class and its arguments, as a card has them.
    """
    return {
        "schema_version": 1,
        "name": name,
        "version": "1.0.0",
        "title": title,
        "description": "A 2D encoder whose features are averaged over the slices of a stack, to "
        f"tell {', '.join(classes)} apart; made by 'tomoseg finetune --task classification'.",
        "task": "classification",
        "modality": modality,
        "channels": [{"name": channel} for channel in channels],
        "labels": [{"name": each, "value": n} for n, each in enumerate(classes, 1)],
        "preprocessing": preprocessing.model_dump(mode="json"),
        "network": {"format": "module", **network, "file": "weights.safetensors"},
        "stack": {"size": list(size)},
        "training_data": dict(training_data),
        "license": license,
        "intended_use": "Research. Not for clinical use.",
        "limitations": [
            "Knows only scans like those that it was fine-tuned on, and no other classes.",
        ],
        "metrics": dict(metrics),
    }
