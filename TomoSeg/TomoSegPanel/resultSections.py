"""The sections Result and Mask: looking at a heatmap, and keeping a segment of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from TomoSegPanel import display
from TomoSegPanel.mask import (
    MaskPreview,
    MaskSettings,
    cardThreshold,
    makeMask,
    makeSegment,
    segmentStatistics,
    writeStatistics,
)
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.provenance import PARTIAL, readRecord, recordedInputs, repetition
from TomoSegPanel.section import Section, fillCombo, selectData, signalsBlocked


class ResultSection(Section):
    """Shows the chosen heatmap over the scan."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._overlay = display.Overlay()
        self._shownPeaks: str | None = None
        self.ui.heatmapSelector.addAttribute("vtkMRMLScalarVolumeNode", display.MAP, "heatmap")
        fillCombo(
            self.ui.mapCombo,
            [
                ("heatmap", _("Heatmap")),
                ("agreement", _("Agreement of the directions")),
                ("none", _("Scan alone")),
            ],
            "heatmap",
        )
        self.ui.mapCombo.connect("currentIndexChanged(int)", self._chooseMap)
        self.ui.peaksTree.connect("itemSelectionChanged()", self._jump)
        self.ui.runAgainButton.connect("clicked()", self.runAgain)

    def refresh(self) -> None:
        """Of `Section`."""
        parameters, heatmap = self.parameters, self.parameters.heatmap
        selectData(self.ui.mapCombo, parameters.shownMap)
        self.ui.runAgainButton.setEnabled(readRecord(heatmap) is not None)
        self.ui.recordNote.setText(_recordText(heatmap))
        self._showPeaks(heatmap)
        self.showMap()

    def showMap(self) -> None:
        """Show the chosen map over the scan."""
        parameters, heatmap = self.parameters, self.parameters.heatmap
        shown = {
            "heatmap": heatmap,
            "agreement": display.agreementOf(heatmap),
        }.get(parameters.shownMap)
        if shown is None or shown.GetImageData() is None or shown.GetDisplayNode() is None:
            self._overlay.hide()
            return
        if shown is heatmap and _isOurs(heatmap):
            high = heatmap.GetDisplayNode().GetWindowLevelMax()
            display.setRange(heatmap, 0.0, high, parameters.showAbove * high)
        self._overlay.show(shown, parameters.opacity)
        if parameters.legend:
            self._overlay.showLegend(shown, self.ui.mapCombo.currentText)
        else:
            self._overlay.hideLegend()

    def runAgain(self) -> None:
        """Repeat the run of the shown heatmap."""
        heatmap = self.parameters.heatmap
        record = readRecord(heatmap)
        if record is None:
            return
        card = self.panel.models.card(str(record["model"]["name"]))
        volumes = recordedInputs(heatmap)
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
        settings = RunSettings(card, method=extra["method"], device=extra["device"], extra=extra)
        self.panel.run.start(settings, volumes)

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._overlay.forget()
        self._shownPeaks = None
        self.ui.peaksTree.clear()

    def cleanup(self) -> None:
        """Of `Section`."""
        self._overlay.hide()

    def _chooseMap(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.shownMap = self.ui.mapCombo.itemData(index)

    def _showPeaks(self, heatmap: Any) -> None:
        shown = None if heatmap is None else f"{heatmap.GetID()} {bool(readRecord(heatmap))}"
        if shown == self._shownPeaks:
            return
        self._shownPeaks = shown
        tree = self.ui.peaksTree
        tree.clear()
        for ras, value in display.peaks(heatmap) if heatmap is not None else ():
            texts = [f"{value:.4g}", *(f"{millimetres:.1f}" for millimetres in ras)]
            tree.addTopLevelItem(qt.QTreeWidgetItem(texts))

    def _jump(self) -> None:
        items = self.ui.peaksTree.selectedItems()
        heatmap = self.parameters.heatmap if self.parameters is not None else None
        if items and heatmap is not None:
            index = self.ui.peaksTree.indexOfTopLevelItem(items[0])
            display.jumpTo(heatmap, display.peaks(heatmap)[index][0])


class MaskSection(Section):
    """Turns the chosen heatmap into a segment."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._preview = MaskPreview()
        self._rangeOf: tuple[str, float] | None = None
        self._made: list[tuple[str, str]] = []
        ui = self.ui
        fillCombo(
            ui.componentsCombo,
            [
                ("all", _("All")),
                ("largest", _("The largest")),
                ("peak", _("The one with the highest peak")),
            ],
            "all",
        )
        ui.thresholdSlider.connect("valueChanged(double)", self._chooseThreshold)
        ui.componentsCombo.connect("currentIndexChanged(int)", self._chooseComponents)
        ui.makeSegmentButton.connect("clicked()", self.makeSegment)
        ui.undoSegmentButton.connect("clicked()", self.undo)
        ui.editSegmentButton.connect("clicked()", self.edit)

    def refresh(self) -> None:
        """Of `Section`."""
        parameters, heatmap = self.parameters, self.parameters.heatmap
        usable = heatmap is not None and heatmap.GetImageData() is not None
        selectData(self.ui.componentsCombo, parameters.components)
        if usable:
            self._fitSlider(heatmap)
        for name in ("thresholdSlider", "previewCheckBox", "makeSegmentButton"):
            getattr(self.ui, name).setEnabled(usable)
        self.ui.undoSegmentButton.setEnabled(self._lastMade() is not None)
        self.ui.editSegmentButton.setEnabled(parameters.segmentation is not None)
        if usable and parameters.preview:
            self._preview.update(heatmap, self._settings())
        else:
            self._preview.hide()

    def useCardThreshold(self, heatmap: Any) -> None:
        """Start from the threshold that the run itself has used."""
        record = readRecord(heatmap)
        if record is not None:
            self.parameters.threshold = cardThreshold(record)

    def makeSegment(self) -> None:
        """Add the mask to the segmentation."""
        parameters, heatmap = self.parameters, self.parameters.heatmap
        array = slicer.util.arrayFromVolume(heatmap)
        mask = makeMask(array, heatmap.GetSpacing(), self._settings())
        if not mask.any():
            slicer.util.infoDisplay(
                _("The mask is empty: lower the threshold or the size of the smallest island.")
            )
            return
        node = parameters.segmentation
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLSegmentationNode",
                slicer.mrmlScene.GenerateUniqueName(
                    _("{heatmap} segmentation").format(heatmap=heatmap.GetName())
                ),
            )
            node.CreateDefaultDisplayNodes()
            parameters.segmentation = node
        record = readRecord(heatmap)
        labels = record["model"]["labels"] if record is not None else [{}]
        segmentId = makeSegment(mask, heatmap, node, labels[0])
        self._made.append((node.GetID(), segmentId))
        self._showStatistics(node, segmentId, mask, heatmap)
        parameters.preview = False
        self.refresh()

    def undo(self) -> None:
        """Take the last segment that was made away again."""
        last = self._lastMade()
        if last is not None:
            node, segmentId = last
            self._made.pop()
            node.GetSegmentation().RemoveSegment(segmentId)
            self.ui.statisticsNote.setText("")
        self.refresh()

    def edit(self) -> None:
        """Open the segmentation in the Segment Editor, with the heatmap as its source."""
        segmentation, heatmap = self.parameters.segmentation, self.parameters.heatmap
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(heatmap)

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._preview.hide()
        self._made.clear()
        self._rangeOf = None
        self.ui.statisticsNote.setText("")

    def hidden(self) -> None:
        """Of `Section`."""
        self._preview.hide()

    def cleanup(self) -> None:
        """Of `Section`."""
        self._preview.hide()

    def _settings(self) -> MaskSettings:
        parameters = self.parameters
        return MaskSettings(
            parameters.threshold,
            parameters.components,
            parameters.minimumSizeMl,
            parameters.smoothingMm,
        )

    def _fitSlider(self, heatmap: Any) -> None:
        """Let the slider span the heatmap's values, with steps that suit them."""
        slider = self.ui.thresholdSlider
        high = _maximum(heatmap)
        with signalsBlocked(slider):
            if self._rangeOf != (heatmap.GetID(), high):
                self._rangeOf = (heatmap.GetID(), high)
                slider.setDecimals(max(0, 3 - math.floor(math.log10(high))))
                slider.maximum = high
                slider.minimum = 0.0
                slider.singleStep, slider.pageStep = high / 200, high / 20
            slider.setValue(self.parameters.threshold)

    def _chooseThreshold(self, value: float) -> None:
        if self.parameters is not None:
            self.parameters.threshold = value

    def _chooseComponents(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.components = self.ui.componentsCombo.itemData(index)

    def _lastMade(self) -> tuple[Any, str] | None:
        """The segment that was made last, if it is still there."""
        while self._made:
            nodeId, segmentId = self._made[-1]
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is not None and node.GetSegmentation().GetSegment(segmentId) is not None:
                return node, segmentId
            self._made.pop()
        return None

    def _showStatistics(self, node: Any, segmentId: str, mask: np.ndarray, heatmap: Any) -> None:
        """The figures of a new segment: in the panel, and in a table in the scene."""
        figures = segmentStatistics(mask, heatmap)
        name = node.GetSegmentation().GetSegment(segmentId).GetName()
        table = node.GetNodeReference("TomoSeg.Statistics")
        if table is None:
            table = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLTableNode", _("{name} figures").format(name=node.GetName())
            )
            node.SetNodeReferenceID("TomoSeg.Statistics", table.GetID())
            writeStatistics(table, [(name, figures)])
        else:
            row = table.AddEmptyRow()
            for column, value in enumerate((name, *figures.values())):
                table.SetCellText(row, column, str(value))
        self.ui.statisticsNote.setText(
            _("{name}: {volume} ml, peak {peak}, mean {mean}").format(
                name=name,
                volume=f"{figures['volume_ml']:.3g}",
                peak=f"{figures['peak']:.4g}",
                mean=f"{figures['mean']:.4g}",
            )
        )


def _isOurs(heatmap: Any) -> bool:
    return readRecord(heatmap) is not None or heatmap.GetAttribute(PARTIAL) is not None


def _maximum(heatmap: Any) -> float:
    """The heatmap's greatest value, as its colours end there; above 0."""
    node = heatmap.GetDisplayNode()
    high = node.GetWindowLevelMax() if node is not None and _isOurs(heatmap) else 0.0
    if not high > 0:
        high = heatmap.GetImageData().GetScalarRange()[1]
    return high if high > 0 else 1.0


def _recordText(heatmap: Any) -> str:
    if heatmap is None:
        return ""
    partial = heatmap.GetAttribute(PARTIAL)
    if partial:
        return _("Unfinished: the heatmap of {count} directions.").format(count=partial)
    record = readRecord(heatmap)
    if record is None:
        return _("This volume was not made by TomoSeg.")
    job, model = record["job"], record["model"]
    text = _("{model} {version}, {method}, {directions}, on {device}, {time}").format(
        model=model["name"],
        version=model["version"],
        method=job["method"],
        directions=job["directions"],
        device=record["environment"]["device_name"] or record["environment"]["device"],
        time=record["created_at"],
    )
    if model["simulated"]:
        text += ". " + _("The model has learnt from simulated data.")
    return text
