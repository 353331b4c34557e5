"""The section Mask in the stand-in: preview, segments, undo, figures, and the way to the editor."""

import json
import math
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("panel_bench")
pytest_plugins = ("panel_bench",)  # the fixtures

from panel_bench import ROOT, host, make_segment, reopen, run, slicer  # noqa: E402
from TomoSegPanel import maskPreview, provenance, segments  # noqa: E402
from TomoSegPanel.mask import MaskSettings, cutMask, makeMask, measure  # noqa: E402
from TomoSegPanel.maskPreview import surface  # noqa: E402
from TomoSegPanel.segments import SURFACE  # noqa: E402
from TomoSegPanel.worker import WorkerProcess  # noqa: E402

VOXEL_ML = 2.0 * 2.5 * 3.0 / 1000
BLOB_VOXELS = 4 * 5 * 6


@pytest.fixture
def heatmap(widget, worker, volume):
    """The heatmap of the volume: 2 in the blob, 0.1 around it."""
    worker("well")
    return run(widget)


def table_rows():
    """The rows of the one table of figures."""
    (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
    columns = range(table.GetNumberOfColumns())
    return [[table.GetCellText(row, c) for c in columns] for row in range(table.GetNumberOfRows())]


def previews():
    """The segmentations that are no segmentation of the user's."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if not node.GetSaveWithScene()]


def preview_surface():
    """The surface of the preview, None while there is none."""
    for node in previews():
        segment = node.GetSegmentation().GetSegment("preview")
        return segment.GetRepresentation(SURFACE) if segment is not None else None
    return None


def turn(matrix=None):
    """A transform that is no identity."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    angle = 0.3
    matrix = np.eye(4)
    matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix[:3, 3] = 5.0, -3.0, 11.0
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


# -- computing -------------------------------------------------------------------------------------


def test_a_cut_mask_is_the_whole_mask_s_box():
    random = np.random.default_rng(1)
    values = random.normal(size=(9, 10, 11)).astype(np.float32)
    settings = MaskSettings(1.0, "largest")
    whole = makeMask(values, (1, 2, 3), settings)
    cut = cutMask(values, (1, 2, 3), settings)
    i, j, k = cut.start
    pasted = np.zeros_like(whole)
    depth, height, width = cut.array.shape
    pasted[k : k + depth, j : j + height, i : i + width] = cut.array
    np.testing.assert_array_equal(pasted, whole)
    assert cut.figures["volume_ml"] == pytest.approx(whole.sum() * 6 / 1000)
    assert cut.figures["peak"] == values[whole != 0].max()
    assert cut.figures["mean"] == pytest.approx(values[whole != 0].mean())


def test_a_mask_without_voxels_is_empty():
    cut = cutMask(np.zeros((3, 4, 5), np.float32), (1, 1, 1), MaskSettings(0.5))
    assert cut.isEmpty and cut.figures["volume_ml"] == 0


def test_the_surface_of_a_mask_lies_half_a_voxel_around_it():
    values = np.zeros((6, 7, 8), np.float32)
    values[2:4, 0:3, 5:8] = 1  # it touches the edge of the volume
    matrix = np.diag([2.0, -2.5, 3.0, 1.0])
    matrix[:3, 3] = 10.0, 20.0, 30.0
    mesh = surface(cutMask(values, (2.0, 2.5, 3.0), MaskSettings(0.5)), matrix)
    expected = [
        10 + 2 * 4.5,
        10 + 2 * 7.5,
        20 - 2.5 * 2.5,
        20 + 2.5 * 0.5,
        30 + 3 * 1.5,
        30 + 3 * 3.5,
    ]
    assert mesh.GetBounds() == pytest.approx(expected)


def test_a_mask_is_measured_on_a_heatmap_of_another_grid():
    heatmap = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mask = np.zeros((4, 6, 8), bool)
    mask[0:2, 0:2, 0:4] = True  # voxels (0, 0, 0) and (1, 0, 0) of the heatmap, each eight times
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    half[:3, 3] = -0.25
    figures = measure(mask, half, 0.125, heatmap)
    assert figures == {"volume_ml": 2.0, "peak": 1.0, "mean": 0.5}
    mask[:] = False
    mask[3, 5, 7] = True
    beyond = half.copy()
    beyond[0, 3] = 100
    assert measure(mask, beyond, 0.125, heatmap) == {"volume_ml": 0.125}


# -- the preview -----------------------------------------------------------------------------------


def test_a_surface_of_too_many_triangles_is_made_coarser(monkeypatch):
    k, j, i = np.mgrid[:40, :40, :40]
    ball = ((k - 20) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 < 18**2).astype(np.float32)
    cut = cutMask(ball, (1, 1, 1), MaskSettings(0.5))
    fine = surface(cut, np.eye(4))
    monkeypatch.setattr(maskPreview, "_MOST_TRIANGLES", fine.GetNumberOfCells() // 3)
    coarse = surface(cut, np.eye(4))
    assert coarse.GetNumberOfCells() <= fine.GetNumberOfCells() // 3
    np.testing.assert_allclose(coarse.GetBounds(), fine.GetBounds(), atol=1.5)


def test_the_preview_is_seen_in_all_views_and_kept_in_none(widget, heatmap, tmp_path):
    widget.ui.previewCheckBox.click()
    assert host.wait_for(lambda: preview_surface() is not None)
    (node,) = previews()
    expected = np.array([9.5, 15.5, 8.5, 13.5, 7.5, 11.5]) * np.repeat([2.0, 2.5, 3.0], 2)
    assert preview_surface().GetBounds() == pytest.approx(expected)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "preview", heatmap)
    np.testing.assert_array_equal(mask != 0, slicer.util.arrayFromVolume(heatmap) == 2)
    widget.ui.thresholdSlider.value = 0.05
    assert host.wait_for(lambda: preview_surface().GetBounds()[1] > 50)
    transform = turn()
    heatmap.SetAndObserveTransformNodeID(transform.GetID())
    widget.panel.refresh()
    assert node.GetTransformNodeID() == transform.GetID()
    widget.ui.thresholdSlider.value = 1.0
    widget.ui.minimumSizeSlider.value = 50.0  # nothing is left
    assert host.wait_for(lambda: preview_surface() is None)
    host.select("SegmentEditor")
    assert previews() == []
    host.select("TomoSeg")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
        names = " ".join(bundle.namelist())
    assert ".nrrd" in names and ".seg." not in names


# -- masks that follow the image -------------------------------------------------------------------

REFINER = """
import json, os, sys, time
sys.path[:0] = [{root!r}, {panel!r}]
import numpy as np
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd
mode = {mode!r}
job = json.load(open(sys.argv[1], encoding="utf-8"))
def say(**event):
    print(json.dumps(event), flush=True)
say(event="started", kind="refine-mask", pid=os.getpid(), version="0", protocol=1)
if mode == "fails":
    say(event="error", code="refinement-threshold", message="It is no use.", hint="Do more.")
    sys.exit(2)
if mode == "slow" or job["threshold"] == 1.5:
    time.sleep(60)
mask = (readNrrd(job["image"]) > 200) & (readNrrd(job["heatmap"]) > job["threshold"])
mask[:, :, :12] = False
assert readNrrd(job["agreement"]).max() == 1
if "inside" in job:
    mask |= readNrrd(job["inside"]) != 0
if "outside" in job:
    mask &= readNrrd(job["outside"]) == 0
os.makedirs(os.path.dirname(job["output"]), exist_ok=True)
writeNrrd(job["output"], mask.astype(np.uint8), np.eye(4))
say(event="result", path=job["output"], data=dict(refinement=dict(method="graph-cut", level=0.3)))
"""
REFINED_VOXELS = 4 * 5 * 4


@pytest.fixture
def refiner(widget, tmp_path):
    """Lets masks be refined as a mode says; the documents of the jobs."""
    section, before = widget.panel.mask, widget.panel.mask.makeWorker
    documents = []

    def choose(mode):
        script = tmp_path / f"refiner-{mode}.py"
        script.write_text(REFINER.format(root=str(ROOT), panel=str(ROOT / "TomoSeg"), mode=mode))

        def make(document, onEvent):
            documents.append(json.loads(Path(document).read_text(encoding="utf-8")))
            return WorkerProcess(document, onEvent, [sys.executable, str(script), document])

        section.makeWorker = make
        return documents

    yield choose
    section.makeWorker = before


def choose_borders(widget, borders):
    combo = widget.ui.bordersCombo
    combo.setCurrentIndex(combo.findData(borders))
    host.process()


def preview_voxels(heatmap):
    """How many voxels the previewed mask has."""
    for node in previews():
        if node.GetSegmentation().GetSegment("preview") is not None:
            return int(slicer.util.arrayFromSegmentBinaryLabelmap(node, "preview", heatmap).sum())
    return 0


def test_borders_islands_and_sizes_begin_as_the_run_has_made_its_mask(widget, heatmap):
    assert widget.ui.bordersCombo.currentData == "heatmap"
    record = provenance.readRecord(heatmap)
    parameters = widget._parameterNode
    parameters.refineMethod, parameters.reachMm = "geodesic", 8.0  # of an earlier run
    parameters.boundaryMm, parameters.closingMm = 3.0, 0.0
    record["refinement"] = {"method": "random-walker", "level": 0.35}
    record["job"] |= {"components": "largest", "minimum_size_ml": 0.25}
    heatmap.SetAttribute(provenance.RECORD, json.dumps(record))
    widget.panel.mask.begin(heatmap)
    host.process()
    assert widget.ui.bordersCombo.currentData == "image"
    assert widget.ui.refineCombo.currentData == "" and parameters.closingMm == -1
    assert parameters.boundaryMm == parameters.reachMm == 0
    assert widget.ui.componentsCombo.currentData == "largest"
    assert widget.ui.minimumSizeSlider.value == widget._parameterNode.minimumSizeMl == 0.25
    assert not widget.ui.smoothingSlider.enabled


def test_a_segment_that_follows_the_image_says_how_it_was_refined(widget, heatmap, refiner):
    documents = refiner("well")
    choose_borders(widget, "image")
    widget.ui.smoothingSlider.value = 2.0  # is for masks of the heatmap
    assert documents == []  # nobody looks
    segmentation, segment_id = make_segment(widget)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, heatmap)
    assert mask.sum() == REFINED_VOXELS
    settings = provenance.readSegmentRecord(segmentation, segment_id)["mask"]
    assert settings["refinement"] == {"method": "graph-cut", "level": 0.3}
    assert settings["smoothing_mm"] == 0
    assert '"method":"graph-cut"' in _tag(segmentation, segment_id)
    assert f"{REFINED_VOXELS * VOXEL_ML:.1f} ml, peak 2" in widget.ui.statisticsNote.text
    (document,) = documents
    assert document["kind"] == "refine-mask" and document["threshold"] == 0.8
    assert document["model"] == "tiny-blob"  # whose card has the parameters, or the defaults


def test_the_parameters_of_the_run_are_used_again(widget, heatmap, refiner):
    documents = refiner("well")
    record = provenance.readRecord(heatmap)
    record["refinement"] = {"method": "random-walker", "level": 0.35}
    heatmap.SetAttribute(provenance.RECORD, json.dumps(record))
    choose_borders(widget, "image")
    make_segment(widget)
    assert documents[0]["refinement"] == record["refinement"] and "model" not in documents[0]


def test_the_user_can_choose_how_a_mask_follows_the_image(widget, heatmap, refiner):
    documents = refiner("well")
    ui = widget.ui
    assert not ui.refineCombo.enabled and not ui.reachSpinBox.enabled
    choose_borders(widget, "image")
    assert ui.refineCombo.enabled and ui.refineCombo.currentText == "As the model"
    assert ui.boundarySpinBox.text == ui.reachSpinBox.text == "As the model"
    assert ui.closingSpinBox.text == "As the model"
    ui.refineCombo.setCurrentIndex(ui.refineCombo.findData("geodesic"))
    ui.reachSpinBox.value = 8.0
    ui.closingSpinBox.value = 0.0  # none, where the model may close some
    host.process()
    make_segment(widget)
    (document,) = documents
    assert document["model"] == "tiny-blob" and document["refine"] == "geodesic"
    assert document["reach_mm"] == 8 and document["closing_mm"] == 0
    assert "boundary_mm" not in document
    ui.refineCombo.setCurrentIndex(ui.refineCombo.findData(""))
    ui.reachSpinBox.value, ui.closingSpinBox.value = 0.0, -1.0
    ui.boundarySpinBox.value = 3.0
    host.process()
    make_segment(widget)
    changed = {"refine", "reach_mm", "closing_mm", "boundary_mm"} & set(documents[-1])
    assert changed == {"boundary_mm"}


def test_the_heatmap_s_mask_is_previewed_until_the_refined_one_comes(widget, heatmap, refiner):
    documents = refiner("well")
    widget.ui.previewCheckBox.click()
    assert host.wait_for(lambda: preview_voxels(heatmap) == BLOB_VOXELS)
    choose_borders(widget, "image")
    assert "Refining" in widget.ui.bordersNote.text
    assert preview_voxels(heatmap) == BLOB_VOXELS
    assert host.wait_for(lambda: preview_voxels(heatmap) == REFINED_VOXELS)
    assert widget.ui.bordersNote.text == ""
    make_segment(widget)
    assert len(documents) == 1  # what was previewed is kept
    widget.ui.previewCheckBox.click()
    choose_borders(widget, "heatmap")
    assert host.wait_for(lambda: preview_voxels(heatmap) == BLOB_VOXELS)


def test_of_many_thresholds_only_the_last_is_refined_and_an_older_one_is_given_up(
    widget, heatmap, refiner
):
    documents = refiner("well")
    widget.ui.previewCheckBox.click()
    choose_borders(widget, "image")
    widget.ui.thresholdSlider.value = 1.5  # takes a minute
    assert host.wait_for(lambda: documents)
    for value in (1.4, 1.3, 1.2, 1.1):
        widget.ui.thresholdSlider.value = value
        host.process(0.01)
    assert host.wait_for(lambda: preview_voxels(heatmap) == REFINED_VOXELS)
    assert [document["threshold"] for document in documents] == [1.5, 1.1]


@pytest.mark.parametrize("previewed", [False, True])
def test_a_mask_that_cannot_be_refined_is_the_heatmap_s_and_says_why(
    widget, heatmap, refiner, monkeypatch, previewed
):
    documents, told = refiner("fails"), []
    monkeypatch.setattr(slicer.util, "errorDisplay", told.append)
    if previewed:
        widget.ui.previewCheckBox.click()
        choose_borders(widget, "image")
        assert host.wait_for(lambda: "It is no use. Do more." in widget.ui.bordersNote.text)
        assert host.wait_for(lambda: preview_voxels(heatmap) == BLOB_VOXELS)
    choose_borders(widget, "image")
    widget.ui.makeSegmentButton.click()
    assert host.wait_for(lambda: widget.ui.makeSegmentButton.enabled)
    assert len(told) == 1 and "It is no use." in told[0]
    assert widget._parameterNode.segmentation is None
    assert len(documents) == 1 + previewed  # the cause may have been gone
    refiner("well")
    make_segment(widget)
    assert len(told) == 1


def test_whoever_does_not_want_to_wait_takes_the_heatmap_s_mask(widget, heatmap, refiner):
    documents = refiner("slow")
    choose_borders(widget, "image")
    widget.ui.makeSegmentButton.click()
    assert host.wait_for(lambda: documents)
    assert not widget.ui.makeSegmentButton.enabled
    choose_borders(widget, "heatmap")
    segmentation, segment_id = make_segment(widget)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, heatmap)
    assert mask.sum() == BLOB_VOXELS


def test_a_mask_cannot_follow_an_image_that_is_gone(widget, heatmap, volume, refiner):
    refiner("well")
    choose_borders(widget, "image")
    plain = widget.ui.bordersCombo.toolTip
    slicer.mrmlScene.RemoveNode(volume)
    widget.panel.refresh()
    combo = widget.ui.bordersCombo
    assert not combo.enabled and combo.currentData == "heatmap"
    assert combo.toolTip != plain and "no longer in the scene" in combo.toolTip
    assert widget.ui.smoothingSlider.enabled
    segmentation, segment_id = make_segment(widget)
    assert "refinement" not in provenance.readSegmentRecord(segmentation, segment_id)["mask"]


def paint(segmentation, name, heatmap, box):
    """Paint a box of the heatmap's voxels into a segment."""
    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    if not segment_id:
        segment_id = segmentation.GetSegmentation().AddEmptySegment("", name)
    array = np.zeros(slicer.util.arrayFromVolume(heatmap).shape, np.uint8)
    array[box] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, segmentation, segment_id, heatmap)
    return segment_id


def test_strokes_of_the_segment_editor_say_what_belongs_to_the_mask(widget, heatmap, refiner):
    documents = refiner("well")
    transform = turn()
    heatmap.SetAndObserveTransformNodeID(transform.GetID())
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    widget.ui.segmentationSelector.setCurrentNode(segmentation)
    choose_borders(widget, "image")
    added, taken = np.s_[3:5, 4:6, 18:21], np.s_[8:12, 9:10, 10:16]
    paint(segmentation, "Inside", heatmap, added)
    paint(segmentation, "outside", heatmap, taken)
    paint(segmentation, "something else", heatmap, np.s_[15:17, 15:17, 15:17])
    node, segment_id = make_segment(widget)
    assert node is segmentation
    expected = np.zeros(slicer.util.arrayFromVolume(heatmap).shape, bool)
    expected[8:12, 9:14, 12:16] = True
    expected[added], expected[taken] = True, False
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, heatmap)
    np.testing.assert_array_equal(mask != 0, expected)
    record = provenance.readSegmentRecord(segmentation, segment_id)["mask"]
    assert record["strokes"] == ["inside", "outside"]
    # Painted on, and previewed when the user comes back.
    widget.ui.previewCheckBox.click()
    assert host.wait_for(lambda: preview_voxels(heatmap) == expected.sum())
    made = len(documents)
    host.select("SegmentEditor")
    more = np.s_[3:5, 4:6, 18:23]
    paint(segmentation, "Inside", heatmap, more)
    host.select("TomoSeg")
    expected[more] = True
    assert host.wait_for(lambda: preview_voxels(heatmap) == expected.sum())
    host.process(0.5)
    assert len(documents) == made + 1


def test_a_scene_that_is_closed_while_a_mask_is_refined_leaves_nothing(widget, heatmap, refiner):
    folder = Path(slicer.app.temporaryPath)
    before = set(folder.glob("tomoseg-*"))
    documents = refiner("slow")
    choose_borders(widget, "image")
    widget.ui.makeSegmentButton.click()
    assert host.wait_for(lambda: documents)
    assert set(folder.glob("tomoseg-*")) > before
    host.close_scene()
    host.process(0.1)
    assert set(folder.glob("tomoseg-*")) <= before
    assert widget.ui.statisticsNote.text == "" and widget.ui.bordersNote.text == ""


# -- segments --------------------------------------------------------------------------------------


def test_a_segment_says_how_it_was_made_after_the_scene_is_reopened(widget, heatmap, tmp_path):
    ui = widget.ui
    ui.componentsCombo.setCurrentIndex(ui.componentsCombo.findData("largest"))
    ui.minimumSizeSlider.value = 0.5
    ui.smoothingSlider.value = 1.5
    ui.thresholdSlider.value = 1.25
    make_segment(widget)
    reopen(tmp_path / "scene.mrb")
    segmentation = widget._parameterNode.segmentation
    (segment_id,) = segmentation.GetSegmentation().GetSegmentIDs()
    record = provenance.readSegmentRecord(segmentation, segment_id)
    assert record["mask"] == {
        "threshold": 1.25,
        "components": "largest",
        "minimum_size_ml": 0.5,
        "smoothing_mm": 1.5,
    }
    assert record["run"]["model"]["hash"] == "1" * 64
    assert record["figures"]["peak"] == 2.0
    text = _tag(segmentation, segment_id)
    assert '"smoothing_mm":1.5' in text and '"model":"tiny-blob"' in text
    restored = segmentation.GetNodeReference(provenance.HEATMAP_ROLE)
    assert restored is widget._parameterNode.heatmap


@pytest.mark.parametrize(
    "text", ["", "[", "[1]", "{}", '{"figures": 1}', '{"figures": {"peak": "<b>"}}', "[" * 99999]
)
def test_a_segment_s_record_that_is_none_does_no_harm(widget, heatmap, text):
    segmentation, segment_id = make_segment(widget)
    segmentation.SetAttribute("TomoSeg.Segment." + segment_id, text)
    segments.showStatistics(segmentation)
    widget.ui.measureButton.click()
    assert host.wait_for(lambda: widget.ui.measureButton.enabled)
    assert table_rows()[0][0] == "bright blob"
    assert "peak 2" in widget.ui.statisticsNote.text


def _tag(segmentation, segment_id):
    import vtk

    value = vtk.reference("")
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    assert segment.GetTag(provenance.MASK_TAG, value)
    return str(value)


def test_a_segment_has_the_card_s_name_and_colour_and_the_engine_s_terminology(widget, heatmap):
    from TomoSegLib.imaging.segmentation import DEFAULT_TERMINOLOGY

    segmentation, segment_id = make_segment(widget)
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    assert segment.GetName() == "bright blob"
    assert segment.GetColor() == pytest.approx((0.9, 0.3, 0.2))
    assert segment.GetTerminology() == segments.DEFAULT_TERMINOLOGY == DEFAULT_TERMINOLOGY
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    items = [hierarchy.GetItemByDataNode(node) for node in (segmentation, heatmap)]
    assert hierarchy.GetItemParent(items[0]) == hierarchy.GetItemParent(items[1])


def test_making_can_be_undone_and_redone_with_its_figures(widget, heatmap):
    ui = widget.ui
    segmentation, first = make_segment(widget)
    ui.thresholdSlider.value = 0.05
    second = make_segment(widget)[1]
    assert len(table_rows()) == 2
    ui.undoSegmentButton.click()
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == [first]
    assert len(table_rows()) == 1
    assert provenance.readSegmentRecord(segmentation, second) is None
    ui.undoSegmentButton.click()
    assert not ui.undoSegmentButton.enabled
    assert slicer.util.getNodesByClass("vtkMRMLTableNode") == []
    ui.redoSegmentButton.click()
    ui.redoSegmentButton.click()
    assert not ui.redoSegmentButton.enabled
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == [first, second]
    assert [row[0] for row in table_rows()] == ["bright blob"] * 2
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, first, heatmap)
    assert mask.sum() == BLOB_VOXELS
    # What the user has deleted cannot be undone.
    segmentation.GetSegmentation().RemoveSegment(second)
    ui.undoSegmentButton.click()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_undo_leaves_other_segments_and_their_edits_alone(widget, heatmap):
    segmentation, made = make_segment(widget)
    other = segmentation.GetSegmentation().AddEmptySegment("mine", "mine")
    painted = np.zeros(slicer.util.arrayFromVolume(heatmap).shape, np.uint8)
    painted[3:5, 3:5, 3:5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, segmentation, other, heatmap)
    widget.ui.undoSegmentButton.click()
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["mine"]
    kept = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "mine", heatmap)
    np.testing.assert_array_equal(kept != 0, painted != 0)


def test_the_figures_are_in_a_table_and_in_the_panel(widget, heatmap):
    make_segment(widget)
    ((name, source, volume_ml, peak, mean),) = table_rows()
    assert (name, source) == ("bright blob", heatmap.GetName())
    assert float(volume_ml) == pytest.approx(BLOB_VOXELS * VOXEL_ML)
    assert float(peak) == float(mean) == 2.0
    assert "bright blob: 1.8 ml, peak 2, mean 2" in widget.ui.statisticsNote.text


def test_an_edited_segment_is_measured_as_it_is_now(widget, heatmap):
    transform = turn()
    heatmap.SetAndObserveTransformNodeID(transform.GetID())
    segmentation, segment_id = make_segment(widget)
    assert segmentation.GetTransformNodeID() == transform.GetID()
    edited = np.zeros(slicer.util.arrayFromVolume(heatmap).shape, np.uint8)
    edited[8:12, 9:14, 10:18] = 1  # two columns beside the blob
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, segmentation, segment_id, heatmap)
    widget.ui.measureButton.click()
    assert host.wait_for(lambda: widget.ui.measureButton.enabled)
    ((_name, _source, volume_ml, peak, mean),) = table_rows()
    assert float(volume_ml) == pytest.approx(edited.sum() * VOXEL_ML)
    assert float(peak) == 2.0
    assert float(mean) == pytest.approx((2 * BLOB_VOXELS + 0.1 * 40) / 160)


def test_a_mask_goes_into_a_segmentation_under_another_transform(widget, heatmap):
    transform = turn()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "elsewhere")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    widget.ui.segmentationSelector.setCurrentNode(segmentation)
    node, segment_id = make_segment(widget)
    assert node is segmentation and segmentation.GetTransformNodeID() == transform.GetID()
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, heatmap) != 0
    blob = slicer.util.arrayFromVolume(heatmap) == 2
    overlap = 2 * (mask & blob).sum() / (mask.sum() + blob.sum())
    assert overlap > 0.8  # the two grids are turned against each other
    center = [0.0, 0.0, 0.0]
    segmentation.GetSegmentCenterRAS(segment_id, center)
    expected = np.array([12.5, 11.0, 9.5]) * [2.0, 2.5, 3.0]
    np.testing.assert_allclose(center, expected, atol=2.0)


def test_an_empty_mask_is_no_segment(widget, heatmap, monkeypatch):
    told = []
    monkeypatch.setattr(slicer.util, "infoDisplay", told.append)
    widget.ui.minimumSizeSlider.value = 50
    widget.ui.makeSegmentButton.click()
    assert host.wait_for(lambda: widget.ui.makeSegmentButton.enabled)
    assert "empty" in told[0]
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert widget.ui.statisticsNote.text == ""


# -- the editor ------------------------------------------------------------------------------------


def test_the_segment_editor_gets_the_heatmap_and_the_views_stay_as_they_are(
    widget, volume, heatmap
):
    segmentation, segment_id = make_segment(widget)
    threshold = widget._parameterNode.threshold
    widget.ui.mapCombo.setCurrentIndex(widget.ui.mapCombo.findData("none"))
    widget.ui.editSegmentButton.click()
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert editor.segmentationNode() is segmentation
    assert editor.sourceVolumeNode() is heatmap
    assert editor.currentSegmentID() == segment_id
    node = editor.mrmlSegmentEditorNode()
    assert node.GetSourceVolumeIntensityMaskRange() == pytest.approx((threshold, 2.0))
    assert not node.GetSourceVolumeIntensityMask()
    # Slicer's editor makes a source that no view shows the background of all of them.
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if not composite.GetLayoutName().startswith("TomoSeg"):
            assert composite.GetBackgroundVolumeID() == volume.GetID()
            assert composite.GetForegroundVolumeID() == heatmap.GetID()


def test_the_editor_s_own_undo_is_told_of_a_new_segment(widget, heatmap, monkeypatch):
    segmentation, _segment_id = make_segment(widget)
    widget.ui.editSegmentButton.click()
    editor = slicer.modules.SegmentEditorWidget.editor
    saved = []
    monkeypatch.setattr(
        type(editor._peer_), "saveStateForUndo", lambda self: saved.append(len(segment_ids()))
    )

    def segment_ids():
        return segmentation.GetSegmentation().GetSegmentIDs()

    host.select("TomoSeg")
    make_segment(widget)
    assert saved == [1] and len(segment_ids()) == 2
