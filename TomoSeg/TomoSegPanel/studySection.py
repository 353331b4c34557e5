"""The section Imaging planes: a study of several views, and the lines in which they cut."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, ProgressEvent
from TomoSegPanel import studyScene
from TomoSegPanel.section import Section, fillCombo, selectData, showRow, signalsBlocked
from TomoSegPanel.studyInspector import InspectedStudy, StudyInspector
from TomoSegPanel.studyTable import TABLE_FILE, kindTitles, tableRows, writeTable
from TomoSegPanel.studyViews import StudyViews, sliceNodes
from TomoSegPanel.worker import WorkerProcess

_MOST_WARNINGS = 12


class StudySection(Section):
    """Lets the engine inspect a study, and shows what it has found in the views.

    Attributes:
        makeWorker: Makes the workers; tests put others in its place.
        views: The slice views that show the study.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.makeWorker: Any = WorkerProcess
        self.views = StudyViews()
        self._inspector = StudyInspector(
            self._onProgress, self._onEnd, lambda path, onEvent: self.makeWorker(path, onEvent)
        )
        self._text = ""
        self._record: dict[str, Any] | None = None
        self._rows: list[dict[str, str]] = []
        self._selected = ""
        self._inspecting = ("", False)
        ui = self.ui
        ui.studyFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.studyFolderEdit.connect("currentPathChanged(QString)", self._chooseFolder)
        ui.inspectButton.connect("clicked()", self.inspect)
        ui.inspectCancelButton.connect("clicked()", self._inspector.cancel)
        ui.viewsTree.connect("itemSelectionChanged()", self._chooseView)
        # What is selected already can be turned to again.
        ui.viewsTree.connect("itemClicked(QTreeWidgetItem*,int)", self._chooseView)
        ui.viewKindCombo.connect("currentIndexChanged(int)", self._correct)
        ui.viewUsedCheckBox.connect("toggled(bool)", self._correct)
        ui.viewBaseCombo.connect("currentIndexChanged(int)", self._correct)
        ui.studySliceCombo.connect("currentIndexChanged(int)", self._showSelected)
        ui.saveTableButton.connect("clicked()", self.saveTable)
        ui.restoreViewsButton.connect("clicked()", self.restoreViews)
        ui.removeStudyButton.connect("clicked()", self.remove)
        fillCombo(ui.viewKindCombo, list(kindTitles().items()), "unknown")
        ends = [("first", _("At the first slice")), ("last", _("At the last slice"))]
        fillCombo(ui.viewBaseCombo, ends, "first")
        for column, width in enumerate((112, 92, 46, 50)):
            ui.viewsTree.setColumnWidth(column, width)
        self._showJob(False)
        self._say([])

    # -- inspecting --------------------------------------------------------------------------------

    def inspect(self) -> None:
        """Let the engine read the chosen study, with the corrections if it is the one shown."""
        folder = self.parameters.studyFolder
        record = self._record
        again = record is not None and record["folder"] == folder
        corrected = again and (bool(record.get("corrected")) or self._isCorrected())
        self._inspecting = (folder, corrected)
        self._say([])
        self._showJob(True)
        self._inspector.start(folder, self._rows if corrected else None)
        self.refresh()

    def saveTable(self) -> None:
        """Keep the corrected table with the study, where the engine looks for it."""
        record = self._record
        path = Path(record["folder"]) / TABLE_FILE
        question = _("{path} is there already. Replace it?").format(path=path)
        if path.exists() and not slicer.util.confirmOkCancelDisplay(question):
            return
        try:
            writeTable(path, record["table"])
        except OSError as error:
            slicer.util.errorDisplay(
                _("The table could not be saved: {error}. Choose a study in a folder in which "
                  "you may write.").format(error=error)
            )  # fmt: skip
            return
        self.parameters.study = json.dumps({**record, "corrected": False})
        self._say([html.escape("✓ " + _("Saved: {path}").format(path=path))])
        self.refresh()

    def restoreViews(self) -> None:
        """Give the slice views back as they were; the study stays in the scene."""
        self.views.restore()
        self._showLines()
        self.refresh()

    def remove(self) -> None:
        """Take the study out of the scene, and give the slice views back."""
        self.views.restore()
        studyScene.removeStudy()
        self._say([])
        self.parameters.study = ""
        self.refresh()

    def _onProgress(self, event: ProgressEvent) -> None:
        titles = {
            "read": _("Reading headers"),
            "pixels": _("Reading images"),
            "write": _("Handing the views over"),
        }
        self.ui.studyNote.setText(html.escape(titles.get(event.stage, event.stage) + "…"))
        self.ui.studyNote.setVisible(True)
        self.ui.inspectProgressBar.setMaximum(event.total or 0)
        self.ui.inspectProgressBar.setValue(event.done if event.total else 0)

    def _onEnd(self, outcome: InspectedStudy | ErrorEvent) -> None:
        self._showJob(False)
        if isinstance(outcome, InspectedStudy):
            self._show(outcome)
        elif outcome.code == "cancelled":
            self._say([html.escape(_("Cancelled; the scene is as it was."))])
        else:
            what = html.escape(outcome.message)
            self._say([f"<b>✖ {what}</b> {html.escape(outcome.hint)}"])
        self.refresh()

    def _show(self, study: InspectedStudy) -> None:
        """Put the study in the place of the one before, and show its first views."""
        studyScene.removeStudy()
        self.views.shown.clear()
        studyScene.addStudy(study)
        folder, corrected = self._inspecting
        record = json.loads(studyScene.studyText(folder, study))
        self.parameters.study = json.dumps({**record, "corrected": corrected})
        self.refresh()
        views = {view["name"]: view for view in study.data["views"]}
        first = self._selected if self._selected in views else next(iter(views))
        chosen = self._sliceNode()
        others = [node for node in sliceNodes() if node is not chosen]
        for name, node in zip(views[first]["others"], others[:2], strict=False):
            self.views.show(views[name], node)
        self._select(first)
        self.views.lookAt(list(views.values()))
        lines = [f"⚠ {html.escape(each.message)}" for each in study.warnings[:_MOST_WARNINGS]]
        more = len(study.warnings) - len(lines)
        if more > 0:
            lines.append(html.escape(_("… and {count} more").format(count=more)))
        drawn = sum("endpoints_mm" in line for line in study.data["lines"])
        found = _("{views} views, {lines} lines").format(views=len(views), lines=drawn)
        self._say([html.escape(f"✓ {found}"), *lines])

    # -- the table ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Of `Section`."""
        parameters, ui = self.parameters, self.ui
        if ui.studyFolderEdit.currentPath != parameters.studyFolder:
            with signalsBlocked(ui.studyFolderEdit):
                ui.studyFolderEdit.setCurrentPath(parameters.studyFolder)
        if parameters.study != self._text:
            self._text = parameters.study
            self._record = studyScene.readStudy(self._text)
            self._rows = tableRows(self._record["data"]) if self._record is not None else []
            self._fillTree()
        names = [(node.GetLayoutName(), node.GetLayoutName()) for node in sliceNodes()]
        fillCombo(ui.studySliceCombo, names, ui.studySliceCombo.currentData or "Red")
        running, record = self._inspector.isRunning, self._record
        reason = _("Reads the study in the background, and shows its views and lines.")
        if running:
            reason = _("A study is being inspected.")
        elif not parameters.studyFolder:
            reason = _("Choose the folder of a study first.")
        elif self._isCorrected():
            reason = _("Reads the study again, with your corrections.")
        ui.inspectButton.setEnabled(bool(parameters.studyFolder) and not running)
        ui.inspectButton.setToolTip(reason)
        row = self._row(self._selected)
        for widget in (ui.viewKindCombo, ui.viewUsedCheckBox, ui.viewBaseCombo):
            widget.setEnabled(row is not None and not running)
        if row is not None:
            selectData(ui.viewKindCombo, row["kind"])
            selectData(ui.viewBaseCombo, row["base"])
            with signalsBlocked(ui.viewUsedCheckBox):
                ui.viewUsedCheckBox.setChecked(row["use"] == "yes")
        corrected = record is not None and bool(record.get("corrected"))
        ui.saveTableButton.setEnabled(corrected and not self._isCorrected() and not running)
        ui.saveTableButton.setToolTip(self._saveReason(corrected))
        ui.restoreViewsButton.setEnabled(self.views.canRestore)
        ui.removeStudyButton.setEnabled(record is not None and not running)
        for name in ("viewsTree", "viewKindCombo", "viewKindComboLabel", "viewUsedCheckBox",
                     "studySliceCombo", "studySliceComboLabel"):  # fmt: skip
            getattr(ui, name).setVisible(record is not None)
        showRow(ui, "viewBaseCombo", row is not None and row["kind"] == "short-axis")

    def _saveReason(self, corrected: bool) -> str:
        if self._isCorrected():
            return _("Inspect the study with the corrections first.")
        if not corrected:
            return _("Correct a view and inspect the study again first.")
        return _("Writes the corrected table to {file} in the study's folder.").format(
            file=TABLE_FILE
        )

    def _isCorrected(self) -> bool:
        """Whether there are corrections that the engine has not seen."""
        return self._record is not None and self._rows != tableRows(self._record["data"])

    def _fillTree(self) -> None:
        tree = self.ui.viewsTree
        with signalsBlocked(tree):
            tree.clear()
            for row, view in zip(self._rows, self._allViews(), strict=True):
                spacing = "×".join(dict.fromkeys(f"{size:.3g}" for size in view["spacing_mm"]))
                counts = [str(view["slices"]), str(view["phases"]), spacing]
                item = qt.QTreeWidgetItem([view["name"], "", *counts])
                about = dict.fromkeys([view["name"], view["description"], view["file"]])
                item.setToolTip(0, "\n".join(filter(None, about)))
                if "color" in view:
                    patch = qt.QPixmap(12, 12)
                    patch.fill(qt.QColor(view["color"]))
                    item.setIcon(0, qt.QIcon(patch))
                self._showKind(item, row)
                tree.addTopLevelItem(item)
        names = [row["name"] for row in self._rows]
        self._selected = self._selected if self._selected in names else next(iter(names), "")
        self._markSelected()

    def _showKind(self, item: Any, row: dict[str, str]) -> None:
        title = kindTitles().get(row["kind"], row["kind"])
        if row["use"] != "yes":
            title = _("{kind}, not used").format(kind=title)
        was = next(r for r in tableRows(self._record["data"]) if r["id"] == row["id"])
        item.setText(1, title if row == was else f"✎ {title}")

    def _allViews(self) -> Sequence[dict[str, Any]]:
        data = self._record["data"] if self._record is not None else {"views": [], "unused": []}
        return [*data["views"], *data["unused"]]

    def _row(self, name: str) -> dict[str, str] | None:
        return next((row for row in self._rows if row["name"] == name), None)

    def _correct(self, value: Any = None) -> None:
        """Take kind, base and use of the selected view from their widgets."""
        row = self._row(self._selected)
        if row is None or self.parameters is None:
            return
        row["kind"] = self.ui.viewKindCombo.currentData
        row["base"] = self.ui.viewBaseCombo.currentData
        row["use"] = "yes" if self.ui.viewUsedCheckBox.isChecked() else "no"
        self._showKind(self.ui.viewsTree.topLevelItem(self._rows.index(row)), row)
        self.refresh()

    # -- the views ---------------------------------------------------------------------------------

    def _chooseView(self, item: Any = None, column: int = 0) -> None:
        items = self.ui.viewsTree.selectedItems()
        if items and self.parameters is not None:
            index = self.ui.viewsTree.indexOfTopLevelItem(items[0])
            self._select(self._rows[index]["name"])

    def _select(self, name: str) -> None:
        """Select a view in the table, and show it in the chosen slice view."""
        self._selected = name
        self._markSelected()
        self._showSelected()
        self.refresh()

    def _markSelected(self) -> None:
        tree = self.ui.viewsTree
        with signalsBlocked(tree):
            for index, row in enumerate(self._rows):
                if row["name"] == self._selected:
                    tree.setCurrentItem(tree.topLevelItem(index))

    def _showSelected(self, index: int = 0) -> None:
        view = next((v for v in self._allViews() if v["name"] == self._selected), None)
        node = self._sliceNode()
        if view is None or "volume" not in view or node is None or self.parameters is None:
            return
        self._swap(view["name"], node)
        self.views.show(view, node)
        self._showLines()
        self.ui.restoreViewsButton.setEnabled(self.views.canRestore)

    def _swap(self, name: str, node: Any) -> None:
        """Let the slice view that shows a view already show what it is to take the place of."""
        instead = self.views.shown.get(node.GetID())
        for other in sliceNodes():
            if other is not node and self.views.shown.get(other.GetID()) == name:
                for view in self._record["data"]["views"]:
                    if view["name"] == instead:
                        self.views.show(view, other)

    def _showLines(self) -> None:
        studyScene.showLines(self._selected, self.views.showing)

    def _sliceNode(self) -> Any:
        nodes, name = sliceNodes(), self.ui.studySliceCombo.currentData
        return next((n for n in nodes if n.GetLayoutName() == name), nodes[0] if nodes else None)

    # -- the rest ----------------------------------------------------------------------------------

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._inspector.abandon()
        self.views.forget()
        self._text, self._record, self._rows, self._selected = "", None, [], ""
        self.ui.viewsTree.clear()
        selectData(self.ui.studySliceCombo, "Red")
        self._showJob(False)
        self._say([])

    def cleanup(self) -> None:
        """Of `Section`."""
        self._inspector.abandon()

    def _chooseFolder(self, path: str) -> None:
        if self.parameters is not None:
            self.parameters.studyFolder = os.path.abspath(path) if path else ""

    def _showJob(self, running: bool) -> None:
        self.ui.inspectProgressBar.setMaximum(0)
        self.ui.inspectProgressBar.setVisible(running)
        self.ui.inspectCancelButton.setVisible(running)

    def _say(self, lines: Sequence[str]) -> None:
        """Show lines of HTML."""
        self.ui.studyNote.setText("<br>".join(lines))
        self.ui.studyNote.setVisible(bool(lines))
