"""The worker and its client: cancel, crash, kill -9 and garbage, with a child that misbehaves.

The child that computes is replaced by a short script; worker and client are the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from TomoSegLib.jobs.client import run_job, worker_command
from TomoSegLib.jobs.events import (
    ErrorEvent,
    Event,
    ProgressEvent,
    ResultEvent,
    StartedEvent,
    WarningEvent,
    decode,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and /proc are tested on POSIX")

HELPERS = """
import json, os, pathlib, signal, subprocess, sys, threading, time
results = pathlib.Path(sys.argv[1])
job = json.loads(sys.stdin.buffer.raw.readline())
def say(**event): os.write(1, json.dumps(event).encode() + b"\\n")
def ready(): say(event="progress", stage="heatmap", done=1, total=2)
"""

DEAF = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
(results / "heatmap.nrrd").write_text("half")
ready()
import ctypes
ctypes.PyDLL(None).sleep(60)  # native code that keeps the interpreter's lock
"""

FAMILY = """
grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
processes = [subprocess.Popen([sys.executable, "-c", grandchild]) for _ in range(2)]
pids = [os.getpid()] + [p.pid for p in processes]
(results.parent.parent / "pids.json").write_text(json.dumps(pids))
ready()
time.sleep(60)
"""


class Stage:
    """A folder with a job, and the real worker with a child of the test's."""

    def __init__(self, folder: Path, child: str) -> None:
        self.folder = folder
        self.job = {"kind": "run", "input": "in.nii", "model": "m", "output": str(folder / "out")}
        (folder / "child.py").write_text(HELPERS + textwrap.dedent(child))
        driver = (
            "import os, sys\n"
            "from TomoSegLib.jobs import worker\n"
            f"worker.task_command = lambda r: [sys.executable, {str(folder / 'child.py')!r}, r]\n"
            "status = worker.work(sys.argv[1])\n"
            "os._exit(status)\n"
        )
        self.command = [sys.executable, "-c", driver, "-"]
        self.events: list[Event] = []

    def run(
        self,
        on_event: Callable[[Event], None] = lambda event: None,
        cancel: threading.Event | None = None,
    ) -> ResultEvent | ErrorEvent:
        def keep(event: Event) -> None:
            self.events.append(event)
            on_event(event)

        return run_job(self.job, keep, cancel, command=self.command)

    def start(self) -> subprocess.Popen[bytes]:
        """The worker alone, once its child has reported."""
        process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=worker_command()[1]
        )
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(self.job).encode() + b"\n")
        process.stdin.flush()
        while not isinstance(decode(process.stdout.readline()), ProgressEvent):
            pass
        return process

    def remains(self) -> list[str]:
        """What the job has left behind."""
        ours = {"child.py", "pids.json"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in ours)

    def family(self) -> list[int]:
        return list(json.loads((self.folder / "pids.json").read_text()))


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def last_event(process: subprocess.Popen[bytes]) -> Event:
    assert process.stdout
    return decode(process.stdout.read().splitlines()[-1])


def test_threads_of_a_worker_sleep_while_they_wait_unless_the_user_has_it_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert worker_command()[1]["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert worker_command()[1]["OMP_WAIT_POLICY"] == "ACTIVE"


def test_results_are_in_place_when_the_result_is_reported(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        """
        (results / "result.json").write_text("{}")
        say(event="result", path="wherever")
        """,
    )
    seen: list[bool] = []
    outcome = stage.run(
        lambda event: (
            seen.append((tmp_path / "out" / "result.json").exists())
            if isinstance(event, ResultEvent)
            else None
        )
    )
    assert isinstance(outcome, ResultEvent) and seen == [True]
    assert isinstance(stage.events[0], StartedEvent)
    assert stage.remains() == ["out"]


@pytest.mark.parametrize("child", [DEAF, FAMILY], ids=["deaf native code", "with children"])
def test_cancel_is_obeyed_within_a_second_and_nothing_is_left(tmp_path: Path, child: str) -> None:
    stage = Stage(tmp_path, child)
    cancel = threading.Event()
    started: list[float] = []

    def cancel_when_ready(event: Event) -> None:
        if isinstance(event, ProgressEvent):
            started.append(time.monotonic())
            cancel.set()

    outcome = stage.run(cancel_when_ready, cancel)
    assert time.monotonic() - started[0] < 1.0
    assert isinstance(outcome, ErrorEvent) and outcome.code == "cancelled"
    assert stage.remains() == []
    if child is FAMILY:
        assert all(is_gone(pid) for pid in stage.family())


@pytest.mark.parametrize("how", ["line", "eof", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_worker_can_be_cancelled_in_every_way(tmp_path: Path, how: str) -> None:
    stage = Stage(tmp_path, DEAF)
    process = stage.start()
    assert process.stdin
    start = time.monotonic()
    if how == "line":
        process.stdin.write(b"cancel\n")
        process.stdin.flush()
    elif how == "eof":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, how))
    assert process.wait(timeout=5) == 130
    assert time.monotonic() - start < 1.0
    event = last_event(process)
    assert isinstance(event, ErrorEvent) and event.code == "cancelled"
    assert stage.remains() == []


def test_a_worker_whose_output_nobody_reads_can_be_cancelled(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        """
        ready()
        while True:
            say(event="warning", code="x", message="y" * 1000)
        """,
    )
    process = stage.start()
    time.sleep(0.5)  # the pipe is full by now
    start = time.monotonic()
    process.terminate()
    assert wait_until(lambda: stage.remains() == [], 1.0)
    assert process.wait(timeout=5) == 130
    assert time.monotonic() - start < 1.0


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    stage = Stage(tmp_path, FAMILY)
    # The parent keeps the worker's stdin open elsewhere, so only its death tells.
    parent = (
        "import subprocess, sys, json, os\n"
        "r, w = os.pipe()\n"
        f"p = subprocess.Popen({stage.command!r}, stdin=r, pass_fds=[w])\n"
        f"os.write(w, {json.dumps(stage.job)!r}.encode() + b'\\n')\n"
        "p.wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, env=worker_command()[1]
    )
    assert wait_until((tmp_path / "pids.json").exists, 10)
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert wait_until(lambda: all(is_gone(pid) for pid in stage.family()), 1.0)
    assert wait_until(lambda: stage.remains() == [], 1.0)


def test_kill_9_of_the_worker_takes_everything_with_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, FAMILY)
    pids: list[int] = []

    def kill_when_ready(event: Event) -> None:
        if isinstance(event, StartedEvent):
            pids.append(event.pid)
        elif isinstance(event, ProgressEvent):
            os.kill(pids[0], signal.SIGKILL)

    outcome = stage.run(kill_when_ready)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "worker-died"
    assert "9" in outcome.message
    assert wait_until(lambda: all(is_gone(pid) for pid in stage.family()), 1.0)
    assert stage.remains() == []


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("import faulthandler; faulthandler._sigsegv()", "signal 11"),
        ("os._exit(3)", "exit status 3"),
    ],
)
def test_a_child_that_dies_silently_is_reported_with_its_last_words(
    tmp_path: Path, death: str, how: str
) -> None:
    child = '(results / "heatmap.nrrd").write_text("half")\nprint("last words", file=sys.stderr)\n'
    stage = Stage(tmp_path, child + "sys.stderr.flush()\n" + death)
    outcome = stage.run()
    assert isinstance(outcome, ErrorEvent) and outcome.code == "worker-died"
    assert how in outcome.message
    assert outcome.log is not None and "last words" in outcome.log
    assert stage.remains() == []


def test_children_of_a_dead_child_are_ended(tmp_path: Path) -> None:
    stage = Stage(tmp_path, FAMILY.replace("time.sleep(60)\n", "os._exit(1)\n", 2))
    assert isinstance(stage.run(), ErrorEvent)
    assert wait_until(lambda: all(is_gone(pid) for pid in stage.family()), 1.0)


def test_an_error_of_the_child_is_passed_on_and_nothing_is_written(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        """
        (results / "heatmap.nrrd").write_text("half")
        say(event="error", code="volume-empty", message="It is empty.", hint="Take another.")
        sys.exit(2)
        """,
    )
    assert stage.run() == ErrorEvent("volume-empty", "It is empty.", "Take another.")
    assert stage.remains() == []


def test_garbage_of_the_child_does_not_reach_the_events(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        """
        os.write(1, b"\\x00\\xff noise\\n{}\\n[]\\n")
        say(event="result")
        """,
    )
    assert isinstance(stage.run(), ResultEvent)
    assert [event.event for event in stage.events] == ["started", "result"]


def run_script(script: str) -> tuple[ResultEvent | ErrorEvent, list[Event]]:
    """Follow a worker that is no worker at all."""
    events: list[Event] = []
    outcome = run_job({"kind": "probe"}, events.append, command=[sys.executable, "-c", script])
    return outcome, events


def test_garbage_of_a_worker_is_reported_as_a_warning() -> None:
    outcome, events = run_script("""print('hello\\n{"event":"result"}')""")
    assert isinstance(outcome, ResultEvent)
    assert isinstance(events[0], WarningEvent) and events[0].code == "worker-output"
    assert "hello" in events[0].message


def test_a_worker_that_says_nothing_has_died() -> None:
    outcome, _ = run_script("import sys; sys.exit('no module named numpy')")
    assert isinstance(outcome, ErrorEvent) and outcome.code == "worker-died"
    assert outcome.log is not None and "no module named numpy" in outcome.log


def test_a_worker_that_does_not_obey_is_killed() -> None:
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    cancel = threading.Event()
    cancel.set()
    start = time.monotonic()
    outcome = run_job({"kind": "probe"}, None, cancel, command=[sys.executable, "-c", script])
    assert isinstance(outcome, ErrorEvent) and outcome.code == "cancelled"
    assert time.monotonic() - start < 2.0


def worker(document: Any, *arguments: str) -> tuple[int, list[Event]]:
    command, environment = worker_command()
    text = document if isinstance(document, str) else json.dumps(document)
    done = subprocess.run(
        [*command, *arguments], input=text + "\n", capture_output=True, text=True, env=environment
    )
    return done.returncode, [decode(line.encode()) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("document", "code"),
    [("", "job-unreadable"), ("{", "job-unreadable"), ({"kind": "x"}, "job-kind")],
)
def test_a_wrong_document_is_an_error_event_and_status_2(document: Any, code: str) -> None:
    status, events = worker(document, "--detached")
    assert status == 2
    assert [event.event for event in events] == ["error"]
    assert isinstance(events[0], ErrorEvent) and events[0].code == code


def test_the_probe_tells_what_is_there() -> None:
    status, events = worker({"kind": "probe"}, "--detached")
    assert status == 0
    result = events[-1]
    assert isinstance(result, ResultEvent) and result.path is None
    assert result.data["python"]["version"].startswith(f"{sys.version_info.major}.")
    assert any(device["name"] == "cpu" for device in result.data["devices"])
    assert "tiny-blob" in result.data["models"]["names"]


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError('no', name='pydantic')")
    command, environment = worker_command()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    done = subprocess.run(
        [*command, "--detached"], input=b'{"kind":"probe"}\n', capture_output=True, env=environment
    )
    event = decode(done.stdout.splitlines()[-1])
    assert isinstance(event, ErrorEvent) and event.code == "dependency-missing"
    assert "pydantic" in event.message


def test_nothing_but_events_is_ever_on_stdout(tmp_path: Path) -> None:
    script = (
        "import os, ctypes\n"
        "from TomoSegLib.jobs.events import EventWriter, WarningEvent\n"
        "from TomoSegLib.jobs.processes import claim_stdout\n"
        "emit = EventWriter(claim_stdout())\n"
        "print('python prints')\n"
        "os.write(1, b'a descriptor prints\\n')\n"
        "ctypes.CDLL(None).puts(b'C prints'); ctypes.CDLL(None).fflush(None)\n"
        "emit(WarningEvent('a', 'b'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=worker_command()[1]
    )
    assert [decode(line.encode()) for line in done.stdout.splitlines()] == [WarningEvent("a", "b")]
    for words in ("python prints", "a descriptor prints", "C prints"):
        assert words in done.stderr
