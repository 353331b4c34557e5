"""Batches: many volumes through one model, resumable, where one failure stops nothing."""

from __future__ import annotations

import csv
import html.parser
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.batch import run_batch
from TomoSegLib.jobs.batch_report import CaseOutcome, write_summary
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.document import BatchJob, parse_job
from TomoSegLib.jobs.events import ErrorEvent, Event, ProgressEvent, ResultEvent, WarningEvent
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import read_result
from TomoSegLib.jobs.worker import describe_failure
from TomoSegLib.models.store import find_model

GEOMETRY = Geometry.from_parts((18, 20, 22), (2.0, 2.2, 2.5), origin=(-20, 10, 5))


def scan(seed: int = 0) -> Volume:
    """A noisy ball with a bright blob, which the test model finds."""
    noise = np.random.default_rng(seed).normal(0, 5, GEOMETRY.shape)
    k, j, i = np.indices(GEOMETRY.shape)
    points = GEOMETRY.index_to_lps(np.stack([i, j, k], axis=-1)) - GEOMETRY.center
    array = np.where(np.linalg.norm(points, axis=-1) < 18, 100 + noise, 0)
    array[np.linalg.norm(points - [4, -3, 2], axis=-1) < 7] += 100
    return Volume(array.astype(np.int16), GEOMETRY, "scan")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scäns"
    folder.mkdir()
    write_volume(scan(1), folder / "a.nii.gz")
    (folder / "b <&>.nii.gz").write_bytes(b"this is no volume")
    write_volume(scan(3), folder / "c.nrrd")
    return folder


def batch(scans: Path, output: Path, **settings: Any) -> dict[str, Any]:
    return {
        "kind": "batch",
        "model": "tiny-blob",
        "directions": "orthogonal",
        "threads": 1,
        "cases": [
            {"id": "a", "input": str(scans / "a.nii.gz")},
            {"id": "b <&>".replace("<&>", "&"), "input": str(scans / "b <&>.nii.gz")},
            {"id": "c", "input": str(scans / "c.nrrd")},
        ],
        "output": str(output),
        **settings,
    }


def follow(document: dict[str, Any]) -> tuple[ResultEvent | ErrorEvent, list[Event]]:
    """Run a batch in this process, which has torch already; a worker does the same."""
    events: list[Event] = []
    try:
        job = parse_job(document)
        assert isinstance(job, BatchJob)
        counts = run_batch(job, Reporter(events.append), events.append, describe_failure)
    except TomoSegError as error:
        return describe_failure(error), events
    return ResultEvent(job.output, counts), events


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "summary.csv").open(encoding="utf-8", newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_a_failed_case_does_not_stop_the_rest(scans: Path, tmp_path: Path) -> None:
    outcome, events = follow(batch(scans, tmp_path / "out"))
    assert isinstance(outcome, ResultEvent), outcome
    assert outcome.data == {"done": 2, "skipped": 0, "failed": 1}
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done"]
    assert rows["b &"]["error"] == "volume-unreadable"
    assert float(rows["a"]["volume_ml"]) > 0
    warnings = [event for event in events if isinstance(event, WarningEvent)]
    assert any(w.code == "case-failed" and w.message.startswith("b &: ") for w in warnings)
    progress = [e for e in events if isinstance(e, ProgressEvent) and e.stage == "cases"]
    assert [(e.done, e.total) for e in progress][0] == (0, 3)
    assert (progress[-1].done, progress[-1].total) == (3, 3)
    assert not (tmp_path / "out" / "b &").exists()


def test_a_case_gets_what_a_run_of_its_own_would_give(scans: Path, tmp_path: Path) -> None:
    """The second case with the network that the first one has used."""
    follow(batch(scans, tmp_path / "out"))
    single = {k: v for k, v in batch(scans, tmp_path / "one").items() if k != "cases"}
    outcome = run_job({**single, "kind": "run", "input": str(scans / "c.nrrd")})
    assert isinstance(outcome, ResultEvent)
    one, many = read_result(tmp_path / "one"), read_result(tmp_path / "out" / "c")
    assert one.files == many.files
    assert one.job.model_dump(exclude={"output"}) == many.job.model_dump(exclude={"output"})


def test_the_network_is_loaded_once(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from TomoSegLib.jobs import run

    loaded = []
    load = run.load_encoder
    monkeypatch.setattr(run, "load_encoder", lambda *a: loaded.append(a) or load(*a))
    outcome, _ = follow(batch(scans, tmp_path / "out"))
    assert outcome.data["done"] == 2
    assert len(loaded) == 1


def test_what_is_finished_is_skipped_and_what_differs_is_not_touched(
    scans: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    follow(batch(scans, output))
    before = (output / "a" / "result.json").stat().st_mtime_ns
    write_volume(scan(2), scans / "b <&>.nii.gz")  # mended
    write_volume(scan(9), scans / "c.nrrd")  # another scan under the same name
    outcome, _ = follow(batch(scans, output))
    assert outcome.data == {"done": 1, "skipped": 1, "failed": 1}
    rows = table(output)
    assert [row["status"] for row in rows.values()] == ["skipped", "done", "failed"]
    assert rows["c"]["error"] == "output-exists"
    assert (output / "a" / "result.json").stat().st_mtime_ns == before
    outcome, _ = follow(batch(scans, output, overwrite=True))
    assert outcome.data == {"done": 1, "skipped": 2, "failed": 0}


def test_other_settings_are_no_reason_to_skip(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    follow(batch(scans, output))
    outcome, _ = follow(batch(scans, output, refine="threshold", overwrite=True))
    assert outcome.data["done"] == 2
    result = read_result(output / "a")
    assert result.refinement.method == "threshold"


def test_a_file_that_is_missing_from_a_result_is_made_again(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    follow(batch(scans, output))
    (output / "a" / "heatmap.nrrd").unlink()
    outcome, _ = follow(batch(scans, output, overwrite=True))
    assert outcome.data["done"] == 1
    assert (output / "a" / "heatmap.nrrd").is_file()


def test_a_cancelled_batch_keeps_what_is_finished_and_goes_on(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    cancel = threading.Event()

    def stop(event: Event) -> None:
        if isinstance(event, ProgressEvent) and event.stage == "cases" and event.done == 1:
            cancel.set()

    outcome = run_job(batch(scans, output), stop, cancel)
    assert isinstance(outcome, ErrorEvent)
    assert outcome.code == "cancelled"
    assert (output / "a" / "result.json").is_file()
    assert not list(output.rglob(".tomoseg-*"))
    outcome, _ = follow(batch(scans, output))
    assert outcome.data["skipped"] >= 1
    assert outcome.data["failed"] == 1


def test_what_every_case_lacks_stops_the_batch_at_once(scans: Path, tmp_path: Path) -> None:
    for changes, code in (
        ({"model": "no-such-model"}, "model-unknown"),
        ({"cases": [{"id": "a", "channels": {"t9": "x.nii"}}]}, "channel-unknown"),
        ({"cases": [{"id": "../a", "input": "x.nii"}]}, "job-invalid"),
        ({"cases": [{"id": "a", "input": "x"}, {"id": "A", "input": "y"}]}, "job-invalid"),
        ({"cases": []}, "job-invalid"),
    ):
        outcome, _ = follow({**batch(scans, tmp_path / "out"), **changes})
        assert isinstance(outcome, ErrorEvent)
        assert outcome.code == code, outcome
        assert not (tmp_path / "out").exists()


class Page(html.parser.HTMLParser):
    """Collects links, pictures and text, and checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_every_case_and_links_its_pictures(scans: Path, tmp_path: Path) -> None:
    from urllib.parse import unquote

    output = tmp_path / "out put"
    follow(batch(scans, output))
    page = Page((output / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert {"a", "b &", "c"} <= set(page.words)
    assert "thumbnails/a.png" in page.links
    for link in page.links:
        assert (output / unquote(link)).is_file(), link


def test_names_from_files_are_only_ever_text(tmp_path: Path) -> None:
    card = find_model("tiny-blob").card
    evil = "<script>alert(1)</script>"
    failure = ErrorEvent("code", evil, evil)
    outcomes = [CaseOutcome.of_failure(evil, failure, 1.0), CaseOutcome(evil, "done", 1.0, 1)]
    write_summary(tmp_path, card, outcomes, 3)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "1 to come" in text


def test_the_command_takes_a_folder_and_tells_that_cases_failed(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["run", str(scans), "-m", "tiny-blob", "--directions", "orthogonal", "--threads"]
    assert main([*arguments, "1", "-o", str(output)]) == 4
    shown = capsys.readouterr()
    assert "2 done, 0 as before, 1 failed" in shown.out
    assert "3 cases" in shown.err
    assert json.loads((output / "a" / "result.json").read_text())["job"]["kind"] == "run"
    assert main([*arguments, "1", "-o", str(output), "--previews", str(tmp_path)]) == 2
    assert "[usage]" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    outcome, _ = follow(batch(scans, tmp_path / "out"))
    assert isinstance(outcome, ErrorEvent)
    assert outcome.code == "output-unwritable"


def test_a_full_disk_ends_the_batch(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from TomoSegLib.jobs import batch as module

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_compute", full)
    outcome, _ = follow(batch(scans, tmp_path / "out"))
    assert isinstance(outcome, ErrorEvent)
    assert outcome.code == "output-no-space"
