"""Runs: from volumes in the scene to files of results, one after the other, in the background."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from slicer.i18n import tr as _

from TomoSegLib.jobs.events import (
    ErrorEvent,
    Event,
    PreviewEvent,
    ProgressEvent,
    ResultEvent,
    WarningEvent,
)
from TomoSegPanel.background import Background
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.runData import ChannelData, LabelData, MapData, RunResult
from TomoSegPanel.worker import WorkerProcess
from TomoSegPanel.workFolder import WorkFolder

T = TypeVar("T")


class RunState(enum.Enum):
    """Where a run is; `RunState.isOver` tells whether it has come to an end."""

    QUEUED = "queued"
    EXPORTING = "exporting"
    RUNNING = "running"
    LOADING = "loading"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def isOver(self) -> bool:
        return self in (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)


_NEXT = {
    RunState.QUEUED: {RunState.EXPORTING, RunState.CANCELLED},
    RunState.EXPORTING: {RunState.RUNNING, RunState.FAILED, RunState.CANCELLED},
    RunState.RUNNING: {RunState.LOADING, RunState.FAILED, RunState.CANCELLING, RunState.CANCELLED},
    RunState.LOADING: {RunState.FINISHED, RunState.FAILED, RunState.CANCELLED},
    RunState.CANCELLING: {RunState.CANCELLED},
}


class Worker(Protocol):
    """What a run needs of a worker process; see `TomoSegPanel.worker.WorkerProcess`."""

    def start(self) -> None: ...

    def cancel(self) -> None: ...

    def abandon(self) -> None: ...


class RunObserver(Protocol):
    """Who wants to hear of runs."""

    def onStateChanged(self, run: Run) -> None: ...

    def onProgress(self, run: Run, event: ProgressEvent) -> None: ...

    def onWarning(self, run: Run, event: WarningEvent) -> None: ...

    def onPreview(self, run: Run, heatmap: MapData, directions: int) -> None: ...

    def onResult(self, run: Run, result: RunResult) -> None: ...


class Run:
    """One run, whose observer is told of everything in the main thread.

    Args:
        settings: What to do.
        channels: The volumes by channel; not copied, so they must not be changed while they are
            written (a second or so).
        title: Its name for people.
        observer: Who is told.
        folder: Where to make the run's own temporary folder.
        makeWorker: Makes the worker of a document; tests put others in its place.

    Attributes:
        context: Whatever the caller wants to find again with the run (the nodes that it is for).
        error: The error with which it ended, if it did.
        warnings: The warnings so far.
    """

    def __init__(
        self,
        settings: RunSettings,
        channels: Mapping[str, ChannelData],
        title: str,
        observer: RunObserver,
        folder: str,
        makeWorker: Callable[[str, Callable[[Event], None]], Worker] = WorkerProcess,
    ) -> None:
        self.settings, self.title = settings, title
        self.state = RunState.QUEUED
        self.context: dict[str, Any] = {}
        self.error: ErrorEvent | None = None
        self.warnings: list[WarningEvent] = []
        self._channels: Mapping[str, ChannelData] = dict(channels)
        self._observer = observer
        self._parentFolder = folder
        self._folder: WorkFolder | None = None
        self._makeWorker = makeWorker
        self._worker: Worker | None = None
        self._background = Background()
        self._loadingPreview = False
        self._nextPreview: PreviewEvent | None = None

    def start(self) -> None:
        """Write the volumes in the background, then start the worker."""
        self._become(RunState.EXPORTING)
        try:
            self._folder = WorkFolder(self._parentFolder)
        except OSError as error:
            self._fail(_fileError(error))
            return
        self._inBackground(self._export, self._startWorker, lambda e: self._fail(_fileError(e)))

    def cancel(self) -> None:
        """End the run; what was shown of it stays with whom it was shown to."""
        if self.state is RunState.RUNNING:
            self._become(RunState.CANCELLING)
            if self._worker is not None:
                self._worker.cancel()
        elif not self.state.isOver and self.state is not RunState.CANCELLING:
            self._finish(RunState.CANCELLED)

    def giveUp(self, error: ErrorEvent) -> None:
        """End the run because what it finds has nowhere to go."""
        self.error = error
        self.cancel()

    def abandon(self) -> None:
        """End the run without telling anybody: scene or application are closing."""
        self._background.forget()
        if self._worker is not None and not self.state.isOver:
            self._worker.abandon()
        self._removeFolder()

    def report(self) -> str:
        """All that is known of the run, as text for a bug report."""
        lines = [f"TomoSeg run: {self.title}", f"state: {self.state.value}"]
        lines.append("job: " + json.dumps(self.settings.document({}, "", ""), sort_keys=True))
        lines += [f"warning: {w.message} [{w.code}] {w.hint}" for w in self.warnings]
        if self.error is not None:
            lines.append(f"error: {self.error.message} [{self.error.code}] {self.error.hint}")
            lines += [text for text in (self.error.traceback, self.error.log) if text]
        return "\n".join(lines)

    def _inBackground(
        self,
        function: Callable[[Path], T],
        onDone: Callable[[T], None],
        onError: Callable[[Exception], None],
    ) -> None:
        """Do what needs the files of the run in a thread."""
        assert self._folder is not None
        path = self._folder.path
        self._background.run(self._folder.using(lambda: function(path)), onDone, onError)

    def _export(self, folder: Path) -> str:
        paths = {}
        for index, (name, data) in enumerate(self._channels.items()):
            # The worker's messages name the file: by the name that people know.
            own = folder / f"input-{index}"
            own.mkdir()
            paths[name] = str(data.write(own, _fileName(data.name)))
        document = self.settings.document(paths, str(folder / "results"), str(folder / "previews"))
        path = folder / "job.json"
        path.write_text(json.dumps(document, indent=2), encoding="utf-8")
        return str(path)

    def _startWorker(self, document: str) -> None:
        self._channels = {}
        if self.state is not RunState.EXPORTING:  # cancelled meanwhile
            return
        self._become(RunState.RUNNING)
        self._worker = self._makeWorker(document, self._onEvent)
        self._worker.start()

    def _onEvent(self, event: Event) -> None:
        if self.state.isOver:
            return
        if isinstance(event, ProgressEvent):
            self._observer.onProgress(self, event)
        elif isinstance(event, WarningEvent):
            self.warnings.append(event)
            self._observer.onWarning(self, event)
        elif isinstance(event, PreviewEvent):
            self._nextPreview = event
            self._loadNextPreview()
        elif isinstance(event, ErrorEvent):
            if event.code == "cancelled" or self.state is RunState.CANCELLING:
                self._finish(RunState.CANCELLED)
            else:
                self._fail(event)
        elif isinstance(event, ResultEvent):
            if self.state is RunState.CANCELLING:  # too late, but the user has said no
                self._finish(RunState.CANCELLED)
                return
            self._become(RunState.LOADING)
            self._inBackground(self._load, self._onLoaded, lambda e: self._fail(_fileError(e)))

    def _loadNextPreview(self) -> None:
        """Load the newest preview, one at a time; those that come too fast are passed over."""
        event = self._nextPreview
        if event is None or self._loadingPreview or self.state is not RunState.RUNNING:
            return
        self._nextPreview, self._loadingPreview = None, True

        def show(heatmap: MapData | None) -> None:
            self._loadingPreview = False
            if heatmap is not None and self.state is RunState.RUNNING:
                self._observer.onPreview(self, heatmap, event.directions)
            self._loadNextPreview()

        # A preview that cannot be read is no reason to give the run up.
        self._inBackground(lambda _: MapData.read(event.path), show, lambda error: show(None))

    def _load(self, folder: Path) -> RunResult:
        results = folder / "results"
        record = json.loads((results / "result.json").read_text(encoding="utf-8"))
        if str(record.get("task", "")).endswith("-sequence"):
            return RunResult.readSequence(results, record)
        if self.settings.card.task == "segmentation":
            return RunResult(record, labels=LabelData.read(results / "mask.seg.nrrd"))
        return RunResult(
            record,
            heatmap=MapData.read(results / "heatmap.nrrd"),
            agreement=MapData.read(results / "agreement.nrrd"),
        )

    def _onLoaded(self, result: RunResult) -> None:
        if self.state is not RunState.LOADING:
            return
        self._observer.onResult(self, result)
        if self.state is RunState.LOADING:  # it may have been given up
            self._finish(RunState.FINISHED)

    def _fail(self, error: ErrorEvent) -> None:
        if self.state.isOver:
            return
        self.error = error
        self._finish(RunState.FAILED)

    def _finish(self, state: RunState) -> None:
        self._background.forget()
        self._removeFolder()
        self._become(state)

    def _become(self, state: RunState) -> None:
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"a run that is {self.state.value} cannot become {state.value}")
        self.state = state
        self._observer.onStateChanged(self)

    def _removeFolder(self) -> None:
        if self._folder is not None:
            self._folder.remove()


class RunQueue:
    """Runs that are carried out one after the other."""

    def __init__(self) -> None:
        self.current: Run | None = None
        self.waiting: list[Run] = []

    def add(self, run: Run) -> None:
        """Start a run, or let it wait for its turn."""
        self.waiting.append(run)
        self.advance()

    def advance(self) -> None:
        """Start the next run if none is under way; to be called when a run has ended."""
        # A run that fails at once calls back from within its start.
        while self.waiting and (self.current is None or self.current.state.isOver):
            self.current = self.waiting.pop(0)
            self.current.start()

    def cancelAll(self) -> None:
        """Cancel what runs, and what waits."""
        waiting, self.waiting = self.waiting, []
        for run in waiting:
            run.cancel()
        if self.current is not None:
            self.current.cancel()

    def abandon(self) -> None:
        """Drop everything silently."""
        for run in [*self.waiting, *([self.current] if self.current else [])]:
            run.abandon()
        self.waiting, self.current = [], None


def _fileName(name: str) -> str:
    """A volume's name as far as all systems take it for a file's."""
    return re.sub(r"[^\w .()+-]", "_", name)[:60].strip(" .") or "volume"


def _fileError(error: Exception) -> ErrorEvent:
    """What went wrong with the files between scene and worker."""
    if isinstance(error, MemoryError):
        return ErrorEvent(
            "out-of-memory",
            _("There is not enough memory to load the result."),
            _("Close other volumes and programs."),
        )
    return ErrorEvent(
        "panel-files",
        _("A file of the run could not be written or read: {error}.").format(error=error),
        _(
            "Check that there is space on the disk of Slicer's temporary folder "
            "(Edit, Application Settings, General)."
        ),
    )
