"""Worker processes that behave oddly: each gives exactly one result or error, as its last."""

import os
import sys
import time
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

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel.worker import WorkerProcess  # noqa: E402

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent, ResultEvent  # noqa: E402

STARTED = '{"event":"started","kind":"run","pid":%d,"version":"0"}'
SAY = f"import os, sys, time\nprint({STARTED!r} % os.getpid(), flush=True)\n"


@pytest.fixture
def run(tmp_path):
    """``run(program)``: a worker whose program is this text; it and the events that it gives."""
    started = []

    def start(program, command=None):
        script = tmp_path / "worker.py"
        script.write_text(program, encoding="utf-8")
        events = []
        worker = WorkerProcess("job.json", events.append, command or [sys.executable, str(script)])
        started.append(worker)
        worker.start()
        return worker, events

    yield start
    for worker in started:
        worker.abandon()
    assert host.errors == []


def last(events, seconds=20):
    """The outcome, after a while in which another might come."""
    assert host.wait_for(
        lambda: events and isinstance(events[-1], ErrorEvent | ResultEvent), seconds
    )
    host.process(0.05)
    assert sum(isinstance(event, ErrorEvent | ResultEvent) for event in events) == 1
    return events[-1]


def test_the_last_words_of_a_worker_that_dies_are_in_its_error(run):
    _, events = run(
        SAY + "sys.stderr.write('Ünglück: last words')\nsys.stderr.flush()\nos._exit(7)"
    )
    error = last(events)
    assert error.code == "worker-died"
    assert "7" in error.message
    assert "last words" in error.log


def test_a_program_that_does_not_exist_is_an_error_that_names_it(run):
    _, events = run("", command=["/no/such/Python Slicer", "x"])
    error = last(events)
    assert error.code == "worker-not-started"
    assert "/no/such/Python Slicer" in error.hint


def test_what_comes_after_the_last_word_is_not_heard(run):
    _, events = run(
        SAY + 'print(\'{"event":"result"}\')\n'
        'print(\'{"event":"error","code":"a","message":"b"}\')\n'
        'print(\'{"event":"progress","stage":"mask","done":1,"total":2}\', flush=True)\n'
    )
    assert isinstance(last(events), ResultEvent)
    assert not any(isinstance(event, ProgressEvent) for event in events)


def test_an_event_that_comes_in_pieces_is_one(run):
    _, events = run(
        SAY + 'for each in \'{"event":"result","path":"/x"}\':\n'
        "    sys.stdout.write(each)\n    sys.stdout.flush()\n    time.sleep(0.002)\n"
    )
    assert last(events).path == "/x"


@pytest.mark.parametrize("ignores", ["", "import signal; signal.signal(15, lambda *_: None)\n"])
def test_a_worker_that_does_not_listen_is_killed_within_a_second(run, ignores):
    worker, events = run(SAY + ignores + "time.sleep(60)")
    assert host.wait_for(lambda: events, 20)
    since = time.monotonic()
    worker.cancel()
    assert last(events, 5).code == "cancelled"
    assert time.monotonic() - since < 1.2


def test_a_flood_of_garbage_neither_fills_the_memory_nor_stops_the_application(run):
    _, events = run(
        SAY + "for _ in range(3000):\n    print('x' * 10000)\nprint('{\"event\":\"result\"}')\n"
    )
    longest, before = 0.0, time.monotonic()
    while not any(isinstance(event, ResultEvent) for event in events):
        host.process()
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    assert len(events) < 40
    assert longest < 1.0


def test_a_worker_that_is_abandoned_is_heard_of_no_more_and_ends(run):
    worker, events = run(SAY + "time.sleep(60)")
    assert host.wait_for(lambda: events, 20)
    pid = events[0].pid
    del events[:]
    worker.abandon()
    assert host.wait_for(lambda: not Path(f"/proc/{pid}/cmdline").is_file() or ended(pid), 3)
    host.process(0.1)
    assert events == []


def ended(pid):
    """Whether a process is only waiting to be buried."""
    import psutil

    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
