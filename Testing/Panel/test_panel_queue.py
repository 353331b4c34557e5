"""The queue of the section Run, by clicks, with workers that do what a test tells them."""

import os
import sys
import threading
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import slicer  # noqa: E402
from PySide6.QtCore import QPoint, Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel.runData import ChannelData  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench  # noqa: E402
from TomoSegPanel.scenarios.objects import addBlobVolume  # noqa: E402
from TomoSegPanel.workFolder import WorkFolder  # noqa: E402

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent  # noqa: E402


class FakeWorker:
    """A worker that runs until it is cancelled."""

    def __init__(self, document, onEvent):
        self.say = onEvent

    def start(self):
        pass

    def cancel(self):
        self.say(ErrorEvent("cancelled", "The job was cancelled."))

    def abandon(self):
        pass


@pytest.fixture
def bench():
    """The panel with three runs, of which two wait; ``bench.runs``."""
    with Bench() as bench:
        runs = bench.widget.panel.runs
        real, runs._makeWorker = runs._makeWorker, FakeWorker
        bench.chooseModel()
        bench.runs = []
        for name in ("A", "B", "C"):
            bench.chooseVolume(addBlobVolume(name=name))
            bench.runs.append(bench.start())
        bench.until(lambda: bench.runs[0].state.value == "running", "the first runs")
        yield bench
        runs.queue.cancelAll()
        runs._makeWorker = real


def click(widget):
    """Click on a button."""
    QTest.mouseClick(widget._peer_, Qt.MouseButton.LeftButton, pos=QPoint(9, 9))


def waiting(bench):
    """The first words of what waits."""
    queue = bench.ui.queueList
    return [queue.item(row).text().partition(",")[0] for row in range(queue.count)]


def states(bench):
    """How the runs are."""
    return [run.state.value for run in bench.runs]


def test_what_waits_is_listed_in_its_order(bench):
    assert states(bench) == ["running", "queued", "queued"]
    assert bench.ui.queueList.isVisible() and waiting(bench) == ["B", "C"]
    assert not bench.ui.removeWaitingButton.enabled


def test_a_run_that_waits_can_be_taken_out_with_the_keyboard_or_the_mouse(bench):
    bench.ui.queueList.setCurrentRow(0)
    assert bench.ui.removeWaitingButton.enabled
    click(bench.ui.removeWaitingButton)
    assert states(bench) == ["running", "cancelled", "queued"]
    assert waiting(bench) == ["C"]
    bench.ui.queueList._peer_.setFocus()
    QTest.keyClick(bench.ui.queueList._peer_, Qt.Key.Key_Home)
    bench.ui.removeWaitingButton._peer_.setFocus()
    QTest.keyClick(bench.ui.removeWaitingButton._peer_, Qt.Key.Key_Space)
    assert states(bench) == ["running", "cancelled", "cancelled"]
    assert not bench.ui.queueList.isVisible()
    assert not bench.ui.cancelCurrentButton.isVisible()


def test_the_run_that_is_under_way_can_be_ended_alone(bench):
    click(bench.ui.cancelCurrentButton)
    bench.until(lambda: states(bench) == ["cancelled", "running", "queued"], "the next one runs")
    assert waiting(bench) == ["C"]


def test_cancel_ends_everything(bench):
    click(bench.ui.cancelButton)
    assert states(bench) == ["cancelled"] * 3
    assert not bench.ui.queueList.isVisible()


def test_a_run_that_fails_lets_the_next_one_begin(bench):
    bench.runs[0]._worker.say(ErrorEvent("x", "It <failed>.", "Do this."))
    bench.until(lambda: states(bench) == ["failed", "running", "queued"], "the next one runs")


def test_progress_is_shown_with_stage_and_time_left(bench):
    say = bench.runs[0]._worker.say
    say(ProgressEvent("heatmap", 30, 120, eta_s=200.0, device="cpu"))
    assert (bench.ui.progressBar.value, bench.ui.progressBar.maximum) == (30, 120)
    text = bench.ui.stageNote.text
    assert "about 3 min left" in text and "cpu" in text and "2 more waiting" in text


def test_a_run_that_is_cancelled_while_its_volume_is_written_leaves_no_file(bench, monkeypatch):
    begun, cancelled, written = threading.Event(), threading.Event(), []

    def write_late(self, folder, name):
        begun.set()
        assert cancelled.wait(10)
        folder.mkdir(parents=True, exist_ok=True)  # a file that was just being made
        (folder / name).write_bytes(b"a scan")
        written.append(folder)
        return folder / name

    monkeypatch.setattr(ChannelData, "write", write_late)
    bench.ui.cancelButton.click()
    run = bench.start()
    assert begun.wait(10) and run.state.value == "exporting"
    bench.ui.cancelButton.click()
    assert run.state.value == "cancelled"
    cancelled.set()
    bench.until(lambda: written and not written[0].parent.exists(), "its folder is gone")


def test_a_folder_that_is_removed_while_a_thread_uses_it_goes_when_the_thread_ends(tmp_path):
    folder = WorkFolder(str(tmp_path))

    def use():
        folder.remove()
        folder.path.mkdir()  # Windows keeps what is open, and a file may just be made
        (folder.path / "late.nrrd").write_bytes(b"a scan")
        return 3

    assert folder.using(use)() == 3
    assert not list(tmp_path.iterdir())
