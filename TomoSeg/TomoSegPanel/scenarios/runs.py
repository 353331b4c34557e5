"""Scenarios of runs that go well: from the volume to the segment, saved, opened and repeated."""

from __future__ import annotations

import numpy as np
import slicer

from TomoSegPanel import display, provenance
from TomoSegPanel.scenarios.bench import RUN_S, Bench
from TomoSegPanel.scenarios.objects import (
    BLOB_RADIUS_MM,
    addBlobVolume,
    addTransform,
    assertPeak,
    copyModel,
    grid,
)


def a_run_brings_previews_then_heatmap_agreement_and_peaks_over_an_untouched_scan(
    bench: Bench,
) -> None:
    blob = (12.0, -8.0, 10.0)
    volume = addBlobVolume(blob)
    scan = volume.GetDisplayNode()
    scan.AutoWindowLevelOff()
    scan.SetWindowLevelMinMax(3.0, 333.0)
    bench.chooseVolume(volume)
    bench.chooseModel()
    bench.useWorker("slow=0.02")
    run = bench.start()
    seen, stages = [], set()

    def look() -> bool:
        stages.add(bench.ui.stageNote.text)
        heatmap = bench.parameters.heatmap
        if heatmap is not None:
            directions = heatmap.GetAttribute(provenance.PARTIAL)
            if directions and directions not in seen:
                seen.append(directions)
        return run.state.isOver

    bench.until(look, "the run is over", RUN_S)
    assert run.state.value == "finished", run.report()
    assert seen, "no preview was shown"
    assert [int(count) for count in seen] == sorted(int(count) for count in seen)
    assert len(stages) > 3, f"the run told little of itself: {stages}"
    heatmap = bench.parameters.heatmap
    assert heatmap.GetAttribute(provenance.PARTIAL) is None
    assertPeak(heatmap, blob)
    assert display.agreementOf(heatmap) is not None
    window = (scan.GetWindowLevelMin(), scan.GetWindowLevelMax())
    assert window == (3.0, 333.0), f"the user's window and level were changed to {window}"
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert composite.GetBackgroundVolumeID() == volume.GetID()
        assert composite.GetForegroundVolumeID() == heatmap.GetID()
    tree = bench.ui.peaksTree
    tree.setCurrentItem(tree.topLevelItem(0))
    for slice_ in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        toRas = slicer.util.arrayFromVTKMatrix(slice_.GetSliceToRAS())
        distance = abs(toRas[:3, 2] @ (toRas[:3, 3] - blob))
        assert distance < BLOB_RADIUS_MM, f"{slice_.GetName()} is {distance} mm beside the peak"


def a_heatmap_becomes_a_segment_that_can_be_undone_and_edited(bench: Bench) -> None:
    blob = (-10.0, 6.0, 12.0)
    bench.chooseVolume(addBlobVolume(blob))
    bench.chooseModel()
    bench.run()
    bench.makeSegment()
    node = bench.parameters.segmentation
    (segmentId,) = node.GetSegmentation().GetSegmentIDs()
    assert node.GetSegmentation().GetSegment(segmentId).GetName() == "bright blob"
    center = np.array(node.GetSegmentCenterRAS(segmentId))
    assert np.linalg.norm(center - blob) < 4.0, center
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode") is not None
    assert "ml" in bench.ui.statisticsNote.text
    bench.ui.undoSegmentButton.click()
    assert node.GetSegmentation().GetNumberOfSegments() == 0
    assert not bench.ui.undoSegmentButton.enabled
    bench.makeSegment()
    assert node.GetSegmentation().GetNumberOfSegments() == 1


def a_scene_that_is_saved_and_opened_has_its_settings_and_runs_again_exactly(bench: Bench) -> None:
    bench.chooseVolume(addBlobVolume((5.0, 5.0, -12.0)))
    bench.chooseModel()
    ui = bench.ui
    bench.chooseItem(ui.methodCombo, "averaged-cam")
    bench.chooseItem(ui.directionsCombo, "fibonacci")
    ui.directionCountSpinBox.setValue(12)
    ui.opacitySlider.value = 0.4
    bench.setChecked(ui.keepPartialCheckBox, False)
    bench.run()
    bench.makeSegment()
    threshold = bench.parameters.threshold
    before = np.array(slicer.util.arrayFromVolume(bench.parameters.heatmap))
    path = bench.folder / "Szene ü.mrb"
    assert slicer.util.saveScene(str(path))

    slicer.mrmlScene.Clear(False)
    bench.processEvents()
    assert bench.parameters.heatmap is None
    slicer.util.loadScene(str(path))
    bench.processEvents(0.1)

    parameters, ui = bench.parameters, bench.ui
    assert (parameters.method, parameters.directionSet) == ("averaged-cam", "fibonacci")
    assert ui.methodCombo.currentData == "averaged-cam"
    assert (ui.directionCountSpinBox.value, ui.opacitySlider.value) == (12, 0.4)
    assert not ui.keepPartialCheckBox.isChecked()
    assert abs(parameters.threshold - threshold) < 1e-9
    assert parameters.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    restored = parameters.heatmap
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(restored), before)
    assert "averaged-cam" in ui.recordNote.text

    bench.chooseItem(ui.methodCombo, "tonno")  # must not matter
    assert ui.runAgainButton.enabled, ui.runAgainButton.toolTip
    ui.runAgainButton.click()
    bench.finish(bench.widget.panel.runs.queue.current)
    again = bench.parameters.heatmap
    assert again.GetID() != restored.GetID()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), before)


def two_results_are_compared_side_by_side_and_the_user_s_layout_comes_back(bench: Bench) -> None:
    manager = slicer.app.layoutManager()
    before = manager.layout
    bench.chooseVolume(addBlobVolume((10.0, 0.0, 6.0)))
    bench.chooseModel()
    first = bench.widget.panel.runs.heatmapOf(bench.run())
    assert not bench.ui.compareButton.enabled
    bench.chooseItem(bench.ui.methodCombo, "averaged-cam")
    second = bench.widget.panel.runs.heatmapOf(bench.run())
    bench.ui.compareSelector.setCurrentNode(first)
    bench.ui.compareButton.click()
    bench.processEvents(0.1)
    assert manager.layout != before
    shown = [
        composite.GetForegroundVolumeID()
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    ]
    assert {first.GetID(), second.GetID()} <= set(shown)
    bench.ui.compareButton.click()
    bench.processEvents(0.1)
    assert manager.layout == before
    bench.ui.compareButton.click()
    slicer.mrmlScene.RemoveNode(first)
    bench.processEvents(0.1)
    assert manager.layout == before, "a result was deleted, and the comparison stays"


two_results_are_compared_side_by_side_and_the_user_s_layout_comes_back.needsViews = True


def slicer_stays_responsive_during_a_run_on_a_large_volume(bench: Bench) -> None:
    bench.chooseVolume(addBlobVolume(on=grid((160, 160, 160), (0.7, 0.7, 0.7))))
    bench.chooseModel()
    bench.chooseItem(bench.ui.directionsCombo, "fibonacci")
    bench.ui.directionCountSpinBox.setValue(8)
    bench.processEvents(0.5)
    bench.longestS = 0.0
    bench.run()
    assert bench.longestS < 0.1, f"the main thread was busy for {bench.longestS:.3f} s on end"


def runs_wait_for_their_turn_and_all_are_carried_out(bench: Bench) -> None:
    blobs = {"first": (10.0, 0.0, 0.0), "second": (0.0, 10.0, 0.0), "third": (0.0, 0.0, 10.0)}
    bench.chooseModel()
    runs = []
    for name, blob in blobs.items():
        bench.chooseVolume(addBlobVolume(blob, name=name))
        runs.append(bench.start())
    assert [run.state.value for run in runs[1:]] == ["queued", "queued"]
    assert "2" in bench.ui.stageNote.text, "the panel does not say how many runs wait"
    for run, blob in zip(runs, blobs.values(), strict=True):
        bench.finish(run)
        heatmap = bench.widget.panel.runs.heatmapOf(run)
        assertPeak(heatmap, blob)


def a_model_of_two_channels_wants_two_volumes_which_may_be_under_different_transforms(
    bench: Bench,
) -> None:
    bench.importModel(copyModel(bench.folder, "two-channels", ("flair", "t1")))
    blob = np.array([10.0, 5.0, -10.0])
    first = addBlobVolume(blob, name="FLAIR")
    second = addBlobVolume(blob, grid((30, 40, 34)), name="T1")
    shift = np.eye(4)
    shift[:3, 3] = (0.0, 30.0, 0.0)
    second.SetAndObserveTransformNodeID(addTransform(shift).GetID())
    bench.chooseVolume(first)
    bench.chooseModel("two-channels")
    assert not bench.ui.runButton.enabled
    assert "t1" in bench.ui.runButton.toolTip
    (selector,) = [
        child
        for child in slicer.util.findChildren(bench.ui.channelsWidget)
        if child.inherits("qMRMLNodeComboBox")
    ]
    selector.setCurrentNode(second)
    run = bench.run()
    heatmap = bench.widget.panel.runs.heatmapOf(run)
    assert heatmap.GetTransformNodeID() == first.GetTransformNodeID()
    assertPeak(heatmap, blob)
    assert list(provenance.recordedInputs(heatmap).values()) == [first, second]


def a_volume_from_a_file_with_accents_and_spaces_in_its_path_can_be_run(bench: Bench) -> None:
    volume = addBlobVolume((0.0, -12.0, 8.0))
    folder = bench.folder / "Łódź – 患者 1"
    folder.mkdir()
    path = folder / "T2 FLAIR é.nrrd"
    assert slicer.util.saveNode(volume, str(path))
    slicer.mrmlScene.Clear(False)
    bench.widget.panel.volume.loadFile(str(path))
    assert bench.parameters.inputVolume is not None, bench.messages
    bench.chooseModel()
    temporary = slicer.app.temporaryPath
    slicer.app.temporaryPath = str(folder)
    try:
        bench.run()
    finally:
        slicer.app.temporaryPath = temporary
    heatmap = bench.parameters.heatmap
    assertPeak(heatmap, (0.0, -12.0, 8.0))


SCENARIOS = (
    a_run_brings_previews_then_heatmap_agreement_and_peaks_over_an_untouched_scan,
    a_heatmap_becomes_a_segment_that_can_be_undone_and_edited,
    a_scene_that_is_saved_and_opened_has_its_settings_and_runs_again_exactly,
    two_results_are_compared_side_by_side_and_the_user_s_layout_comes_back,
    slicer_stays_responsive_during_a_run_on_a_large_volume,
    runs_wait_for_their_turn_and_all_are_carried_out,
    a_model_of_two_channels_wants_two_volumes_which_may_be_under_different_transforms,
    a_volume_from_a_file_with_accents_and_spaces_in_its_path_can_be_run,
)
