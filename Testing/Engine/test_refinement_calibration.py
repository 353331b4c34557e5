"""The parameters of refinement are chosen on validation data, and end on the card."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import RefinementSettings
from TomoSegLib.models.store import find_model
from TomoSegLib.refinement import calibration

GEOMETRY = Geometry.from_parts((20, 24, 24), (2, 2, 2))


def example(seed: int, border: float) -> calibration.Example:
    """A lesion whose rim is fainter than its middle: it ends where the rim does."""
    k, j, i = np.indices(GEOMETRY.shape)
    distance = np.sqrt((k - 10) ** 2 + (j - 12) ** 2 + (i - 12) ** 2)
    image = np.where(distance < 4, 4.0, np.where(distance < 7, 4.0 * border, 0.0))
    image += np.random.default_rng(seed).normal(0, 0.2, image.shape)
    heatmap = np.exp(-((distance / 6) ** 2)).astype(np.float32)
    case = SimpleNamespace(
        image=Volume(image.astype(np.float32), GEOMETRY),
        reference=distance < 7,
        model_input=SimpleNamespace(
            source=GEOMETRY, source_foreground=np.ones(GEOMETRY.shape, bool)
        ),
    )
    return calibration.Example(case, heatmap, np.clip(heatmap, 0, 1), 0.6)


def test_the_level_follows_how_faint_the_lesions_rims_are(monkeypatch: pytest.MonkeyPatch) -> None:
    card = find_model("tiny-blob").card
    examples = iter(example(seed, 0.42) for seed in range(3))
    monkeypatch.setattr(calibration, "example_of", lambda *_: next(examples))
    start = RefinementSettings(method="threshold", level=0.5, heat_weight=0.0)
    card = card.model_copy(update={"refinement": start})
    chosen, record = calibration.choose_refinement([None] * 3, None, card)  # type: ignore
    assert chosen is not None and chosen.level < 0.42
    assert chosen.method == "threshold"
    assert record["with"] > 0.95
    assert record["with"] > record["tried"][0]["dice"] + 0.1
    assert record["tried"][0]["level"] == 0.5


def test_a_gain_by_chance_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    card = find_model("tiny-blob").card
    examples = iter(example(seed, 1.0) for seed in range(2))
    monkeypatch.setattr(calibration, "example_of", lambda *_: next(examples))
    chosen, record = calibration.choose_refinement([None] * 2, None, card)  # type: ignore
    assert chosen == RefinementSettings()
    assert record["with"] > record["without"]


def test_what_makes_masks_worse_does_not_come_to_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = find_model("tiny-blob").card
    misleading = [example(seed, 1.0) for seed in range(2)]
    for one in misleading:  # the lesion's inside looks like what is around it, and its rim is thin
        k, j, i = np.indices(GEOMETRY.shape)
        distance = np.sqrt((k - 10) ** 2 + (j - 12) ** 2 + (i - 12) ** 2)
        one.case.image.array[distance < 6] = 0
        one.heatmap[...] = np.exp(-((distance / 10) ** 2))
    examples = iter(misleading)
    monkeypatch.setattr(calibration, "example_of", lambda *_: next(examples))
    chosen, record = calibration.choose_refinement([None] * 2, None, card)  # type: ignore
    assert chosen is None
    assert record["with"] <= record["without"]
