"""The section Result in the stand-in: maps over the scan, two results side by side, segmenters."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("panel_bench")
pytest_plugins = ("panel_bench",)  # the fixtures

from panel_bench import choose_model, host, qt, reopen, run, slicer  # noqa: E402
from PySide6 import QtCore  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from TomoSegPanel import comparison, display, provenance  # noqa: E402
from TomoSegPanel.job import RunState  # noqa: E402
from TomoSegPanel.worker import WorkerProcess  # noqa: E402

from TomoSegLib.jobs.client import worker_command  # noqa: E402

COMPARED = [f"{comparison.VIEW_PREFIX}{row}{column}" for row in "AB" for column in
            ("Axial", "Coronal", "Sagittal")]  # fmt: skip


def composite(name):
    return slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()


def offset(name):
    return slicer.app.layoutManager().sliceWidget(name).sliceLogic().GetSliceOffset()


def users_views():
    """Everything of the user's own views that a comparison might spoil."""
    found = []
    for name in ("Red", "Yellow", "Green"):
        node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
        layers = composite(name)
        found.append(
            (
                layers.GetBackgroundVolumeID(),
                layers.GetForegroundVolumeID(),
                layers.GetForegroundOpacity(),
                layers.GetLinkedControl(),
                node.GetFieldOfView(),
                node.GetXYZOrigin(),
                slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).tolist(),
            )
        )
    return found


@pytest.fixture
def two(widget, worker, volume):
    """Two heatmaps of the volume, the second of twice the values."""
    worker("well")
    first = run(widget)
    worker("strong")
    second = run(widget)
    widget.ui.heatmapSelector.setCurrentNode(first)
    host.process()
    return first, second


def click(button):
    QTest.mouseClick(button._peer_, QtCore.Qt.MouseButton.LeftButton)
    host.process(0.05)


def test_two_results_are_shown_side_by_side_and_the_user_s_views_come_back(widget, volume, two):
    first, second = two
    ui, manager = widget.ui, slicer.app.layoutManager()
    assert not ui.compareButton.enabled and "another result" in ui.compareButton.toolTip
    ui.compareSelector.setCurrentNode(second)
    assert ui.compareButton.enabled
    layout, views = manager.layout, users_views()
    window = volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()
    click(ui.compareButton)
    assert manager.layout == comparison.LAYOUT and ui.compareButton.checked
    for name in COMPARED:
        shown = second if name.startswith(f"{comparison.VIEW_PREFIX}B") else first
        assert composite(name).GetBackgroundVolumeID() == volume.GetID()
        assert composite(name).GetForegroundVolumeID() == shown.GetID()
        assert manager.sliceWidget(name).visible
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert {legend.GetDisplayableNode().GetID() for legend in legends} == {
        first.GetID(),
        second.GetID(),
    }
    assert first.GetName() in ui.compareNote.text and second.GetName() in ui.compareNote.text
    click(ui.compareButton)
    assert manager.layout == layout and users_views() == views
    assert not ui.compareButton.checked
    assert (volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()) == window


def test_the_views_of_a_comparison_move_together_and_no_others(widget, two):
    widget.ui.compareSelector.setCurrentNode(two[1])
    click(widget.ui.compareButton)
    upper, lower = COMPARED[0], COMPARED[3]
    red, before = offset("Red"), offset(upper)
    interactor = slicer.app.layoutManager().sliceWidget(upper).sliceView().interactor()
    interactor.SetEventInformationFlipY(50, 50, 0, 0, chr(0), 0, None)
    interactor.InvokeEvent("EnterEvent")
    interactor.InvokeEvent("MouseWheelForwardEvent")
    assert offset(upper) != before
    assert offset(lower) == pytest.approx(offset(upper))
    assert offset("Red") == red
    tree = widget.ui.peaksTree
    tree.setCurrentItem(tree.topLevelItem(0))
    assert offset(upper) == offset(lower) == offset("Red") == pytest.approx(30.0)


def test_a_comparison_follows_the_choice_of_results_and_map(widget, two):
    first, second = two
    widget.ui.compareSelector.setCurrentNode(second)
    click(widget.ui.compareButton)
    widget.ui.mapCombo.setCurrentIndex(widget.ui.mapCombo.findData("agreement"))
    agreement = display.agreementOf(second)
    assert composite(COMPARED[3]).GetForegroundVolumeID() == agreement.GetID()
    widget.ui.mapCombo.setCurrentIndex(widget.ui.mapCombo.findData("heatmap"))
    widget.ui.heatmapSelector.setCurrentNode(second)  # they change places
    assert widget.ui.compareSelector.currentNode() is first
    assert composite(COMPARED[0]).GetForegroundVolumeID() == second.GetID()
    assert composite(COMPARED[3]).GetForegroundVolumeID() == first.GetID()


def test_a_layout_that_the_user_chooses_ends_a_comparison(widget, two):
    widget.ui.compareSelector.setCurrentNode(two[1])
    click(widget.ui.compareButton)
    chosen = slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    slicer.app.layoutManager().setLayout(chosen)
    host.process()
    assert not widget.ui.compareButton.checked
    assert slicer.app.layoutManager().layout == chosen
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)


@pytest.mark.parametrize("end", ["delete", "close"])
def test_a_comparison_ends_with_what_is_compared(widget, two, end):
    layout = slicer.app.layoutManager().layout
    widget.ui.compareSelector.setCurrentNode(two[1])
    click(widget.ui.compareButton)
    if end == "delete":
        slicer.mrmlScene.RemoveNode(two[1])
        host.process(0.1)
    else:
        host.close_scene()
    assert slicer.app.layoutManager().layout == layout
    assert not widget.ui.compareButton.checked


@pytest.mark.parametrize("suffix", ["mrb", "mrml"])
def test_a_scene_saved_during_a_comparison_opens_in_it_and_goes_back(widget, two, tmp_path, suffix):
    layout = slicer.app.layoutManager().layout
    widget.ui.compareSelector.setCurrentNode(two[1])
    click(widget.ui.compareButton)
    if suffix == "mrml":  # which only refers to the files of its nodes
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            assert slicer.util.saveNode(node, str(tmp_path / f"{node.GetID()}.nrrd"))
    reopen(tmp_path / f"scene.{suffix}")
    parameters = widget._parameterNode
    assert slicer.app.layoutManager().layout == comparison.LAYOUT
    assert widget.ui.compareButton.checked
    assert composite(COMPARED[3]).GetForegroundVolumeID() == parameters.compareWith.GetID()
    click(widget.ui.compareButton)
    assert slicer.app.layoutManager().layout == layout


def test_the_scan_alone_gives_back_the_user_s_own_foreground(widget, worker, volume):
    other = slicer.util.addVolumeFromArray(np.ones((5, 6, 7)), name="mine")
    slicer.util.setSliceViewerLayers(foreground=other, foregroundOpacity=0.3)
    host.process()
    before = users_views()
    worker("well")
    heatmap = run(widget)
    assert composite("Red").GetForegroundVolumeID() == heatmap.GetID()
    widget.ui.mapCombo.setCurrentIndex(widget.ui.mapCombo.findData("none"))
    assert users_views() == before
    widget.ui.mapCombo.setCurrentIndex(widget.ui.mapCombo.findData("agreement"))
    shown = slicer.mrmlScene.GetNodeByID(composite("Red").GetForegroundVolumeID())
    assert shown.GetAttribute(display.MAP) == "agreement"
    assert shown.GetDisplayNode().GetColorNode() is not heatmap.GetDisplayNode().GetColorNode()


def test_peaks_are_told_in_the_world_s_coordinates(widget, worker, volume):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = 100.0, -50.0, 7.0
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    worker("well")
    run(widget)
    item = widget.ui.peaksTree.topLevelItem(0)
    assert [item.text(column) for column in (1, 2, 3)] == ["110.0", "-70.0", "37.0"]


def test_an_unfinished_heatmap_says_of_what(widget, volume):
    heatmap = display.newMapNode("unfinished", "heatmap")
    display.showArray(heatmap, np.ones((20, 24, 28), np.float32), volume)
    provenance.writePartial(heatmap, 8, {"model": "tiny-blob"})
    widget._parameterNode.heatmap = heatmap
    assert "8 directions" in widget.ui.recordNote.text
    assert "tiny-blob" in widget.ui.recordNote.text
    assert not widget.ui.runAgainButton.enabled


# -- segmenters ------------------------------------------------------------------------------------


def segments_of(node):
    segments = node.GetSegmentation()
    return [segments.GetSegment(segment_id) for segment_id in segments.GetSegmentIDs()]


def test_a_segmenter_s_labels_become_segments_with_names_colours_and_terminology(
    widget, worker, volume, segmenter
):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    worker("segmenter")
    node = run(widget)
    assert node.IsA("vtkMRMLSegmentationNode")
    assert node.GetTransformNodeID() == transform.GetID()
    core, edema, absent = segments_of(node)
    assert [s.GetName() for s in (core, edema, absent)] == ["core | inner", "edema", "absent"]
    assert edema.GetColor() == (0.0, 1.0, 0.0)
    assert "SCT^79654002^Edema" in edema.GetTerminology()
    assert "SCT^52988006^Lesion" in core.GetTerminology()
    found = slicer.util.arrayFromVolume(volume) > 200
    expected = np.where(found, 1, 0)
    expected[:, :11][found[:, :11]] = 2
    for value in (1, 2, 7):
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, f"Segment_{value}", volume)
        np.testing.assert_array_equal(mask != 0, expected == value)
    (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
    volumes = [float(table.GetCellText(row, 2)) for row in range(3)]
    assert volumes == pytest.approx([(expected == v).sum() * 15 / 1000 for v in (1, 2, 7)])


def test_a_segmenter_s_result_is_listed_recorded_and_run_again(
    widget, worker, volume, segmenter, tmp_path
):
    worker("segmenter")
    node = run(widget)
    ui = widget.ui
    assert ui.heatmapSelector.currentNode() is node
    assert "tiny-blob 1.0.0" in ui.recordNote.text and "None" not in ui.recordNote.text
    assert not ui.makeSegmentButton.enabled and not ui.thresholdSlider.enabled
    assert ui.segmentationSelector.currentNode() is node and ui.measureButton.enabled
    item = ui.peaksTree.topLevelItem(0)
    assert [item.text(n) for n in range(4)] == ["core | inner, 1.2 ml", "25.0", "27.0", "28.0"]
    ui.peaksTree.setCurrentItem(item)
    assert offset("Red") == pytest.approx(28.0)
    reopen(tmp_path / "scene.mrb")
    node = widget._parameterNode.heatmap
    assert node.IsA("vtkMRMLSegmentationNode")
    tags = segments_of(node)[1]
    assert tags.GetName() == "edema" and "79654002" in tags.GetTerminology()
    assert provenance.readSegmentRecord(node, "Segment_2")["run"]["task"] == "segmentation"
    assert ui.runAgainButton.enabled
    worker("segmenter")
    ui.runAgainButton.click()
    again = widget.panel.runs.queue.current
    assert again.settings.extra["expected"]["inputs"] == {"image": "0" * 64}
    assert host.wait_for(lambda: again.state.isOver, 60)
    assert again.state is RunState.FINISHED, again.report()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2


@pytest.fixture
def engine_with_a_segmenter(widget, tmp_path, monkeypatch):
    """The engine itself, with a segmenter that takes what is bright; no network is learnt."""
    import torch

    from TomoSegLib.models import tiny_blob
    from TomoSegLib.models.folder import save_model

    fields = tiny_blob.card_fields()
    for name in ("slices", "method", "methods"):
        del fields[name]
    fields |= {"name": "tiny-segmenter", "task": "segmentation"}
    fields["labels"] = [{"name": "bright", "value": 3, "color": [0.1, 0.2, 0.3]}]
    fields["preprocessing"] = {
        "spacing_mm": 2.5,
        "intensity": {"method": "window", "lower": 0, "upper": 400},
        "foreground": "none",
    }
    arguments = {"in_channels": 1, "out_channels": 2, "kernel_size": 1}
    fields["network"] = {"target": "torch.nn.Conv3d", "arguments": arguments}
    fields["sliding_window"] = {"roi_size": [8, 8, 8], "overlap": 0.25}
    weight = torch.tensor([0.0, 40.0]).reshape(2, 1, 1, 1, 1)
    models = tmp_path / "models"
    bias = torch.tensor([0.0, -20.0])
    save_model(models / "tiny-segmenter", fields, {"weight": weight, "bias": bias})
    before = widget.panel.runs._makeWorker
    widget.panel.runs._makeWorker = lambda document, onEvent: WorkerProcess(
        document, onEvent, ["env", f"TOMOSEG_MODELS={models}", *worker_command(document)[0]]
    )
    monkeypatch.setenv("TOMOSEG_MODELS", str(models))
    widget.panel.models.reload()
    assert host.wait_for(lambda: widget.panel.models.card("tiny-segmenter") is not None)
    yield "tiny-segmenter"
    widget.panel.runs._makeWorker = before
    monkeypatch.undo()
    widget.panel.models.reload()
    assert host.wait_for(lambda: widget.panel.models.card("tiny-segmenter") is None)


@pytest.mark.skipif(sys.platform == "win32", reason="sets a variable with the program env")
def test_the_engine_s_segmenter_runs_from_the_panel_and_again_after_reopening(
    widget, volume, engine_with_a_segmenter, tmp_path
):
    choose_model(widget, engine_with_a_segmenter)
    node = run(widget, seconds=180)
    assert [segment.GetName() for segment in segments_of(node)] == ["bright"]
    first = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_3", volume) != 0
    bright = slicer.util.arrayFromVolume(volume) > 200
    assert 2 * (first & bright).sum() / (first.sum() + bright.sum()) > 0.8
    reopen(tmp_path / "scene.mrb")
    widget.ui.runAgainButton.click()
    again = widget.panel.runs.queue.current
    assert host.wait_for(lambda: again.state.isOver, 180)
    assert again.state is RunState.FINISHED, again.report()
    node, scan = widget._parameterNode.heatmap, widget._parameterNode.inputVolume
    second = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_3", scan) != 0
    np.testing.assert_array_equal(second, first)


def test_a_segmentation_is_compared_with_a_heatmap_each_in_its_own_row(
    widget, worker, volume, monkeypatch
):
    worker("well")
    heatmap = run(widget)
    monkeypatch.setattr(widget.panel.models.card("tiny-blob"), "task", "segmentation")
    worker("segmenter")
    segmentation = run(widget)
    widget.ui.compareSelector.setCurrentNode(heatmap)
    click(widget.ui.compareButton)
    nodes = [slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode() for name in COMPARED]
    shown = [segmentation.GetDisplayNode().IsDisplayableInView(node.GetID()) for node in nodes]
    assert shown == [True] * 3 + [False] * 3
    assert composite(COMPARED[0]).GetForegroundVolumeID() is None
    (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert legend.GetDisplayableNode() is heatmap and legend.GetVisibility()
    assert composite(COMPARED[3]).GetForegroundVolumeID() == heatmap.GetID()
    click(widget.ui.compareButton)
    assert segmentation.GetDisplayNode().GetNumberOfViewNodeIDs() == 0


def test_a_run_whose_volume_is_deleted_says_so(widget, worker, volume):
    worker("well")
    widget.ui.runButton.click()
    current = widget.panel.runs.queue.current
    slicer.mrmlScene.RemoveNode(volume)
    assert host.wait_for(lambda: current.state.isOver, 60)
    assert current.state is RunState.CANCELLED and current.error.code == "volume-gone"
    assert "deleted" in widget.ui.messageNote.text
    widget.ui.copyReportButton.click()
    assert "volume-gone" in qt.QApplication.clipboard().text()
    assert not list(os.scandir(slicer.app.temporaryPath)) or all(
        not entry.name.startswith("tomoseg-") for entry in os.scandir(slicer.app.temporaryPath)
    )


def test_a_slicer_without_a_main_window_compares_nothing(monkeypatch):
    bare = types.SimpleNamespace(layoutManager=lambda: None)
    monkeypatch.setattr(comparison.slicer, "app", bare)
    comparison.describeLayout()
    without = comparison.Comparison(lambda: None)
    assert not without.isShown
    without.show([comparison.Side(None)] * 2, 0.5)
    without.cleanup()
