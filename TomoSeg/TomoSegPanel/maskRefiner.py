"""Masks along the image's own borders: made by the engine, in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, ResultEvent
from TomoSegPanel.background import Background
from TomoSegPanel.display import agreementOf, matrixOf
from TomoSegPanel.mask import Mask, MaskSettings, maskOf
from TomoSegPanel.provenance import readRecord, recordedInputs
from TomoSegPanel.smallJob import MakeWorker, SmallJob
from TomoSegPanel.strokes import Stroke, drawn
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd
from TomoSegPanel.worker import WorkerProcess
from TomoSegPanel.workFolder import WorkFolder

_SETTLED_MS = 300
"""A slider that has rested for so long has come to where it was to go."""


@dataclass(frozen=True)
class Source:
    """A heatmap and all that refining its mask takes.

    Attributes:
        nodes: IDs of the scan, the heatmap and the agreement, which lie on one grid.
        versions: When their voxels were last changed.
        fields: Fields of the job document, as JSON: where method and parameters come from.
    """

    nodes: tuple[str, ...]
    versions: tuple[int, ...]
    fields: str


@dataclass(frozen=True)
class Wish:
    """A mask that is wanted.

    Attributes:
        source: What it is made of.
        settings: How.
        segmentation: ID of the segmentation that has the strokes.
        strokes: What the user has drawn to say where it belongs.
        changes: Fields of the job document in place of what ``source`` says: method, parameters.
    """

    source: Source
    settings: MaskSettings
    segmentation: str = ""
    strokes: tuple[Stroke, ...] = ()
    changes: tuple[tuple[str, str | float], ...] = ()


@dataclass(frozen=True, eq=False)
class Refined:
    """A mask that has been made, and how.

    Attributes:
        mask: The mask.
        refinement: Method and parameters that the engine has used.
        strokes: Kinds of the strokes that it follows.
    """

    mask: Mask
    refinement: Mapping[str, Any]
    strokes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Files:
    source: Source
    folder: WorkFolder
    heatmap: np.ndarray
    spacing: tuple[float, float, float]


def sourceOf(heatmap: Any, isKnown: Callable[[str], bool]) -> tuple[Source | None, str]:
    """What refining a heatmap's mask takes; where something is missing, None and the reason.

    Args:
        heatmap: The heatmap's node, or None.
        isKnown: Whether there is a model of a name; its card has the parameters.
    """
    if heatmap is None:
        return None, ""
    record, agreement = readRecord(heatmap), agreementOf(heatmap)
    if record is None or agreement is None:
        return None, _("Only the masks of finished runs can follow the image.")
    scan = next(iter(recordedInputs(heatmap).values()), None)
    nodes = (scan, heatmap, agreement)
    images = [node.GetImageData() if node is not None else None for node in nodes]
    if scan is None or None in images:
        return None, _("The volume from which the heatmap was made is no longer in the scene.")
    if len({image.GetDimensions() for image in images}) > 1:
        return None, _("The volume from which the heatmap was made has another size now.")
    fields: dict[str, Any] = {"refinement": {}}
    if isinstance(record.get("refinement"), dict):
        fields = {"refinement": record["refinement"]}
    elif isKnown(record["model"]["name"]):
        fields = {"model": record["model"]["name"]}
    versions = tuple(image.GetMTime() for image in images)
    return Source(tuple(node.GetID() for node in nodes), versions, json.dumps(fields)), ""


class MaskRefiner:
    """Makes the mask that is wanted last; one that is no longer wanted is given up.

    Args:
        onChanged: Called when a mask has been made, or cannot be made.
        makeWorker: Makes the worker of a document; tests put others in its place.

    Attributes:
        error: Why the mask that is wanted cannot be made.
    """

    def __init__(
        self, onChanged: Callable[[], None], makeWorker: MakeWorker = WorkerProcess
    ) -> None:
        self.error = ""
        self._onChanged = onChanged
        self._job = SmallJob(self._onEnd, makeWorker=makeWorker)
        self._background = Background()
        self._wish: Wish | None = None
        self._running: Wish | None = None
        self._done: tuple[Wish, Refined] | None = None
        self._files: _Files | None = None
        self._drawn: tuple[Stroke, ...] = ()
        self._exporting: WorkFolder | None = None
        self._masks = 0
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLED_MS)
        self._timer.connect("timeout()", self._advance)

    @property
    def found(self) -> Refined | None:
        """The mask that is wanted, when it has been made."""
        return self._done[1] if self._done is not None and self._done[0] == self._wish else None

    @property
    def isBusy(self) -> bool:
        """Whether the mask that is wanted is still to come."""
        return self._wish is not None and self.found is None and not self.error

    def want(self, wish: Wish, atOnce: bool = False) -> None:
        """Make a mask, as soon as the wishes come to rest.

        Args:
            wish: The mask; it replaces the one that was wanted before.
            atOnce: Do not wait for another wish.
        """
        if wish != self._wish:
            self._wish, self.error = wish, ""
            if self._running is not None and self._running != wish:
                self._job.cancel()
            self._timer.start()
        if atOnce and self._timer.isActive():
            self._timer.stop()
            self._advance()

    def drop(self) -> None:
        """No mask is wanted; what was made is kept for the same wish."""
        self._wish, self.error = None, ""
        self._timer.stop()
        self._job.cancel()

    def clear(self) -> None:
        """The scene or the panel goes away: nothing goes on, no file stays."""
        self._wish, self._running, self._done, self.error = None, None, None, ""
        self._timer.stop()
        self._background.forget()
        self._job.abandon()
        if self._exporting is not None:
            self._exporting.remove()
            self._exporting = None
        self._removeFiles()

    def _advance(self) -> None:
        wish = self._wish
        if wish is None or not self.isBusy or self._running is not None or self._exporting:
            return
        if self._files is None or self._files.source != wish.source:
            self._export(wish.source)
            return
        if wish.strokes and wish.strokes != self._drawn:
            self._exportStrokes(wish, self._files)
            return
        self._masks += 1
        self._running = wish
        folder = self._files.folder.path
        self._job.start(
            {
                "kind": "refine-mask",
                **{name: str(folder / f"{name}.nrrd") for name in _NAMES},
                **{kind: str(folder / f"{kind}.nrrd") for kind in _kinds(wish)},
                **json.loads(wish.source.fields),
                **dict(wish.changes),
                "threshold": wish.settings.threshold,
                "components": wish.settings.components,
                "minimum_size_ml": wish.settings.minimumSizeMl,
                "output": str(self._output),
            }
        )

    @property
    def _output(self) -> Path:
        assert self._files is not None
        return self._files.folder.path / "masks" / f"{self._masks}.nrrd"

    def _export(self, source: Source) -> None:
        """Write the three volumes, once for all masks."""
        self._removeFiles()
        nodes = [slicer.mrmlScene.GetNodeByID(nodeId) for nodeId in source.nodes]
        if any(node is None or node.GetImageData() is None for node in nodes):
            return  # the next wish knows
        try:
            folder = WorkFolder(slicer.app.temporaryPath)
        except OSError as error:
            self._fail(_fileError(error))
            return
        arrays = [slicer.util.arrayFromVolume(node) for node in nodes]
        matrix = matrixOf(nodes[1])
        files = _Files(source, folder, arrays[1], tuple(nodes[1].GetSpacing()))

        def write() -> None:
            for name, array in zip(_NAMES, arrays, strict=True):
                if not folder.isGone:
                    writeNrrd(folder.path / f"{name}.nrrd", array, matrix)

        def written() -> None:
            self._files = files

        self._write(write, folder, written, folder.remove)

    def _exportStrokes(self, wish: Wish, files: _Files) -> None:
        """Write the strokes, a file for each kind."""
        scene = slicer.mrmlScene
        segmentation = scene.GetNodeByID(wish.segmentation)
        heatmap = scene.GetNodeByID(wish.source.nodes[1])
        if segmentation is None or heatmap is None:
            return  # the next wish knows
        try:
            draw = [(s.kind, drawn(segmentation, s, heatmap)) for s in wish.strokes]
        except ValueError as error:
            self._fail(str(error))
            return
        matrix = matrixOf(heatmap)

        def write() -> None:
            for kind in _kinds(wish):
                array = np.zeros(files.heatmap.shape, np.uint8)
                for other, function in draw:
                    if other == kind:
                        function(array)
                if not files.folder.isGone:
                    writeNrrd(files.folder.path / f"{kind}.nrrd", array, matrix)

        def written() -> None:
            self._drawn = wish.strokes

        self._drawn = ()
        self._write(write, files.folder, written, lambda: None)

    def _write(
        self,
        write: Callable[[], None],
        folder: WorkFolder,
        written: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        """Write files in the background, and go on."""

        def onDone(_nothing: None) -> None:
            self._exporting = None
            written()
            self._advance()

        def onError(error: Exception) -> None:
            self._exporting = None
            failed()
            self._fail(_fileError(error))

        self._exporting = folder
        self._background.run(folder.using(write), onDone, onError)

    def _onEnd(self, event: ResultEvent | ErrorEvent) -> None:
        wish, self._running = self._running, None
        if wish is None or self._files is None:
            return
        if wish != self._wish or (isinstance(event, ErrorEvent) and event.code == "cancelled"):
            if not self._timer.isActive():
                self._advance()
            return
        if isinstance(event, ErrorEvent):
            self._fail(f"{event.message} {event.hint}".strip())
            return
        files, path = self._files, self._output
        refinement = dict(event.data.get("refinement") or {})
        self._running = wish  # until its file has been read

        def read() -> Mask:
            array = readNrrd(path)
            path.unlink()
            return maskOf(array, files.heatmap, files.spacing)

        def show(mask: Mask) -> None:
            self._running, self._done = None, (wish, Refined(mask, refinement, _kinds(wish)))
            if wish == self._wish:
                self._onChanged()
            elif not self._timer.isActive():
                self._advance()

        def failed(error: Exception) -> None:
            self._running = None
            self._fail(_fileError(error))

        self._background.run(files.folder.using(read), show, failed)

    def _fail(self, reason: str) -> None:
        self.error = reason
        self._onChanged()

    def _removeFiles(self) -> None:
        if self._files is not None:
            self._files.folder.remove()
            self._files, self._drawn = None, ()


def _kinds(wish: Wish) -> tuple[str, ...]:
    return tuple(sorted({stroke.kind for stroke in wish.strokes}))


_NAMES = ("image", "heatmap", "agreement")


def _fileError(error: Exception) -> str:
    return _(
        "A file could not be written or read: {reason}. Check that there is space on the disk of "
        "Slicer's temporary folder (Edit, Application Settings, General)."
    ).format(reason=error)
