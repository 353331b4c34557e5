"""The speed of an encoder is measured before a run, through the same door as the run."""

from __future__ import annotations

from typing import Any

import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.document import EstimateJob, parse_job
from TomoSegLib.jobs.estimate import measure_speed, slice_shape
from TomoSegLib.jobs.events import Event, ProgressEvent, ResultEvent
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.models.card import Slices


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("TomoSegLib.jobs.estimate.MEASURE_S", 0.05)


def measured(**settings: object) -> dict[str, Any]:
    job = parse_job({"kind": "estimate", "model": "tiny-blob", "device": "cpu", **settings})
    assert isinstance(job, EstimateJob)
    return measure_speed(job, Reporter(lambda event: None)).data


def test_the_speed_is_that_of_slices_like_the_scan_s() -> None:
    found = measured(slice_mm=[122.0, 70.0], batch_size=4)
    assert found["slice_shape"] == [64, 36]  # 2 mm pixels, multiples of 4
    assert found["batch_size"] == 4
    assert found["slices"] % 4 == 0 and found["slices"] > 0
    assert 0 < found["seconds_per_slice"] < 1
    assert (found["device"], found["method"], found["memory_mb"]) == ("cpu", "tonno", None)


def test_larger_slices_take_longer() -> None:
    small, large = (measured(slice_mm=[mm, mm], batch_size=2) for mm in (60.0, 1000.0))
    assert small["seconds_per_slice"] < large["seconds_per_slice"]


def test_the_method_counts() -> None:
    assert measured(method="averaged-cam", cam="cam", batch_size=2)["method"] == "averaged-cam"


def test_slices_of_a_fixed_size_do_not_depend_on_the_scan() -> None:
    assert slice_shape((10.0, 900.0), Slices(size=96)) == (96, 96)
    assert slice_shape((10.0, 64.0), Slices(spacing_mm=1.0, multiple=8)) == (16, 64)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"model": "no-such-model"}, "model-unknown"),
        ({"slice_mm": [0.0, 10.0]}, "job-invalid"),
        ({"slice_mm": [10.0, 1e9]}, "job-invalid"),
        ({"device": "toaster"}, "job-invalid"),
        ({"method": "guess"}, "job-invalid"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings: dict[str, object], code: str) -> None:
    with pytest.raises(TomoSegError) as error:
        measured(**settings)
    assert error.value.code == code


def test_it_is_a_job_like_the_others() -> None:
    events: list[Event] = []
    outcome = run_job({"kind": "estimate", "model": "tiny-blob", "device": "cpu"}, events.append)
    assert isinstance(outcome, ResultEvent), outcome
    assert outcome.data["seconds_per_slice"] > 0
    stages = {event.stage for event in events if isinstance(event, ProgressEvent)}
    assert {"load-model", "measure"} <= stages
