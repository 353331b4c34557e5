"""The sections Method and angles, Computing, and the queue of Run, by clicks."""

import dataclasses
import json
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
STORE = Path(tempfile.mkdtemp(prefix="tomoseg-models-"))

CARD = json.loads((ROOT / "Resources/Models/tiny-blob/card.json").read_text(encoding="utf-8"))
METHODS = {
    "tonno": {"filter_order": 1.5, "threshold": {"kind": "peak", "value": 0.3}},
    "tomographic-cam": {"filter_order": 0.25, "cutoff": 0.6, "rectified": True},
}
for name, changes in (("tuned", {"methods": METHODS}), ("cutter", {"task": "segmentation"})):
    (STORE / name).mkdir()
    card = CARD | {"name": name, "title": name} | changes
    (STORE / name / "card.json").write_text(json.dumps(card), encoding="utf-8")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import slicer  # noqa: E402
from PySide6.QtCore import QPoint, Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel import estimate  # noqa: E402
from TomoSegPanel.parameters import RunSettings  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench  # noqa: E402
from TomoSegPanel.scenarios.objects import addBlobVolume, grid, rotation  # noqa: E402

from TomoSegLib.jobs.document import parse_job  # noqa: E402
from TomoSegLib.jobs.events import ErrorEvent, ResultEvent  # noqa: E402

HEATMAP_FIELDS = {
    "method",
    "cam",
    "rectified",
    "directions",
    "filter_order",
    "cutoff",
    "window",
    "previews",
    "threshold",
}


@pytest.fixture
def bench(monkeypatch):
    """The panel with a volume and the model ``tuned``, whose card has settings of its own."""
    with Bench() as bench:
        models = bench.widget.panel.models
        with monkeypatch.context() as environment:
            environment.setenv("TOMOSEG_MODELS", str(STORE))
            models.reload()
            bench.until(lambda: models.card("tuned") is not None, "the models are listed")
            bench.volume = addBlobVolume()
            bench.chooseVolume(bench.volume)
            bench.chooseModel("tuned")
            bench.processEvents()
            yield bench
        models.reload()


def click(widget):
    """Click on a button, or on the mark of a check box."""
    slicer.app.processEvents()  # what has just been shown gets its place
    place = QPoint(9, min(9, widget.height // 2))
    QTest.mouseClick(widget._peer_, Qt.MouseButton.LeftButton, pos=place)


def type_into(spin_box, text):
    """Type a number and leave the box."""
    peer = spin_box._peer_
    peer.selectAll()
    QTest.keyClicks(peer, text)
    QTest.keyClick(peer, Qt.Key.Key_Return)


def document(bench):
    """The job document that Run would start; the engine takes it."""
    settings = RunSettings.of(bench.parameters, bench.widget.panel.card)
    job = json.loads(json.dumps(settings.document({"image": "scan.nrrd"}, "out", "previews")))
    parse_job(job)
    return job


def test_without_a_choice_the_job_leaves_everything_to_the_card(bench):
    job = document(bench)
    assert not (HEATMAP_FIELDS - {"previews"}) & set(job)
    assert "ToNNO" in bench.ui.methodCombo.currentText
    assert bench.ui.filterOrderSpinBox.value == 1.5
    assert not bench.ui.camCombo.enabled and not bench.ui.rectifiedCheckBox.enabled
    assert "card says" in bench.ui.advancedNote.text
    assert not bench.ui.taskNote.isVisible()


def test_every_advanced_setting_goes_into_the_job_and_back_to_the_card(bench):
    assert not bench.ui.filterOrderSpinBox.isVisible()
    click(bench.ui.advancedBox)
    assert bench.ui.filterOrderSpinBox.isVisible()
    bench.chooseItem(bench.ui.methodCombo, "tomographic-cam")
    assert bench.ui.filterOrderSpinBox.value == 0.25
    assert bench.ui.cutoffSpinBox.value == 0.6
    assert bench.ui.rectifiedCheckBox.isChecked()
    type_into(bench.ui.filterOrderSpinBox, "0.75")
    type_into(bench.ui.cutoffSpinBox, "0.5")
    bench.chooseItem(bench.ui.windowCombo, "cosine")
    bench.chooseItem(bench.ui.camCombo, "layercam")
    click(bench.ui.rectifiedCheckBox)
    job = document(bench)
    assert job["method"] == "tomographic-cam" and job["cam"] == "layercam"
    assert (job["filter_order"], job["cutoff"], job["window"]) == (0.75, 0.5, "cosine")
    assert job["rectified"] is False
    note = bench.ui.advancedNote.text
    assert "filter order 0.75 (card: 0.25)" in note and "no (card: yes)" in note
    bench.chooseItem(bench.ui.methodCombo, "tonno")
    bench.chooseItem(bench.ui.methodCombo, "tomographic-cam")
    assert "filter_order" not in document(bench)  # they belonged to the choice before
    type_into(bench.ui.cutoffSpinBox, "0.9")
    assert document(bench)["cutoff"] == 0.9
    click(bench.ui.cardValuesButton)
    assert {"cutoff", "filter_order", "window", "rectified"}.isdisjoint(document(bench))
    assert bench.ui.cutoffSpinBox.value == 0.6
    assert not bench.ui.cardValuesButton.enabled


def test_a_value_that_is_the_card_s_own_is_no_change(bench):
    type_into(bench.ui.filterOrderSpinBox, "2")
    assert document(bench)["filter_order"] == 2.0
    assert "threshold was found with the card's own" in bench.ui.taskNote.text
    type_into(bench.ui.filterOrderSpinBox, "1.5")
    assert "filter_order" not in document(bench)
    assert not bench.ui.taskNote.isVisible()


def test_a_method_without_a_threshold_on_the_card_is_told(bench):
    bench.chooseItem(bench.ui.methodCombo, "tomographic-cam")
    assert "Otsu" in bench.ui.taskNote.text


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("fibonacci", "fibonacci:20", 20),
        ("icosahedral", "icosahedral:2", 21),
        ("orthogonal", "orthogonal", 3),
        ("axial", "axial", 1),
        ("coronal", "coronal", 1),
        ("sagittal", "sagittal", 1),
    ],
)
def test_each_direction_set_can_be_chosen_and_is_shown_in_the_views(bench, name, text, count):
    bench.chooseItem(bench.ui.directionsCombo, name)
    if name == "fibonacci":
        type_into(bench.ui.directionCountSpinBox, "20")
    if name == "icosahedral":
        type_into(bench.ui.icosahedralSpinBox, "2")
        assert "21 directions" in bench.ui.icosahedralSpinBox._peer_.text()
    assert bench.ui.directionCountSpinBox.isVisible() is (name == "fibonacci")
    assert bench.ui.icosahedralSpinBox.isVisible() is (name == "icosahedral")
    assert document(bench)["directions"] == text
    bench.until(lambda: f"in {count} directions" in bench.ui.estimateNote.text, "the estimate")
    click(bench.ui.showDirectionsCheckBox)
    bench.until(lambda: bench.ui.directionSlider.maximum == max(1, count), "they are shown")
    assert {node.GetName() for node in models()} == {"TomoSeg directions", "TomoSeg plane"}
    click(bench.ui.showDirectionsCheckBox)
    assert models() == []


def models():
    """The models that are in the scene for the user to see, slices apart."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLModelNode")
        if node.GetName().startswith("TomoSeg ")
    ]


def plane():
    """Centre and normal of the plane that is shown, in the world."""
    (node,) = [node for node in models() if node.GetName() == "TomoSeg plane"]
    points = slicer.util.arrayFromModelPoints(node)
    if node.GetParentTransformNode() is not None:
        matrix = slicer.util.vtkMatrixFromArray(np.eye(4))
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
        matrix = slicer.util.arrayFromVTKMatrix(matrix)
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    return points.mean(axis=0), np.abs(normal / np.linalg.norm(normal))


def test_the_plane_follows_the_sliders_the_volume_and_its_transform(bench):
    bench.chooseItem(bench.ui.directionsCombo, "axial")
    click(bench.ui.showDirectionsCheckBox)
    bench.until(lambda: len(models()) == 2, "the plane is shown")
    center, normal = plane()
    np.testing.assert_allclose(normal, [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(center, [0, 0, 0], atol=1e-4)
    assert bench.ui.planeSlider.maximum == pytest.approx(36.0)
    bench.ui.planeSlider.value = 12.0
    np.testing.assert_allclose(plane()[0], [0, 0, 12], atol=1e-4)
    bench.volume.SetOrigin(*(np.array(bench.volume.GetOrigin()) + [0, 0, 5.0]))
    bench.until(lambda: abs(plane()[0][2] - 17) < 1e-3, "the plane follows the volume")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((1, 0, 0), 90)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    bench.volume.SetAndObserveTransformNodeID(transform.GetID())
    bench.until(lambda: plane()[1][1] > 0.999, "the plane is turned with the volume")


def test_the_plane_follows_a_run_until_the_user_moves_the_slider(bench):
    settings = RunSettings.of(bench.parameters, bench.widget.panel.card)
    run = types.SimpleNamespace(
        settings=settings, context={"volumes": {"image": bench.volume.GetID()}}
    )
    method = bench.widget.panel.method
    method.followRun(run, 4)  # nothing is shown yet
    click(bench.ui.showDirectionsCheckBox)
    bench.until(lambda: bench.ui.directionSlider.maximum == 64, "the directions are shown")
    before = plane()[1]
    method.followRun(run, 4)
    assert bench.ui.directionSlider.value == 4
    assert not np.allclose(plane()[1], before)
    method.followRun(run, 8)
    assert bench.ui.directionSlider.value == 8
    bench.ui.directionSlider.value = 20
    method.followRun(run, 16)
    method.followRun(run, None)
    assert bench.ui.directionSlider.value == 20
    bench.ui.directionSlider.value = 8
    run.settings = dataclasses.replace(settings, directions="axial")
    method.followRun(run, 16)  # a run with other directions than those that are shown
    assert bench.ui.directionSlider.value == 8


def test_what_is_shown_of_the_directions_is_neither_saved_nor_left_behind(bench):
    click(bench.ui.showDirectionsCheckBox)
    bench.until(lambda: len(models()) == 2, "the directions are shown")
    assert not any(node.GetSaveWithScene() for node in models())
    bench.leavePanel()
    assert models() == []
    bench.openPanel()
    assert not bench.ui.showDirectionsCheckBox.isChecked()


def test_directions_come_from_a_file_and_a_bad_one_says_what_is_wrong(bench, tmp_path):
    bench.chooseItem(bench.ui.directionsCombo, "file")
    assert bench.ui.directionsFileEdit.isVisible()
    assert "file" in bench.ui.runButton.toolTip and not bench.ui.runButton.enabled
    path = tmp_path / "drei Richtungen.csv"
    path.write_text("1,0,0\n0,1,0\n0,3,4\n", encoding="utf-8")
    bench.ui.directionsFileEdit.setCurrentPath(str(path))
    bench.until(lambda: "in 3 directions" in bench.ui.estimateNote.text, "they are read")
    assert document(bench)["directions"] == str(path)
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip
    path.write_text("1,0,0\nnorth\n", encoding="utf-8")
    os.utime(path, ns=(1, 1))
    bench.widget.panel.refresh()
    bench.until(lambda: "not vectors" in bench.ui.directionsNote.text, "the error is shown")
    assert not bench.ui.runButton.enabled
    assert "not vectors" in bench.ui.runButton.toolTip
    bench.chooseItem(bench.ui.directionsCombo, "axial")
    bench.until(lambda: bench.ui.runButton.enabled, "others can be run")
    assert not bench.ui.directionsNote.isVisible()


class FakeWorker:
    """A worker that says what a test lets it say."""

    def __init__(self, document, onEvent):
        self.document = json.loads(Path(document).read_text(encoding="utf-8"))
        self.say = onEvent

    def start(self):
        pass

    def abandon(self):
        pass


@pytest.fixture
def measuring(bench):
    """Workers for the measurement that are made up; returns a list of them."""
    row, made = bench.widget.panel.method._estimate, []
    real = row.makeWorker
    row.makeWorker = lambda path, onEvent: made.append(FakeWorker(path, onEvent)) or made[-1]
    bench.chooseItem(bench.ui.directionsCombo, "orthogonal")
    estimate.rememberSpeed(RunSettings.of(bench.parameters, bench.widget.panel.card), 0.0)
    bench.widget.panel.refresh()
    bench.until(lambda: "not known yet" in bench.ui.estimateNote.text, "no speed is known")
    yield made
    row.makeWorker = real
    estimate.rememberSpeed(RunSettings.of(bench.parameters, bench.widget.panel.card), 0.0)


def test_the_time_is_measured_before_the_first_run(bench, measuring):
    # Three stacks of 72 mm with a slice each 2 mm.
    assert "At most 108 slices in 3 directions" in bench.ui.estimateNote.text
    click(bench.ui.speedButton)
    (worker,) = measuring
    assert worker.document == {
        "kind": "estimate",
        "model": "tuned",
        "method": "tonno",
        "slice_mm": [72.0, 72.0],
        "device": "auto",
    }
    assert "being measured" in bench.ui.estimateNote.text and not bench.ui.speedButton.enabled
    worker.say(ResultEvent(None, {"seconds_per_slice": 2.0}))
    assert "About 4 min" in bench.ui.estimateNote.text
    assert not bench.ui.speedButton.isVisible()
    bench.chooseItem(bench.ui.methodCombo, "averaged-cam")
    assert bench.ui.speedButton.isVisible()  # another method is another speed
    bench.chooseItem(bench.ui.methodCombo, "")


def test_a_measurement_that_fails_says_why_and_can_be_repeated(bench, measuring):
    click(bench.ui.speedButton)
    measuring[0].say(ErrorEvent("out-of-memory", "There is not enough memory.", "Close others."))
    assert "There is not enough memory. Close others." in bench.ui.estimateNote.text
    click(bench.ui.speedButton)
    assert len(measuring) == 2
    assert "not enough memory" not in bench.ui.estimateNote.text
    measuring[1].say(ErrorEvent("cancelled", "The job was cancelled."))


def test_too_little_memory_is_warned_of_before_the_run(bench):
    answer = bench.widget.panel.computing.answer
    free = answer["cpu"]["available_mb"]
    answer["cpu"]["available_mb"] = 1
    try:
        bench.widget.panel.refresh()
        assert "Only 1 MB are free" in bench.ui.estimateNote.text
    finally:
        answer["cpu"]["available_mb"] = free


def test_the_estimate_of_slices_is_right_for_an_oblique_anisotropic_volume(bench):
    shape, matrix = grid((20, 30, 40), (1.0, 2.0, 3.0), rotation((1, 2, 3), 35))
    node = slicer.util.addVolumeFromArray(np.ones(shape, np.uint8))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    ends = np.meshgrid((-0.5, 39.5), (-0.5, 29.5), (-0.5, 19.5), 1)
    corners = np.stack([end.ravel() for end in ends], axis=1)
    direction = np.array([[0.6, 0.0, 0.8]])
    heights = (corners @ matrix.T)[:, :3] @ direction[0]
    expected = int(np.ceil(np.ptp(heights) / bench.widget.panel.card.sliceDistanceMm))
    assert estimate.sliceCount(node, bench.widget.panel.card, direction) == expected


def test_a_model_that_makes_segmentations_hides_what_does_not_apply(bench):
    bench.chooseItem(bench.ui.methodCombo, "tonno")
    bench.chooseItem(bench.ui.directionsCombo, "fibonacci")
    type_into(bench.ui.filterOrderSpinBox, "1")
    click(bench.ui.showDirectionsCheckBox)
    bench.chooseModel("cutter")
    for name in ("methodCombo", "directionsCombo", "directionCountSpinBox", "advancedBox"):
        assert not getattr(bench.ui, name).isVisible(), name
    for name in ("showDirectionsCheckBox", "planeSliderLabel", "keepPartialCheckBox"):
        assert not getattr(bench.ui, name).isVisible(), name
    assert "segmentation" in bench.ui.taskNote.text
    assert "slices" not in bench.ui.estimateNote.text and "MB" in bench.ui.estimateNote.text
    assert models() == []
    bench.chooseItem(bench.ui.batchSizeCombo, "4")
    job = document(bench)
    assert not HEATMAP_FIELDS & set(job)
    assert job["model"] == "cutter" and job["batch_size"] == 4
    bench.chooseModel("tuned")
    assert bench.ui.methodCombo.isVisible() and bench.ui.directionCountSpinBox.isVisible()


def test_settings_are_saved_with_the_scene(bench, tmp_path):
    bench.chooseItem(bench.ui.methodCombo, "tomographic-cam")
    bench.chooseItem(bench.ui.directionsCombo, "icosahedral")
    type_into(bench.ui.icosahedralSpinBox, "4")
    type_into(bench.ui.cutoffSpinBox, "0.5")
    click(bench.ui.rectifiedCheckBox)
    bench.ui.regionSelector.addNode()
    before = document(bench)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    bench.processEvents()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    bench.processEvents(0.1)
    assert document(bench) == before
    assert bench.ui.cutoffSpinBox.value == 0.5
    assert not bench.ui.rectifiedCheckBox.isChecked()


def test_the_settings_fold_away_and_the_advanced_box_opens_with_the_keyboard(bench):
    bench.ui.advancedBox.collapsed = True
    bench.ui.advancedBox._peer_.setFocus()
    QTest.keyClick(bench.ui.advancedBox._peer_, Qt.Key.Key_Space)
    assert bench.ui.cutoffSpinBox.isVisible()


def test_a_refresh_leaves_an_open_list_and_a_half_typed_number_alone(bench):
    combo, box = bench.ui.methodCombo, bench.ui.filterOrderSpinBox
    combo._peer_.showPopup()
    box._peer_.selectAll()
    QTest.keyClicks(box._peer_, "0.")
    bench.widget.panel.refresh()
    assert combo._peer_.view().isVisible()
    assert box._peer_.text() in ("0.", "0,")
    combo._peer_.hidePopup()


def teardown_module():
    """The models of these tests are no longer needed."""
    shutil.rmtree(STORE, ignore_errors=True)
