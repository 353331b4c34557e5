"""Scenarios of studies of several views: their planes and lines in the slice and 3D views."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from TomoSegPanel import display, studyScene
from TomoSegPanel.scenarios.bench import Bench, computingProcess, plainText, workers
from TomoSegPanel.scenarios.objects import addBlobVolume, grid, rotation
from TomoSegPanel.studyViews import compositeOf, sliceNodes
from TomoSegPanel.volumeFiles import writeNrrd

_NEAR_MM = 1e-3

# Oblique, anisotropic, one left-handed: shape (K, J, I), spacing, axis and angle of the rotation.
_VIEWS: dict[str, tuple[Any, ...]] = {
    "sax": ((5, 40, 36), (1.4, 1.6, 9.0), (1.0, 2.0, 0.3), 40.0),
    "4ch": ((1, 44, 40), (1.2, 1.2, 6.0), (0.2, 1.0, 1.0), 115.0),
    "unclear": ((1, 48, 40), (1.5, 1.3, 6.0), (1.0, 0.1, 0.4), 75.0),
}


def _study(bench: Bench, names: tuple[str, ...] = tuple(_VIEWS)) -> dict[str, np.ndarray]:
    """Write a study and choose it; the matrix to RAS of each view."""
    folder, matrices = bench.folder / "Studie ä", {}
    folder.mkdir()
    for name in names:
        shape, spacing, axis, angle = _VIEWS[name]
        axes = rotation(axis, angle)
        if name == "unclear":
            axes = axes * [1.0, -1.0, 1.0]
        shape, matrices[name] = grid(shape, spacing, axes, (4.0, -7.0, 11.0))
        voxels = np.random.default_rng(0).integers(0, 400, shape).astype(np.int16)
        writeNrrd(folder / f"{name}.nrrd", voxels, matrices[name])
    _choose(bench, folder)
    return matrices


def _choose(bench: Bench, folder: Path) -> None:
    bench.ui.studySection.collapsed = False
    bench.ui.studyFolderEdit.setCurrentPath(str(folder))
    bench.processEvents()


def _inspect(bench: Bench) -> str:
    """Click on Inspect; what the panel says when it is over."""
    assert bench.ui.inspectButton.enabled, bench.ui.inspectButton.toolTip
    bench.ui.inspectButton.click()
    bench.until(lambda: bench.ui.inspectCancelButton.isHidden(), "the inspection is over", 60)
    bench.processEvents(0.1)
    return plainText(bench.ui.studyNote.text)


def _select(bench: Bench, name: str) -> None:
    tree = bench.ui.viewsTree
    for index in range(tree.topLevelItemCount):
        if tree.topLevelItem(index).text(0) == name:
            tree.setCurrentItem(tree.topLevelItem(index))
            bench.processEvents()
            return
    raise AssertionError(f"{name} is not in the table")


def _kinds(bench: Bench) -> dict[str, str]:
    tree = bench.ui.viewsTree
    items = [tree.topLevelItem(index) for index in range(tree.topLevelItemCount)]
    return {item.text(0): item.text(1) for item in items}


def _nodes() -> list[str]:
    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes()))


def _middles(matrices: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A point and the unit normal of each view's middle slice, RAS, from its file's matrix."""
    planes = {}
    for name, matrix in matrices.items():
        normal = np.cross(matrix[:3, 0], matrix[:3, 1])
        point = matrix @ [0, 0, _VIEWS[name][0][0] // 2, 1]
        planes[name] = point[:3], normal / np.linalg.norm(normal)
    return planes


def assertLinesLieOnBothPlanes(planes: dict[str, tuple[np.ndarray, np.ndarray]]) -> int:
    """See that the ends of all lines in the scene lie on both views' planes; how many there are."""
    lines = studyScene.studyNodes("line")
    for node in lines:
        names = node.GetAttribute(studyScene.VIEW), node.GetAttribute(studyScene.OTHER)
        for index in range(2):
            end = np.zeros(3)
            node.GetNthControlPointPositionWorld(index, end)
            for name in names:
                point, normal = planes[name]
                distance = abs(float((end - point) @ normal))
                assert distance < _NEAR_MM, (node.GetName(), name, distance)
    return len(lines)


def the_views_of_a_study_are_where_they_were_taken_and_their_lines_on_both_planes(
    bench: Bench,
) -> None:
    matrices = _study(bench)
    assert _inspect(bench).startswith("✓"), bench.ui.studyNote.text
    assert list(_kinds(bench)) == ["4ch", "sax", "unclear"]
    for name, matrix in matrices.items():
        volume = studyScene.volumeOf(name)
        made = display.matrixOf(volume)
        slices = _VIEWS[name][0][0]
        columns = 3 if slices > 1 else 2  # a single image has no slice step of its own
        np.testing.assert_allclose(made[:3, :columns], matrix[:3, :columns], atol=1e-6)
        np.testing.assert_allclose(made[:3, 3], matrix[:3, 3], atol=1e-4)
        assert volume.GetImageData().GetDimensions()[2] == slices
    assert assertLinesLieOnBothPlanes(_middles(matrices)) == 6
    for node in studyScene.studyNodes("plane"):
        point, normal = _middles(matrices)[node.GetAttribute(studyScene.VIEW)]
        outline = node.GetPolyData()
        for index in range(4):
            assert abs((np.array(outline.GetPoint(index)) - point) @ normal) < _NEAR_MM
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    items = {hierarchy.GetItemByDataNode(node) for node in studyScene.studyNodes()}
    assert len({hierarchy.GetItemParent(item) for item in items}) == 1 and 0 not in items


def a_chosen_view_turns_a_slice_view_to_its_plane_and_shows_the_others_lines(bench: Bench) -> None:
    matrices = _study(bench)
    _inspect(bench)
    red, green, _yellow = sliceNodes()[:3]
    for name in ("unclear", "sax"):
        _select(bench, name)
        point, normal = _middles(matrices)[name]
        toRas = slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS())
        assert abs(abs(float(toRas[:3, 2] @ normal)) - 1) < 1e-6
        assert abs(float((toRas[:3, 3] - point) @ normal)) < _NEAR_MM
        assert compositeOf(red).GetBackgroundVolumeID() == studyScene.volumeOf(name).GetID()
        for line in studyScene.studyNodes("line"):
            shownIn = line.GetDisplayNode().GetViewNodeIDs()
            ofView = line.GetAttribute(studyScene.VIEW) == name
            assert (red.GetID() in shownIn) == ofView
            assert ("vtkMRMLViewNode1" in shownIn) == ofView
        assert red.GetSliceVisible()
        # Each slice view shows another view.
        assert len({compositeOf(node).GetBackgroundVolumeID() for node in sliceNodes()[:3]}) == 3
    bench.chooseItem(bench.ui.studySliceCombo, green.GetLayoutName())
    bench.processEvents()
    assert compositeOf(green).GetBackgroundVolumeID() == studyScene.volumeOf("sax").GetID()


def remove_takes_the_study_out_and_leaves_everything_else_as_it_was(bench: Bench) -> None:
    scan = addBlobVolume()
    bench.chooseVolume(scan)
    bench.processEvents(0.1)
    before, nodes = _viewState(), _nodes()
    _study(bench)
    _inspect(bench)
    _select(bench, "sax")
    assert _viewState() != before and _nodes() != nodes
    assert bench.parameters.inputVolume is scan
    bench.ui.restoreViewsButton.click()
    bench.processEvents(0.1)
    assert _viewState() == before
    _select(bench, "4ch")
    assert _viewState() != before
    bench.ui.removeStudyButton.click()
    bench.processEvents(0.1)
    assert _viewState() == before
    assert _nodes() == nodes
    assert not studyScene.studyNodes() and bench.parameters.study == ""
    assert bench.ui.viewsTree.isHidden() and not bench.ui.removeStudyButton.enabled


def _viewState() -> list[Any]:
    return [
        (
            slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).tolist(),
            node.GetFieldOfView(),
            node.GetXYZOrigin(),
            node.GetSliceVisible(),
            compositeOf(node).GetBackgroundVolumeID(),
        )
        for node in sliceNodes()
    ] + [
        (node.GetPosition(), node.GetFocalPoint(), node.GetViewUp())
        for node in slicer.util.getNodesByClass("vtkMRMLCameraNode")
    ]


def a_corrected_view_is_inspected_again_and_saved_with_the_study_and_the_scene(
    bench: Bench,
) -> None:
    _study(bench)
    _inspect(bench)
    _select(bench, "sax")
    other = {"first": "last", "last": "first"}[bench.ui.viewBaseCombo.currentData]
    bench.chooseItem(bench.ui.viewBaseCombo, other)
    assert not bench.ui.viewBaseCombo.isHidden()
    _select(bench, "unclear")
    assert bench.ui.viewBaseCombo.isHidden()
    bench.chooseItem(bench.ui.viewKindCombo, "3-chamber")
    _select(bench, "4ch")
    bench.setChecked(bench.ui.viewUsedCheckBox, False)
    kinds = _kinds(bench)
    assert "3-chamber" in kinds["unclear"] and "not used" in kinds["4ch"], kinds
    assert not bench.ui.saveTableButton.enabled
    assert "corrections" in bench.ui.inspectButton.toolTip
    _inspect(bench)
    assert _kinds(bench)["unclear"] == "3-chamber"
    assert studyScene.volumeOf("4ch") is None and len(studyScene.studyNodes("line")) == 2
    table = bench.folder / "Studie ä" / "views.csv"
    assert not table.exists()
    bench.ui.saveTableButton.click()
    text = table.read_text(encoding="utf-8")
    assert "3-chamber" in text and f"short-axis,yes,{other}" in text, text
    assert not bench.messages and not bench.ui.saveTableButton.enabled
    # It is the study's own now, as the command line reads it, and what was left out can come back.
    _inspect(bench)
    assert _kinds(bench)["unclear"] == "3-chamber" and "not used" in _kinds(bench)["4ch"]
    path = bench.folder / "Szene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    bench.processEvents()
    assert bench.ui.viewsTree.topLevelItemCount == 0
    slicer.util.loadScene(str(path))
    bench.processEvents(0.1)
    assert _kinds(bench)["unclear"] == "3-chamber" and len(studyScene.studyNodes("line")) == 2
    _select(bench, "unclear")
    _select(bench, "sax")
    sax = studyScene.volumeOf("sax")
    assert compositeOf(sliceNodes()[0]).GetBackgroundVolumeID() == sax.GetID()
    assert sax.GetName() == "sax"
    _select(bench, "4ch")
    bench.setChecked(bench.ui.viewUsedCheckBox, True)
    _inspect(bench)
    assert studyScene.volumeOf("4ch") is not None and len(studyScene.studyNodes("volume")) == 3
    bench.ui.removeStudyButton.click()
    assert not studyScene.studyNodes()


def what_is_no_study_is_said_with_the_file_and_the_scene_stays_as_it_was(bench: Bench) -> None:
    assert not bench.ui.inspectButton.enabled
    assert "folder" in bench.ui.inspectButton.toolTip
    nodes = _nodes()
    empty = bench.folder / "leer"
    empty.mkdir()
    for folder, words in ((bench.folder / "fehlt", "no folder"), (empty, "no view")):
        _choose(bench, folder)
        said = _inspect(bench)
        assert said.startswith("✖") and words in said and folder.name in said, said
        assert _nodes() == nodes
    (empty / "broken.nrrd").write_bytes(b"NRRD nothing")
    _choose(bench, empty)
    said = _inspect(bench)
    assert said.startswith("✖") and "broken.nrrd" in said, said
    _study(bench, ("sax",))
    said = _inspect(bench)
    assert said.startswith("✓") and "single view" in said and "sax.nrrd" in said, said
    assert not studyScene.studyNodes("line") and studyScene.volumeOf("sax") is not None
    assert bench.ui.inspectButton.enabled and not bench.messages


def an_inspection_that_is_cancelled_or_dies_leaves_the_study_that_was_shown(bench: Bench) -> None:
    _study(bench)
    _inspect(bench)
    nodes = _nodes()
    bench.useWorker("slow-study=0.5")
    for end in ("cancel", "kill"):
        bench.ui.inspectButton.click()
        assert not bench.ui.inspectButton.enabled
        bench.until(lambda: "images" in bench.ui.studyNote.text, "images are read", 30)
        if end == "cancel":
            bench.ui.inspectCancelButton.click()
        else:
            computingProcess().kill()
        bench.until(lambda: bench.ui.inspectCancelButton.isHidden(), "it is over", 3)
        said = plainText(bench.ui.studyNote.text)
        assert ("Cancelled" if end == "cancel" else "✖") in said, said
        assert _nodes() == nodes and len(_kinds(bench)) == 3
        bench.until(lambda: not workers(), "all processes have ended", 3)
    bench.useWorker(None)
    assert _inspect(bench).startswith("✓")


def a_scene_that_is_closed_ends_the_inspection_and_nothing_is_added_to_the_next(
    bench: Bench,
) -> None:
    _study(bench)
    bench.useWorker("slow-study=0.5")
    bench.ui.inspectButton.click()
    bench.until(lambda: "images" in bench.ui.studyNote.text, "images are read", 30)
    slicer.mrmlScene.Clear(False)
    bench.until(lambda: not workers(), "all processes have ended", 3)
    bench.processEvents(0.2)
    assert not studyScene.studyNodes()
    assert bench.ui.inspectCancelButton.isHidden()
    assert bench.parameters.studyFolder == ""


def a_volume_of_a_study_that_the_user_has_deleted_is_no_error(bench: Bench) -> None:
    _study(bench)
    _inspect(bench)
    slicer.mrmlScene.RemoveNode(studyScene.volumeOf("sax"))
    _select(bench, "sax")
    _select(bench, "4ch")
    with contextlib.suppress(StopIteration):
        slicer.mrmlScene.RemoveNode(next(iter(studyScene.studyNodes("line"))))
    bench.ui.removeStudyButton.click()
    bench.processEvents()
    assert not studyScene.studyNodes()


for _scenario in (
    a_chosen_view_turns_a_slice_view_to_its_plane_and_shows_the_others_lines,
    remove_takes_the_study_out_and_leaves_everything_else_as_it_was,
    a_corrected_view_is_inspected_again_and_saved_with_the_study_and_the_scene,
):
    _scenario.needsViews = True  # type: ignore[attr-defined]

SCENARIOS = (
    the_views_of_a_study_are_where_they_were_taken_and_their_lines_on_both_planes,
    a_chosen_view_turns_a_slice_view_to_its_plane_and_shows_the_others_lines,
    remove_takes_the_study_out_and_leaves_everything_else_as_it_was,
    a_corrected_view_is_inspected_again_and_saved_with_the_study_and_the_scene,
    what_is_no_study_is_said_with_the_file_and_the_scene_stays_as_it_was,
    an_inspection_that_is_cancelled_or_dies_leaves_the_study_that_was_shown,
    a_scene_that_is_closed_ends_the_inspection_and_nothing_is_added_to_the_next,
    a_volume_of_a_study_that_the_user_has_deleted_is_no_error,
)
