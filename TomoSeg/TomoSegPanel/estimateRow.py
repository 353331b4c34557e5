"""What the section Method says of the run before it starts: work, memory and time."""

from __future__ import annotations

from typing import Any

import numpy as np
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, ResultEvent
from TomoSegPanel.estimate import (
    durationText,
    knownSecondsPerSlice,
    memoryMb,
    rememberSpeed,
    sliceCount,
    volumeEdges,
)
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.section import Section
from TomoSegPanel.smallJob import SmallJob
from TomoSegPanel.worker import WorkerProcess


class EstimateRow(Section):
    """Estimates the run; measures the model's speed where it is not known yet.

    Attributes:
        makeWorker: Makes the workers that measure; tests put others in its place.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.makeWorker: Any = WorkerProcess
        self._job = SmallJob(
            self._onMeasured, makeWorker=lambda path, onEvent: self.makeWorker(path, onEvent)
        )
        self._measured: RunSettings | None = None
        self._failure: tuple[str, str] = ("", "")
        self.ui.speedButton.connect("clicked()", self.measure)

    def show(self, vectors: np.ndarray | None) -> None:
        """Show the estimate for the parameters as they are now.

        Args:
            vectors: The directions ``(A, 3)``, None where they are not known or there are none.
        """
        card, volume = self.panel.card, self.parameters.inputVolume
        if card is None or volume is None or volume.GetImageData() is None:
            self.ui.estimateNote.setText("")
            self.ui.speedButton.setVisible(False)
            return
        texts = [self._memoryText()]
        isUnknown = False
        if card.task == "heatmap" and vectors is not None:
            slices = sliceCount(volume, card, vectors)
            settings = RunSettings.of(self.parameters, card)
            perSlice = knownSecondsPerSlice(settings)
            isUnknown = perSlice is None
            work = _("At most {slices} slices in {directions} directions.")
            texts.insert(0, work.format(slices=slices, directions=len(vectors)))
            if perSlice is not None:
                text = _("About {duration}, as measured with this model on this device.")
                texts.append(text.format(duration=durationText(perSlice * slices)))
            elif self._job.isRunning:
                texts.append(_("The time is being measured…"))
            else:
                texts.append(_("The time is not known yet."))
        if self._failure[0] == card.name:
            texts.append(self._failure[1])
        self.ui.estimateNote.setText(" ".join(texts))
        self.ui.speedButton.setVisible(isUnknown)
        self.ui.speedButton.setEnabled(not self._job.isRunning and not self.panel.computing.problem)

    def measure(self) -> None:
        """Find out how long a slice takes here, in the background."""
        card, volume = self.panel.card, self.parameters.inputVolume
        if card is None or volume is None or self._job.isRunning:
            return
        settings = RunSettings.of(self.parameters, card)
        side = float(np.clip(np.linalg.norm(volumeEdges(volume), axis=0).mean(), 1, 2000))
        document: dict[str, Any] = {
            "kind": "estimate",
            "model": card.name,
            "method": settings.usedMethod,
            "slice_mm": [side, side],
            "device": settings.device,
        }
        if settings.usedMethod != "tonno":
            document["cam"] = settings.camKind
        if settings.batchSize:
            document["batch_size"] = settings.batchSize
        self._measured, self._failure = settings, ("", "")
        self._job.start(document)
        self.panel.refresh()

    def cleanup(self) -> None:
        """Of `Section`."""
        self._job.abandon()

    def _memoryText(self) -> str:
        memory = memoryMb(self.parameters.inputVolume, self.panel.card)
        text = _("About {memory} MB of memory besides PyTorch and the network.").format(
            memory=max(10, 10 * round(memory / 10))
        )
        free = self.panel.computing.freeMemoryMb
        if free is not None and memory > free:
            text += " " + _("⚠ Only {free} MB are free: close other programs.").format(free=free)
        return text

    def _onMeasured(self, event: ResultEvent | ErrorEvent) -> None:
        settings = self._measured
        if settings is not None and isinstance(event, ResultEvent):
            seconds = event.data.get("seconds_per_slice")
            if isinstance(seconds, (int, float)):
                rememberSpeed(settings, float(seconds))
        elif settings is not None and isinstance(event, ErrorEvent):
            text = _("⚠ The time cannot be measured: {message} {hint}")
            self._failure = (
                settings.card.name,
                text.format(message=event.message, hint=event.hint),
            )
        self.panel.refresh()
