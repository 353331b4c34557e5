"""Scenarios before a run: what is missing or cannot be used is said, with the reason."""

from __future__ import annotations

import json

import numpy as np
import slicer

from TomoSegPanel import display, provenance
from TomoSegPanel.scenarios.bench import Bench, plainText
from TomoSegPanel.scenarios.objects import addBlobVolume


def the_run_button_says_what_is_missing(bench: Bench) -> None:
    assert not bench.ui.runButton.enabled
    assert "volume" in bench.ui.runButton.toolTip
    bench.chooseVolume(addBlobVolume())
    assert not bench.ui.runButton.enabled
    assert "model" in bench.ui.runButton.toolTip
    bench.chooseModel()
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip


def a_single_slice_is_refused_with_the_reason(bench: Bench) -> None:
    bench.chooseModel()
    for shape in ((1, 30, 40), (30, 1, 40), (30, 40, 1)):
        _assertRefused(bench, slicer.util.addVolumeFromArray(np.ones(shape)), "slice")


def an_empty_volume_is_refused_with_the_reason(bench: Bench) -> None:
    bench.chooseModel()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    _assertRefused(bench, node, "empty")


def colour_vector_and_label_volumes_cannot_be_chosen_or_are_refused(bench: Bench) -> None:
    bench.chooseModel()
    rgb = slicer.util.addVolumeFromArray(
        np.zeros((10, 12, 14, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    labels = slicer.util.addVolumeFromArray(
        np.zeros((10, 12, 14), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    for node in (rgb, labels):
        bench.chooseVolume(node)
        assert not bench.ui.runButton.enabled, node.GetClassName()
        assert bench.ui.runButton.toolTip


def a_volume_without_contrast_is_warned_of_and_its_run_ends_with_a_reason(bench: Bench) -> None:
    bench.chooseModel()
    bench.chooseVolume(slicer.util.addVolumeFromArray(np.full((20, 20, 20), 7, np.int16)))
    assert "intensity" in bench.ui.fitNote.text
    run = bench.start()
    bench.until(lambda: run.state.isOver, "the run is over", 120)
    assert run.state.value == "finished" or run.error.hint, run.report()


def what_the_engine_refuses_is_told_with_the_name_of_the_volume(bench: Bench) -> None:
    bench.chooseModel()
    voxels = np.ones((20, 20, 20), np.float32)
    voxels[3, 4, 5] = np.nan
    bench.chooseVolume(slicer.util.addVolumeFromArray(voxels, name="../CT: ¿<b>Löchrig</b>?"))
    bench.until(lambda: "not numbers" in bench.ui.fitNote.text, "the panel warns")
    run = bench.run("failed")
    assert run.error.code == "volume-not-finite", run.report()
    assert "Löchrig" in plainText(bench.ui.messageNote.text)


def results_with_broken_records_can_be_looked_at_and_are_not_taken_for_ours(bench: Bench) -> None:
    volume = addBlobVolume()
    bench.chooseVolume(volume)
    bench.chooseModel()
    heatmap = display.newMapNode("from elsewhere", "heatmap")
    display.showArray(heatmap, np.random.default_rng(0).random((36, 36, 36)), volume)
    bench.ui.heatmapSelector.setCurrentNode(heatmap)
    deep = '{"job":' + "[" * 100_000
    model = {"name": "x", "version": "1", "hash": "0", "simulated": True, "labels": [{"name": "a"}]}
    good = {
        "created_at": "today",
        "job": {},
        "inputs": {},
        "model": model,
        "environment": {"device": "cpu", "device_name": "", "threads": 1},
    }
    assert provenance.readRecord(heatmap) is None
    heatmap.SetAttribute(provenance.RECORD, json.dumps(good))
    bench.widget.panel.refresh()
    assert "x 1" in bench.ui.recordNote.text
    broken = [
        "no json",
        "[]",
        deep,
        "{}",
        '{"job": {}}',
        *(
            json.dumps(good | change)
            for change in (
                {"job": 5},
                {"model": []},
                {"model": model | {"labels": []}},
                {"model": model | {"labels": ["a"]}},
                {"inputs": {"image": "x"}},
                {"environment": {}},
                {"job": {"method": [1]}},
                {"heatmap": {"peaks": [{"lps_mm": [1, 2], "value": 1}]}},
                {"heatmap": {"peaks": [{"lps_mm": [1, 2, "3"], "value": 1}]}},
                {"mask": {"threshold": float("nan")}},
                {"mask": {"threshold": "high"}},
            )
        ),
    ]
    for text in broken:
        heatmap.SetAttribute(provenance.RECORD, text)
        bench.widget.panel.refresh()
        bench.processEvents()
        assert "not made by" in bench.ui.recordNote.text, text[:80]
        assert not bench.ui.runAgainButton.enabled
    bench.ui.thresholdSlider.value = 0.5
    bench.makeSegment()
    assert bench.parameters.segmentation is not None


def _assertRefused(bench: Bench, node: object, word: str) -> None:
    bench.chooseVolume(node)
    assert not bench.ui.runButton.enabled
    assert word in bench.ui.runButton.toolTip, bench.ui.runButton.toolTip
    assert node.GetName() in bench.ui.runButton.toolTip


SCENARIOS = (
    the_run_button_says_what_is_missing,
    a_single_slice_is_refused_with_the_reason,
    an_empty_volume_is_refused_with_the_reason,
    colour_vector_and_label_volumes_cannot_be_chosen_or_are_refused,
    a_volume_without_contrast_is_warned_of_and_its_run_ends_with_a_reason,
    what_the_engine_refuses_is_told_with_the_name_of_the_volume,
    results_with_broken_records_can_be_looked_at_and_are_not_taken_for_ours,
)
