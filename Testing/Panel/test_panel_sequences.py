"""Sequences in the panel: their files, and what a segmenter has found in every frame."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("panel_bench")
pytest_plugins = ("panel_bench",)  # the fixtures

from panel_bench import host, run, slicer  # noqa: E402
from TomoSegPanel import display, sequences  # noqa: E402
from TomoSegPanel.provenance import RECORD, readRecord  # noqa: E402
from TomoSegPanel.runData import LabelData, RunResult, frameRecords  # noqa: E402
from TomoSegPanel.volumeFiles import FrameIndex, readNrrd, writeSequence  # noqa: E402

from TomoSegLib.imaging.io import open_sequence  # noqa: E402

VALUES = ("0", "33.5", "67")
LABELS = [
    {"name": "core", "value": 1, "color": [1.0, 0.0, 0.0], "terminology": ""},
    {"name": "rim", "value": 2, "color": [0.0, 1.0, 0.0], "terminology": ""},
]
RECORDED = {
    "task": "segmentation-sequence",
    "job": {"method": None, "directions": None, "frames": "0:3"},
    "inputs": {"image": {"hash": "0" * 64}},
    "model": {
        "name": "m",
        "version": "1",
        "hash": "1" * 64,
        "simulated": True,
        "labels": LABELS,
    },
    "environment": {"device": "cpu", "device_name": "", "threads": 1},
    "created_at": "2026-01-01T00:00:00+00:00",
    "index_name": "time",
    "index_unit": "ms",
    "frames": [
        {"number": n, "value": value, "segments": [{"name": "core", "parts": []}]}
        for n, value in enumerate(VALUES)
    ],
}


@pytest.fixture
def cine(widget):
    """A browser, and the proxy of its sequence of three volumes."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    sequence.SetIndexName("time")
    for value in VALUES:
        node = slicer.util.addVolumeFromArray(np.ones((6, 8, 10), np.int16))
        node.SetSpacing(1.0, 2.0, 3.0)
        sequence.SetDataNodeAtValue(node, value)
        slicer.mrmlScene.RemoveNode(node)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser, browser.GetProxyNode(sequence)


def labels(number):
    """Core of one row of voxels and, in the last frame alone, a rim."""
    found = np.zeros((1, 2, 3), np.uint8)
    found[0, 0] = 1
    found[0, 1] = 2 if number == 2 else 0
    values, counts = np.unique(found, return_counts=True)
    voxels = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}
    return LabelData(found, (number, 1, 2), (6, 8, 10), voxels)


def result():
    """What a segmenter has found in three frames."""
    records = frameRecords(RECORDED)
    frames = [RunResult(record, labels=labels(n)) for n, record in enumerate(records)]
    return RunResult(RECORDED, frames=frames)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_engine_reads_what_the_panel_writes(dtype, tmp_path):
    frames = [np.arange(60, dtype=dtype).reshape(3, 4, 5) + n for n in range(3)]
    matrix = np.array([[-2.0, 0, 0, 10], [0, 0, 3, -5], [0, 1, 0, 7], [0, 0, 0, 1]])
    path = tmp_path / "a.seq.nrrd"
    writeSequence(path, frames, matrix, FrameIndex("time", "ms", VALUES))
    sequence = open_sequence(path)
    assert (sequence.index.name, sequence.index.unit) == ("time", "ms")
    assert sequence.index.values == VALUES
    np.testing.assert_array_equal(
        sequence.geometry.affine, np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    )
    np.testing.assert_array_equal([f.array for f in sequence.frames([0, 1, 2])], frames)
    np.testing.assert_array_equal(readNrrd(path), frames)


def test_words_as_index_arrive_and_quotes_do_no_harm(tmp_path):
    path = tmp_path / "a.seq.nrrd"
    frames = [np.arange(8, dtype=np.int16).reshape(2, 2, 2)] * 2
    index = FrameIndex('cont"rast\n', "", ("before it", "100 %"), isNumeric=False)
    writeSequence(path, frames, np.eye(4), index)
    found = open_sequence(path).index
    assert (found.name, found.values) == ("contrast", ("before it", "100 %"))


def test_frames_that_differ_are_not_written(tmp_path):
    frames = [np.zeros((2, 2, 2), np.int16), np.zeros((2, 2, 3), np.int16)]
    with pytest.raises(ValueError, match="one size and type"):
        writeSequence(tmp_path / "a.seq.nrrd", frames, np.eye(4), FrameIndex("", "", ("0", "1")))


def test_a_segmenter_s_segments_follow_the_frames(cine):
    browser, scan = cine
    node = sequences.showResult(scan, result(), None, {"image": scan})
    assert node.GetAttribute(display.MAP) == "segmentation"
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1
    for number in (2, 0, 1):
        browser.SetSelectedItemNumber(number)
        segments = node.GetSegmentation()
        assert [segments.GetSegment(i).GetName() for i in segments.GetSegmentIDs()] == [
            "core",
            "rim",
        ]
        core = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", scan)
        expected = np.zeros((6, 8, 10), np.uint8)
        expected[2, 1, number : number + 3] = 1
        np.testing.assert_array_equal(core, expected)
        assert readRecord(node)["frame"] == {"number": number, "value": VALUES[number]}
    assert node.GetNodeReference("TomoSeg.Input.image") is scan


def test_records_of_frames_come_back_after_only_voxels_were_kept(cine):
    browser, scan = cine
    node = sequences.showResult(scan, result(), None, {"image": scan})
    sequence = browser.GetSequenceNode(node)
    for number in range(3):
        sequence.GetNthDataNode(number).RemoveAttribute(RECORD)
    browser.SetSelectedItemNumber(1)
    sequences.restore()
    assert readRecord(node)["frame"]["number"] == 1


def test_a_sequence_that_has_lost_frames_takes_no_result(cine):
    browser, scan = cine
    browser.GetMasterSequenceNode().RemoveDataNodeAtValue("67")
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert sequences.showResult(scan, result(), None, {"image": scan}) is None
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_an_ordinary_volume_offers_no_frames(widget, volume):
    host.process()
    assert sequences.count(volume) == 0
    assert not widget.ui.everyFrameCheckBox.isVisible()
    assert sequences.problem(volume) == ""


def test_the_wish_for_every_frame_does_nothing_to_an_ordinary_volume(widget, volume, worker):
    widget._parameterNode.everyFrame = True
    worker("good")
    heatmap = run(widget)
    assert display.isHeatmap(heatmap)
    assert slicer.util.getNodesByClass("vtkMRMLSequenceNode") == []


def test_an_ordinary_result_is_removed_when_the_user_agrees(widget, volume, worker, monkeypatch):
    worker("well")
    heatmap = run(widget)
    asked = []
    for answer in (False, True):

        def ask(text, answer=answer):
            asked.append(text)
            return answer

        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", ask)
        assert widget._parameterNode.heatmap is heatmap
        widget.ui.removeResultButton.click()
    assert len(asked) == 2 and heatmap.GetName() in asked[0]
    assert widget._parameterNode.heatmap is None
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == [volume]
    assert not widget.ui.removeResultButton.enabled
