"""Scenarios of the settings of a run: what is chosen in the panel is what is done."""

from __future__ import annotations

import slicer

from TomoSegPanel.provenance import readRecord
from TomoSegPanel.region import boxOf
from TomoSegPanel.scenarios.bench import Bench
from TomoSegPanel.scenarios.objects import addBlobVolume


def every_setting_of_the_method_is_in_the_record_of_the_run(bench: Bench) -> None:
    _choose(bench)
    bench.chooseItem(bench.ui.methodCombo, "tomographic-cam")
    bench.chooseItem(bench.ui.directionsCombo, "icosahedral")
    bench.ui.icosahedralSpinBox.value = 1
    bench.ui.filterOrderSpinBox.value = 0.75
    bench.ui.cutoffSpinBox.value = 0.5
    bench.chooseItem(bench.ui.windowCombo, "cosine")
    bench.chooseItem(bench.ui.camCombo, "cam")
    bench.setChecked(bench.ui.rectifiedCheckBox, True)
    bench.chooseItem(bench.ui.batchSizeCombo, "8")
    bench.run()
    job = readRecord(bench.parameters.heatmap)["job"]
    wanted = {
        "method": "tomographic-cam",
        "directions": "icosahedral:1",
        "filter_order": 0.75,
        "cutoff": 0.5,
        "window": "cosine",
        "cam": "cam",
        "rectified": True,
        "batch_size": 8,
    }
    assert {name: job[name] for name in wanted} == wanted


def the_heatmap_of_a_region_is_empty_outside_of_it(bench: Bench) -> None:
    volume = _choose(bench)
    bench.chooseItem(bench.ui.directionsCombo, "orthogonal")
    region = bench.ui.regionSelector.addNode()
    region.SetSize(30.0, 30.0, 30.0)
    region.SetCenter(12.0, -8.0, 10.0)
    bench.processEvents(0.1)
    box = boxOf(region, volume)
    bench.run()
    (i, j, k), (iStop, jStop, kStop) = box.start, box.stop
    outside = slicer.util.arrayFromVolume(bench.parameters.heatmap).copy()
    assert outside[k:kStop, j:jStop, i:iStop].max() > 0
    outside[k:kStop, j:jStop, i:iStop] = 0
    assert not outside.any()


def the_speed_is_measured_before_the_first_run(bench: Bench) -> None:
    _choose(bench)
    bench.until(lambda: "slices" in bench.ui.estimateNote.text, "the estimate", 30)
    if bench.ui.speedButton.isVisible():  # else a run before this one has measured it
        bench.ui.speedButton.click()
        bench.until(lambda: not bench.ui.speedButton.isVisible(), "the measurement", 120)
    assert "as measured" in bench.ui.estimateNote.text, bench.ui.estimateNote.text


def _choose(bench: Bench) -> object:
    volume = addBlobVolume()
    bench.chooseVolume(volume)
    bench.chooseModel()
    return volume


SCENARIOS = (
    every_setting_of_the_method_is_in_the_record_of_the_run,
    the_heatmap_of_a_region_is_empty_outside_of_it,
    the_speed_is_measured_before_the_first_run,
)
