"""The section Result: looking at what a run has found, alone or beside another."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from TomoSegPanel import display, sequences
from TomoSegPanel.comparison import Comparison, Side
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.provenance import PARTIAL, readJob, readRecord, recordedInputs, repetition
from TomoSegPanel.section import Section, fillCombo, selectData, signalsBlocked


class ResultSection(Section):
    """Shows the chosen result over its scan."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._overlay = display.Overlay()
        self._comparison = Comparison(self._comparisonEnded)
        self._compared: Any = None
        self._shownPeaks: str | None = None
        ui = self.ui
        for selector in (ui.heatmapSelector, ui.compareSelector):
            selector.addAttribute("vtkMRMLScalarVolumeNode", display.MAP, "heatmap")
            selector.addAttribute("vtkMRMLSegmentationNode", display.MAP, "segmentation")
        fillCombo(
            ui.mapCombo,
            [
                ("heatmap", _("Heatmap")),
                ("agreement", _("Agreement of the directions")),
                ("none", _("Scan alone")),
            ],
            "heatmap",
        )
        ui.mapCombo.connect("currentIndexChanged(int)", self._chooseMap)
        ui.compareButton.connect("clicked(bool)", self.compare)
        ui.peaksTree.header().setSectionResizeMode(qt.QHeaderView.Stretch)
        ui.peaksTree.connect("itemSelectionChanged()", self._jump)
        ui.runAgainButton.connect("clicked()", self.runAgain)
        ui.removeResultButton.connect("clicked()", self.remove)

    def refresh(self) -> None:
        """Of `Section`."""
        parameters, result = self.parameters, self.parameters.heatmap
        record = readRecord(result)
        selectData(self.ui.mapCombo, parameters.shownMap)
        hasMap = any(map(display.isVolume, (result, parameters.compareWith)))
        for name in ("mapCombo", "opacitySlider", "showAboveSlider", "legendCheckBox"):
            getattr(self.ui, name).setEnabled(hasMap)
        self.ui.runAgainButton.setEnabled(record is not None)
        self.ui.removeResultButton.setEnabled(record is not None)
        self.ui.recordNote.setText(_recordText(result, record))
        self._showPlaces(result, record)
        self._showComparison()
        self.showMap()

    def showMap(self) -> None:
        """Show the chosen map over the scan."""
        parameters = self.parameters
        results = [parameters.heatmap]
        if self._comparison.isShown:
            results.append(parameters.compareWith)
        maps = [self._shownMap(result) for result in results]
        if maps[0] is None:
            self._overlay.hide()
        else:
            self._overlay.show(maps[0], parameters.opacity)
        explained = [each for each in maps if each is not None and parameters.legend]
        self._overlay.showLegends(explained, self.ui.mapCombo.currentText)

    def compare(self, on: bool) -> None:
        """Show the two chosen results side by side, or go back to the user's layout."""
        if self.parameters is None:
            return
        if not on:
            self._comparison.end()
        elif self.parameters.compareWith is not None:
            self._compareSides()
        self.refresh()

    def runAgain(self) -> None:
        """Repeat the run of the shown result."""
        result = self.parameters.heatmap
        record = readRecord(result)
        if record is None:
            return
        card = self.panel.models.card(str(record["model"]["name"]))
        volumes = recordedInputs(result)
        gone = [name for name, node in volumes.items() if node is None]
        if card is None or gone or not volumes:
            missing = ", ".join(gone) if card is not None else str(record["model"]["name"])
            slicer.util.errorDisplay(
                _("The run cannot be repeated: {missing} is no longer there.").format(
                    missing=missing
                )
            )
            return
        extra = repetition(record)
        settings = RunSettings(
            card, method=extra.get("method"), device=extra["device"], extra=extra
        )
        self.panel.run.start(settings, volumes, everyFrame="frames" in extra)

    def remove(self) -> None:
        """Take the shown result out of the scene, if the user agrees."""
        result = self.parameters.heatmap
        if readRecord(result) is None:
            return
        text = _("Remove {name} from the scene?").format(name=result.GetName())
        if not slicer.util.confirmOkCancelDisplay(text):
            return
        self._comparison.end()
        self._overlay.hide()
        self.parameters.heatmap = None
        if not sequences.removeResult(result):
            for node in (display.agreementOf(result), result):
                if node is not None:
                    slicer.mrmlScene.RemoveNode(node)
        self.panel.refresh()

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._comparison.end()
        self._overlay.forget()
        self._compared = self._shownPeaks = None
        self.ui.peaksTree.clear()
        self.ui.compareButton.setChecked(False)

    def cleanup(self) -> None:
        """Of `Section`."""
        self._comparison.cleanup()
        self._overlay.hide()

    def _shownMap(self, result: Any) -> Any:
        """The map of a result that is chosen, ready to be shown; None where there is none."""
        if not display.isVolume(result):
            return None
        shown = {"heatmap": result, "agreement": display.agreementOf(result)}.get(
            self.parameters.shownMap
        )
        if shown is None or shown.GetImageData() is None or shown.GetDisplayNode() is None:
            return None
        if shown is result and display.isHeatmap(result):
            high = result.GetDisplayNode().GetWindowLevelMax()
            display.setRange(result, 0.0, high, self.parameters.showAbove * high)
        return shown

    # -- two results -------------------------------------------------------------------------------

    def _showComparison(self) -> None:
        """Bring the views of the comparison, and what controls it, up to date."""
        parameters, button = self.parameters, self.ui.compareButton
        if slicer.mrmlScene.IsImporting():
            return  # a scene is being read: what is compared may be still to come
        before, self._compared = self._compared, parameters.heatmap
        if self._comparison.isShown and parameters.heatmap is parameters.compareWith is not before:
            parameters.compareWith = before  # the lower one was chosen above: they change places
        other = parameters.compareWith
        possible = other is not None and parameters.heatmap not in (None, other)
        if self._comparison.isShown:
            if parameters.layoutBefore:  # the scene was saved during a comparison
                self._comparison.layoutBefore = parameters.layoutBefore
            if possible:
                self._compareSides()
            else:
                self._comparison.end()
        with signalsBlocked(button):
            button.setChecked(self._comparison.isShown)
        button.setEnabled(possible or self._comparison.isShown)
        if possible:
            tip = _("Show both results in linked slice views, the first above the second.")
        else:
            tip = _("Choose another result to compare with.")
        button.setToolTip(tip)
        text = ""
        if self._comparison.isShown:
            text = _("A, above: {upper}. B, below: {lower}.").format(
                upper=parameters.heatmap.GetName(), lower=other.GetName()
            )
        self.ui.compareNote.setText(text)
        self.ui.compareNote.setVisible(bool(text))

    def _compareSides(self) -> None:
        parameters = self.parameters
        results = (parameters.heatmap, parameters.compareWith)
        begins = not self._comparison.isShown
        self._comparison.show([self._side(each) for each in results], parameters.opacity)
        parameters.layoutBefore = self._comparison.layoutBefore
        places = [place for each in results for place, _text in display.places(each)]
        if begins and places:
            display.jumpTo(results[0], places[0], comparisonOnly=True)

    def _side(self, result: Any) -> Side:
        scan = next(iter(recordedInputs(result).values()), None) or self.parameters.inputVolume
        isVolume = display.isVolume(result)
        return Side(scan, self._shownMap(result), None if isVolume else result)

    def _comparisonEnded(self) -> None:
        if self.parameters is not None:
            self.refresh()

    # -- peaks -------------------------------------------------------------------------------------

    def _chooseMap(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.shownMap = self.ui.mapCombo.itemData(index)

    def _showPlaces(self, result: Any, record: Any) -> None:
        shown = None if result is None else f"{result.GetID()} {record is not None}"
        if shown == self._shownPeaks:
            return
        self._shownPeaks = shown
        tree = self.ui.peaksTree
        tree.clear()
        isVolume = result is None or display.isVolume(result)
        tree.headerItem().setText(0, _("Value") if isVolume else _("Part"))
        for ras, text in display.places(result) if result is not None else ():
            world = display.toWorld(result, ras)
            texts = [text, *(f"{millimetres:.1f}" for millimetres in world)]
            item = qt.QTreeWidgetItem(texts)
            item.setToolTip(0, text)
            tree.addTopLevelItem(item)

    def _jump(self) -> None:
        items = self.ui.peaksTree.selectedItems()
        heatmap = self.parameters.heatmap if self.parameters is not None else None
        if items and heatmap is not None:
            index = self.ui.peaksTree.indexOfTopLevelItem(items[0])
            display.jumpTo(heatmap, display.places(heatmap)[index][0])


def _recordText(result: Any, record: Any) -> str:
    """Where a result comes from, for people."""
    if result is None:
        return ""
    partial = result.GetAttribute(PARTIAL)
    if partial:
        text = _("Unfinished: the heatmap of {count} directions.").format(count=partial)
        job = readJob(result)
        if job is not None:
            text += " " + _("Model {model}.").format(model=job.get("model", ""))
        return text
    if record is None:
        return _("This was not made by TomoSeg.")
    job, model = record["job"], record["model"]
    parts = [f"{model['name']} {model['version']}", job.get("method"), job.get("directions")]
    text = _("{what}, on {device}, {time}").format(
        what=", ".join(part for part in parts if part),
        device=record["environment"]["device_name"] or record["environment"]["device"],
        time=record["created_at"],
    )
    if model["simulated"]:
        text += ". " + _("The model has learnt from simulated data.")
    return text
