"""The panel in the stand-in application: real widgets, real clicks, a worker that is made up.

The worker of these tests is a small program without torch that speaks the engine's protocol, run by
a real QProcess.
"""

import json
import os
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import qt  # noqa: E402
import slicer  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel import display, provenance  # noqa: E402
from TomoSegPanel.job import RunState  # noqa: E402
from TomoSegPanel.mask import MaskSettings, makeMask  # noqa: E402
from TomoSegPanel.modelCards import Card, VolumeFacts  # noqa: E402
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd  # noqa: E402
from TomoSegPanel.worker import WorkerProcess  # noqa: E402

WORKER = """
import json, os, sys, time
sys.path[:0] = [{root!r}, {panel!r}]
import numpy as np
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd
mode = {mode!r}
job = json.load(open(sys.argv[1], encoding="utf-8"))
def say(**event):
    print(json.dumps(event), flush=True)
say(event="started", kind="run", pid=os.getpid(), version="0", protocol=1)
if mode == "garbage":
    print("Segmentation fault (just kidding)", flush=True)
if mode == "error":
    say(event="error", code="model-unknown", message="There is no such model.", hint="Import it.")
    sys.exit(2)
if mode == "die":
    sys.stderr.write("the last words\\n")
    os._exit(7)
image = readNrrd(next(iter(job["channels"].values())))
bright = np.where(image > 200, np.float32(2), np.float32(0.1) * (image > 0)).astype(np.float32)
os.makedirs(job["previews"], exist_ok=True)
preview = os.path.join(job["previews"], "preview-0004.nrrd")
writeNrrd(preview, bright / 2, np.eye(4))
say(event="progress", stage="heatmap", done=4, total=8, eta_s=3.0)
say(event="preview", path=preview, directions=4)
if mode == "hang":
    sys.stdin.read()  # the end of stdin is the sign to stop
    say(event="error", code="cancelled", message="The job was cancelled.")
    sys.exit(130)
if mode == "deaf":
    time.sleep(60)
os.makedirs(job["output"])
writeNrrd(os.path.join(job["output"], "heatmap.nrrd"), bright, np.eye(4))
writeNrrd(os.path.join(job["output"], "agreement.nrrd"), bright / 2, np.eye(4))
peak = [float(v) for v in np.argwhere(bright == 2)[0][::-1]]
record = dict(
    job=dict(job, method="tonno", directions="fibonacci:32", cam=None),
    inputs=dict((name, dict(hash="0" * 64, path=p)) for name, p in job["channels"].items()),
    model=dict(name=job["model"], version="1.0.0", hash="1" * 64, simulated=True,
               labels=[dict(name="bright blob", value=1, color=[0.9, 0.3, 0.2], terminology="")]),
    directions=dict(name="fibonacci:32", vectors=[[0, 0, 1]] * 32),
    heatmap=dict(minimum=0.0, maximum=2.0, mean=0.1,
                 peaks=[dict(ijk=peak, lps_mm=[-10.0, 20.0, 30.0], value=2.0)]),
    mask=dict(threshold=0.8, voxels=1, volume_ml=1.0, components=1),
    environment=dict(device="cpu", device_name="", threads=2, batch_size=8),
    created_at="2026-01-01T00:00:00+00:00",
)
json.dump(record, open(os.path.join(job["output"], "result.json"), "w"))
say(event="result", path=job["output"], data=dict())
"""


class NoProbe:
    """Stands for `dependencies.Probe`: everything is there."""

    def __init__(self, onAnswer):
        self._onAnswer = onAnswer

    def start(self):
        self._onAnswer({"torch": {"version": "2"}, "devices": [{"name": "cpu", "works": True}]})

    def abandon(self):
        pass


@pytest.fixture
def widget():
    """The panel with an empty scene and a probe that finds everything."""
    host.errors.clear()
    host.close_scene()
    panelWidget = host.select("TomoSeg")
    computing = panelWidget.panel.computing
    computing._probe.abandon()
    computing._probe = NoProbe(computing._onAnswer)
    computing.probe()
    host.process()
    yield panelWidget
    panelWidget.panel.runs.queue.abandon()
    host.close_scene()
    host.process(0.05)
    assert host.errors == []


@pytest.fixture
def worker(widget, tmp_path):
    """Makes the panel's workers do as a mode says."""

    def choose(mode):
        script = tmp_path / "worker.py"
        source = WORKER.format(root=str(ROOT), panel=str(ROOT / "TomoSeg"), mode=mode)
        # Its imports must not need Slicer's modules.
        script.write_text(textwrap.dedent(source), encoding="utf-8")
        widget.panel.runs._makeWorker = lambda document, onEvent: WorkerProcess(
            document, onEvent, [sys.executable, str(script), document]
        )

    return choose


@pytest.fixture
def volume(widget):
    """A volume with a bright blob, chosen in the panel, with the model that finds it."""
    voxels = np.zeros((20, 24, 28), np.int16)
    voxels[2:-2, 2:-2, 2:-2] = 100
    voxels[8:12, 9:14, 10:16] = 300
    node = slicer.util.addVolumeFromArray(voxels, name="Köpf 1")
    node.SetSpacing(2.0, 2.5, 3.0)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    widget.ui.inputSelector.setCurrentNode(node)
    choose_model(widget, "tiny-blob")
    host.process()
    return node


def choose_model(widget, name):
    """Click on a model in the list."""
    models = widget.ui.modelListWidget
    for row in range(models.count):
        if models.item(row).data(qt.Qt.UserRole) == name:
            models.setCurrentItem(models.item(row))
            return
    raise AssertionError(f"{name} is not in the list")


def run(widget, until=lambda run: run.state.isOver, seconds=60.0):
    """Click on Run and wait."""
    widget.ui.runButton.click()
    run = widget.panel.runs.queue.current
    assert run is not None
    assert host.wait_for(lambda: until(run), seconds), run.state
    return run


def test_the_run_button_says_what_is_missing(widget):
    assert not widget.ui.runButton.enabled
    assert "volume" in widget.ui.runButton.toolTip
    node = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6)))
    widget.ui.inputSelector.setCurrentNode(node)
    assert "model" in widget.ui.runButton.toolTip
    choose_model(widget, "tiny-blob")
    assert widget.ui.runButton.enabled


def test_a_card_is_shown_and_found_by_its_words(widget, volume):
    assert "TEST MODEL" in widget.ui.cardBrowser.toPlainText()
    widget.ui.modelSearchBox.setText("no such word")
    assert widget.ui.modelListWidget.count == 0
    widget.ui.modelSearchBox.setText("bright FORMULA")
    assert widget.ui.modelListWidget.count == 1
    widget.ui.modelSearchBox.setText("")


def test_a_run_brings_a_preview_then_heatmap_agreement_peaks_and_threshold(widget, worker, volume):
    worker("well")
    window = volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()
    seen = []
    told = widget.panel.onHeatmapChanged
    widget.panel.runs.listener.onHeatmapChanged = lambda run, node, directions: (
        seen.append(directions),
        told(run, node, directions),
    )
    try:
        finished = run(widget)
    finally:
        del widget.panel.runs.listener.onHeatmapChanged
    assert finished.state is RunState.FINISHED, finished.report()
    assert seen[-1] is None
    heatmap = widget._parameterNode.heatmap
    np.testing.assert_array_equal(
        slicer.util.arrayFromVolume(heatmap) == 2, slicer.util.arrayFromVolume(volume) > 200
    )
    matrices = [slicer.util.arrayFromVTKMatrix(ijk_to_ras(node)) for node in (heatmap, volume)]
    np.testing.assert_array_equal(*matrices)
    assert display.agreementOf(heatmap) is not None
    assert widget._parameterNode.threshold == pytest.approx(0.8)
    assert widget.ui.peaksTree.topLevelItemCount == 1
    assert (volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()) == window
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert composite.GetBackgroundVolumeID() == volume.GetID()
        assert composite.GetForegroundVolumeID() == heatmap.GetID()


def ijk_to_ras(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_a_peak_that_is_chosen_is_jumped_to(widget, worker, volume):
    worker("well")
    run(widget)
    tree = widget.ui.peaksTree
    tree.setCurrentItem(tree.topLevelItem(0))
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceOffset() == pytest.approx(30.0)


def test_a_heatmap_is_under_the_transform_of_its_volume(widget, worker, volume):
    worker("well")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    run(widget)
    assert widget._parameterNode.heatmap.GetParentTransformNode() is transform


@pytest.mark.parametrize("keep", [True, False])
def test_cancel_ends_a_run_within_a_second_and_keeps_its_heatmap_if_wished(
    widget, worker, volume, keep
):
    worker("hang")
    if widget.ui.keepPartialCheckBox.isChecked() is not keep:
        widget.ui.keepPartialCheckBox.click()
    run(widget, lambda run: widget.panel.runs.heatmapOf(run) is not None)
    under_way = widget.panel.runs.queue.current
    heatmap = widget._parameterNode.heatmap
    assert heatmap.GetAttribute(provenance.PARTIAL) == "4"
    since = time.monotonic()
    widget.ui.cancelButton.click()
    assert host.wait_for(lambda: under_way.state.isOver, 5.0)
    assert under_way.state is RunState.CANCELLED
    assert time.monotonic() - since < 1.5
    assert (widget._parameterNode.heatmap is not None) is keep
    assert not widget.ui.cancelButton.enabled


def test_a_worker_that_does_not_listen_is_killed(widget, worker, volume):
    worker("deaf")
    run(widget, lambda run: widget.panel.runs.heatmapOf(run) is not None)
    under_way = widget.panel.runs.queue.current
    widget.ui.cancelButton.click()
    assert host.wait_for(lambda: under_way.state.isOver, 5.0)
    assert under_way.state is RunState.CANCELLED


@pytest.mark.parametrize(
    ("mode", "code", "shown"),
    [("error", "model-unknown", "Import it."), ("die", "worker-died", "without a result")],
)
def test_an_error_is_shown_and_can_be_copied(widget, worker, volume, mode, code, shown):
    worker(mode)
    failed = run(widget)
    assert failed.state is RunState.FAILED
    assert failed.error.code == code
    assert shown in widget.ui.messageNote.text
    widget.ui.copyReportButton.click()
    assert code in qt.QApplication.clipboard().text()
    if mode == "die":
        assert "the last words" in qt.QApplication.clipboard().text()
    assert widget.ui.runButton.enabled


def test_garbage_on_the_output_is_a_warning_and_the_run_goes_on(widget, worker, volume):
    worker("garbage")
    finished = run(widget)
    assert finished.state is RunState.FINISHED
    assert [warning.code for warning in finished.warnings] == ["worker-output"]


def test_runs_wait_for_their_turn(widget, worker, volume):
    worker("well")
    widget.ui.runButton.click()
    first = widget.panel.runs.queue.current
    widget.ui.runButton.click()
    (second,) = widget.panel.runs.queue.waiting
    assert second.state is RunState.QUEUED
    assert host.wait_for(lambda: second.state.isOver, 90)
    assert first.state is second.state is RunState.FINISHED
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 5


def test_closing_the_scene_in_the_middle_ends_the_run(widget, worker, volume):
    worker("hang")
    run(widget, lambda run: widget.panel.runs.heatmapOf(run) is not None)
    process = widget.panel.runs.queue.current._worker._process
    host.close_scene()
    assert host.wait_for(lambda: process.state() == qt.QProcess.NotRunning, 5.0)
    assert widget.panel.runs.queue.current is None
    assert widget.ui.runButton.enabled is False


def test_a_segment_is_made_from_the_threshold_and_undone(widget, worker, volume):
    worker("well")
    run(widget)
    widget.ui.makeSegmentButton.click()
    assert host.wait_for(lambda: widget.ui.makeSegmentButton.enabled)
    segmentation = widget._parameterNode.segmentation
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    assert len(ids) == 1
    assert segmentation.GetSegmentation().GetSegment(ids[0]).GetName() == "bright blob"
    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, ids[0], volume)
    np.testing.assert_array_equal(array != 0, slicer.util.arrayFromVolume(volume) > 200)
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode") is not None
    widget.ui.undoSegmentButton.click()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert not widget.ui.undoSegmentButton.enabled


def test_a_heatmap_says_where_it_comes_from_after_the_scene_is_reopened(
    widget, worker, volume, tmp_path
):
    worker("well")
    run(widget)
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    host.close_scene()
    slicer.util.loadScene(str(path))
    host.process(0.1)
    heatmap = widget._parameterNode.heatmap
    record = provenance.readRecord(heatmap)
    assert record["model"]["name"] == "tiny-blob"
    again = provenance.repetition(record)
    assert again["expected"]["model"] == "1" * 64 and again["threads"] == 2
    assert list(provenance.recordedInputs(heatmap)) == ["image"]
    assert widget.ui.runAgainButton.enabled
    worker("well")
    widget.ui.runAgainButton.click()
    repeated = widget.panel.runs.queue.current
    assert repeated.settings.extra["expected"]["inputs"] == {"image": "0" * 64}
    assert host.wait_for(lambda: repeated.state.isOver, 60)


def test_volumes_go_through_files_unchanged(tmp_path):
    random = np.random.default_rng(5)
    matrix = np.eye(4)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    matrix[:3, :3], matrix[:3, 3] = rotation * [0.7, 1.5, 3.0], [10.0, -20.5, 30.25]
    for dtype in (np.int16, np.uint8, np.float32, np.float64):
        array = (random.normal(size=(3, 4, 5)) * 50).astype(dtype)
        path = tmp_path / "ä b.nrrd"
        writeNrrd(path, array, matrix)
        np.testing.assert_array_equal(readNrrd(path), array)
        from TomoSegLib.imaging.io import read_volume

        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, array)
        corner = volume.geometry.index_to_lps((1, 2, 0)) * [-1, -1, 1]
        np.testing.assert_allclose(corner, (matrix @ [1, 2, 0, 1])[:3], atol=1e-9)


@pytest.mark.parametrize("components", ["all", "largest", "peak"])
@pytest.mark.parametrize("minimum_size_ml", [0.0, 0.05])
def test_the_mask_is_the_engine_s(components, minimum_size_ml):
    from TomoSegLib.heatmaps.mask import heatmap_to_mask
    from TomoSegLib.imaging.volume import Geometry
    from TomoSegLib.models.card import MaskSettings as EngineSettings

    heatmap = np.random.default_rng(3).normal(size=(12, 13, 14)).astype(np.float32)
    foreground = np.zeros(heatmap.shape, bool)
    foreground[2:-2, 2:-2, 2:-2] = True
    heatmap[~foreground] = 0
    geometry = Geometry(heatmap.shape, np.diag([2.0, 2.5, 3.0, 1.0]))
    expected, _ = heatmap_to_mask(
        heatmap,
        foreground,
        0.9,
        EngineSettings(components=components, minimum_size_ml=minimum_size_ml),
        geometry,
    )
    mask = makeMask(heatmap, (2.0, 2.5, 3.0), MaskSettings(0.9, components, minimum_size_ml))
    np.testing.assert_array_equal(mask, expected)


def test_a_volume_that_does_not_fit_the_card_is_explained(tmp_path):
    source = ROOT / "Resources" / "Models" / "tiny-blob" / "card.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    content["modality"] = "MR"
    content["preprocessing"]["intensity"] = {"method": "window", "lower": -100, "upper": 200}
    (tmp_path / "card.json").write_text(json.dumps(content), encoding="utf-8")
    card = Card(tmp_path, shipped=False)
    good = VolumeFacts((1, 1, 1), (100, 100, 100), (-1000, 1000), "MR")
    assert card.misfits(good) == []
    reasons = card.misfits(VolumeFacts((1, 1, 7), (100, 100, 3), (0, 1), "CT"))
    for word in ("7 mm", "21 mm", "-100", "CT"):
        assert any(word in reason for reason in reasons), word
