"""Jobs without volumes and results: a question, a check, an import; in a worker of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, Event, ProgressEvent, ResultEvent, WarningEvent
from TomoSegPanel.worker import WorkerProcess
from TomoSegPanel.workFolder import WorkFolder

MakeWorker = Callable[[str, Callable[[Event], None]], Any]


class SmallJob:
    """Carries out one small job at a time.

    Args:
        onEnd: Called with the last event of a job: its result, or its error.
        onProgress: Called with the progress.
        makeWorker: Makes the worker of a document; tests put others in its place.
        onWarning: Called with each warning.
    """

    def __init__(
        self,
        onEnd: Callable[[ResultEvent | ErrorEvent], None],
        onProgress: Callable[[ProgressEvent], None] = lambda event: None,
        makeWorker: MakeWorker = WorkerProcess,
        onWarning: Callable[[WarningEvent], None] = lambda event: None,
    ) -> None:
        self._onEnd, self._onProgress, self._onWarning = onEnd, onProgress, onWarning
        self._makeWorker = makeWorker
        self._worker: Any = None
        self._folder: WorkFolder | None = None

    @property
    def isRunning(self) -> bool:
        """Whether a job is under way."""
        return self._worker is not None

    def start(self, document: Mapping[str, Any]) -> None:
        """Start a job, unless one is under way; returns at once.

        Args:
            document: The job document.
        """
        if self.isRunning:
            return
        try:
            self._folder = WorkFolder(slicer.app.temporaryPath)
            path = self._folder.path / "job.json"
            path.write_text(json.dumps(document), encoding="utf-8")
        except OSError as error:
            self._end(filesError(error))
            return
        self._worker = self._makeWorker(str(path), self._onEvent)
        self._worker.start()

    def cancel(self) -> None:
        """End the job within a second; it ends with the error ``cancelled``."""
        if self._worker is not None:
            self._worker.cancel()

    def abandon(self) -> None:
        """End the job and hear no more of it: the panel goes away."""
        if self._worker is not None:
            self._worker.abandon()
            self._forget()

    def _onEvent(self, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self._onProgress(event)
        elif isinstance(event, WarningEvent):
            self._onWarning(event)
        elif isinstance(event, (ResultEvent, ErrorEvent)):
            self._end(event)

    def _end(self, event: ResultEvent | ErrorEvent) -> None:
        self._forget()
        self._onEnd(event)

    def _forget(self) -> None:
        self._worker = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


def filesError(error: Exception) -> ErrorEvent:
    """What went wrong with the files between the panel and a worker."""
    return ErrorEvent(
        "panel-files",
        _("A file for the worker could not be written or read: {error}.").format(error=error),
        _(
            "Check that there is space on the disk of Slicer's temporary folder "
            "(Edit, Application Settings, General)."
        ),
    )
