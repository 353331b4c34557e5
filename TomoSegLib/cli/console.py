"""What the command line shows: progress bars, warnings, errors."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.events import (
    ErrorEvent,
    Event,
    ProgressEvent,
    ResultEvent,
    WarningEvent,
)

STAGES = {
    "cases": "cases",
    "frames": "frames",
    "read": "reading",
    "prepare": "preparing",
    "load-model": "loading the model",
    "heatmap": "heatmap",
    "segment": "segmenting",
    "classify": "classifying",
    "mask": "mask",
    "write": "writing",
    "import": "importing",
    "verify": "checking",
}


class JobFailed(Exception):
    """A job has ended with an error, which has been shown."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def print_error(code: str, message: str, hint: str = "") -> None:
    """One line on stderr."""
    print(_one_line(f"tomoseg: error [{code}]: {message} {hint}"), file=sys.stderr)


def _one_line(text: str) -> str:
    """The text without what a file's name or header could do to a terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(line.split())


def follow_job(document: Mapping[str, Any]) -> ResultEvent:
    """Run a job in a worker, with progress bars on a terminal; Ctrl-C cancels it.

    Raises:
        JobFailed: It ended with an error.
    """
    cancel = threading.Event()
    with _cancelled_by_signals(cancel), _Progress() as progress:
        outcome = run_job(document, progress, cancel)
    if isinstance(outcome, ResultEvent):
        return outcome
    if outcome.traceback:
        print(outcome.traceback, file=sys.stderr)
    if outcome.log:
        print(outcome.log.rstrip(), file=sys.stderr)
    print_error(outcome.code, outcome.message, outcome.hint)
    raise JobFailed(outcome.exit_status)


@contextlib.contextmanager
def _cancelled_by_signals(cancel: threading.Event) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        cancel.set()

    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """Shows events as they come: a bar for each stage on a terminal, warnings anywhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[eta]:>8}"),
            TextColumn("[dim]{task.fields[where]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Progress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self._show(event)
        elif isinstance(event, WarningEvent):
            text = _one_line(f"tomoseg: warning [{event.code}]: {event.message} {event.hint}")
            if self._bars.disable:
                print(text, file=sys.stderr)
            else:
                self._bars.console.print(text, markup=False, highlight=False)
        elif isinstance(event, ErrorEvent):
            self._bars.stop()

    def _show(self, event: ProgressEvent) -> None:
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bars.add_task(
                STAGES.get(event.stage, event.stage), total=None, eta="", where=""
            )
        where = event.device
        if event.memory_mb is not None:
            where += f"  {event.memory_mb / 1024:.1f} GiB"
        eta = "" if not event.eta_s else _duration(event.eta_s)
        self._bars.update(
            self._tasks[event.stage],
            completed=event.done,
            total=event.total or None,
            eta=eta,
            where=where,
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
