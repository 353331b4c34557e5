"""Scenarios in which something is taken away in the middle: the run, the scan, the scene."""

from __future__ import annotations

import slicer

from TomoSegPanel import provenance
from TomoSegPanel.scenarios.bench import Bench, workers
from TomoSegPanel.scenarios.objects import addBlobVolume


def cancel_ends_all_processes_within_a_second_and_keeps_the_heatmap_so_far(bench: Bench) -> None:
    _cancel(bench, keep=True)
    heatmap = bench.parameters.heatmap
    assert int(heatmap.GetAttribute(provenance.PARTIAL)) >= 4
    assert slicer.util.arrayFromVolume(heatmap).max() > 0


def cancel_takes_the_heatmap_so_far_away_if_the_user_wants_that(bench: Bench) -> None:
    before = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    _cancel(bench, keep=False)
    assert bench.parameters.heatmap is None
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == before + 1


def cancel_ends_the_runs_that_wait_too(bench: Bench) -> None:
    _choose(bench)
    first = bench.startAndWaitForPreview()
    second = bench.start()
    bench.ui.cancelButton.click()
    bench.finish(first, "cancelled", 3)
    assert second.state.value == "cancelled"
    assert not bench.isBusy()


def one_run_is_cancelled_or_taken_out_of_the_queue_and_the_others_go_on(bench: Bench) -> None:
    _choose(bench)
    first = bench.startAndWaitForPreview()
    bench.useWorker(None)
    second, third = bench.start(), bench.start()
    waiting = bench.ui.queueList
    assert waiting.count == 2
    waiting.setCurrentRow(0)
    bench.ui.removeWaitingButton.click()
    assert second.state.value == "cancelled"
    assert waiting.count == 1
    bench.ui.cancelCurrentButton.click()
    bench.finish(first, "cancelled", 3)
    bench.finish(third)


def cancel_before_the_worker_has_said_anything_is_obeyed(bench: Bench) -> None:
    _choose(bench)
    run = bench.start()
    bench.ui.cancelButton.click()
    bench.finish(run, "cancelled", 1)
    bench.useWorker(None)
    run = bench.start()
    bench.until(lambda: run.state.value == "running", "the worker is started")
    bench.ui.cancelButton.click()
    bench.finish(run, "cancelled", 1.5)
    bench.until(lambda: not workers(), "all processes have ended", 1)


def a_scan_that_is_deleted_in_the_middle_ends_its_run_and_no_other(bench: Bench) -> None:
    volume = _choose(bench)
    run = bench.startAndWaitForPreview()
    other = addBlobVolume(name="another")
    bench.chooseVolume(other)
    bench.useWorker(None)
    following = bench.start()
    slicer.mrmlScene.RemoveNode(volume)
    bench.until(lambda: run.state.isOver, "the run without its scan is over", 15)
    assert run.state.value in ("cancelled", "failed"), run.report()
    bench.finish(following)
    assert bench.widget.panel.runs.heatmapOf(following) is not None


def a_heatmap_that_is_deleted_in_the_middle_comes_again_with_the_next_directions(
    bench: Bench,
) -> None:
    _choose(bench)
    run = bench.startAndWaitForPreview(0.1)
    slicer.mrmlScene.RemoveNode(bench.parameters.heatmap)
    bench.finish(run)
    assert bench.parameters.heatmap is not None


def closing_the_scene_in_the_middle_ends_everything(bench: Bench) -> None:
    _choose(bench)
    bench.startAndWaitForPreview()
    slicer.mrmlScene.Clear(False)
    bench.until(lambda: not workers(), "all processes have ended", 1)
    assert not bench.isBusy()
    assert not bench.ui.cancelButton.enabled
    assert not bench.ui.runButton.enabled
    bench.useWorker(None)
    _choose(bench)
    bench.run()


def opening_another_scene_in_the_middle_ends_everything(bench: Bench) -> None:
    _choose(bench)
    path = bench.folder / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    bench.startAndWaitForPreview()
    slicer.util.loadScene(str(path))
    bench.until(lambda: not workers(), "all processes have ended", 1)
    assert bench.parameters.inputVolume is not None
    assert bench.parameters.heatmap is None
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip


def a_run_goes_on_while_the_user_is_in_another_module(bench: Bench) -> None:
    _choose(bench)
    run = bench.startAndWaitForPreview(0.02)
    bench.leavePanel()
    bench.finish(run)
    bench.openPanel()
    assert bench.parameters.heatmap is not None
    assert bench.ui.heatmapSelector.currentNode() is bench.parameters.heatmap


def reloading_the_module_in_the_middle_ends_the_run_and_the_panel_works_again(
    bench: Bench,
) -> None:
    _choose(bench)
    bench.startAndWaitForPreview()
    slicer.util.reloadScriptedModule("TomoSeg")
    bench.until(lambda: not workers() or bench.widget.panel.computing.answer, "it has ended", 30)
    bench.openPanel()
    bench.useWorker(None)
    bench.probe()
    _choose(bench)
    bench.run()


def _choose(bench: Bench) -> object:
    volume = addBlobVolume()
    bench.chooseVolume(volume)
    bench.chooseModel()
    return volume


def _cancel(bench: Bench, keep: bool) -> None:
    _choose(bench)
    bench.setChecked(bench.ui.keepPartialCheckBox, keep)
    run = bench.startAndWaitForPreview()
    assert len(workers()) >= 2, "the worker has no computing process"
    bench.ui.cancelButton.click()
    seconds = bench.until(lambda: run.state.isOver and not workers(), "all have ended", 5)
    assert seconds < 1.0, f"it took {seconds:.2f} s to cancel"
    assert run.state.value == "cancelled"
    assert not bench.ui.cancelButton.enabled
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip


SCENARIOS = (
    cancel_ends_all_processes_within_a_second_and_keeps_the_heatmap_so_far,
    cancel_takes_the_heatmap_so_far_away_if_the_user_wants_that,
    cancel_ends_the_runs_that_wait_too,
    one_run_is_cancelled_or_taken_out_of_the_queue_and_the_others_go_on,
    cancel_before_the_worker_has_said_anything_is_obeyed,
    a_scan_that_is_deleted_in_the_middle_ends_its_run_and_no_other,
    a_heatmap_that_is_deleted_in_the_middle_comes_again_with_the_next_directions,
    closing_the_scene_in_the_middle_ends_everything,
    opening_another_scene_in_the_middle_ends_everything,
    a_run_goes_on_while_the_user_is_in_another_module,
    reloading_the_module_in_the_middle_ends_the_run_and_the_panel_works_again,
)
