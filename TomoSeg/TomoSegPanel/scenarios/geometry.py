"""Scenarios of geometry: the heatmap peaks where the bright ball is, in patient coordinates."""

from __future__ import annotations

import numpy as np
import slicer

from TomoSegPanel.scenarios.bench import Bench
from TomoSegPanel.scenarios.objects import (
    BLOB_RADIUS_MM,
    BLOB_VALUE,
    addBlobVolume,
    addTransform,
    assertPeak,
    grid,
    rotation,
)


def the_peak_is_in_its_place_in_an_oblique_volume_of_thick_slices(bench: Bench) -> None:
    axes = rotation((1, 0.3, 0.2), 25) @ rotation((0, 0, 1), -40)
    _runAndLook(
        bench, (112.0, -28.0, 39.0), grid((18, 50, 46), (1.5, 1.6, 4.5), axes, (105, -30, 42))
    )


def the_peak_is_in_its_place_in_a_left_handed_volume_with_flipped_axes(bench: Bench) -> None:
    axes = np.diag([-1.0, 1.0, 1.0]) @ rotation((0, 1, 0), 90)
    assert np.linalg.det(axes) < 0
    blob = (-8.0, 15.0, -4.0)
    _runAndLook(bench, blob, grid((40, 34, 38), (2.0, 2.2, 1.8), axes))
    # Slicer turns the slices of a left-handed volume around when it opens a scene.
    path = bench.folder / "left-handed.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(path))
    bench.processEvents(0.1)
    restored = bench.parameters.heatmap
    assertPeak(restored, blob)
    bench.ui.runAgainButton.click()
    bench.finish(bench.widget.panel.runs.queue.current)
    again = bench.parameters.heatmap
    assert again is not restored
    assertPeak(again, blob)
    before, now = map(slicer.util.arrayFromVolume, (restored, again))
    np.testing.assert_allclose(now, before, atol=1e-6 * before.max())


def a_transform_above_the_volume_moves_its_heatmap_too(bench: Bench) -> None:
    toWorld = np.eye(4)
    toWorld[:3, :3] = rotation((0, 0, 1), 90)
    toWorld[:3, 3] = (100.0, 0.0, -50.0)
    transform = addTransform(toWorld)
    blob = np.array([12.0, -8.0, 10.0])
    volume = addBlobVolume(blob)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    bench.chooseVolume(volume)
    assert transform.GetName() in bench.ui.volumeNote.text
    bench.chooseModel()
    bench.run()
    heatmap = bench.parameters.heatmap
    assert heatmap.GetTransformNodeID() == transform.GetID()
    world = (toWorld @ [*blob, 1.0])[:3]
    assertPeak(heatmap, world)
    bench.makeSegment()
    segmentation = bench.parameters.segmentation
    assert segmentation.GetTransformNodeID() == transform.GetID()
    tree = bench.ui.peaksTree
    tree.setCurrentItem(tree.topLevelItem(0))
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        toRas = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        assert abs(toRas[:3, 2] @ (toRas[:3, 3] - world)) < BLOB_RADIUS_MM, node.GetName()


def a_transform_that_is_applied_while_a_run_is_under_way_moves_its_heatmap_too(
    bench: Bench,
) -> None:
    blob = np.array([-9.0, -9.0, 9.0])
    volume = addBlobVolume(blob)
    bench.chooseVolume(volume)
    bench.chooseModel()
    run = bench.startAndWaitForPreview(0.05)
    shift = np.eye(4)
    shift[:3, 3] = (0.0, 70.0, 0.0)
    transform = addTransform(shift)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    bench.finish(run)
    heatmap = bench.parameters.heatmap
    assert heatmap.GetTransformNodeID() == transform.GetID()
    assertPeak(heatmap, blob + shift[:3, 3])


def only_the_region_is_looked_at_where_one_is_chosen(bench: Bench) -> None:
    axes = rotation((0.2, 1, 0.4), 35)
    toWorld = np.eye(4)
    toWorld[:3, :3], toWorld[:3, 3] = rotation((1, 0, 0), -90), (0.0, 40.0, 80.0)
    blob = np.array([32.0, -8.0, 10.0])
    volume = addBlobVolume(blob, grid((34, 38, 40), axes=axes, center=(25, 0, 0)))
    volume.SetAndObserveTransformNodeID(addTransform(toWorld).GetID())
    bench.chooseVolume(volume)
    bench.chooseModel()
    bench.ui.regionSelector.addNode()
    region = bench.parameters.region
    assert region is not None and region.GetTransformNodeID() == volume.GetTransformNodeID()
    world = (toWorld @ [*blob, 1.0])[:3]
    region.SetCenterWorld(*world)
    region.SetSize(32.0, 28.0, 36.0)
    bench.until(lambda: "16 × 14 × 18" in bench.ui.regionNote.text, "the region's size is said")
    bench.run()
    heatmap = bench.parameters.heatmap
    assertPeak(heatmap, world)
    array = slicer.util.arrayFromVolume(heatmap)
    assert array.shape == (34, 38, 40)
    inside = np.argwhere(array != 0)
    assert (np.ptp(inside, axis=0) < (18, 14, 16)).all(), "there is a heatmap beside the region"
    region.SetCenterWorld(*(world + 1000.0))
    bench.until(lambda: not bench.ui.runButton.enabled, "a region beside the volume is refused")
    assert "region" in bench.ui.runButton.toolTip


def _runAndLook(bench: Bench, blob, on) -> None:
    volume = addBlobVolume(blob, on)
    bench.chooseVolume(volume)
    bench.chooseModel()
    bench.run()
    heatmap = bench.parameters.heatmap
    assertPeak(heatmap, blob)
    assert heatmap.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    bench.makeSegment()
    segmentation = bench.parameters.segmentation
    (segmentId,) = segmentation.GetSegmentation().GetSegmentIDs()
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume) != 0
    inside = slicer.util.arrayFromVolume(volume) == BLOB_VALUE
    assert (mask & inside).sum() > 0.5 * inside.sum(), "the segment is not where the ball is"


SCENARIOS = (
    the_peak_is_in_its_place_in_an_oblique_volume_of_thick_slices,
    the_peak_is_in_its_place_in_a_left_handed_volume_with_flipped_axes,
    a_transform_above_the_volume_moves_its_heatmap_too,
    a_transform_that_is_applied_while_a_run_is_under_way_moves_its_heatmap_too,
    only_the_region_is_looked_at_where_one_is_chosen,
)
