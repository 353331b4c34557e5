"""One worker process of the engine, followed through Qt's event loop."""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence

import qt
import slicer.util
from slicer.i18n import tr as _

from TomoSegLib.jobs.client import CANCEL_S, STDERR_LINES, EventStream, worker_command
from TomoSegLib.jobs.events import ErrorEvent, Event, ResultEvent, StartedEvent

# What a worker needs of the engine's own; panel and worker must look for models in one place.
_ENGINE_VARIABLES = ("PYTHONPATH", "PYTHONUTF8", "PYTHONSAFEPATH", "TOMOSEG_MODELS")


def workerPython() -> str:
    """The interpreter for workers: Slicer's own, which `sys.executable` need not be."""
    return shutil.which("PythonSlicer") or sys.executable


class WorkerProcess:
    """A worker; every one that is started gives exactly one result or error event, as its last.

    Args:
        document: Path of the job document.
        onEvent: Called with each event in the main thread.
        command: Another program with its arguments, for tests.
    """

    def __init__(
        self,
        document: str,
        onEvent: Callable[[Event], None],
        command: Sequence[str] | None = None,
    ) -> None:
        default, environment = worker_command(document, workerPython())
        self._command = list(command or default)
        self._onEvent: Callable[[Event], None] = onEvent
        self._stream = EventStream()
        self._log: collections.deque[bytes] = collections.deque(maxlen=STDERR_LINES)
        self._outcome: ResultEvent | ErrorEvent | None = None
        self._ended = False
        self._cancelled = False
        self._workerPid: int | None = None
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(_environment(environment))
        self._process.connect("readyReadStandardOutput()", self._read)
        self._process.connect("readyReadStandardError()", self._readLog)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._deadline = qt.QTimer()
        self._deadline.setSingleShot(True)
        self._deadline.setInterval(int(1000 * CANCEL_S))
        self._deadline.connect("timeout()", self.kill)

    def start(self) -> None:
        """Start the process; returns at once."""
        self._process.start(self._command[0], self._command[1:])

    def cancel(self) -> None:
        """Ask the worker to end, with all that it has started; it is killed if it does not."""
        if self._ended or self._cancelled:
            return
        self._cancelled = True
        if self._process.state() == qt.QProcess.Starting:
            self.kill()
            return
        self._process.closeWriteChannel()  # the end of its stdin is the worker's sign to stop
        self._deadline.start()

    def kill(self) -> None:
        """End the worker and what it has started, now."""
        # PythonSlicer is a launcher: to kill it alone would leave the worker. The worker's own
        # child ends when the worker does.
        if self._workerPid is not None and not self._ended:
            _killProcess(self._workerPid)
        self._process.kill()

    def abandon(self) -> None:
        """End everything and hear no more of it: the application or the scene is closing."""
        self._onEvent = lambda event: None
        if not self._ended:
            self._process.closeWriteChannel()
            self.kill()
            # So short a wait, once, lets Qt reap the process instead of complaining of it.
            self._process.waitForFinished(90)

    def _read(self) -> None:
        self._pass(self._stream.feed(self._process.readAllStandardOutput().data()))

    def _readLog(self) -> None:
        self._log.extend(self._process.readAllStandardError().data().splitlines(keepends=True))

    def _pass(self, events: list[Event]) -> None:
        for event in events:
            if self._outcome is not None:
                return  # the last word has been spoken
            if isinstance(event, StartedEvent):
                self._workerPid = event.pid
            if isinstance(event, (ResultEvent, ErrorEvent)):
                self._outcome = event
            else:
                self._onEvent(event)

    def _onFinished(self, status: int, how: int) -> None:
        if self._ended:
            return
        self._read()
        self._pass(self._stream.close())
        self._readLog()
        self._end(self._outcome or self._silentEnd(status, how))

    def _onProcessError(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart and not self._ended:
            self._end(
                ErrorEvent(
                    "worker-not-started",
                    _("The worker could not be started: {reason}.").format(
                        reason=self._process.errorString()
                    ),
                    _("Check that this program exists and may be run: {program}").format(
                        program=self._command[0]
                    ),
                )
            )

    def _end(self, outcome: ResultEvent | ErrorEvent) -> None:
        self._ended = True
        self._deadline.stop()
        self._onEvent(outcome)

    def _silentEnd(self, status: int, how: int) -> ErrorEvent:
        if self._cancelled:
            return ErrorEvent("cancelled", _("The job was cancelled."))
        crashed = how == qt.QProcess.CrashExit
        reason = (
            _("it crashed or was killed")
            if crashed
            else _("exit status {status}").format(status=status)
        )
        return ErrorEvent(
            "worker-died",
            _("The worker ended without a result ({reason}).").format(reason=reason),
            _("Run it again; if that does not help, report it with the log."),
            log=b"".join(self._log).decode("utf-8", "replace"),
        )


def _environment(engine: dict[str, str]) -> object:
    """The environment in which Slicer itself was started, with what the engine needs added.

    Slicer's own variables (its library and Python paths) are set again by PythonSlicer.
    """
    environment = qt.QProcessEnvironment()
    for name, value in slicer.util.startupEnvironment().items():
        environment.insert(name, value)
    for name in _ENGINE_VARIABLES:
        if name in engine:
            environment.insert(name, engine[name])
    environment.insert("PYTHONIOENCODING", "utf-8")
    return environment


def _killProcess(pid: int) -> None:
    if os.name == "nt":
        qt.QProcess.startDetached("taskkill", ["/F", "/T", "/PID", str(pid)])
    else:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
