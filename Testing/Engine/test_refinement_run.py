"""Refinement through the door: settings, record and repetition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.document import RunJob, parse_job
from TomoSegLib.jobs.result import read_result
from TomoSegLib.jobs.settings import complete, refinement_settings
from TomoSegLib.models.card import ModelCard, RefinementSettings
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.models.store import find_model


def job(**changes: Any) -> RunJob:
    document = {"kind": "run", "input": "a.nii", "model": "tiny-blob", "output": "out"}
    parsed = parse_job({**document, **changes})
    assert isinstance(parsed, RunJob)
    return parsed


def completed(model: ModelFolder, **changes: Any) -> RunJob:
    return complete(job(**changes), model, lambda *_: None)


def with_refinement(**settings: Any) -> ModelFolder:
    from dataclasses import replace

    model = find_model("tiny-blob")
    refinement = RefinementSettings(**settings)
    return replace(model, card=model.card.model_copy(update={"refinement": refinement}))


def test_nothing_is_refined_where_the_card_does_not_say_so() -> None:
    done = completed(find_model("tiny-blob"))
    assert done.refine == "none"
    assert refinement_settings(done, find_model("tiny-blob").card) is None


def test_the_cards_refinement_is_for_its_own_method() -> None:
    model = with_refinement(method="threshold", level=0.3)
    assert completed(model).refine == "threshold"
    assert completed(model, method="cam").refine == "none"
    assert completed(model, refine="none").refine == "none"


def test_another_method_of_refinement_gets_the_cards_parameters() -> None:
    model = with_refinement(method="threshold", level=0.3)
    done = completed(model, method="cam", refine="random-walker")
    settings = refinement_settings(done, model.card)
    assert settings == RefinementSettings(method="random-walker", level=0.3)


def test_unknown_refinements_and_misspelt_parameters_are_refused() -> None:
    with pytest.raises(TomoSegError) as caught:
        job(refine="magic")
    assert caught.value.code == "job-invalid"
    fields = find_model("tiny-blob").card.model_dump(mode="json")
    for block in ({"levle": 0.4}, {"level": 0}, {"method": "magic"}, {"boundary_mm": -1}):
        with pytest.raises(ValidationError):
            ModelCard.model_validate({**fields, "refinement": block})


def test_a_refined_run_is_recorded_and_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    geometry = Geometry.from_parts((18, 20, 22), (2.0, 2.2, 2.5), origin=(-20, 10, 5))
    noise = np.random.default_rng(7).normal(0, 5, geometry.shape)
    k, j, i = np.indices(geometry.shape)
    points = geometry.index_to_lps(np.stack([i, j, k], axis=-1)) - geometry.center
    array = np.where(np.linalg.norm(points, axis=-1) < 18, 100 + noise, 0)
    blob = np.linalg.norm(points - [4, -3, 2], axis=-1) < 7
    array[blob] += 100
    write_volume(Volume(array.astype(np.int16), geometry, "scan"), tmp_path / "scan.nii.gz")
    arguments = ["run", str(tmp_path / "scan.nii.gz"), "-m", "tiny-blob", "--threads", "1"]
    arguments += ["--directions", "icosahedral:1"]
    dice = {}
    for refine in ("none", "random-walker"):
        output = tmp_path / refine
        assert main([*arguments, "--refine", refine, "-o", str(output)]) == 0
        mask = read_volume(output / "mask.nii.gz").array > 0
        dice[refine] = 2 * np.count_nonzero(mask & blob) / (mask.sum() + blob.sum())
    assert dice["random-walker"] > max(0.95, dice["none"] + 0.05)
    result = read_result(tmp_path / "random-walker")
    assert result.refinement == RefinementSettings()
    assert result.mask.voxels == np.count_nonzero(mask)
    capsys.readouterr()
    assert main([*arguments, "--refine", "magic", "-o", str(tmp_path / "magic")]) == 2
    told = capsys.readouterr().err
    assert all(
        name in told for name in ("none", "threshold", "random-walker", "geodesic", "graph-cut")
    )
    assert read_result(tmp_path / "none").refinement is None
    capsys.readouterr()
    again = ["rerun", str(tmp_path / "random-walker"), "-o", str(tmp_path / "again")]
    assert main(again) == 0
    assert "identical" in capsys.readouterr().out
