"""Scenarios of masks that follow the image's borders: the panel's are the command line's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import slicer

from TomoSegLib.jobs.events import ErrorEvent, ResultEvent
from TomoSegPanel import display, provenance
from TomoSegPanel.scenarios.bench import RUN_S, Bench
from TomoSegPanel.scenarios.objects import addBlobVolume, addTransform, grid, rotation
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd
from TomoSegPanel.worker import WorkerProcess


def _engineMask(bench: Bench, volume: Any, **settings: Any) -> np.ndarray:
    """The mask ``[k, j, i]`` of a run of its own, whose inputs and outputs are files."""
    scan, output = bench.folder / "scan.nrrd", bench.folder / f"run-{settings['refine']}"
    writeNrrd(scan, slicer.util.arrayFromVolume(volume), display.matrixOf(volume))
    document = {"kind": "run", "input": str(scan), "output": str(output), **settings}
    path = bench.folder / "run.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    last = []
    worker = WorkerProcess(str(path), last.append)
    worker.start()
    bench.until(
        lambda: last and isinstance(last[-1], (ResultEvent, ErrorEvent)), "the run is over", RUN_S
    )
    assert isinstance(last[-1], ResultEvent), last[-1]
    return readNrrd(output / "mask.seg.nrrd") != 0


def _made(bench: Bench) -> tuple[np.ndarray, dict[str, Any]]:
    """Click on Make segment; the new segment on the heatmap's grid, and how it was made."""
    bench.ui.makeSegmentButton.click()
    bench.until(lambda: bench.ui.makeSegmentButton.enabled, "the segment is made", RUN_S)
    assert not bench.messages, bench.messages
    node, heatmap = bench.parameters.segmentation, bench.parameters.heatmap
    segmentId = node.GetSegmentation().GetSegmentIDs()[-1]
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, heatmap)
    record = provenance.readSegmentRecord(node, segmentId)
    assert record is not None
    return array != 0, record["mask"]


def a_mask_that_follows_the_image_is_the_command_line_s_in_a_reopened_scene_too(
    bench: Bench,
) -> None:
    axes = rotation((1.0, 2.0, 3.0), 25.0)
    volume = addBlobVolume((8.0, -6.0, 9.0), grid((32, 30, 34), (2.0, 2.2, 1.9), axes))
    bench.chooseVolume(volume)
    bench.chooseModel()
    bench.chooseItem(bench.ui.directionsCombo, "fibonacci")
    bench.ui.directionCountSpinBox.setValue(12)
    bench.run()
    assert bench.ui.bordersCombo.currentData == "heatmap"  # the model's card says nothing else
    wanted = {"model": "tiny-blob", "directions": "fibonacci:12"}
    bench.chooseItem(bench.ui.bordersCombo, "image")
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = rotation((0.0, 0.0, 1.0), 40.0), (9.0, 0.0, -4.0)
    transform = addTransform(turn).GetID()
    for node in (volume, bench.parameters.heatmap):
        node.SetAndObserveTransformNodeID(transform)  # all of it moves alike: that changes nothing
    mask, settings = _made(bench)
    expected = _engineMask(bench, volume, refine="random-walker", **wanted)
    assert expected.any()
    np.testing.assert_array_equal(mask, expected)
    assert settings["refinement"]["method"] == "random-walker", settings
    assert settings["refinement"]["boundary_mm"] > 0, settings

    bench.chooseItem(bench.ui.refineCombo, "geodesic")
    geodesic, settings = _made(bench)
    expected = _engineMask(bench, volume, refine="geodesic", **wanted)
    np.testing.assert_array_equal(geodesic, expected)
    assert settings["refinement"]["method"] == "geodesic", settings
    bench.chooseItem(bench.ui.refineCombo, "")

    bench.chooseItem(bench.ui.bordersCombo, "heatmap")
    bare, settings = _made(bench)
    assert (bare != mask).any() and "refinement" not in settings

    bench.chooseItem(bench.ui.bordersCombo, "image")
    path = bench.folder / "Szene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    bench.processEvents()
    slicer.util.loadScene(str(path))
    bench.processEvents(0.1)
    assert bench.ui.bordersCombo.currentData == "image"
    again, settings = _made(bench)
    np.testing.assert_array_equal(again, mask)
    assert settings["refinement"]["method"] == "random-walker", settings

    # What the user has drawn comes before the heatmap.
    node, heatmap = bench.parameters.segmentation, bench.parameters.heatmap
    half = mask.copy()
    half[: int(np.mean(np.nonzero(mask)[0]))] = False
    drawn = node.GetSegmentation().AddEmptySegment("", "outside")
    array = half.astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, drawn, heatmap)
    rest, settings = _made(bench)
    assert rest.any() and not (rest & half).any()
    assert settings["strokes"] == ["outside"], settings


SCENARIOS = (a_mask_that_follows_the_image_is_the_command_line_s_in_a_reopened_scene_too,)
