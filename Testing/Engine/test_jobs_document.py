"""Job documents: what is accepted, and how precisely everything else is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.document import ProbeJob, RunJob, parse_job, parse_job_text, read_job

MINIMAL = {"kind": "run", "input": "scan.nii.gz", "model": "tiny-blob", "output": "out"}


def refusal(document: object) -> TomoSegError:
    with pytest.raises(TomoSegError) as caught:
        parse_job(document)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_settings_that_are_left_out_are_the_models_to_choose() -> None:
    job = parse_job(MINIMAL)
    assert isinstance(job, RunJob)
    assert job.method is job.directions is job.filter_order is job.batch_size is None
    assert job.threshold is None and job.device == "auto" and not job.overwrite


def test_the_kind_decides_which_document_it_is() -> None:
    assert isinstance(parse_job({"kind": "probe"}), ProbeJob)
    assert refusal({"kind": "paint"}).code == "job-kind"
    assert refusal({"input": "scan.nii.gz"}).code == "job-kind"
    assert refusal(["run"]).code == "job-invalid"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filter_order", 2.5),
        ("filter_order", "1.0"),
        ("filter_order", float("nan")),
        ("cutoff", 0),
        ("threshold", "otus"),
        ("threshold", "percentile:101"),
        ("threshold", float("inf")),
        ("threshold", True),
        ("method", "guess"),
        ("cam", "gradcam+"),
        ("components", "smallest"),
        ("minimum_size_ml", -1),
        ("device", "gpu"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("seed", -1),
        ("input", ""),
        ("model", None),
        ("channels", {"FLAIR image": "scan.nii.gz"}),
        ("region", {"start": [0, 0, 0], "stop": [4, 0, 4]}),
        ("region", {"start": [-1, 0, 0], "stop": [4, 4, 4]}),
        ("expected", {"model": "abc"}),
    ],
)
def test_a_wrong_value_is_refused_and_named(field: str, value: object) -> None:
    error = refusal({**MINIMAL, field: value})
    assert error.code == "job-invalid"
    assert f"'{field}'" in error.message


def test_an_unknown_field_is_refused_and_named() -> None:
    error = refusal({**MINIMAL, "filter_odrer": 1})
    assert error.code == "job-invalid"
    assert "filter_odrer" in error.message


def test_a_job_without_an_input_is_refused() -> None:
    document = {key: value for key, value in MINIMAL.items() if key != "input"}
    assert "input" in refusal(document).message
    assert parse_job({**document, "channels": {"flair": "a.nii"}})


def test_a_newer_schema_is_refused_before_its_fields_are_judged() -> None:
    assert refusal({**MINIMAL, "schema_version": 2, "new_field": 1}).code == "job-version"


def test_relative_paths_are_relative_to_the_documents_folder(tmp_path: Path) -> None:
    path = tmp_path / "jöb one.json"
    (tmp_path / "vectors.csv").write_text("0,0,1\n")
    document = {**MINIMAL, "model": "./my-model", "directions": "vectors.csv", "previews": "../p"}
    path.write_text(json.dumps(document), encoding="utf-8")
    job = read_job(path)
    assert isinstance(job, RunJob)
    assert job.input == str(tmp_path / "scan.nii.gz")
    assert job.output == str(tmp_path / "out")
    assert job.previews == str(tmp_path.parent / "p")
    assert job.model == str(tmp_path / "my-model")
    assert job.directions == str(tmp_path / "vectors.csv")


def test_the_name_of_a_model_or_a_direction_set_is_no_path() -> None:
    job = parse_job({**MINIMAL, "directions": "fibonacci:64"})
    assert isinstance(job, RunJob)
    assert (job.model, job.directions) == ("tiny-blob", "fibonacci:64")


def test_a_document_survives_the_way_through_json() -> None:
    job = parse_job({**MINIMAL, "region": {"start": [0, 1, 2], "stop": [3, 4, 5]}, "threshold": 1})
    assert parse_job_text(job.model_dump_json()) == job


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    with pytest.raises(TomoSegError) as caught:
        read_job(path)
    assert caught.value.code == "job-unreadable"


@pytest.mark.skipif(os.name != "posix", reason="no named pipes")
def test_pipes_and_endless_files_are_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    for path in (tmp_path / "pipe", tmp_path / "large", Path("/dev/zero")):
        with pytest.raises(TomoSegError) as caught:
            read_job(path)
        assert caught.value.code == "job-unreadable"


def test_a_document_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TomoSegError) as caught:
        read_job(tmp_path / "nowhere.json")
    assert caught.value.code == "job-unreadable"
