"""Importing and verifying models through the door, with the real worker."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.document import VerifyModelJob, parse_job
from TomoSegLib.jobs.events import ErrorEvent, Event, ProgressEvent, ResultEvent, StartedEvent
from TomoSegLib.jobs.models import StoreScratch, verify
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.store import find_model


@pytest.fixture(autouse=True)
def user_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "störe of models"
    monkeypatch.setenv("TOMOSEG_MODELS", str(folder))
    return folder


def build(folder: Path, **changes: Any) -> Path:
    """A sound model named ``mine``."""
    tiny_blob.build(folder)
    return alter(folder, **{"name": "mine", **changes})


def alter(folder: Path, **changes: Any) -> Path:
    card = json.loads((folder / "card.json").read_text(encoding="utf-8")) | changes
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def put_weights(folder: Path, content: bytes) -> None:
    """Other weights, and their hash on the card."""
    (folder / "weights.safetensors").write_bytes(content)
    alter(folder, files={"weights.safetensors": hashlib.sha256(content).hexdigest()})


def result(job: dict[str, Any]) -> ResultEvent:
    outcome = run_job(job)
    assert isinstance(outcome, ResultEvent), outcome
    return outcome


def error_code(job: dict[str, Any]) -> str:
    outcome = run_job(job)
    assert isinstance(outcome, ErrorEvent) and outcome.hint, outcome
    return outcome.code


def imports(source: Path, **options: Any) -> dict[str, Any]:
    return {"kind": "import-model", "source": str(source), **options}


def verifies(model: Path | str) -> dict[str, Any]:
    return {"kind": "verify-model", "model": str(model)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_and_an_archive_are_imported_and_the_answer_says_what_came_in(
    tmp_path: Path, user_store: Path
) -> None:
    source = build(tmp_path / "in" / "source")
    archive = tmp_path / "in" / "other.zip"
    other = build(tmp_path / "in" / "other", name="other")
    with zipfile.ZipFile(archive, "w") as file:
        for path in other.iterdir():
            file.write(path, f"other/{path.name}")
    for from_where, name in ((source, "mine"), (archive, "other")):
        found = result(imports(from_where))
        assert found.path == found.data["folder"] == str(user_store / name)
        assert (found.data["name"], found.data["version"]) == (name, "1.0.0")
        assert found.data["card"]["title"] == tiny_blob.card_fields()["title"]
        assert found.data["card"]["training_data"]["simulated"] is True
        assert found.data["hash"] == result(verifies(name)).data["hash"]
        assert find_model(name).origin == "user"
    assert names(user_store) == ["mine", "other"]
    assert names(user_store.parent) == ["in", user_store.name]


def test_another_model_of_that_name_is_replaced_only_when_told(
    tmp_path: Path, user_store: Path
) -> None:
    result(imports(build(tmp_path / "in" / "one")))
    two = imports(build(tmp_path / "in" / "two", version="2.0.0"))
    assert error_code(two) == "model-exists"
    assert find_model("mine").card.version == "1.0.0"
    result({**two, "replace": True})
    assert find_model("mine").card.version == "2.0.0"
    assert names(user_store) == ["mine"]


def test_a_damaged_copy_is_mended_by_importing_it_again(tmp_path: Path, user_store: Path) -> None:
    source = build(tmp_path / "in" / "source")
    result(imports(source))
    (user_store / "mine" / "weights.safetensors").write_bytes(b"damaged")
    assert error_code(imports(source)) == "model-hash-mismatch"
    result(imports(source, replace=True))
    assert result(verifies("mine")).data["ok"] is True


def test_a_source_that_is_no_sound_model_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = build(tmp_path / "in" / "source")
    put_weights(source, b"PK\x03\x04" + bytes(60))
    assert error_code(imports(source, replace=True)) == "model-weights-pickle"
    assert error_code(imports(tmp_path / "nowhere")) == "model-unknown"
    assert names(tmp_path) == ["in"]


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, user_store: Path) -> None:
    source = build(tmp_path / "in" / "source")
    user_store.write_text("a file where a folder should be", encoding="utf-8")
    assert error_code(imports(source)) == "model-unwritable"


def test_a_cancelled_import_leaves_the_store_as_it_was(tmp_path: Path, user_store: Path) -> None:
    result(imports(build(tmp_path / "in" / "one")))
    cancel = threading.Event()
    seen: list[Event] = []

    def cancel_when_it_begins(event: Event) -> None:
        seen.append(event)
        if isinstance(event, ProgressEvent):
            cancel.set()

    job = imports(build(tmp_path / "in" / "two", version="2.0.0"), replace=True)
    outcome = run_job(job, cancel_when_it_begins, cancel)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "cancelled"
    assert isinstance(seen[0], StartedEvent) and seen[0].kind == "import-model"
    assert find_model("mine").card.version == "1.0.0"
    assert names(user_store) == ["mine"]


def test_an_import_takes_its_place_at_the_commit_and_not_before(
    tmp_path: Path, user_store: Path
) -> None:
    build(user_store / "mine")
    for version, commits in (("2.0.0", False), ("3.0.0", True)):
        scratch = StoreScratch(replace=True)
        build(scratch.results / "mine", version=version)
        assert find_model("mine").card.version == "1.0.0"
        scratch.commit() if commits else scratch.discard()
        assert names(user_store) == ["mine"]
    assert find_model("mine").card.version == "3.0.0"
    scratch = StoreScratch(replace=False)
    build(scratch.results / "mine", version="4.0.0")  # somebody else was quicker
    with pytest.raises(TomoSegError, match="model-exists"):
        scratch.commit()
    scratch.discard()
    assert find_model("mine").card.version == "3.0.0" and names(user_store) == ["mine"]


def checks(model: Path | str) -> tuple[bool, dict[str, dict[str, Any]]]:
    events: list[Event] = []
    job = VerifyModelJob(model=str(model))
    data = verify(job, Reporter(events.append)).data
    assert isinstance(events[-1], ProgressEvent) and events[-1].stage == "verify"
    return data["ok"], {check["what"]: check for check in data["checks"]}


def test_a_sound_model_passes_every_check(tmp_path: Path) -> None:
    ok, found = checks(build(tmp_path / "source"))
    assert ok and list(found) == ["card", "weights.safetensors", "network"]
    assert all(check["ok"] is True and check["why"] for check in found.values())
    assert "7 parameters" in found["network"]["why"]


def test_each_thing_that_is_wrong_is_said_with_its_reason(tmp_path: Path) -> None:
    changed = build(tmp_path / "changed")
    content = (changed / "weights.safetensors").read_bytes()
    (changed / "weights.safetensors").write_bytes(content[:-1] + b"\x01")
    ok, found = checks(changed)
    assert not ok and found["weights.safetensors"]["code"] == "model-hash-mismatch"
    assert found["card"]["ok"] is True and found["network"]["ok"] is None

    missing = build(tmp_path / "missing")
    (missing / "weights.safetensors").unlink()
    assert checks(missing)[1]["weights.safetensors"]["code"] == "model-file-missing"

    ok, found = checks(build(tmp_path / "misspelt", treshold=1))
    assert not ok and list(found) == ["card"]
    assert found["card"]["code"] == "model-card-invalid" and "treshold" in found["card"]["why"]

    network = tiny_blob.card_fields()["network"]
    network["arguments"]["channels"] = 2
    ok, found = checks(build(tmp_path / "other network", network=network))
    assert not ok and found["network"]["code"] == "model-weights-mismatch"
    assert found["network"]["hint"] and found["weights.safetensors"]["ok"] is True


def build_segmenter(folder: Path, outputs: int = 3, training: bool = False) -> Path:
    """A segmenter of two labels as a TorchScript program, with so many outputs."""
    network = torch.nn.Sequential(torch.nn.Conv3d(1, outputs, 3, padding=1), torch.nn.Dropout())
    network.train(training)
    scripted = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would like to see other formats
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 8, 8, 8)), scripted)
    fields = tiny_blob.card_fields()
    for name in ("slices", "method", "methods"):
        del fields[name]
    fields |= {
        "name": "mine",
        "task": "segmentation",
        "labels": [{"name": "one", "value": 1}, {"name": "two", "value": 2}],
        "network": {"format": "torchscript", "file": "network.pt"},
        "sliding_window": {"roi_size": [8, 12, 16]},
        "files": {"network.pt": hashlib.sha256(scripted.getvalue()).hexdigest()},
    }
    folder.mkdir()
    (folder / "network.pt").write_bytes(scripted.getvalue())
    (folder / "card.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def test_a_segmenter_is_tried_with_windows_of_its_card(tmp_path: Path) -> None:
    ok, found = checks(build_segmenter(tmp_path / "sound"))
    assert ok and "84 parameters" in found["network"]["why"]
    ok, found = checks(build_segmenter(tmp_path / "two outputs", outputs=2))
    assert not ok and found["network"]["code"] == "model-network-invalid"
    assert "(2, 3, 8, 12, 16) is expected" in found["network"]["why"]
    ok, found = checks(build_segmenter(tmp_path / "in training", training=True))
    assert not ok and "training mode" in found["network"]["why"]


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert error_code(verifies("no-such-model")) == "model-unknown"
    with pytest.raises(TomoSegError, match="model-unknown"):
        checks(tmp_path)


@pytest.mark.parametrize(
    "job",
    [
        {"kind": "import-model"},
        {"kind": "import-model", "source": "x", "overwrite": True},
        {"kind": "import-model", "source": "x", "replace": "yes"},
        {"kind": "verify-model", "model": ""},
    ],
)
def test_a_document_that_is_not_valid_is_refused(job: dict[str, Any]) -> None:
    with pytest.raises(TomoSegError, match="job-invalid"):
        parse_job(job)


def test_relative_paths_are_relative_to_the_documents_folder(tmp_path: Path) -> None:
    assert parse_job(imports(Path("a.zip")), tmp_path) == parse_job(imports(tmp_path / "a.zip"))
    assert parse_job(verifies("./m"), tmp_path) == parse_job(verifies(tmp_path / "m"))
    assert parse_job(verifies("flair-lesion"), tmp_path) == parse_job(verifies("flair-lesion"))


def test_the_panels_process_needs_nothing_heavy_to_ask_for_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from TomoSegLib.jobs import client, events\n"
        "assert client.run_job({'kind': 'verify-model', 'model': 'tiny-blob'}).data['ok']\n"
        "print(sorted({'torch', 'numpy', 'pydantic', 'SimpleITK'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
