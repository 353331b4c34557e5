"""A study of several views, read by the engine in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent, ResultEvent, WarningEvent
from TomoSegPanel.background import Background
from TomoSegPanel.smallJob import MakeWorker, SmallJob, filesError
from TomoSegPanel.studyTable import TABLE_FILE, tableText
from TomoSegPanel.volumeFiles import readNrrd
from TomoSegPanel.worker import WorkerProcess
from TomoSegPanel.workFolder import WorkFolder


@dataclass(frozen=True, eq=False)
class InspectedStudy:
    """What the engine has found.

    Attributes:
        data: Its views, what is not used of them, and their lines; see
            `TomoSegLib.jobs.inspect_study`.
        table: The table of views, as text.
        arrays: Voxels ``[k, j, i]`` of each view.
        warnings: What could not be used.
    """

    data: dict[str, Any]
    table: str
    arrays: Sequence[np.ndarray]
    warnings: Sequence[WarningEvent] = field(default_factory=list)


class StudyInspector:
    """Inspects one study at a time.

    Args:
        onProgress: Called with the progress.
        onEnd: Called with the study, or with the error (``cancelled`` among them).
        makeWorker: Makes the worker of a document; tests put others in its place.
    """

    def __init__(
        self,
        onProgress: Callable[[ProgressEvent], None],
        onEnd: Callable[[InspectedStudy | ErrorEvent], None],
        makeWorker: MakeWorker = WorkerProcess,
    ) -> None:
        self._onEnd = onEnd
        self._job = SmallJob(self._onJobEnd, onProgress, makeWorker, self._onWarning)
        self._background = Background()
        self._folder: WorkFolder | None = None
        self._warnings: list[WarningEvent] = []

    @property
    def isRunning(self) -> bool:
        """Whether a study is being inspected."""
        return self._folder is not None

    def start(self, study: str, rows: Sequence[dict[str, str]] | None = None) -> None:
        """Begin; returns at once.

        Args:
            study: The study's folder.
            rows: A corrected table of its views; by default the study's own, if it has one.
        """
        if self.isRunning:
            return
        self._warnings = []
        document = {"kind": "inspect-study", "study": study}
        try:
            self._folder = WorkFolder(slicer.app.temporaryPath)
            if rows is not None:
                table = self._folder.path / TABLE_FILE
                table.write_text(tableText(rows), encoding="utf-8")
                document["views"] = str(table)
        except OSError as error:
            self._end(filesError(error))
            return
        self._job.start({**document, "output": str(self._folder.path / "results")})

    def cancel(self) -> None:
        """End it within a second."""
        if self._job.isRunning:
            self._job.cancel()
        elif self.isRunning:  # its files are being read
            self._background.forget()
            self._end(ErrorEvent("cancelled", ""))

    def abandon(self) -> None:
        """End it and hear no more of it: the scene or the panel goes away."""
        self._job.abandon()
        self._background.forget()
        self._removeFolder()

    def _onWarning(self, event: WarningEvent) -> None:
        self._warnings.append(event)

    def _onJobEnd(self, event: ResultEvent | ErrorEvent) -> None:
        if isinstance(event, ErrorEvent):
            self._end(event)
            return
        assert self._folder is not None
        results, data, warnings = self._folder.path / "results", event.data, self._warnings

        def read() -> InspectedStudy:
            arrays = [readNrrd(results / view["volume"]["file"]) for view in data["views"]]
            table = (results / TABLE_FILE).read_text(encoding="utf-8")
            return InspectedStudy(data, table, arrays, warnings)

        self._background.run(
            self._folder.using(read), self._end, lambda error: self._end(filesError(error))
        )

    def _end(self, outcome: InspectedStudy | ErrorEvent) -> None:
        self._removeFolder()
        self._onEnd(outcome)

    def _removeFolder(self) -> None:
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
