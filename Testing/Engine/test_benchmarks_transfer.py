"""What the benches of transfer tell of their rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "Benchmarks"))

import transfer_report


def rows(task: str, *dice: list[float]) -> list[dict[str, Any]]:
    """Cases of each seed."""
    return [
        {"task": task, "seed": seed, "dice": str(value)}
        for seed, values in enumerate(dice)
        for value in values
    ]


def test_a_mean_is_of_the_seeds_means_and_leaves_out_cases_without_a_figure() -> None:
    found = rows("sar", [0.1, 0.3], [0.6, float("nan")])
    assert transfer_report.seed_means(found) == pytest.approx([20.0, 60.0])
    assert transfer_report.spread(found) == "40.00 +- 28.28"


def test_a_gain_is_of_seeds_that_both_have() -> None:
    found = [*rows("sar", [0.5], [0.4], [0.9]), *rows("scratch", [0.3], [0.5])]
    assert transfer_report.gain(found, "sar", "scratch") == "+5.0 (-10.0 to +20.0; 1 of 2 ahead)"
    assert transfer_report.gain(rows("sar", [0.5]), "sar", "scratch") == "-"


def test_what_was_trained_otherwise_ends_a_bench(tmp_path: Path) -> None:
    assert not transfer_report.finished(tmp_path, {"steps": 4, "patch": (1, 2)})
    assert not transfer_report.is_pretrained(tmp_path, {"steps": 4})
    record = {"options": {"steps": 4, "patch": [1, 2]}}
    (tmp_path / "finetuning.json").write_text(json.dumps(record))
    (tmp_path / "pretrained.json").write_text(json.dumps({"steps": 4, "cubes": {"shape": [2, 3]}}))
    assert transfer_report.finished(tmp_path, {"steps": 4, "patch": (1, 2)})
    assert transfer_report.is_pretrained(tmp_path, {"steps": 4, "cubes": {"shape": (2, 3)}})
    with pytest.raises(SystemExit, match="other options"):
        transfer_report.finished(tmp_path, {"steps": 5, "patch": (1, 2)})
    (tmp_path / "pretrained.json").write_text(json.dumps({"steps": 4, "options": {"rate": 1}}))
    assert transfer_report.is_pretrained(tmp_path, {"steps": 4, "rate": 1})
    with pytest.raises(SystemExit, match="rate 1, not 2"):
        transfer_report.is_pretrained(tmp_path, {"steps": 4, "rate": 2})
    (tmp_path / "pretrained.json").write_text(json.dumps({"steps": 4, "cubes": {"shape": [2, 3]}}))
    with pytest.raises(SystemExit, match="steps 4, not 5"):
        transfer_report.is_pretrained(tmp_path, {"steps": 5})
    with pytest.raises(SystemExit, match="cubes"):
        transfer_report.is_pretrained(tmp_path, {"steps": 4, "cubes": {"shape": (2, 4)}})
