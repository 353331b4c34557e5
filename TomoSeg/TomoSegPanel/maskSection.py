"""The section Mask: keeping a segment of a heatmap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import slicer
from slicer.i18n import tr as _

from TomoSegPanel import display, segments
from TomoSegPanel.background import Background
from TomoSegPanel.mask import Mask, MaskSettings, cutMask
from TomoSegPanel.maskPreview import MaskPreview
from TomoSegPanel.maskRefiner import MaskRefiner, Wish, sourceOf
from TomoSegPanel.provenance import (
    HEATMAP_ROLE,
    readRecord,
    readSegmentRecord,
    recordedInputs,
    writeSegmentRecord,
)
from TomoSegPanel.section import Section, fillCombo, selectData, signalsBlocked
from TomoSegPanel.strokes import strokesOf
from TomoSegPanel.worker import WorkerProcess

_AT_ONCE_MS = 50
"""A mask that is ready after this time is shown before the click returns."""


class MaskSection(Section):
    """Turns the chosen heatmap into a segment; everything that takes time is in the background.

    Attributes:
        makeWorker: Makes the workers that refine masks; tests put others in its place.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._preview = MaskPreview()
        self._history = segments.SegmentHistory()
        self._background = Background()
        self.makeWorker: Any = WorkerProcess
        self._refiner = MaskRefiner(
            self._onRefined, lambda path, onEvent: self.makeWorker(path, onEvent)
        )
        self._working = False
        self._keepsWhenRefined = False
        self._rangeOf: tuple[str, float] | None = None
        ui = self.ui
        self._bordersToolTip = ui.bordersCombo.toolTip
        fillCombo(
            ui.bordersCombo,
            [("heatmap", _("As the heatmap")), ("image", _("Follow the image"))],
            "heatmap",
        )
        fillCombo(
            ui.componentsCombo,
            [
                ("all", _("All")),
                ("largest", _("The largest")),
                ("peak", _("The one with the highest peak")),
            ],
            "all",
        )
        fillCombo(
            ui.refineCombo,
            [
                ("", _("As the model")),
                ("random-walker", _("Random walker")),
                ("geodesic", _("Geodesic distance")),
                ("graph-cut", _("Graph cut")),
                ("threshold", _("Intensity alone")),
            ],
            "",
        )
        ui.thresholdSlider.connect("valueChanged(double)", self._chooseThreshold)
        ui.refineCombo.connect("currentIndexChanged(int)", self._chooseRefinement)
        ui.bordersCombo.connect("currentIndexChanged(int)", self._chooseBorders)
        ui.componentsCombo.connect("currentIndexChanged(int)", self._chooseComponents)
        ui.makeSegmentButton.connect("clicked()", self.makeSegment)
        ui.undoSegmentButton.connect("clicked()", self.undo)
        ui.redoSegmentButton.connect("clicked()", self.redo)
        ui.editSegmentButton.connect("clicked()", self.edit)
        ui.measureButton.connect("clicked()", self.measure)

    @property
    def heatmap(self) -> Any:
        """The chosen heatmap; None where the result is none, or has no voxels."""
        node = self.parameters.heatmap
        return node if display.isVolume(node) and node.GetImageData() is not None else None

    def refresh(self) -> None:
        """Of `Section`."""
        parameters, heatmap, ui = self.parameters, self.heatmap, self.ui
        selectData(ui.componentsCombo, parameters.components)
        if heatmap is not None:
            self._fitSlider(heatmap)
        for name in (
            "thresholdSlider",
            "previewCheckBox",
            "componentsCombo",
            "minimumSizeSlider",
        ):
            getattr(ui, name).setEnabled(heatmap is not None)
        wish = self._refinement(heatmap)
        selectData(ui.refineCombo, parameters.refineMethod)
        for name in ("refineCombo", "boundarySpinBox", "reachSpinBox", "closingSpinBox"):
            getattr(ui, name).setEnabled(wish is not None)
        if parameters.refineMethod == "threshold":  # it looks at each voxel by itself
            ui.boundarySpinBox.setEnabled(False)
        # A refined mask is as smooth as its own parameters make it.
        ui.smoothingSlider.setEnabled(heatmap is not None and wish is None)
        chosen = parameters.segmentation
        ui.makeSegmentButton.setEnabled(heatmap is not None and not self._working)
        ui.undoSegmentButton.setEnabled(self._history.canUndo() and not self._working)
        ui.redoSegmentButton.setEnabled(self._history.canRedo() and not self._working)
        ui.editSegmentButton.setEnabled(chosen is not None)
        ui.measureButton.setEnabled(chosen is not None and not self._working)
        if heatmap is not None and parameters.preview:
            found = self._refiner.found
            made = found.mask if found is not None else None
            self._preview.update(heatmap, self._settings(), made)
        else:
            self._preview.hide()

    def begin(self, result: Any) -> None:
        """Start from what a run has made: its threshold, or the segmentation of a segmenter."""
        record = readRecord(result)
        if not display.isVolume(result):
            self.parameters.segmentation = result
        elif record is not None and "mask" in record:
            parameters, job = self.parameters, record["job"]
            parameters.threshold = float(record["mask"]["threshold"])
            parameters.borders = "image" if record.get("refinement") else "heatmap"
            parameters.refineMethod = ""
            parameters.boundaryMm, parameters.reachMm, parameters.closingMm = 0.0, 0.0, -1.0
            # As the run's own mask was made.
            if job.get("components") in ("all", "largest", "peak"):
                parameters.components = job["components"]
            if isinstance(job.get("minimum_size_ml"), (int, float)):
                parameters.minimumSizeMl = min(100.0, max(0.0, float(job["minimum_size_ml"])))

    # -- segments ----------------------------------------------------------------------------------

    def makeSegment(self) -> None:
        """Add the mask to the segmentation."""
        if self._follows():
            if self._refiner.error:
                self._refiner.drop()  # its cause may be gone
            self._keepsWhenRefined = True
            self._setWorking(True)
            self._keepRefined()
            return
        heatmap, settings = self.heatmap, self._settings()
        array, spacing = slicer.util.arrayFromVolume(heatmap), heatmap.GetSpacing()
        heatmapId = heatmap.GetID()

        def show(mask: Mask) -> None:
            self._setWorking(False)
            node = slicer.mrmlScene.GetNodeByID(heatmapId)
            if node is not None:  # not deleted meanwhile
                self._keep(mask, node, settings)

        self._setWorking(True)
        self._work(lambda: cutMask(array, spacing, settings), show)

    def undo(self) -> None:
        """Take the last segment that was made away again."""
        if self._history.canUndo():
            segments.showStatistics(self._history.undo())
            self.ui.statisticsNote.setText("")
        self.refresh()

    def redo(self) -> None:
        """Bring the segment back that was taken away last."""
        if self._history.canRedo():
            segments.showStatistics(self._history.redo())
        self.refresh()

    def edit(self) -> None:
        """Open the segmentation in the Segment Editor, with the heatmap as its source."""
        segmentation, heatmap = self.parameters.segmentation, self.heatmap
        if heatmap is not None:
            # The editor would make a source that no view shows the background of all of them.
            self.parameters.shownMap = "heatmap"
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentation)
        if heatmap is None:
            return
        editor.setSourceVolumeNode(heatmap)
        last = self._history.last(segmentation)
        if last:
            editor.setCurrentSegmentID(last)
        # The range is ready for whoever turns "Editable intensity range" on; it is off.
        node = editor.mrmlSegmentEditorNode()
        low = min(self.parameters.threshold, display.maximum(heatmap))
        node.SetSourceVolumeIntensityMaskRange(low, display.maximum(heatmap))

    def measure(self) -> None:
        """Measure the segments as they are now, and show the figures in the table."""
        segmentation, heatmap = self.parameters.segmentation, self.heatmap
        nodeId = segmentation.GetID()
        name = heatmap.GetName() if heatmap is not None else ""
        tasks = segments.measurements(segmentation, heatmap)

        def show(found: list[tuple[str, dict[str, float]]]) -> None:
            self._setWorking(False)
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is None:
                return
            lines = []
            for segmentId, figures in found:
                segment = node.GetSegmentation().GetSegment(segmentId)
                if segment is None:
                    continue
                record = readSegmentRecord(node, segmentId) or {}
                record |= {"figures": figures, "heatmap_name": name}
                writeSegmentRecord(node, segmentId, record)
                lines.append(segments.figuresText(segment.GetName(), figures))
            segments.showStatistics(node)
            self.ui.statisticsNote.setText("\n".join(lines))

        self._setWorking(True)
        self._work(lambda: [(segmentId, task()) for segmentId, task in tasks], show)

    def _keepRefined(self) -> None:
        """Make a segment of the refined mask, if it is there and wanted."""
        if not self._keepsWhenRefined or self._refiner.isBusy:
            return
        found, error, settings = self._refiner.found, self._refiner.error, self._settings()
        self._keepsWhenRefined = False
        self._setWorking(False)
        if found is not None:
            how: dict[str, Any] = {"refinement": dict(found.refinement)}
            if found.strokes:
                how["strokes"] = list(found.strokes)
            self._keep(found.mask, self.heatmap, settings, how)
        elif error:
            slicer.util.errorDisplay(
                _("The mask cannot follow the image: {reason}").format(reason=error)
            )

    def _onRefined(self) -> None:
        if self.parameters is not None:
            self.refresh()
            self._keepRefined()

    def _follows(self) -> bool:
        """Whether the mask follows the image's borders."""
        chosen = self.parameters is not None and self.parameters.borders == "image"
        return chosen and sourceOf(self.heatmap, self._isKnown)[0] is not None

    def _isKnown(self, model: str) -> bool:
        return self.panel.models.card(model) is not None

    def _refinement(self, heatmap: Any) -> Wish | None:
        """Show whether the mask can follow the image and does, and have it made if it does."""
        parameters, ui = self.parameters, self.ui
        source, reason = sourceOf(heatmap, self._isKnown)
        ui.bordersCombo.setEnabled(source is not None)
        ui.bordersCombo.setToolTip(reason or self._bordersToolTip)
        wish = None
        if source is not None and parameters.borders == "image":
            segmentation = parameters.segmentation
            nodeId = segmentation.GetID() if segmentation is not None else ""
            drawn = strokesOf(segmentation)
            wish = Wish(source, self._settings(), nodeId, drawn, self._changes())
        selectData(ui.bordersCombo, "image" if wish is not None else "heatmap")
        if wish is None and self._keepsWhenRefined:  # the user has changed their mind
            self._keepsWhenRefined = self._working = False
            ui.statisticsNote.setText("")
        if wish is not None and (parameters.preview or self._keepsWhenRefined):
            self._refiner.want(wish, atOnce=self._keepsWhenRefined)
        else:
            self._refiner.drop()
        note = ""
        if self._refiner.error:
            note = "⚠ " + _("The mask is the heatmap's: {reason}").format(
                reason=self._refiner.error
            )
        elif self._refiner.isBusy:
            note = _("Refining…")
        ui.bordersNote.setText(note)
        ui.bordersNote.setVisible(bool(note))
        return wish

    def _changes(self) -> tuple[tuple[str, str | float], ...]:
        """What the user wants of the refinement in place of what the model says."""
        parameters = self.parameters
        chosen = (
            ("refine", parameters.refineMethod, bool(parameters.refineMethod)),
            ("boundary_mm", parameters.boundaryMm, parameters.boundaryMm > 0),
            ("reach_mm", parameters.reachMm, parameters.reachMm > 0),
            ("closing_mm", parameters.closingMm, parameters.closingMm >= 0),
        )
        return tuple((name, value) for name, value, isChosen in chosen if isChosen)

    def _keep(
        self,
        mask: Mask,
        heatmap: Any,
        settings: MaskSettings,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        """Put a mask that has been made into the scene; its record says how, and ``further``."""
        if mask.isEmpty:
            slicer.util.infoDisplay(
                _("The mask is empty: lower the threshold or the size of the smallest island.")
            )
            return
        parameters, record = self.parameters, readRecord(heatmap)
        node = parameters.segmentation
        if node is None:
            scan = next(iter(recordedInputs(heatmap).values()), None)
            name = _("{heatmap} segmentation").format(heatmap=heatmap.GetName())
            node = segments.newSegmentation(name, scan or heatmap, heatmap)
            display.placeBeside(scan or heatmap, [node])
        self._history.prepare(node)
        labels = record["model"]["labels"] if record is not None else [{}]
        segmentId = segments.addSegment(mask, heatmap, node, labels[0])
        content = {
            "mask": {**settings.record(), **(further or {})},
            "figures": dict(mask.figures),
            "heatmap_name": heatmap.GetName(),
            "run": record,
        }
        writeSegmentRecord(node, segmentId, content)
        node.SetNodeReferenceID(HEATMAP_ROLE, heatmap.GetID())
        self._history.add(node, segmentId)
        segments.showStatistics(node)
        name = node.GetSegmentation().GetSegment(segmentId).GetName()
        self.ui.statisticsNote.setText(segments.figuresText(name, mask.figures))
        parameters.segmentation = node
        parameters.preview = False
        self.refresh()

    # -- the rest ----------------------------------------------------------------------------------

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._preview.hide()
        self._background.forget()
        self._refiner.clear()
        self._working = self._keepsWhenRefined = False
        self._history.clear()
        self._rangeOf = None
        self.ui.statisticsNote.setText("")

    def hidden(self) -> None:
        """Of `Section`."""
        self._preview.hide()
        if not self._keepsWhenRefined:
            self._refiner.drop()

    def cleanup(self) -> None:
        """Of `Section`."""
        self._preview.hide()
        self._background.forget()
        self._refiner.clear()

    def _work(self, function: Any, onDone: Any) -> None:
        def failed(error: Exception) -> None:
            self._setWorking(False)
            slicer.util.errorDisplay(_("That did not succeed: {reason}").format(reason=error))

        self._background.run(function, onDone, failed, _AT_ONCE_MS)

    def _setWorking(self, working: bool) -> None:
        self._working = working
        self.ui.statisticsNote.setText(_("Working…") if working else "")
        if self.parameters is not None:
            self.refresh()

    def _settings(self) -> MaskSettings:
        parameters = self.parameters
        return MaskSettings(
            parameters.threshold,
            parameters.components,
            parameters.minimumSizeMl,
            0.0 if self._follows() else parameters.smoothingMm,
        )

    def _fitSlider(self, heatmap: Any) -> None:
        """Let the slider span the heatmap's values, with steps that suit them."""
        slider = self.ui.thresholdSlider
        high = display.maximum(heatmap)
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

    def _chooseRefinement(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.refineMethod = self.ui.refineCombo.itemData(index)

    def _chooseBorders(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.borders = self.ui.bordersCombo.itemData(index)

    def _chooseComponents(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.components = self.ui.componentsCombo.itemData(index)
