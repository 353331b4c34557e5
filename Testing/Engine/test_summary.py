"""From heatmaps to a table: what is judged, averaged, pooled and compared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from TomoSegLib.evaluation.summary import (
    CaseResult,
    differences,
    estimates_as_dict,
    judge,
    summarize,
)
from TomoSegLib.imaging.volume import Geometry

GRID = Geometry.from_parts((10, 12, 14), (2.0, 2.0, 2.5))


def row(case: str, method: str, dice: float, score: float = 1.0, label: int = 1) -> CaseResult:
    return CaseResult(
        case, label, method, score, 0.5, dice=dice, average_precision=dice, oracle_dice=dice
    )


def test_a_perfect_mask_gets_full_marks() -> None:
    reference = np.zeros(GRID.shape, dtype=bool)
    reference[3:6, 3:6, 3:6] = True
    result = judge(
        case="a",
        label=1,
        method="tonno",
        heatmap=reference.astype(np.float32),
        mask=reference,
        threshold=0.5,
        foreground=np.ones_like(reference),
        reference=reference,
        geometry=GRID,
    )
    assert (result.dice, result.average_precision, result.pointing_game) == (1, 1, 1)
    assert (result.hd95_mm, result.balanced_accuracy, result.score) == (0, 1, 1)
    assert result.reference_ml == result.mask_ml == pytest.approx(27 * 0.01)


def test_a_lesion_outside_the_foreground_counts_as_missed() -> None:
    reference = np.zeros(GRID.shape, dtype=bool)
    reference[3:5, 3:5, 3:5] = True
    foreground = np.ones_like(reference)
    foreground[3] = False
    heatmap = reference.astype(np.float32) + 1
    result = judge(
        case="a",
        label=1,
        method="tonno",
        heatmap=heatmap,
        mask=(heatmap > 1.5) & foreground,
        threshold=1.5,
        foreground=foreground,
        reference=reference,
        geometry=GRID,
    )
    assert result.sensitivity == pytest.approx(0.5)
    assert result.dice == pytest.approx(2 * 4 / (4 + 8))
    assert result.average_precision < 0.6


def test_negative_and_undrawn_cases_have_a_score_and_no_dice() -> None:
    heatmap = np.linspace(0, 1, 10 * 12 * 14, dtype=np.float32).reshape(GRID.shape)
    everywhere = np.ones(GRID.shape, dtype=bool)
    for reference in (np.zeros_like(everywhere), None):
        result = judge(
            case="n",
            label=0,
            method="tonno",
            heatmap=heatmap,
            mask=heatmap > 0.5,
            threshold=0.5,
            foreground=everywhere,
            reference=reference,
            geometry=GRID,
        )
        assert math.isnan(result.dice) and math.isnan(result.hd95_mm)
        assert result.score == pytest.approx(1)
        assert (result.counts is None) == (reference is None)
        if reference is not None:
            assert result.specificity == pytest.approx(0.5, abs=0.01)


def test_rows_survive_json() -> None:
    result = row("ö", "cam", 0.25)
    assert str(CaseResult.from_dict(json.loads(json.dumps(result.as_dict())))) == str(result)


def test_summary_averages_positives_and_ranks_all() -> None:
    rows = [
        row("a", "tonno", 0.2, score=3.0),
        row("b", "tonno", 0.6, score=2.0),
        row("c", "tonno", float("nan"), score=1.0, label=0),
        row("d", "tonno", float("nan"), score=2.5, label=0),
    ]
    figures = summarize(rows)["tonno"]
    assert (figures["dice"].value, figures["dice"].cases) == (pytest.approx(0.4), 2)
    assert (figures["volume_auc"].value, figures["volume_auc"].cases) == (0.75, 4)
    json.dumps(estimates_as_dict({"tonno": figures}), allow_nan=False)


def test_pooled_f1_counts_false_positives_of_negatives() -> None:
    rows = [
        CaseResult(
            "a", 1, "m", 1, 0.5, true_positive=30, false_positive=10, false_negative=20,
            true_negative=940,
        ),
        CaseResult(
            "b", 0, "m", 1, 0.5, true_positive=0, false_positive=30, false_negative=0,
            true_negative=970,
        ),
        CaseResult("c", 1, "m", 1, 0.5),
    ]  # fmt: skip
    figure = summarize(rows)["m"]["f1_pooled"]
    assert (figure.value, figure.cases) == (pytest.approx(60 / 120), 2)


def test_paired_differences_are_sharper_than_the_means() -> None:
    generator = np.random.default_rng(0)
    hard = generator.uniform(0.1, 0.8, 30)
    rows = [row(f"{n}", "cam", d) for n, d in enumerate(hard)]
    rows += [row(f"{n}", "tonno", d + 0.1 + generator.normal(0, 0.02)) for n, d in enumerate(hard)]
    rows += [row("only here", "tonno", 0.0)]
    means = summarize(rows)
    assert means["cam"]["dice"].upper > means["tonno"]["dice"].lower
    difference = differences(rows, "cam")["tonno"]["dice"]
    assert difference.cases == 30
    assert 0.08 < difference.lower < difference.value < difference.upper < 0.12
