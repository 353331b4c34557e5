"""Scenarios of models: they are imported, checked and run, whatever they are for."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import slicer

from TomoSegPanel import provenance
from TomoSegPanel.scenarios.bench import Bench
from TomoSegPanel.scenarios.objects import (
    BLOB_VALUE,
    addBlobVolume,
    assertPeak,
    copyModel,
    grid,
    makeSegmenter,
    rotation,
)


def a_model_is_found_by_the_words_of_its_card(bench: Bench) -> None:
    bench.chooseVolume(addBlobVolume())
    bench.chooseModel()
    assert "TEST MODEL" in bench.ui.cardBrowser.toPlainText()
    bench.ui.modelSearchBox.setText("no such word")
    assert bench.ui.modelListWidget.count == 0
    bench.ui.modelSearchBox.setText("bright FORMULA")
    assert bench.ui.modelListWidget.count == 1
    bench.showAllModels()
    assert bench.parameters.model == "tiny-blob"


def a_model_is_imported_from_an_archive_chosen_and_can_be_run(bench: Bench) -> None:
    archive = _archive(copyModel(bench.folder, "imported"))
    said = bench.importModel(archive)
    assert "✓" in said, said
    assert bench.parameters.model == "imported"
    assert (bench.models / "imported" / "card.json").is_file()
    blob = (0.0, 10.0, 12.0)
    bench.chooseVolume(addBlobVolume(blob))
    bench.run()
    assertPeak(bench.parameters.heatmap, blob)


def what_is_no_model_is_refused_with_the_reason_and_leaves_nothing(bench: Bench) -> None:
    folder = bench.folder / "no model"
    folder.mkdir()
    text = bench.folder / "text.zip"
    text.write_text("this is no archive", encoding="utf-8")
    climber = bench.folder / "climber.zip"
    with zipfile.ZipFile(climber, "w") as archive:
        archive.writestr("../../escaped.txt", "out")
        archive.writestr("card.json", "{}")
    pickled = copyModel(bench.folder, "pickled")
    card = json.loads((pickled / "card.json").read_text(encoding="utf-8"))
    weights = pickle.dumps({"classifier.bias": [0.0]})
    card["files"] = {"weights.safetensors": hashlib.sha256(weights).hexdigest()}
    (pickled / "weights.safetensors").write_bytes(weights)
    (pickled / "card.json").write_text(json.dumps(card), encoding="utf-8")
    for source in (folder, text, climber, pickled, bench.folder / "gone.zip"):
        said = bench.importModel(source)
        assert "✖" in said, f"{source.name}: {said}"
        assert len(said) > 30, f"{source.name}: {said}"
        assert not bench.ui.copyModelReportButton.isHidden()
    assert not list(bench.folder.rglob("escaped.txt"))
    assert list(bench.models.iterdir()) == []


def a_model_of_a_name_that_is_there_is_replaced_only_if_the_user_says_so(bench: Bench) -> None:
    first = copyModel(bench.folder / "a", "twice")
    second = copyModel(bench.folder / "b", "twice")
    card = second / "card.json"
    card.write_text(card.read_text(encoding="utf-8").replace("1.0.0", "2.0.0"), "utf-8")
    bench.importModel(first)
    bench.agrees = False
    bench.importModel(second)
    assert len(bench.messages) == 1 and "twice" in bench.messages[0], bench.messages
    assert "1.0.0" in (bench.models / "twice" / "card.json").read_text(encoding="utf-8")
    bench.agrees = True
    said = bench.importModel(second)
    bench.until(lambda: bench.ui.importFolderButton.enabled, "the second import is over", 60)
    assert "2.0.0" in (bench.models / "twice" / "card.json").read_text(encoding="utf-8"), said


def a_segmenter_gives_a_segmentation_in_its_place_with_names_and_colours(bench: Bench) -> None:
    bench.importModel(makeSegmenter(bench.folder))
    axes = rotation((1, 0, 0.5), 30) @ np.diag([1.0, -1.0, 1.0])
    blob = (60.0, 6.0, -8.0)
    on = grid((30, 36, 34), (2.0, 1.9, 2.3), axes, (55.0, 0.0, 0.0))
    volume = addBlobVolume(blob, on)
    bench.chooseVolume(volume)
    bench.chooseModel("two-parts")
    bench.run()
    node = bench.parameters.heatmap
    assert node.IsA("vtkMRMLSegmentationNode")
    segmentation = node.GetSegmentation()
    segments = {segmentation.GetSegment(i).GetName(): i for i in segmentation.GetSegmentIDs()}
    assert set(segments) == {"body", "ball"}
    color = segmentation.GetSegment(segments["ball"]).GetColor()
    np.testing.assert_allclose(color, (0.9, 0.6, 0.1), atol=0.01)
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segments["ball"], volume) != 0
    ball = slicer.util.arrayFromVolume(volume) == BLOB_VALUE
    share = 2 * (found & ball).sum() / (found.sum() + ball.sum())
    assert share > 0.8, f"the segment and the ball have a Dice coefficient of {share:.2f}"
    assert provenance.readRecord(node)["model"]["name"] == "two-parts"
    path = bench.folder / "segmented.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(path))
    bench.processEvents(0.1)
    bench.ui.runAgainButton.click()
    run = bench.finish(bench.widget.panel.runs.queue.current)
    assert run.settings.card.name == "two-parts"


def _archive(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


SCENARIOS = (
    a_model_is_found_by_the_words_of_its_card,
    a_model_is_imported_from_an_archive_chosen_and_can_be_run,
    what_is_no_model_is_refused_with_the_reason_and_leaves_nothing,
    a_model_of_a_name_that_is_there_is_replaced_only_if_the_user_says_so,
    a_segmenter_gives_a_segmentation_in_its_place_with_names_and_colours,
)
