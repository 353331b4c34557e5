"""The section Model: which models there are, what they are, and how new ones get in."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent, ResultEvent
from TomoSegPanel.background import Background
from TomoSegPanel.fit import VolumeFit
from TomoSegPanel.modelCards import Card, makeCards, modalities, readCards
from TomoSegPanel.section import Section, fillCombo, signalsBlocked
from TomoSegPanel.smallJob import SmallJob
from TomoSegPanel.worker import WorkerProcess


class ModelSection(Section):
    """Chooses the model and shows its card; imports and verifies models.

    Attributes:
        cards: The models that can be chosen.
        makeWorker: Makes the workers of imports and checks; tests put others in its place.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.cards: list[Card] = []
        self.makeWorker: Any = WorkerProcess
        self._broken: list[tuple[Path, str]] = []
        self._shownCard: Card | None = None
        self._background = Background()
        self._fit = VolumeFit(self._showFit)
        self._job = SmallJob(
            self._onJobEnd,
            self._onJobProgress,
            lambda path, onEvent: self.makeWorker(path, onEvent),
        )
        self._importing: str | None = None
        self._replacing = False
        self._report = ""
        ui = self.ui
        ui.modelSearchBox.connect("textChanged(QString)", lambda text: self._filter())
        ui.modalityFilter.connect("currentIndexChanged(int)", lambda index: self._filter())
        ui.modelListWidget.connect("itemSelectionChanged()", self._choose)
        ui.importArchiveButton.connect("clicked()", self.importArchive)
        ui.importFolderButton.connect("clicked()", self.importFolder)
        ui.verifyButton.connect("clicked()", self.verify)
        ui.modelCancelButton.connect("clicked()", self._job.cancel)
        ui.copyModelReportButton.connect("clicked()", self.copyReport)
        self._showJob(False)
        self._say("")
        self.reload(wait=True)

    def reload(self, choose: str = "", wait: bool = False) -> None:
        """Read all cards again, in the background.

        Args:
            choose: Name of the model to choose when they are there.
            wait: Wait for them a moment: a few cards are there at once.
        """

        def show(found: Any) -> None:
            self.cards, self._broken = makeCards(found)
            modality = self.ui.modalityFilter.currentData or ""
            items = [("", _("All modalities"))] + [(m, m) for m in modalities(self.cards)]
            fillCombo(self.ui.modalityFilter, items, modality)
            self._shownCard = None
            if choose and self.parameters is not None and self.card(choose) is not None:
                self.ui.modelSearchBox.setText("")
                fillCombo(self.ui.modalityFilter, items, "")
                self.chooseModel(choose)
            self._filter()
            self.panel.refresh()

        self._background.run(readCards, show, lambda error: show([]), waitMs=60 if wait else 0)

    def card(self, name: str) -> Card | None:
        """The card of a model."""
        return next((card for card in self.cards if card.name == name), None)

    def chooseModel(self, name: str) -> None:
        """Choose a model; the advanced settings go back to what its card says."""
        if self.parameters is not None and self.parameters.model != name:
            self.parameters.model = name
            self.panel.method.useCardValues()

    def refresh(self) -> None:
        """Of `Section`."""
        self._select()
        card = self.panel.card
        if card is not self._shownCard or card is None:
            self._shownCard = card
            self.ui.cardBrowser.setHtml(card.html() if card is not None else self._noCardHtml())
        self.ui.verifyButton.setEnabled(card is not None and not self._job.isRunning)
        self._fit.update(self.parameters, card)

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._fit.forget()

    def cleanup(self) -> None:
        """Of `Section`."""
        self._background.forget()
        self._fit.forget()
        self._job.abandon()

    # -- import and check --------------------------------------------------------------------------

    def importArchive(self) -> None:
        """Let the user choose an archive, and import the model in it."""
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(),
            _("Import a model"),
            "",
            _("Model archives") + " (*.zip);;" + _("All files") + " (*)",
        )
        if path:
            self.importModel(path)

    def importFolder(self) -> None:
        """Let the user choose a folder, and import the model in it."""
        path = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("Import a model: its folder")
        )
        if path:
            self.importModel(path)

    def importModel(self, path: str, replace: bool = False) -> None:
        """Import a model in the background, and choose it.

        Args:
            path: Its folder or archive.
            replace: Replace a model of the same name that was imported before.
        """
        self._importing, self._replacing = path, replace
        self._begin(
            _("Importing {name}…").format(name=Path(path).name),
            {"kind": "import-model", "source": path, "replace": replace},
        )

    def verify(self) -> None:
        """Check the chosen model in the background."""
        card = self.panel.card
        if card is not None:
            self._importing = None
            self._begin(
                _("Checking {model}…").format(model=card.title),
                {"kind": "verify-model", "model": card.name},
            )

    def copyReport(self) -> None:
        """Put what is known of the last import or check on the clipboard."""
        qt.QApplication.clipboard().setText(self._report)

    def _begin(self, text: str, document: dict[str, Any]) -> None:
        if self._job.isRunning:
            return
        self._report = ""
        self._say(html.escape(text))
        self._showJob(True)
        self._job.start(document)

    def _onJobProgress(self, event: ProgressEvent) -> None:
        self.ui.modelProgressBar.setMaximum(event.total or 0)  # 0: moves to and fro
        self.ui.modelProgressBar.setValue(event.done if event.total else 0)

    def _onJobEnd(self, event: ResultEvent | ErrorEvent) -> None:
        self._showJob(False)
        if isinstance(event, ErrorEvent):
            self._onJobError(event)
        elif self._importing is not None:
            name = str(event.data.get("name", ""))
            self._say(html.escape("✓ " + _("{model} is imported.").format(model=name)))
            self.reload(choose=name)
        else:
            self._showChecks(event.data.get("checks", []))
        self.panel.refresh()

    def _onJobError(self, error: ErrorEvent) -> None:
        if error.code == "cancelled":
            self._say(html.escape(_("Cancelled; the list of models is as it was.")))
            return
        source = self._importing
        if error.code == "model-exists" and source is not None and not self._replacing:
            question = _("{message} Replace it with the one from {source}?").format(
                message=error.message, source=source
            )
            if slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Replace the model")):
                self.importModel(source, replace=True)
            else:
                self._say(html.escape(_("Not imported; the list of models is as it was.")))
            return
        parts = [f"import of {source}" if source is not None else "check of a model"]
        parts += [f"error: {error.message} [{error.code}] {error.hint}"]
        self._report = "\n".join(parts + [text for text in (error.traceback, error.log) if text])
        self._say(f"<b>✖ {html.escape(error.message)}</b> {html.escape(error.hint)}")

    def _showChecks(self, checks: Sequence[dict[str, Any]]) -> None:
        marks = {True: "✓", False: "✖", None: "–"}
        lines = []
        for check in checks:
            text = f"{check.get('what', '')}: {check.get('why', '')} {check.get('hint', '')}"
            line = f"{marks.get(check.get('ok'), '–')} {html.escape(text.strip())}"
            lines.append(f"<b>{line}</b>" if check.get("ok") is False else line)
        if any(check.get("ok") is False for check in checks):
            self._report = "\n".join(str(dict(check)) for check in checks)
        self._say("<br>".join(lines))

    def _say(self, text: str) -> None:
        """Show what goes on, as HTML."""
        self.ui.modelNote.setText(text)
        self.ui.modelNote.setVisible(bool(text))
        self.ui.copyModelReportButton.setVisible(bool(self._report))

    def _showJob(self, running: bool) -> None:
        self.ui.modelProgressBar.setMaximum(0)
        self.ui.modelProgressBar.setVisible(running)
        self.ui.modelCancelButton.setVisible(running)
        for button in (self.ui.importArchiveButton, self.ui.importFolderButton):
            button.setEnabled(not running)
        self.ui.verifyButton.setEnabled(not running)

    # -- list and card -----------------------------------------------------------------------------

    def _filter(self) -> None:
        modality = self.ui.modalityFilter.currentData or ""
        text = self.ui.modelSearchBox.text
        listWidget = self.ui.modelListWidget
        with signalsBlocked(listWidget):
            listWidget.clear()
            for card in self.cards:
                if modality in ("", card.modality) and card.matches(text):
                    listWidget.addItem(_cardItem(card))
            if not text:
                for folder, reason in self._broken:
                    item = qt.QListWidgetItem(_("⚠ {name}: unusable").format(name=folder.name))
                    item.setToolTip(f"<p>{html.escape(reason)}</p>")
                    item.setData(qt.Qt.UserRole, "")
                    listWidget.addItem(item)
        self._select()

    def _select(self) -> None:
        """Select the chosen model in the list, if it is there."""
        name = self.parameters.model if self.parameters is not None else ""
        listWidget = self.ui.modelListWidget
        with signalsBlocked(listWidget):
            listWidget.clearSelection()
            for row in range(listWidget.model().rowCount()):
                item = listWidget.item(row)
                if name and item.data(qt.Qt.UserRole) == name:
                    listWidget.setCurrentItem(item)

    def _choose(self) -> None:
        items = self.ui.modelListWidget.selectedItems()
        if items and self.parameters is not None:
            self.chooseModel(items[0].data(qt.Qt.UserRole))

    def _showFit(self, reasons: Sequence[str]) -> None:
        """Show why the volume may not suit the model."""
        title = html.escape(_("This volume may not suit the model:"))
        points = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
        self.ui.fitNote.setText(f"<b>⚠ {title}</b><ul>{points}</ul>" if reasons else "")
        self.ui.fitNote.setVisible(bool(reasons))

    def _noCardHtml(self) -> str:
        """What is shown in place of a card."""
        name = self.parameters.model if self.parameters is not None else ""
        parts = []
        if name:
            text = _("The model {name} that was chosen is not on this computer: import it.")
            parts.append(f"<p><b>⚠ {html.escape(text.format(name=name))}</b></p>")
        if self._broken:
            title = html.escape(_("Models that cannot be used:"))
            rows = "".join(
                f"<li>{html.escape(str(folder))}: {html.escape(reason)}</li>"
                for folder, reason in self._broken
            )
            parts.append(f"<p>{title}</p><ul>{rows}</ul>")
        return "".join(parts)


def _cardItem(card: Card) -> Any:
    marks = [card.modality]
    if card.simulated:
        marks.append(_("simulated data"))
    if card.task == "segmentation":
        marks.append(_("segmentation"))
    elif card.task == "classification":
        marks.append(_("classification"))
    item = qt.QListWidgetItem(f"{card.title} ({', '.join(marks)})")
    item.setData(qt.Qt.UserRole, card.name)
    kind = _("It came with TomoSeg.") if card.shipped else _("You have imported it.")
    if card.simulated:
        kind += " " + _("It was trained on simulated data.")
    item.setToolTip(kind)
    return item
