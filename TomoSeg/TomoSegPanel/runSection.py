"""The section Run: starting, following and ending runs."""

from __future__ import annotations

import html
import time
from typing import Any

import qt
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent, WarningEvent
from TomoSegPanel import sequences
from TomoSegPanel.estimate import durationText, rememberSpeed
from TomoSegPanel.job import Run, RunState
from TomoSegPanel.parameters import RunSettings, channelNodes, isValid
from TomoSegPanel.section import Section, signalsBlocked


class RunSection(Section):
    """Starts runs and shows how they go."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._lastRun: Run | None = None
        self._stage = ""
        self._directions: int | None = None
        self._heatmapSince: float | None = None
        self.ui.runButton.connect("clicked()", self.run)
        self.ui.cancelButton.connect("clicked()", self.panel.runs.queue.cancelAll)
        self.ui.cancelCurrentButton.connect("clicked()", self.cancelCurrent)
        self.ui.removeWaitingButton.connect("clicked()", self.removeWaiting)
        self.ui.queueList.connect("itemSelectionChanged()", self._showQueueButtons)
        self.ui.copyReportButton.connect("clicked()", self.copyReport)
        self._showRun(None)
        self._showQueue()

    def run(self) -> None:
        """Start a run with the settings of the panel, or let it wait for its turn."""
        card, parameters = self.panel.card, self.parameters
        if not isValid(parameters, card)[0]:
            return
        volumes = channelNodes(parameters, card)
        everyFrame = parameters.everyFrame and sequences.of(parameters.inputVolume) is not None
        self.start(RunSettings.of(parameters, card), volumes, everyFrame)

    def start(
        self, settings: RunSettings, volumes: dict[str, Any], everyFrame: bool = False
    ) -> None:
        """Start a run with given settings, on the volumes or on every frame of their sequences."""
        self.panel.runs.start(settings, volumes, self._keepPartial, everyFrame)
        self._showStage(self._stage)  # one more may be waiting
        self.refresh()

    def cancelCurrent(self) -> None:
        """End the run that is under way; the next one begins."""
        current = self.panel.runs.queue.current
        if current is not None:
            current.cancel()

    def removeWaiting(self) -> None:
        """Take the chosen run out of the queue."""
        row, waiting = self.ui.queueList.currentRow, self.panel.runs.queue.waiting
        if 0 <= row < len(waiting):
            run = waiting.pop(row)
            run.cancel()
            self._showQueue()

    def copyReport(self) -> None:
        """Put all that is known of the last run on the clipboard."""
        if self._lastRun is not None:
            qt.QApplication.clipboard().setText(self._lastRun.report())

    def refresh(self) -> None:
        """Of `Section`."""
        valid, reason = isValid(self.parameters, self.panel.card)
        problem = self.panel.computing.problem or self.panel.method.problem
        if valid and problem:
            valid, reason = False, problem
        queue = self.panel.runs.queue
        busy = queue.current is not None and not queue.current.state.isOver
        if valid and busy:
            reason = _("Let this run wait for its turn.")
        elif valid:
            reason = _("Start a run in the background; Slicer stays usable.")
        self.ui.runButton.setEnabled(valid)
        self.ui.runButton.setToolTip(reason)
        self.ui.cancelButton.setEnabled(busy)
        card = self.panel.card
        self.ui.keepPartialCheckBox.setVisible(card is None or card.task == "heatmap")
        self._showQueue()

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._lastRun = None
        self._showRun(None)

    def onRunChanged(self, run: Run) -> None:
        """Of `RunListener`."""
        self._lastRun = run
        if run.state is RunState.EXPORTING:
            self._directions, self._heatmapSince = None, None
        self._showRun(run)
        if self.parameters is not None:
            self.refresh()

    def onRunWarning(self, run: Run, event: WarningEvent) -> None:
        """Of `RunListener`."""
        self._showMessages(run)

    def onRunProgress(self, run: Run, event: ProgressEvent) -> None:
        """Of `RunListener`."""
        if run.state is not RunState.RUNNING:
            return
        titles = {
            "read": _("Reading the volume"),
            "prepare": _("Preparing the volume"),
            "frames": _("Frame {number} of {count}").format(
                number=min(event.done + 1, event.total or 1), count=event.total
            ),
            "load-model": _("Loading the model"),
            "heatmap": _("Looking at slices"),
            "mask": _("Making the mask"),
            "write": _("Writing the result"),
        }
        text = titles.get(event.stage, event.stage)
        if event.eta_s is not None:
            text += ", " + _("about {duration} left").format(duration=durationText(event.eta_s))
        if self._directions is not None:
            text += "; " + _("heatmap of {count} directions shown").format(count=self._directions)
        self._showStage(f"{text} ({event.device})")
        self.ui.progressBar.setMaximum(event.total or 0)  # 0: moves to and fro
        self.ui.progressBar.setValue(event.done if event.total else 0)
        self._measure(run, event)

    def onHeatmapChanged(self, directions: int | None) -> None:
        """A preview is shown (of so many directions), or the result (None)."""
        self._directions = directions

    def _measure(self, run: Run, event: ProgressEvent) -> None:
        """Remember the speed of a whole heatmap, for the next estimate."""
        if event.stage != "heatmap":
            return
        now = time.monotonic()
        if self._heatmapSince is None:
            self._heatmapSince = now
        elif event.total and event.done == event.total:
            seconds = (now - self._heatmapSince) / event.total
            rememberSpeed(run.settings, seconds)

    def _keepPartial(self) -> bool:
        return self.parameters is None or self.parameters.keepPartial

    def _showRun(self, run: Run | None) -> None:
        states = {
            RunState.QUEUED: _("Waiting"),
            RunState.EXPORTING: _("Handing the volume over"),
            RunState.RUNNING: _("Starting"),
            RunState.LOADING: _("Loading the result"),
            RunState.CANCELLING: _("Cancelling"),
            RunState.FINISHED: _("Done"),
            RunState.FAILED: _("Failed"),
            RunState.CANCELLED: _("Cancelled"),
        }
        self._showStage(f"{states[run.state]}: {run.title}" if run is not None else "")
        busy = run is not None and not run.state.isOver
        self.ui.progressBar.setVisible(busy)
        self.ui.progressBar.setMaximum(0 if busy else 100)
        self.ui.copyReportButton.setVisible(run is not None)
        self._showMessages(run)

    def _showStage(self, text: str) -> None:
        """Show what the run does, and how many wait for it."""
        self._stage = text
        waiting = len(self.panel.runs.queue.waiting)
        if waiting:
            text += "; " + _("{count} more waiting").format(count=waiting)
        self.ui.stageNote.setText(text)

    def _showQueue(self) -> None:
        """Show what waits."""
        waiting, listWidget = self.panel.runs.queue.waiting, self.ui.queueList
        titles = [run.title for run in waiting]
        if titles != [listWidget.item(row).text() for row in range(listWidget.count)]:
            row = listWidget.currentRow
            with signalsBlocked(listWidget):
                listWidget.clear()
                for title in titles:
                    listWidget.addItem(title)
                listWidget.setCurrentRow(min(row, len(titles) - 1))
        for widget in (listWidget, self.ui.removeWaitingButton, self.ui.cancelCurrentButton):
            widget.setVisible(bool(waiting))
        self._showQueueButtons()

    def _showQueueButtons(self) -> None:
        self.ui.removeWaitingButton.setEnabled(self.ui.queueList.currentRow >= 0)

    def _showMessages(self, run: Run | None) -> None:
        parts = []
        if run is not None and run.error is not None:
            parts.append(f"<b>✖ {_paragraph(run.error)}</b>")
        if run is not None:
            parts += [f"⚠ {_paragraph(warning)}" for warning in run.warnings]
        self.ui.messageNote.setText("<br>".join(parts))
        self.ui.messageNote.setVisible(bool(parts))


def _paragraph(event: ErrorEvent | WarningEvent) -> str:
    """What happened and what to do."""
    return html.escape(f"{event.message} {event.hint}".strip())
