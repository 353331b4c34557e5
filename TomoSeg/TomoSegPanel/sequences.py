"""Sequences: a run on every frame, and its results beside the scan in the same browser.

A sequence browser shows one frame at a time of each of its sequences, in a proxy node. What a
proxy is called and how it is displayed is its own; its attributes and its content come from the
frame each time. So the record of a frame stands on the frame, and that of the whole run on the
sequence node, from which the frames get theirs back when a scene has been opened: files of
sequences hold voxels alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from TomoSegPanel import display, sceneData, segments
from TomoSegPanel.provenance import (
    AGREEMENT_ROLE,
    RECORD,
    readSequenceRecord,
    writeInputs,
    writeRecord,
)
from TomoSegPanel.runData import ChannelData, MapData, RunResult, frameRecords
from TomoSegPanel.volumeFiles import FrameIndex

if TYPE_CHECKING:
    from TomoSegPanel.parameters import RunSettings


def of(volume: Any) -> tuple[Any, Any] | None:
    """The browser and the sequence that a volume shows a frame of; None where it shows none."""
    if volume is None:
        return None
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volume)
    sequence = browser.GetSequenceNode(volume) if browser is not None else None
    if sequence is None or sequence.GetNumberOfDataNodes() < 1:
        return None
    return browser, sequence


def count(volume: Any) -> int:
    """How many frames the sequence of a volume has; 0 where it shows none."""
    found = of(volume)
    return found[1].GetNumberOfDataNodes() if found is not None else 0


def problem(volume: Any) -> str:
    """Why a run on every frame is not possible, or nothing."""
    found = of(volume)
    if found is None:
        return ""
    frames = [found[1].GetNthDataNode(number) for number in range(found[1].GetNumberOfDataNodes())]
    images = [frame.GetImageData() if frame is not None else None for frame in frames]
    if any(image is None or image.GetPointData().GetScalars() is None for image in images):
        return _("a frame of its sequence is empty.")
    first = images[0]
    for frame, image in zip(frames, images, strict=True):
        if (
            image.GetDimensions() != first.GetDimensions()
            or image.GetScalarType() != first.GetScalarType()
            or not np.allclose(display.matrixOf(frame), display.matrixOf(frames[0]), atol=1e-3)
        ):
            return _("the frames of its sequence do not all lie on one grid: run them one by one.")
    return ""


def channelData(node: Any, first: Any) -> ChannelData:
    """As `sceneData.channelData`, with every frame of the first volume's browser.

    A volume that shows no sequence of as many frames serves for all of them.
    """
    data = sceneData.channelData(node, first)
    found = of(node)
    if found is None or found[1].GetNumberOfDataNodes() != count(first):
        return data
    sequence = found[1]
    numbers = range(sequence.GetNumberOfDataNodes())
    frames = [slicer.util.arrayFromVolume(sequence.GetNthDataNode(number)) for number in numbers]
    return replace(data, frames=frames, index=_indexOf(sequence))


def _indexOf(sequence: Any) -> FrameIndex:
    numbers = range(sequence.GetNumberOfDataNodes())
    return FrameIndex(
        sequence.GetIndexName() or "",
        sequence.GetIndexUnit() or "",
        [sequence.GetNthIndexValue(number) for number in numbers],
        sequence.GetIndexType() == sequence.NumericIndex,
    )


def showResult(
    volume: Any, result: RunResult, settings: RunSettings, inputs: Mapping[str, Any]
) -> Any:
    """Add what a run has found in every frame to the browser of its scan.

    Args:
        volume: The proxy of the scan.
        result: What came back.
        settings: The settings of the run.
        inputs: The nodes of the channels, by channel.

    Returns:
        The proxy of the heatmap, or of a segmenter's segmentation; None where the sequence of the
        volume is no longer there.
    """
    found = of(volume)
    if found is None or max(f.record["frame"]["number"] for f in result.frames) >= count(volume):
        return None
    slicer.mrmlScene.SaveStateForUndo()  # does nothing unless the user has turned it on
    adder = _Adder(volume, *found, result, inputs)
    name, node, agreement = volume.GetName(), None, None
    if result.frames[0].heatmap is not None:
        text = _("{volume} heatmap ({method})").format(volume=name, method=settings.usedMethod)
        node = adder.addMaps(text, "heatmap", [frame.heatmap for frame in result.frames])
        text = _("{heatmap} agreement").format(heatmap=node.GetName())
        agreement = adder.addMaps(text, "agreement", [frame.agreement for frame in result.frames])
        node.SetNodeReferenceID(AGREEMENT_ROLE, agreement.GetID())
    segmentation = adder.addSegmentations(
        _("{volume} segmentation").format(volume=name), isResult=node is None
    )
    adder.show()
    display.placeBeside(volume, [n for n in (node, agreement, segmentation) if n is not None])
    return node or segmentation


class _Adder:
    """Adds sequences to a browser, with a proxy each."""

    def __init__(
        self,
        volume: Any,
        browser: Any,
        sequence: Any,
        result: RunResult,
        inputs: Mapping[str, Any],
    ) -> None:
        self._volume, self._browser, self._scans = volume, browser, sequence
        self._result, self._inputs = result, inputs

    def addMaps(self, name: str, kind: str, maps: list[MapData]) -> Any:
        """Heatmaps or agreement maps; their colours mean the same in all frames."""
        proxy = display.newMapNode(name, kind)
        sequence = self._newSequence(proxy)
        for frame, each in zip(self._result.frames, maps, strict=True):
            node = slicer.vtkMRMLScalarVolumeNode()
            display.showArray(node, each.array, self._volume)
            node.SetAndObserveTransformNodeID(None)
            self._addFrame(sequence, node, frame, kind)
        display.showArray(proxy, maps[0].array, self._volume)
        if kind == "heatmap":
            high = max(each.maximum for each in maps)
            display.setRange(proxy, 0.0, high, 0.25 * high)
        else:
            display.setRange(proxy, 0.0, 1.0)
        self._join(sequence, proxy)
        return proxy

    def addSegmentations(self, name: str, isResult: bool) -> Any:
        """The segments of each frame."""
        proxy = segments.newSegmentation(name, self._volume, self._volume, result=isResult)
        sequence = self._newSequence(proxy)
        for frame in self._result.frames:
            node = slicer.vtkMRMLSegmentationNode()
            node.SetReferenceImageGeometryParameterFromVolumeNode(self._volume)
            segments.fillLabels(node, self._volume, frame.labels, frame.record)
            self._addFrame(sequence, node, frame, "segmentation" if isResult else None)
        self._join(sequence, proxy)
        return proxy

    def show(self) -> None:
        """Let the browser show its frame of what was added."""
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)

    def _newSequence(self, proxy: Any) -> Any:
        sequence = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSequenceNode", slicer.mrmlScene.GenerateUniqueName(proxy.GetName())
        )
        sequence.SetIndexName(self._scans.GetIndexName())
        sequence.SetIndexUnit(self._scans.GetIndexUnit())
        sequence.SetIndexType(self._scans.GetIndexType())
        sequence.SetNumericIndexValueTolerance(self._scans.GetNumericIndexValueTolerance())
        return sequence

    def _addFrame(self, sequence: Any, node: Any, frame: RunResult, kind: str | None) -> None:
        number = frame.record["frame"]["number"]
        node.SetName(f"{sequence.GetName()} {number}")
        _describe(node, frame.record, kind)
        # The scan's own text: another writing of the same number would be another frame.
        sequence.SetDataNodeAtValue(node, self._scans.GetNthIndexValue(number))

    def _join(self, sequence: Any, proxy: Any) -> None:
        sequence.SetAttribute(display.MAP, proxy.GetAttribute(display.MAP))
        writeRecord(sequence, self._result.record, self._inputs)
        writeInputs(proxy, self._inputs)
        # In one step: Slicer makes a proxy of its own when it hears of a sequence without one.
        was = self._browser.StartModify()
        self._browser.AddSynchronizedSequenceNode(sequence)
        self._browser.AddProxyNode(proxy, sequence, False)
        self._browser.SetOverwriteProxyName(sequence, False)
        self._browser.EndModify(was)


def _describe(node: Any, record: Mapping[str, Any], kind: str | None) -> None:
    """What the proxy takes from a frame."""
    if kind is not None:
        node.SetAttribute(display.MAP, kind)
    if kind in ("heatmap", "segmentation"):
        node.SetAttribute(RECORD, json.dumps(record, separators=(",", ":")))


def removeResult(node: Any) -> bool:
    """Take everything that a run on a sequence has found out of its browser and the scene.

    Args:
        node: The proxy of one of its results.

    Returns:
        Whether it was the result of such a run.
    """
    found = of(node)
    text = found[1].GetAttribute(RECORD) if found is not None else None
    if not text:
        return False
    scene = slicer.mrmlScene
    scene.SaveStateForUndo()  # does nothing unless the user has turned it on
    browser = found[0]
    for sequence in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
        if sequence.GetAttribute(RECORD) != text:
            continue
        proxy = browser.GetProxyNode(sequence)
        browser.RemoveSynchronizedSequenceNode(sequence.GetID())
        for each in (proxy, sequence):
            if each is not None and scene.IsNodePresent(each):
                scene.RemoveNode(each)
    return True


def restore() -> None:
    """Give the frames of all results their records back, after a scene was opened."""
    logic = slicer.modules.sequences.logic()
    for sequence in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
        record, kind = readSequenceRecord(sequence), sequence.GetAttribute(display.MAP)
        if record is None:
            continue
        for place, each in enumerate(frameRecords(record)):
            frame = sequence.GetNthDataNode(place)
            if frame is not None:
                _describe(frame, each, kind)
        browser = logic.GetFirstBrowserNodeForSequenceNode(sequence)
        if browser is not None:
            logic.UpdateProxyNodesFromSequences(browser)
