"""The section Model: which models there are, what is said of them, and how new ones get in."""

import json
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import qt  # noqa: E402
import slicer  # noqa: E402
from PySide6.QtCore import Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel.modelCards import Card, makeCards, readCards  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench  # noqa: E402

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent, ResultEvent  # noqa: E402

STORE = Path(tempfile.mkdtemp(prefix="tomoseg-models-"))
SHIPPED = len(list((ROOT / "Resources" / "Models").glob("*/card.json")))
TINY = ROOT / "Resources" / "Models" / "tiny-blob"


class FakeWorker:
    """A worker that says what a test lets it say."""

    def __init__(self, document, onEvent):
        self.document = json.loads(Path(document).read_text(encoding="utf-8"))
        self.say = onEvent

    def start(self):
        pass

    def cancel(self):
        self.say(ErrorEvent("cancelled", "The job was cancelled."))

    def abandon(self):
        pass


@pytest.fixture
def bench(monkeypatch):
    """The panel, with an empty store and workers that are made up; the last one is `worker`."""
    for folder in STORE.iterdir():
        shutil.rmtree(folder)
    with Bench(STORE) as bench:
        models = bench.widget.panel.models

        def make(document, onEvent):
            bench.worker = FakeWorker(document, onEvent)
            return bench.worker

        bench.worker = None
        with monkeypatch.context() as environment:
            environment.setenv("TOMOSEG_MODELS", str(STORE))
            environment.setattr(models, "makeWorker", make)
            models.reload()
            bench.until(lambda: all(card.shipped for card in models.cards), "the store is empty")
            yield bench
        models.reload()


def click(widget):
    """Click in the middle of a widget."""
    QTest.mouseClick(widget._peer_, Qt.MouseButton.LeftButton)


def write_model(folder, **changes):
    """A copy of the test model with changes on its card."""
    shutil.copytree(TINY, folder)
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(card), encoding="utf-8")
    return folder


def listed(bench):
    """The texts of the list."""
    models = bench.ui.modelListWidget
    return [models.item(row).text() for row in range(models.count)]


def test_an_archive_is_imported_with_progress_and_its_model_is_chosen(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: str(tmp_path / "ä b.zip"))
    click(bench.ui.importArchiveButton)
    assert bench.worker.document == {
        "kind": "import-model",
        "source": str(tmp_path / "ä b.zip"),
        "replace": False,
    }
    assert bench.ui.modelProgressBar.isVisible()
    assert not bench.ui.importFolderButton.enabled
    bench.worker.say(ProgressEvent("import", 3, 4))
    assert (bench.ui.modelProgressBar.value, bench.ui.modelProgressBar.maximum) == (3, 4)
    folder = write_model(STORE / "my-blob", name="my-blob", title="Mine")
    bench.worker.say(ResultEvent(str(folder), {"name": "my-blob", "folder": str(folder)}))
    bench.until(lambda: bench.parameters.model == "my-blob", "it is chosen")
    assert "Mine (any, simulated data)" in listed(bench)
    assert "Mine" in bench.ui.cardBrowser.toPlainText()
    assert "my-blob is imported" in bench.ui.modelNote.text
    assert not bench.ui.modelProgressBar.isVisible()
    assert bench.ui.importFolderButton.enabled


def test_a_folder_is_imported_by_the_real_worker(bench, monkeypatch, tmp_path):
    from TomoSegPanel.worker import WorkerProcess

    bench.widget.panel.models.makeWorker = WorkerProcess
    bench.useWorker(None)
    source = write_model(tmp_path / "ein Modell", name="real-blob", title="Real")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(source))
    click(bench.ui.importFolderButton)
    bench.until(lambda: bench.parameters.model == "real-blob", "it is imported", 120)
    assert (STORE / "real-blob" / "card.json").is_file()
    click(bench.ui.verifyButton)
    bench.until(lambda: not bench.ui.modelProgressBar.isVisible(), "it is checked", 120)
    assert "✓ network" in bench.ui.modelNote.text, bench.ui.modelNote.text
    (STORE / "real-blob" / "weights.safetensors").write_bytes(b"tampered with")
    click(bench.ui.verifyButton)
    bench.until(lambda: not bench.ui.modelProgressBar.isVisible(), "it is checked again", 120)
    assert "✖ weights.safetensors" in bench.ui.modelNote.text, bench.ui.modelNote.text


def test_an_import_that_fails_says_why_and_what_to_do_and_leaves_a_report(bench):
    bench.widget.panel.models.importModel("/some/where.zip")
    bench.worker.say(
        ErrorEvent("model-zip-invalid", "The archive is <broken>.", "Get it again.", log="words")
    )
    assert "The archive is &lt;broken&gt;." in bench.ui.modelNote.text
    assert "Get it again." in bench.ui.modelNote.text
    click(bench.ui.copyModelReportButton)
    report = qt.QApplication.clipboard().text()
    assert "[model-zip-invalid]" in report and "words" in report and "/some/where.zip" in report


def test_a_cancelled_import_changes_nothing(bench):
    before = listed(bench)
    bench.widget.panel.models.importModel("/some/where.zip")
    click(bench.ui.modelCancelButton)
    assert "Cancelled" in bench.ui.modelNote.text
    assert listed(bench) == before
    assert bench.ui.importArchiveButton.enabled
    assert not bench.ui.copyModelReportButton.isVisible()


@pytest.mark.parametrize("agrees", [True, False])
def test_a_model_is_replaced_only_if_the_user_says_so(bench, monkeypatch, agrees):
    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text) or agrees
    )
    bench.widget.panel.models.importModel("/some/where.zip")
    first = bench.worker
    first.say(ErrorEvent("model-exists", "There is another model named x.", "Choose another."))
    assert "another model named x" in asked[0] and "/some/where.zip" in asked[0]
    if agrees:
        assert bench.worker is not first and bench.worker.document["replace"] is True
        bench.worker.say(ErrorEvent("model-exists", "It ships.", "Choose another name."))
    assert len(asked) == 1
    assert not bench.ui.modelProgressBar.isVisible()
    shown = "It ships." if agrees else "Not imported"
    assert shown in bench.ui.modelNote.text


def test_a_check_says_of_each_thing_what_is_found(bench):
    assert not bench.ui.verifyButton.enabled
    bench.chooseModel()
    click(bench.ui.verifyButton)
    assert bench.worker.document == {"kind": "verify-model", "model": "tiny-blob"}
    checks = [
        {"what": "card", "ok": True, "why": "A valid card."},
        {"what": "weights", "ok": False, "why": "Wrong hash.", "hint": "Get it again."},
        {"what": "network", "ok": None, "why": "Not loaded."},
    ]
    bench.worker.say(ResultEvent(None, {"ok": False, "checks": checks}))
    text = bench.ui.modelNote.text
    assert "✓ card: A valid card." in text
    assert "<b>✖ weights: Wrong hash. Get it again.</b>" in text
    assert "– network" in text
    assert bench.ui.copyModelReportButton.isVisible()


def test_a_model_whose_card_cannot_be_used_is_listed_with_the_reason(bench):
    (STORE / "broken").mkdir()
    (STORE / "broken" / "card.json").write_text("{]", encoding="utf-8")
    write_model(STORE / "no-channels", name="no-channels", channels=[])
    write_model(STORE / "flat", name="flat", preprocessing={"spacing_mm": 0})
    write_model(STORE / "odd", name="odd", training_data="none")
    write_model(STORE / "endless", name="endless", channels=[{"name": str(i)} for i in range(99)])
    bench.widget.panel.models.reload(wait=True)
    bench.until(lambda: len(listed(bench)) == SHIPPED + 5, "all are listed")
    assert sum("unusable" in text for text in listed(bench)) == 5
    shown = bench.ui.cardBrowser.toPlainText()
    assert all(name in shown for name in ("broken", "no-channels", "flat", "odd", "endless"))
    row = next(i for i, text in enumerate(listed(bench)) if "odd" in text)
    bench.chooseModel()
    bench.ui.modelListWidget.setCurrentRow(row)
    assert bench.parameters.model == ""


def test_what_a_card_says_cannot_take_over_the_panel(bench):
    words = "<img src='file:///etc/passwd'><b>" * 3000
    write_model(
        STORE / "loud",
        name="loud",
        title="<b>loud</b>" * 500,
        description=words,
        labels=[{"name": "<i>x</i>", "value": 1}],
    )
    cards, broken = makeCards(readCards([(STORE, False)]))
    assert not broken
    (card,) = cards
    assert "<img" not in card.html() and "<i>" not in card.html()
    assert len(card.html()) < 40_000 and len(card.title) == 200


def test_a_scene_with_a_model_that_is_not_here_says_so(bench):
    bench.parameters.model = "elsewhere"
    bench.processEvents()
    assert "elsewhere" in bench.ui.cardBrowser.toPlainText()
    assert "import" in bench.ui.cardBrowser.toPlainText()
    assert not bench.ui.runButton.enabled


def test_the_list_is_searched_filtered_and_walked_with_the_keyboard(bench):
    write_model(STORE / "ct-blob", name="ct-blob", title="CT one", modality="CT")
    bench.widget.panel.models.reload(wait=True)
    bench.until(lambda: len(listed(bench)) == SHIPPED + 1, "it is there")
    bench.chooseItem(bench.ui.modalityFilter, "CT")
    assert listed(bench) == ["CT one (CT, simulated data)"]
    bench.chooseItem(bench.ui.modalityFilter, "")
    QTest.keyClicks(bench.ui.modelSearchBox._peer_, "formula bright")
    assert len(listed(bench)) == 2
    bench.ui.modelListWidget._peer_.setFocus()
    bench.ui.modelListWidget.setCurrentRow(0)  # wherever the test before has left it
    QTest.keyClick(bench.ui.modelListWidget._peer_, Qt.Key.Key_Down)
    assert bench.parameters.model in ("ct-blob", "tiny-blob")
    first = bench.parameters.model
    QTest.keyClick(bench.ui.modelListWidget._peer_, Qt.Key.Key_Up)
    assert bench.parameters.model != first


def test_cards_are_read_in_a_thread_and_not_in_the_one_that_shows_the_panel(bench, monkeypatch):
    from TomoSegPanel import modelCards

    real, threads = modelCards.readCard, []
    monkeypatch.setattr(
        modelCards,
        "readCard",
        lambda folder: threads.append(threading.current_thread()) or real(folder),
    )
    write_model(STORE / "big", name="big", metrics={f"k{i}": "x" * 50 for i in range(12_000)})
    bench.widget.panel.models.reload()
    bench.until(lambda: len(listed(bench)) == SHIPPED + 1, "it is listed")
    assert len(threads) >= 3
    assert threading.main_thread() not in threads


def test_the_card_gives_the_settings_of_a_method_as_the_engine_does(tmp_path):
    from TomoSegLib.models.card import ModelCard

    for path in (ROOT / "Resources" / "Models").glob("*/card.json"):
        engine = ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
        card = Card(path.parent, shipped=True)
        assert card.spacingMm == engine.preprocessing.spacing_mm
        assert card.sliceDistanceMm == engine.slices.distance_mm
        for method in ("tonno", "cam", "averaged-cam", "tomographic-cam"):
            ours, theirs = card.settings(method), engine.settings(method)
            assert ours.directions == theirs.directions
            assert ours.filterOrder == theirs.filter_order
            assert (ours.cutoff, ours.window) == (theirs.cutoff, theirs.window)
            assert ours.rectified == theirs.rectified
            assert ours.hasThreshold == (theirs.threshold is not None)


def teardown_module():
    """The models of these tests are no longer needed."""
    shutil.rmtree(STORE, ignore_errors=True)
