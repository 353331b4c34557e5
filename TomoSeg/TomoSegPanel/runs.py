"""Runs and the scene: volumes go in, heatmaps that grow and stay come out, or segmentations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, Event, ProgressEvent, WarningEvent
from TomoSegPanel import display, segments, sequences
from TomoSegPanel.job import Run, RunQueue, RunState, Worker
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.provenance import AGREEMENT_ROLE, writePartial, writeRecord
from TomoSegPanel.runData import MapData, RunResult
from TomoSegPanel.sceneData import channelData
from TomoSegPanel.worker import WorkerProcess


class RunListener(Protocol):
    """Who shows what happens to runs; the nodes are in the scene when it is told."""

    def onRunChanged(self, run: Run) -> None: ...

    def onRunProgress(self, run: Run, event: ProgressEvent) -> None: ...

    def onRunWarning(self, run: Run, event: WarningEvent) -> None: ...

    def onHeatmapChanged(self, run: Run, result: Any, directions: int | None) -> None: ...


class SceneRuns:
    """Starts runs on nodes of the scene and puts what comes back into the scene.

    Args:
        makeWorker: Makes the worker of a document; tests put others in its place.

    Attributes:
        listener: Who is told, or None.
    """

    def __init__(
        self, makeWorker: Callable[[str, Callable[[Event], None]], Worker] = WorkerProcess
    ) -> None:
        self.queue = RunQueue()
        self.listener: RunListener | None = None
        self._makeWorker = makeWorker

    def start(
        self,
        settings: RunSettings,
        volumes: Mapping[str, Any],
        keepPartial: Callable[[], bool],
        everyFrame: bool = False,
    ) -> Run:
        """Queue a run.

        Args:
            settings: What to do.
            volumes: The volume nodes by channel, the first channel first.
            keepPartial: Asked when the run is cancelled: whether its heatmap so far stays.
            everyFrame: Work on every frame of the sequence that the first volume shows a frame of.
        """
        first = next(iter(volumes.values()))
        read = sequences.channelData if everyFrame else channelData
        run = Run(
            settings,
            {channel: read(node, first) for channel, node in volumes.items()},
            f"{first.GetName()}, {settings.card.title}",
            self,
            slicer.app.temporaryPath,
            self._makeWorker,
        )
        run.context["volumes"] = {channel: node.GetID() for channel, node in volumes.items()}
        run.context["keepPartial"] = keepPartial
        self.queue.add(run)
        return run

    def heatmapOf(self, run: Run) -> Any:
        """The heatmap of a run as far as it has come, or None."""
        nodeId = run.context.get("heatmap")
        return slicer.mrmlScene.GetNodeByID(nodeId) if nodeId else None

    def onStateChanged(self, run: Run) -> None:
        """Of `RunObserver`."""
        if run.state in (RunState.CANCELLED, RunState.FAILED):
            heatmap = self.heatmapOf(run)
            if heatmap is not None and not run.context["keepPartial"]():
                slicer.mrmlScene.RemoveNode(heatmap)
        if self.listener is not None:
            self.listener.onRunChanged(run)
        if run.state.isOver:
            self.queue.advance()

    def onProgress(self, run: Run, event: ProgressEvent) -> None:
        """Of `RunObserver`."""
        if self.listener is not None:
            self.listener.onRunProgress(run, event)

    def onWarning(self, run: Run, event: WarningEvent) -> None:
        """Of `RunObserver`."""
        if self.listener is not None:
            self.listener.onRunWarning(run, event)

    def onPreview(self, run: Run, heatmap: MapData, directions: int) -> None:
        """Of `RunObserver`: show the heatmap of the directions so far."""
        node = self._showHeatmap(run, heatmap)
        if node is None:
            run.giveUp(_volumeGone())
            return
        writePartial(node, directions, run.settings.document({}, "", ""))
        if self.listener is not None:
            self.listener.onHeatmapChanged(run, node, directions)

    def onResult(self, run: Run, result: RunResult) -> None:
        """Of `RunObserver`: what was found, and where it comes from."""
        if result.frames:
            self._onSequence(run, result)
            return
        node = self._showSegmentation(run, result) if result.heatmap is None else None
        if result.heatmap is not None:
            node = self._showMaps(run, result.heatmap, result.agreement)
        if node is None:
            run.giveUp(_volumeGone())
            return
        volumes = self._inputsOf(run)
        writeRecord(node, result.record, volumes)
        first = next(iter(volumes.values()))
        display.placeBeside(first, [n for n in (node, display.agreementOf(node)) if n is not None])
        if self.listener is not None:
            self.listener.onHeatmapChanged(run, node, None)

    def _onSequence(self, run: Run, result: RunResult) -> None:
        first = result.frames[0]
        shape = first.heatmap.array.shape if first.heatmap is not None else first.labels.shape
        volume = self._volumeOf(run, shape)
        node = None
        if volume is not None:
            inputs = self._inputsOf(run)
            node = sequences.showResult(volume, result, run.settings, inputs)
        if node is None:
            run.giveUp(_volumeGone())
        elif self.listener is not None:
            self.listener.onHeatmapChanged(run, node, None)

    def _showMaps(self, run: Run, heatmap: MapData, agreement: MapData | None) -> Any:
        node = self._showHeatmap(run, heatmap)
        if node is None or agreement is None:
            return node
        agreementNode = display.newMapNode(
            _("{heatmap} agreement").format(heatmap=node.GetName()), "agreement"
        )
        display.showArray(agreementNode, agreement.array, node)
        display.setRange(agreementNode, 0.0, 1.0)
        node.SetNodeReferenceID(AGREEMENT_ROLE, agreementNode.GetID())
        return node

    def _showSegmentation(self, run: Run, result: RunResult) -> Any:
        """A new segmentation with the labels of a segmenter; None if its volume is gone."""
        volume = self._volumeOf(run, result.labels.shape)
        if volume is None:
            return None
        name = _("{volume} segmentation").format(volume=volume.GetName())
        node = segments.newSegmentation(name, volume, volume, result=True)
        segments.addLabels(node, volume, result.labels, result.record)
        return node

    def _inputsOf(self, run: Run) -> dict[str, Any]:
        """The run's volumes by channel, without those that are gone."""
        nodes = {c: slicer.mrmlScene.GetNodeByID(i) for c, i in run.context["volumes"].items()}
        return {channel: node for channel, node in nodes.items() if node is not None}

    def _volumeOf(self, run: Run, shape: tuple[int, ...]) -> Any:
        """The run's first volume; None if it is gone or has changed."""
        volume = slicer.mrmlScene.GetNodeByID(next(iter(run.context["volumes"].values())))
        image = volume.GetImageData() if volume is not None else None
        fits = image is not None and tuple(reversed(image.GetDimensions())) == shape
        return volume if fits else None

    def _showHeatmap(self, run: Run, heatmap: MapData) -> Any:
        """The run's heatmap node with new voxels; None if its volume is gone or has changed."""
        volume = self._volumeOf(run, heatmap.array.shape)
        if volume is None:
            return None
        node = self.heatmapOf(run)
        if node is None:
            node = display.newMapNode(
                _("{volume} heatmap ({method})").format(
                    volume=volume.GetName(), method=run.settings.usedMethod
                ),
                "heatmap",
            )
            run.context["heatmap"] = node.GetID()
        display.showArray(node, heatmap.array, volume)
        display.setRange(node, 0.0, heatmap.maximum, 0.25 * heatmap.maximum)
        return node


def _volumeGone() -> ErrorEvent:
    return ErrorEvent(
        "volume-gone",
        _("The volume of this run was deleted, or has another size now."),
        _("The run was ended; nothing of it is kept."),
    )
