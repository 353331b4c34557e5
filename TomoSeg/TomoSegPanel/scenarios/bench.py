"""What a scenario needs to use the panel as a person would, in Slicer or in the stand-in."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import qt
import slicer

from TomoSegPanel import worker
from TomoSegPanel.job import Run
from TomoSegPanel.scenarios.objects import MODEL

RUN_S = 120.0
"""How long a small run may take; most of it is the loading of PyTorch, on a busy machine."""


class Bench:
    """The panel on an empty scene, for one scenario; a context manager.

    At its end nothing may be left: no worker, no file of a run, no exception in a handler.

    Args:
        models: A folder for the user's models; by default one that is empty.

    Attributes:
        messages: What message boxes have said and asked.
        agrees: What they are answered.
        longestS: The most processor time that the main thread has taken on end, in seconds.
        errors: Exceptions of handlers, which Slicer prints and then forgets.
        folder: A folder for files, whose name has a space and accents.
    """

    def __init__(self, models: Path | None = None) -> None:
        self.messages: list[str] = []
        self.agrees = False
        self.longestS = 0.0
        self.errors: list[str] = []
        self.folder = Path()
        self._models = models
        self._fault: str | None = None
        self._stack = contextlib.ExitStack()
        self._foldersBefore: set[Path] = set()

    def __enter__(self) -> Bench:
        self.folder = Path(tempfile.mkdtemp(prefix="Prüfung ñ ", dir=slicer.app.temporaryPath))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.enter_context(_replaced(sys, "excepthook", self._onException))
        for name in ("errorDisplay", "warningDisplay", "infoDisplay", "confirmOkCancelDisplay"):
            self._stack.enter_context(_replaced(slicer.util, name, self._onMessage))
        self._stack.enter_context(
            _replaced(worker, "worker_command", self._workerCommand(worker.worker_command))
        )
        self.models.mkdir(exist_ok=True)
        self._stack.enter_context(_ownModels(self.models))
        slicer.mrmlScene.Clear(False)
        self._foldersBefore = _runFolders()
        self.openPanel()
        self.widget.panel.models.reload()
        self.showAllModels()
        if self.widget.panel.computing.answer is None:
            self.probe()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.ui.cancelButton.click()
            self.until(lambda: not self.isBusy(), "the last run has ended", 10)
            slicer.mrmlScene.Clear(False)
            self.processEvents()
            self.until(lambda: not workers(), "all workers have ended", 5)
            # A thread that was writing when its run was cancelled takes its files away itself.
            self.until(lambda: _runFolders() <= self._foldersBefore, "no file of a run is left", 5)
            assert not self.errors, "\n".join(self.errors)
        finally:
            for process in workers():
                process.kill()
            self._stack.close()

    @property
    def models(self) -> Path:
        """The folder of the user's models; their own is never looked at."""
        return self._models or self.folder / "Modelle"

    # -- the panel ---------------------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The module's Python widget; another one after the module has been reloaded."""
        return slicer.util.getModuleWidget("TomoSeg")

    @property
    def ui(self) -> Any:
        """The widgets of the panel by name."""
        return self.widget.ui

    @property
    def parameters(self) -> Any:
        """The parameter node."""
        return self.widget.logic.getParameterNode()

    def openPanel(self) -> None:
        """Go to the module; without a main window, as the module panel would."""
        if slicer.util.mainWindow() is not None:
            slicer.util.selectModule("TomoSeg")
        else:
            slicer.modules.tomoseg.widgetRepresentation().enter()
        self.processEvents()

    def leavePanel(self) -> None:
        """Go to another module."""
        if slicer.util.mainWindow() is not None:
            slicer.util.selectModule("Volumes")
        else:
            slicer.modules.tomoseg.widgetRepresentation().exit()
        self.processEvents()

    def probe(self) -> Any:
        """Click on the button that looks for devices, and wait for the answer."""
        self.ui.probeButton.click()
        self.until(lambda: self.ui.probeButton.enabled, "the probe has answered", RUN_S)
        return self.widget.panel.computing.answer

    def showAllModels(self) -> None:
        """Take the search text and the filter away."""
        self.ui.modelSearchBox.setText("")
        self.ui.modalityFilter.setCurrentIndex(0)

    def chooseModel(self, name: str = MODEL) -> None:
        """Select a model in the list, which is read in the background."""
        models = self.ui.modelListWidget

        def select() -> bool:
            for row in range(models.count):
                if models.item(row).data(qt.Qt.UserRole) == name:
                    models.setCurrentItem(models.item(row))
                    return True
            return False

        self.until(select, f"the model {name} is in the list")

    def importModel(self, source: Path) -> str:
        """Import a model from a folder or an archive; what the panel says when it is done."""
        # What the buttons call when a file has been chosen in their dialogue.
        self.widget.panel.models.importModel(str(source))
        self.until(lambda: self.ui.importFolderButton.enabled, "the import is over", RUN_S)
        self.processEvents(0.1)
        return plainText(self.ui.modelNote.text)

    def verifyModel(self) -> str:
        """Click on the button that checks the chosen model; what the panel says when it is done."""
        self.ui.verifyButton.click()
        self.until(lambda: self.ui.verifyButton.enabled, "the check is over", RUN_S)
        return plainText(self.ui.modelNote.text)

    def chooseVolume(self, node: Any) -> None:
        """Select the volume to look at."""
        self.ui.inputSelector.setCurrentNode(node)
        self.processEvents()

    def chooseItem(self, combo: Any, data: str) -> None:
        """Select an item of a combo box by its data."""
        index = combo.findData(data)
        assert index >= 0, f"{data} is not in {combo.objectName}"
        combo.setCurrentIndex(index)

    def setChecked(self, button: Any, on: bool) -> None:
        """Click on a check box unless it is as wanted."""
        if button.isChecked() is not on:
            button.click()

    # -- runs --------------------------------------------------------------------------------------

    def useWorker(self, fault: str | None) -> None:
        """Let workers have a fault from now on (`faultyWorker`), or none."""
        self._fault = fault

    def start(self) -> Run:
        """Click on Run; the run that was started or waits last."""
        assert self.ui.runButton.enabled, self.ui.runButton.toolTip
        self.ui.runButton.click()
        queue = self.widget.panel.runs.queue
        return queue.waiting[-1] if queue.waiting else queue.current

    def finish(self, run: Run, state: str = "finished", seconds: float = RUN_S) -> Run:
        """Wait until a run is over, and see that it ended so."""
        self.until(lambda: run.state.isOver, "the run is over", seconds)
        assert run.state.value == state, run.report()
        return run

    def run(self, state: str = "finished") -> Run:
        """Click on Run and wait for the end."""
        return self.finish(self.start(), state)

    def startAndWaitForPreview(self, secondsPerBatch: float = 0.2) -> Run:
        """Click on Run and wait for the first heatmap, with the run still in its middle."""
        self.useWorker(f"slow={secondsPerBatch}")
        run = self.start()
        self.until(
            lambda: run.state.isOver or self.widget.panel.runs.heatmapOf(run) is not None,
            "a preview is shown",
            RUN_S,
        )
        assert run.state.value == "running", run.report()
        return run

    def makeSegment(self) -> None:
        """Click on Make segment, and wait until it is made."""
        self.ui.makeSegmentButton.click()
        self.until(lambda: self.ui.makeSegmentButton.enabled, "the segment is made")

    def isBusy(self) -> bool:
        """Whether a run is under way."""
        current = self.widget.panel.runs.queue.current
        return current is not None and not current.state.isOver

    # -- time --------------------------------------------------------------------------------------

    def processEvents(self, seconds: float = 0.0) -> None:
        """Let the application work for a while (once through its events by default)."""
        end = time.monotonic() + seconds
        while True:
            # Processor time: a busy machine is not the panel's fault.
            before = time.thread_time()
            slicer.app.processEvents()
            self.longestS = max(self.longestS, time.thread_time() - before)
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 10.0) -> float:
        """Let the application work until a condition holds; the seconds that it took."""
        start = time.monotonic()
        while not condition():
            waited = time.monotonic() - start
            assert waited < seconds, f"not after {seconds:g} s: {what}"
            self.processEvents(0.01)
        return time.monotonic() - start

    # -- what goes wrong ---------------------------------------------------------------------------

    def _onException(self, kind: type, error: BaseException, trace: Any) -> None:
        self.errors.append("".join(traceback.format_exception(kind, error, trace)))

    def _onMessage(self, text: str, *arguments: Any, **options: Any) -> bool:
        self.messages.append("\n".join(filter(None, [text, options.get("detailedText")])))
        return self.agrees

    def _workerCommand(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def command(job: str, python: str) -> tuple[list[str], dict[str, str]]:
            default, environment = real(job, python)
            if self._fault is None:
                return default, environment
            program = str(Path(__file__).with_name("faultyWorker.py"))
            return [python, program, self._fault, job], environment

        return command


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _ownModels(folder: Path) -> Iterator[None]:
    before = os.environ.get("TOMOSEG_MODELS")
    os.environ["TOMOSEG_MODELS"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TOMOSEG_MODELS", None)
        else:
            os.environ["TOMOSEG_MODELS"] = before


def _runFolders() -> set[Path]:
    return set(Path(slicer.app.temporaryPath).glob("tomoseg-*"))


def workers() -> list[Any]:
    """The engine's processes under this one, launchers of Python among them, outermost first."""
    import psutil  # one of the engine's own packages: there whenever a run is possible

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (
                "TomoSegLib.jobs" in line or "faultyWorker" in line
            ):
                found.append(process)
    return found


def computingProcess() -> Any:
    """The process that computes."""
    return next(process for process in workers() if "--task" in process.cmdline())


def workerProcess() -> Any:
    """The worker: the parent of the process that computes."""
    return computingProcess().parent()


def plainText(html: str) -> str:
    """The text of a label, without its tags."""
    document = qt.QTextDocument()
    document.setHtml(html)
    return document.toPlainText()
