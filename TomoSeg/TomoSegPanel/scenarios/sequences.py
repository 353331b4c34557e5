"""Scenarios of sequences: every frame in one run, and results that play with the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from TomoSegPanel import display, provenance
from TomoSegPanel.scenarios.bench import RUN_S, Bench
from TomoSegPanel.scenarios.objects import addBlobVolume, assertPeak

BLOBS = ((12.0, -8.0, 10.0), (-10.0, 6.0, 12.0), (8.0, 8.0, -6.0))
VALUES = ("0", "33.5", "67")


def addSequence() -> tuple[Any, Any]:
    """A browser with a sequence of scans with a blob in another place each; and its proxy."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine ä")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("ms")
    for blob, value in zip(BLOBS, VALUES, strict=True):
        volume = addBlobVolume(blob)
        sequence.SetDataNodeAtValue(volume, value)
        slicer.mrmlScene.RemoveNode(volume)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser, browser.GetProxyNode(sequence)


def nodesOf(kind: str) -> list[Any]:
    """The nodes of a class."""
    return slicer.util.getNodesByClass(kind)


def prepare(bench: Bench) -> tuple[Any, Any]:
    """A sequence, chosen with every frame of it."""
    browser, volume = addSequence()
    bench.chooseVolume(volume)
    bench.chooseModel()
    assert bench.ui.everyFrameCheckBox.visible
    assert "3" in bench.ui.everyFrameCheckBox.text
    bench.setChecked(bench.ui.everyFrameCheckBox, True)
    bench.processEvents()
    return browser, volume


def assertPlays(browser: Any, heatmap: Any, segmentation: Any) -> None:
    """See that heatmap, peaks and segments follow the frames of the scan."""
    for number, blob in enumerate(BLOBS):
        browser.SetSelectedItemNumber(number)
        assertPeak(heatmap, blob)
        record = provenance.readRecord(heatmap)
        assert record is not None and record["frame"]["number"] == number
        place = display.places(heatmap)[0][0]
        assert np.linalg.norm(place - blob) < 4.0, (place, blob)
        (segmentId,) = segmentation.GetSegmentation().GetSegmentIDs()
        center = np.array(segmentation.GetSegmentCenterRAS(segmentId))
        assert np.linalg.norm(center - blob) < 4.0, (center, blob)


def every_frame_of_a_sequence_is_run_at_once_and_the_results_play_with_the_scan(
    bench: Bench,
) -> None:
    browser, volume = prepare(bench)
    stages = set()
    run = bench.start()

    def look() -> bool:
        stages.add(bench.ui.stageNote.text)
        return run.state.isOver

    bench.until(look, "the run is over", RUN_S)
    assert run.state.value == "finished", run.report()
    assert any("3" in text for text in stages), stages
    heatmap = bench.parameters.heatmap
    assert browser.IsProxyNodeID(heatmap.GetID()) and browser.IsProxyNodeID(volume.GetID())
    sequences = nodesOf("vtkMRMLSequenceNode")
    assert len(sequences) == 4, [node.GetName() for node in sequences]
    for node in sequences:
        assert node.GetNumberOfDataNodes() == 3 and browser.GetProxyNode(node) is not None
    (segmentation,) = nodesOf("vtkMRMLSegmentationNode")
    assert segmentation.GetSegmentation().GetSegment("Segment_1").GetName() == "bright blob"
    name, shown = heatmap.GetName(), heatmap.GetDisplayNode()
    assertPlays(browser, heatmap, segmentation)
    assert (heatmap.GetName(), heatmap.GetDisplayNode()) == (name, shown)
    agreement = display.agreementOf(heatmap)
    assert (
        browser.IsProxyNodeID(agreement.GetID())
        and agreement.GetAttribute(display.MAP) == "agreement"
    )
    sequence = browser.GetSequenceNode(heatmap)
    assert (sequence.GetIndexName(), sequence.GetIndexUnit()) == ("time", "ms")
    scans = browser.GetMasterSequenceNode()
    for number in range(3):
        assert sequence.GetNthIndexValue(number) == scans.GetNthIndexValue(number)
    assert provenance.recordedInputs(heatmap) == {"image": volume}


def one_frame_of_a_sequence_is_run_like_any_volume(bench: Bench) -> None:
    browser, volume = prepare(bench)
    browser.SetSelectedItemNumber(1)
    bench.setChecked(bench.ui.everyFrameCheckBox, False)
    bench.run()
    assertPeak(bench.parameters.heatmap, BLOBS[1])
    assert not browser.IsProxyNodeID(bench.parameters.heatmap.GetID())
    assert len(nodesOf("vtkMRMLSequenceNode")) == 1


def a_cancelled_run_on_a_sequence_leaves_nothing_in_the_scene(bench: Bench) -> None:
    prepare(bench)
    before = slicer.mrmlScene.GetNumberOfNodes()
    bench.useWorker("slow=0.2")
    run = bench.start()
    bench.until(lambda: "1" in bench.ui.stageNote.text, "the first frame is looked at", RUN_S)
    bench.ui.cancelButton.click()
    bench.finish(run, "cancelled")
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert bench.parameters.heatmap is None


def frames_on_different_grids_are_refused_with_the_reason(bench: Bench) -> None:
    browser, volume = prepare(bench)
    browser.GetMasterSequenceNode().GetNthDataNode(2).SetOrigin(1, 2, 3)
    bench.widget.panel.refresh()
    assert not bench.ui.runButton.enabled
    assert "grid" in bench.ui.runButton.toolTip
    bench.setChecked(bench.ui.everyFrameCheckBox, False)
    bench.processEvents()
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip


def a_sequence_with_results_is_saved_opened_and_repeated(bench: Bench) -> None:
    browser, volume = prepare(bench)
    bench.run()
    heatmapName = bench.parameters.heatmap.GetName()
    volumeName = volume.GetName()
    path = bench.folder / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    bench.processEvents()
    slicer.util.loadScene(str(path))
    bench.processEvents(0.1)
    heatmap = slicer.util.getNode(heatmapName)
    browser = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    assert browser.IsProxyNodeID(heatmap.GetID())
    (segmentation,) = nodesOf("vtkMRMLSegmentationNode")
    assertPlays(browser, heatmap, segmentation)
    bench.parameters.heatmap = heatmap
    bench.processEvents()
    assert provenance.recordedInputs(heatmap)["image"].GetName() == volumeName
    bench.ui.runAgainButton.click()
    run = bench.widget.panel.runs.queue.current
    bench.finish(run)
    again = bench.parameters.heatmap
    assert again is not heatmap and browser.IsProxyNodeID(again.GetID())
    for number in range(3):
        browser.SetSelectedItemNumber(number)
        first, second = (slicer.util.arrayFromVolume(node) for node in (heatmap, again))
        np.testing.assert_array_equal(first, second)


def the_results_of_a_sequence_are_taken_out_again(bench: Bench) -> None:
    browser, volume = prepare(bench)
    bench.run()
    bench.ui.removeResultButton.click()
    assert len(nodesOf("vtkMRMLSequenceNode")) == 4, "removed although the user has not agreed"
    bench.agrees = True
    bench.ui.removeResultButton.click()
    bench.processEvents()
    assert bench.parameters.heatmap is None
    assert nodesOf("vtkMRMLSegmentationNode") == []
    assert [node.GetName() for node in nodesOf("vtkMRMLScalarVolumeNode")] == [volume.GetName()]
    assert len(nodesOf("vtkMRMLSequenceNode")) == 1
    assert browser.IsProxyNodeID(volume.GetID()) and browser.GetNumberOfItems() == 3
    browser.SetSelectedItemNumber(2)
    assert nodesOf("vtkMRMLSegmentationNode") == []


SCENARIOS = (
    every_frame_of_a_sequence_is_run_at_once_and_the_results_play_with_the_scan,
    one_frame_of_a_sequence_is_run_like_any_volume,
    a_cancelled_run_on_a_sequence_leaves_nothing_in_the_scene,
    frames_on_different_grids_are_refused_with_the_reason,
    a_sequence_with_results_is_saved_opened_and_repeated,
    the_results_of_a_sequence_are_taken_out_again,
)
