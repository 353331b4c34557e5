"""Starting a worker and following it: the way in for the command line, scripts and tests.

Only the standard library is needed here. A program with an event loop of its own (the panel, with
a QProcess) uses `worker_command` and `EventStream` and does the waiting itself.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from TomoSegLib.jobs.events import ErrorEvent, Event, ResultEvent, WarningEvent, decode

STDERR_LINES = 40
CANCEL_S = 0.8
"""A worker that has not obeyed after this time is killed."""

_MAX_GARBAGE = 20
_MAX_LINE = 1 << 23


def worker_command(job: str = "-", python: str | None = None) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a worker.

    Args:
        job: Path of the document; ``-``: the worker reads it as the first line on stdin.
        python: The interpreter; by default the one that runs.
    """
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    # Threads that wait by spinning take ten times as long where others need the cores too.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment["PYTHONUTF8"] = "1"
    environment["PYTHONSAFEPATH"] = "1"  # a random.py in the user's folder is not ours to import
    return [python or sys.executable, "-m", "TomoSegLib.jobs", job], environment


class EventStream:
    """Turns the bytes of a worker's stdout into events, however they are cut.

    A line that is no event becomes a warning with the code ``worker-output``; after 20 of them
    the rest is passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._garbage = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        return list(self._events(lines))

    def close(self) -> list[Event]:
        """The events of what is left when the stream has ended."""
        lines, self._rest = [self._rest], b""
        return list(self._events(lines))

    def _events(self, lines: Iterable[bytes]) -> Iterator[Event]:
        for line in lines:
            if not line.strip():
                continue
            try:
                yield decode(line)
            except (ValueError, RecursionError):
                self._garbage += 1
                if self._garbage <= _MAX_GARBAGE:
                    text = line[:200].decode("utf-8", "replace").strip()
                    yield WarningEvent(
                        "worker-output", f"The worker printed something unexpected: {text}"
                    )


def run_job(
    job: Mapping[str, Any] | str | Path,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
    *,
    python: str | None = None,
    command: list[str] | None = None,
) -> ResultEvent | ErrorEvent:
    """Run a job in a worker process and wait for its end.

    Args:
        job: The document as a mapping (relative paths in it are relative to the current folder),
            or the path of a document.
        on_event: Called with each event in turn, the last included, in the calling thread.
        cancel: Set from another thread or a signal handler, it ends the job, with all its
            processes, within a second.
        python: Interpreter of the worker.
        command: The worker's whole command, for tests.

    Returns:
        The last event: a result, or an error; ``worker-died`` where the worker said nothing.
    """
    on_event = on_event or (lambda event: None)
    by_path = isinstance(job, (str, Path))
    default, environment = worker_command(str(job) if by_path else "-", python)
    process = subprocess.Popen(
        command or default,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # its own process group, which can be ended as one
    )
    assert process.stdin is not None
    assert process.stdout is not None and process.stderr is not None
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    log: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
    threads = [
        threading.Thread(target=_read_events, args=(process.stdout, events), daemon=True),
        threading.Thread(target=_read_log, args=(process.stderr, log), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        if not by_path:
            _tell(process.stdin, json.dumps(job).encode() + b"\n")
        outcome = _follow(process, events, on_event, cancel)
        if outcome is None:
            end_process_group(process)
            threads[1].join(timeout=0.5)
            outcome = _silent_end(process.returncode, "".join(log))
            _remove_remains(job)
            on_event(outcome)
        return outcome
    finally:
        # The end of stdin tells a worker to stop and to clean up, if it has not done so yet.
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=CANCEL_S)
        end_process_group(process)
        for thread in threads:
            thread.join(timeout=0.5)


def _follow(
    process: subprocess.Popen[bytes],
    events: queue.SimpleQueue[Event | None],
    on_event: Callable[[Event], None],
    cancel: threading.Event | None,
) -> ResultEvent | ErrorEvent | None:
    """Pass events on up to the last; None if the stream ends without one."""
    give_up_at = None
    while True:
        if cancel is not None and cancel.is_set() and give_up_at is None:
            assert process.stdin is not None
            _tell(process.stdin, b"cancel\n")
            give_up_at = time.monotonic() + CANCEL_S
        if give_up_at is not None and time.monotonic() > give_up_at:
            end_process_group(process)
            give_up_at = math.inf
        try:
            event = events.get(timeout=0.05)
        except queue.Empty:
            continue
        if event is None:
            if give_up_at is None:
                return None
            event = ErrorEvent("cancelled", "The job was cancelled.")
        on_event(event)
        if isinstance(event, (ResultEvent, ErrorEvent)):
            return event


def _tell(stdin: IO[bytes], line: bytes) -> None:
    with contextlib.suppress(OSError):  # it has died; its silence is noticed elsewhere
        stdin.write(line)
        stdin.flush()


def _read_events(stdout: IO[bytes], events: queue.SimpleQueue[Event | None]) -> None:
    stream = EventStream()
    while data := os.read(stdout.fileno(), 1 << 16):
        for event in stream.feed(data):
            events.put(event)
    for event in stream.close():
        events.put(event)
    events.put(None)


def _read_log(stderr: IO[bytes], log: collections.deque[str]) -> None:
    while line := stderr.readline(_MAX_LINE):
        log.append(line.decode("utf-8", "replace"))


def _silent_end(status: int | None, log: str) -> ErrorEvent:
    if status is None:
        how = "it cannot be ended"
    else:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return ErrorEvent(
        "worker-died",
        f"The worker ended without a result ({how}).",
        "Run it again; if that does not help, report it with the log.",
        log=log,
    )


def _remove_remains(job: Mapping[str, Any] | str | Path) -> None:
    """What a killed worker could not clean up itself."""
    from TomoSegLib.jobs.scratch import remove_stale, remove_stale_below

    with contextlib.suppress(OSError, ValueError, ImportError):
        if isinstance(job, (str, Path)):
            folder = Path(job).absolute().parent
            job = json.loads(Path(job).read_text(encoding="utf-8"))
        else:
            folder = Path.cwd()
        if isinstance(job, Mapping) and isinstance(job.get("output"), str):
            remove_stale(folder / job["output"])
            if job.get("kind") == "batch":
                remove_stale_below(folder / job["output"])
            if job.get("kind") == "refine-mask":  # its output is a file
                remove_stale((folder / job["output"]).parent)


def end_process_group(process: subprocess.Popen[bytes]) -> None:
    """End a worker and whatever it has started, now."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:  # pragma: no cover - Windows
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False
        )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1.0)
