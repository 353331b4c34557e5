"""The section Volume: files, sample, channels, region, and whether volume and model fit."""

import json
import os
import shutil
import sys
import tempfile
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


def write_card(name, **changes):
    """A model that can be chosen but not run."""
    (STORE / name).mkdir(exist_ok=True)
    card = CARD | {"name": name, "title": name} | changes
    (STORE / name / "card.json").write_text(json.dumps(card), encoding="utf-8")


WINDOW = {"spacing_mm": 1.0, "intensity": {"method": "window", "lower": -100, "upper": 200}}
write_card("for-ct", modality="CT", preprocessing=WINDOW)
write_card("classes", task="classification")
write_card("two", channels=[{"name": "t1", "description": "T1 image"}, {"name": "flair"}])

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import qt  # noqa: E402
import slicer  # noqa: E402
from PySide6.QtCore import Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel.modelCards import Card, VolumeFacts  # noqa: E402
from TomoSegPanel.parameters import RunSettings  # noqa: E402
from TomoSegPanel.region import Box, boxOf, fitAround, isTurned  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench  # noqa: E402
from TomoSegPanel.scenarios.objects import addBlobVolume, grid, rotation  # noqa: E402


@pytest.fixture
def bench(monkeypatch):
    """The panel with the models of these tests."""
    with Bench() as bench:
        models = bench.widget.panel.models
        with monkeypatch.context() as environment:
            environment.setenv("TOMOSEG_MODELS", str(STORE))
            models.reload()
            bench.until(lambda: models.card("two") is not None, "the models are listed")
            yield bench
        models.reload()


def click(widget):
    """Click in the middle of a widget."""
    QTest.mouseClick(widget._peer_, Qt.MouseButton.LeftButton)


def add_volume(shape, matrix):
    """A volume of noise on a grid."""
    voxels = np.random.default_rng(2).normal(100, 8, shape).astype(np.float32)
    node = slicer.util.addVolumeFromArray(voxels)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


def follows(first, second):
    """Whether the tab key leads from a control to another with no third between."""
    widget = first
    while (widget := widget.nextInFocusChain()) is not first:
        inside = first.isAncestorOf(widget) or widget.focusPolicy() == Qt.FocusPolicy.NoFocus
        if widget is second or second.isAncestorOf(widget):
            return True
        if not inside:
            return False
    return False


def until_fit(bench, word):
    """Wait until the note on how volume and model fit holds a word."""
    bench.until(lambda: word in bench.ui.fitNote.text, f"{word} in {bench.ui.fitNote.text!r}")


def test_the_sample_is_loaded_by_a_click(bench):
    click(bench.ui.sampleButton)
    volume = bench.parameters.inputVolume
    assert volume is not None and volume.GetImageData().GetDimensions() == (203, 196, 198)
    assert "203 × 196 × 198 voxels of 1 × 1 × 1 mm" in bench.ui.volumeNote.text


def test_the_sample_is_registered_with_the_sample_data_under_a_name_that_says_simulated(bench):
    import SampleData
    from TomoSegPanel.sampleData import CATEGORY, registerSampleData

    registerSampleData()
    (source, *_) = slicer.modules.sampleDataSources[CATEGORY]
    assert "Simulated" in source.sampleName
    node = SampleData.SampleDataLogic().downloadSample(source.sampleName)
    assert node.GetImageData().GetDimensions() == (203, 196, 198)


def test_a_file_is_loaded_and_a_broken_one_is_refused_kindly(bench, monkeypatch, tmp_path):
    good = tmp_path / "größe.nrrd"
    node = addBlobVolume()
    assert slicer.util.saveNode(node, str(good))
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(good))
    click(bench.ui.loadButton)
    assert bench.parameters.inputVolume is not None
    assert bench.parameters.inputVolume is not node
    bad = tmp_path / "bad.nrrd"
    bad.write_bytes(b"NRRD0004\nnonsense")
    chosen = bench.parameters.inputVolume
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(bad))
    click(bench.ui.loadButton)
    assert "bad.nrrd" in bench.messages[-1]
    assert bench.parameters.inputVolume is chosen
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: "")
    click(bench.ui.loadButton)
    assert bench.parameters.inputVolume is chosen


def test_the_note_on_the_volume_follows_its_geometry_and_transform(bench):
    volume = addBlobVolume()
    bench.chooseVolume(volume)
    volume.SetSpacing(3.0, 2.0, 1.5)
    bench.until(lambda: "3 × 2 × 1.5 mm" in bench.ui.volumeNote.text, "the note follows")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Tilt")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    bench.until(lambda: "Tilt" in bench.ui.volumeNote.text, "the note names the transform")


def test_each_channel_of_a_model_has_a_selector_and_all_are_needed(bench):
    first, second = addBlobVolume(name="A"), addBlobVolume(name="B")
    bench.chooseVolume(first)
    bench.chooseModel("two")
    assert "flair" in bench.ui.runButton.toolTip
    until_fit(bench, "flair")
    selector = bench.ui.channelsWidget.findChild(slicer.qMRMLNodeComboBox, "channelSelector_flair")
    assert follows(bench.ui.inputSelector._peer_, selector._peer_)
    selector.setCurrentNode(first)
    until_fit(bench, "more than one channel")
    selector.setCurrentNode(second)
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip
    bench.until(lambda: "flair" not in bench.ui.fitNote.text, "nothing is missing")
    second.SetOrigin(500, 0, 0)
    bench.chooseModel("tiny-blob")
    bench.chooseModel("two")
    until_fit(bench, "does not lie where A lies")
    bench.chooseModel("tiny-blob")
    assert not bench.ui.channelsWidget.isVisible()


def test_a_model_for_classification_cannot_be_run_and_says_which_command_can(bench):
    bench.ui.inputSelector.setCurrentNode(addBlobVolume())
    bench.widget.panel.models.chooseModel("classes")
    bench.until(lambda: bench.parameters.model == "classes", "it is chosen")
    assert not bench.ui.runButton.enabled
    assert "tomoseg classify" in bench.ui.runButton.toolTip
    assert "classification" in bench.ui.cardBrowser.toPlainText()
    texts = [
        bench.ui.modelListWidget.item(row).text() for row in range(bench.ui.modelListWidget.count)
    ]
    assert any(text.startswith("classes (") and "classification" in text for text in texts)
    bench.widget.panel.models.chooseModel("tiny-blob")
    bench.until(lambda: bench.ui.runButton.enabled, "another can be run")


def test_what_does_not_fit_the_card_is_explained(bench):
    bench.chooseModel("for-ct")
    bench.chooseVolume(add_volume(*grid((5, 40, 40), (1.0, 1.0, 8.0))))
    until_fit(bench, "are they in the units")
    assert "8 mm large" in bench.ui.fitNote.text
    flat = slicer.util.addVolumeFromArray(np.full((30, 30, 30), 3, np.int16))
    bench.chooseVolume(flat)
    until_fit(bench, "same intensity")
    bench.chooseModel("tiny-blob")
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:20] = 4
    bench.chooseVolume(slicer.util.addVolumeFromArray(labels))
    until_fit(bench, "label map")
    holes = np.random.default_rng(1).normal(size=(30, 30, 30)).astype(np.float32)
    holes[3, 3, 3] = np.nan
    bench.chooseVolume(slicer.util.addVolumeFromArray(holes))
    until_fit(bench, "not numbers")
    bench.chooseVolume(addBlobVolume())
    bench.until(lambda: not bench.ui.fitNote.isVisible(), "a volume that fits is not warned of")


def test_the_modality_is_compared_with_the_card_s():
    facts = {"spacing": (1, 1, 1), "dimensions": (100, 100, 100), "scalarRange": (-1000, 1000)}
    card = Card(STORE / "for-ct", shipped=False)
    assert card.misfits(VolumeFacts(**facts, modality="CT")) == []
    assert card.misfits(VolumeFacts(**facts, modality="")) == []
    (reason,) = card.misfits(VolumeFacts(**facts, modality="MR"))
    assert "MR" in reason and "CT" in reason
    (reason,) = card.misfits(VolumeFacts(**facts, isMap=True))
    assert "TomoSeg has made" in reason


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize("turned", [0, 30])
@pytest.mark.parametrize("flipped", [1, -1])
def test_a_region_is_the_voxels_whose_centres_it_holds(bench, turned, flipped, transformed):
    axes = rotation((1, 2, 3), turned) * (1, 1, flipped)
    volume = add_volume(*grid((20, 24, 28), (1.0, 2.0, 3.0), axes, (5, -7, 11)))
    if transformed:
        import vtk

        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkTransform()
        matrix.RotateWXYZ(40, 0, 1, 1)
        matrix.Translate(30, 0, -9)
        transform.SetMatrixTransformToParent(matrix.GetMatrix())
        volume.SetAndObserveTransformNodeID(transform.GetID())
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    fitAround(roi, volume)
    assert boxOf(roi, volume) == Box((0, 0, 0), (28, 24, 20))
    assert not isTurned(roi, volume)
    roi.SetSize(1.0 * 4.2, 2.0 * 6.2, 3.0 * 2.2)  # the middle lies between two voxels
    assert boxOf(roi, volume) == Box((12, 9, 9), (16, 15, 11))


def test_a_region_is_made_by_the_selector_drawn_around_the_volume_and_goes_into_the_job(bench):
    volume = add_volume(*grid((20, 24, 28), (1.0, 2.0, 3.0)))
    bench.chooseVolume(volume)
    bench.chooseModel()
    assert RunSettings.of(bench.parameters, bench.widget.panel.card).region is None
    roi = bench.ui.regionSelector.addNode()
    assert bench.parameters.region is roi
    assert "28 × 24 × 20" in bench.ui.regionNote.text
    roi.SetSize(1.0 * 4.2, 2.0 * 6.2, 3.0 * 2.2)
    bench.until(lambda: "4 × 6 × 2" in bench.ui.regionNote.text, "the note follows the region")
    settings = RunSettings.of(bench.parameters, bench.widget.panel.card)
    document = json.loads(json.dumps(settings.document({}, "out", "previews")))
    assert document["region"] == {"start": [12, 9, 9], "stop": [16, 15, 11]}
    roi.SetCenter(500.0, 0.0, 0.0)
    bench.until(lambda: not bench.ui.runButton.enabled, "a region outside cannot be run")
    assert "region" in bench.ui.runButton.toolTip
    slicer.mrmlScene.RemoveNode(roi)
    bench.until(lambda: bench.ui.runButton.enabled, "without a region it can")
    assert not bench.ui.regionNote.isVisible()


def test_a_region_that_is_turned_against_the_volume_is_said_to_be_larger(bench):
    volume = addBlobVolume()
    bench.chooseVolume(volume)
    roi = bench.ui.regionSelector.addNode()
    pose = np.eye(4)
    pose[:3, :3] = rotation((0, 0, 1), 45)
    roi.SetSize(20.0, 20.0, 20.0)
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(pose))
    bench.until(lambda: "turned" in bench.ui.regionNote.text, "the note says so")
    box = boxOf(roi, volume)
    assert box.size[0] * 2 == pytest.approx(20 * 2**0.5, abs=2)


def teardown_module():
    """The models of these tests are no longer needed."""
    shutil.rmtree(STORE, ignore_errors=True)
