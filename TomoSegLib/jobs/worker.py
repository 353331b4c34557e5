"""The worker process ``python -m TomoSegLib.jobs JOB.json``.

It computes nothing itself. It validates the document, makes the hidden working folder, lets a
child process (`TomoSegLib.jobs.task`) do the work, passes its events on, and at the end moves the
results into place. So it stays answerable whatever the computation is busy with: to cancel is to
kill the child and its children and to remove the working folder, which takes a fraction of a
second and cannot be held up by a library that does not return. A child that dies, of a full
memory or a crash in native code, is reported and cleaned up after in the same way.

The job is cancelled by the line ``cancel`` on stdin, by the end of stdin where stdin is a pipe,
by SIGTERM, SIGINT or SIGHUP, and when the parent process dies.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Union

import TomoSegLib
from TomoSegLib.errors import TomoSegError, is_out_of_memory, name_error
from TomoSegLib.jobs import processes
from TomoSegLib.jobs.events import (
    EXIT_OK,
    ErrorEvent,
    EventWriter,
    ResultEvent,
    StartedEvent,
    decode,
)

if TYPE_CHECKING:
    from TomoSegLib.jobs.document import AnyJob
    from TomoSegLib.jobs.scratch import Scratch

Outcome = Union[ResultEvent, ErrorEvent]

STDERR_LINES = 40
_POLL_S = 0.1
_SLOW_READER_S = 30.0
_MAX_LINE = 1 << 23  # a model's card, escaped, has up to six MiB

CANCELLED = ErrorEvent("cancelled", "The job was cancelled.", "")


def work(source: str, *, detached: bool = False) -> int:
    """Carry out one job and return the exit status.

    Args:
        source: Path of the job document, or ``-``: it is the first line on stdin.
        detached: Ignore stdin and the death of the parent: for jobs that outlive their shell.
    """
    emit = EventWriter(processes.claim_stdout())
    inbox = _Inbox(document_on_stdin=source == "-", detached=detached)
    scratch = job = None
    try:
        job = _read(source, inbox)
        scratch = _make_scratch(job)
        emit(StartedEvent(job.kind, os.getpid(), TomoSegLib.__version__))
        outcome = _supervise(job, scratch, emit, inbox)
        if isinstance(outcome, ResultEvent) and scratch is not None:
            scratch.commit()
    except BaseException as error:
        with contextlib.suppress(ImportError):  # the package that is missing may be psutil
            processes.end_children()
        outcome = describe_failure(error)
    finally:
        if scratch is not None:
            scratch.discard()
        _clean_up_batch(job)
    # A reader that has stopped reading must not keep a finished worker alive.
    patience_s = 0.2 if outcome is CANCELLED else _SLOW_READER_S
    threading.Thread(target=_exit_after, args=(patience_s, _status(outcome)), daemon=True).start()
    with contextlib.suppress(OSError):
        emit(outcome)
    return _status(outcome)


def describe_failure(error: BaseException) -> ErrorEvent:
    """The event for an exception: the user's errors by their code, everything else ``internal``."""
    error = name_error(error) or error
    if isinstance(error, TomoSegError):
        return ErrorEvent(error.code, error.message, error.hint)
    if isinstance(error, (_Cancelled, BrokenPipeError, KeyboardInterrupt)):
        return CANCELLED
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("TomoSegLib"):
        return ErrorEvent(
            "dependency-missing",
            f"The Python package '{error.name}' is not installed.",
            "Install TomoSeg's dependencies: pip install tomoseg, or the panel's Install button.",
        )
    if is_out_of_memory(error):
        return ErrorEvent(
            "out-of-memory",
            "There is not enough memory for this job.",
            "Close other programs, choose fewer slices at a time (batch size) or a region of "
            "interest.",
        )
    return ErrorEvent(
        "internal",
        f"TomoSeg failed unexpectedly: {type(error).__name__}: {error}".splitlines()[0] + ".",
        "This is a defect: please report it with the traceback.",
        traceback="".join(traceback.format_exception(type(error), error, error.__traceback__)),
    )


class _Cancelled(BaseException):
    """Somebody wants the job to end."""


class _Inbox:
    """Listens for a document, for the wish to cancel and for the parent's death."""

    def __init__(self, *, document_on_stdin: bool, detached: bool) -> None:
        # SimpleQueue.put may be called in a signal handler, Event.set may not.
        self._cancels: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._documents: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._parent = None if detached else os.getppid()
        for name in ("SIGTERM", "SIGINT", "SIGBREAK", "SIGHUP"):
            if hasattr(signal, name) and not (detached and name == "SIGHUP"):
                signal.signal(getattr(signal, name), lambda *_: self.cancel())
        if document_on_stdin or not detached:
            threading.Thread(
                target=self._listen, args=(document_on_stdin, detached), daemon=True
            ).start()

    def cancel(self) -> None:
        """Make `wait` and `document` raise."""
        self._cancels.put(None)

    def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            _Cancelled: At once, when the job is to end.
        """
        with contextlib.suppress(queue.Empty):
            self._cancels.get(timeout=seconds)
            raise _Cancelled
        if self._parent is not None and os.getppid() != self._parent:
            raise _Cancelled

    def document(self) -> str:
        """The document from stdin."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._documents.get(timeout=_POLL_S)
            self.wait(0.001)

    def _listen(self, document_first: bool, detached: bool) -> None:
        # Unbuffered: a thread that waits in sys.stdin would hold its lock at the process's end.
        try:
            with open(0, "rb", buffering=0, closefd=False) as stdin:
                if document_first:
                    self._documents.put(stdin.readline(_MAX_LINE).decode("utf-8", "replace"))
                mode = os.fstat(0).st_mode
                if detached or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                    return  # a terminal or /dev/null: its end says nothing
                while line := stdin.readline(_MAX_LINE):
                    if line.strip() == b"cancel":
                        break
        except OSError:  # no stdin at all
            return
        self.cancel()


def _read(source: str, inbox: _Inbox) -> AnyJob:
    from TomoSegLib.jobs.document import parse_job_text, read_job

    return parse_job_text(inbox.document()) if source == "-" else read_job(Path(source))


def _make_scratch(job: AnyJob) -> Scratch | None:
    from TomoSegLib.jobs.document import (
        ClassifyJob,
        ImportModelJob,
        InspectStudyJob,
        RefineMaskJob,
        RunJob,
    )
    from TomoSegLib.jobs.scratch import Scratch

    if isinstance(job, (RunJob, ClassifyJob)):
        return Scratch(Path(job.output), job.outputs, job.overwrite)
    if isinstance(job, InspectStudyJob):
        return Scratch(Path(job.output), job.outputs)
    if isinstance(job, RefineMaskJob):
        output = Path(job.output)
        return Scratch(output.parent, (output.name,), job.overwrite)
    if isinstance(job, ImportModelJob):
        from TomoSegLib.jobs.models import StoreScratch

        return StoreScratch(job.replace)
    return None


def _clean_up_batch(job: AnyJob | None) -> None:
    """Remove what a killed batch has left of the case that it was at."""
    if job is not None and job.kind == "batch":
        from TomoSegLib.jobs.scratch import remove_stale_below, remove_unfinished_files

        with contextlib.suppress(OSError, ImportError):
            remove_stale_below(Path(job.output))
            remove_unfinished_files(Path(job.output))


def _supervise(job: AnyJob, scratch: Scratch | None, emit: EventWriter, inbox: _Inbox) -> Outcome:
    """Run the child to its end, or to ours."""
    processes.adopt_orphans()
    results = "" if scratch is None else str(scratch.results)
    child = subprocess.Popen(
        task_command(results),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    outcomes: list[Outcome] = []
    last_words: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
    readers = [
        threading.Thread(
            target=_relay_events, args=(child.stdout, emit, outcomes, inbox), daemon=True
        ),
        threading.Thread(target=_relay_stderr, args=(child.stderr, last_words), daemon=True),
    ]
    for reader in readers:
        reader.start()
    with contextlib.suppress(OSError):  # a child that has died already is noticed below
        child.stdin.write(job.model_dump_json().encode() + b"\n")
        child.stdin.flush()
    # From here on the pipe is a lifeline: the child ends when our side of it closes.
    try:
        last_touch = time.monotonic()
        while child.poll() is None:
            inbox.wait(_POLL_S)
            if scratch is not None and time.monotonic() - last_touch > scratch.heartbeat_s:
                scratch.touch()
                last_touch = time.monotonic()
    finally:
        processes.end_children()
    # With the last writer gone the pipes end; a slow reader of ours may still take its time.
    deadline = time.monotonic() + _SLOW_READER_S
    while any(reader.is_alive() for reader in readers) and time.monotonic() < deadline:
        inbox.wait(0.02)
    if outcomes:
        return outcomes[-1]
    return _worker_died(child.returncode, "".join(last_words))


def task_command(results: str) -> list[str]:
    """The child that computes; tests put others in its place."""
    return [sys.executable, "-m", "TomoSegLib.jobs", "--task", results]


def _relay_events(
    stream: BinaryIO, emit: EventWriter, outcomes: list[Outcome], inbox: _Inbox
) -> None:
    """Pass the child's events on, but keep its last: it counts when the files are in place."""
    try:
        while line := stream.readline(_MAX_LINE):
            try:
                event = decode(line)
            except ValueError:
                sys.stderr.write(line.decode("utf-8", "replace"))
                continue
            if isinstance(event, (ResultEvent, ErrorEvent)):
                outcomes.append(event)
            else:
                emit.write_line(line)
    except OSError:  # nobody listens to us any more
        inbox.cancel()


def _relay_stderr(stream: BinaryIO, last_words: collections.deque[str]) -> None:
    while line := stream.readline(_MAX_LINE):
        text = line.decode("utf-8", "replace")
        last_words.append(text)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _worker_died(status: int, log: str) -> ErrorEvent:
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return ErrorEvent(
        "worker-died",
        f"The computation ended unexpectedly ({how}).",
        "Most often the system ran out of memory: close other programs, or choose a smaller "
        "batch size or a region of interest.",
        log=log,
    )


def _status(outcome: Outcome) -> int:
    return outcome.exit_status if isinstance(outcome, ErrorEvent) else EXIT_OK


def _exit_after(seconds: float, status: int) -> None:
    time.sleep(seconds)
    os._exit(status)
