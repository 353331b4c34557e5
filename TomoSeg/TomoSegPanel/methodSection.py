"""The section Method and angles: how a heatmap is made, and what it will take."""

from __future__ import annotations

import os
from typing import Any

from slicer.i18n import tr as _

from TomoSegPanel.advancedSettings import AdvancedSettings, changesFromCard
from TomoSegPanel.directions import Directions
from TomoSegPanel.directionsDisplay import DirectionsDisplay
from TomoSegPanel.estimateRow import EstimateRow
from TomoSegPanel.job import Run
from TomoSegPanel.modelCards import Card
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.section import Section, fillCombo, selectData, showRow, signalsBlocked

_HEATMAP_ROWS = (
    "methodCombo",
    "directionsCombo",
    "advancedBox",
    "showDirectionsCheckBox",
    "directionSlider",
    "planeSlider",
)


class MethodSection(Section):
    """Chooses method and directions, shows the directions, estimates the run."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._advanced = AdvancedSettings(panel)
        self._estimate = EstimateRow(panel)
        self._display = DirectionsDisplay()
        self._directions = Directions(panel.refresh)
        self._shown: tuple[Any, ...] | None = None
        self._followed = 1
        ui = self.ui
        fillCombo(
            ui.directionsCombo,
            [
                ("card", _("As the model's card says")),
                ("fibonacci", _("Evenly all over the sphere")),
                ("icosahedral", _("On an icosahedron")),
                ("orthogonal", _("Axial, coronal and sagittal")),
                ("axial", _("Axial")),
                ("coronal", _("Coronal")),
                ("sagittal", _("Sagittal")),
                ("file", _("From a file")),
            ],
            "card",
        )
        ui.methodCombo.connect("currentIndexChanged(int)", self._chooseMethod)
        ui.directionsCombo.connect("currentIndexChanged(int)", self._chooseDirections)
        ui.directionsFileEdit.connect("currentPathChanged(QString)", self._chooseFile)
        ui.showDirectionsCheckBox.connect("toggled(bool)", lambda on: self._showDirections())
        ui.directionSlider.connect("valueChanged(double)", lambda value: self._showPlane())
        ui.planeSlider.connect("valueChanged(double)", lambda value: self._showPlane())

    @property
    def problem(self) -> str:
        """Why no run can be made with the chosen directions, "" where nothing is wrong."""
        card = self.panel.card
        return self._directions.problem if card is not None and card.task == "heatmap" else ""

    def useCardValues(self) -> None:
        """Set the advanced settings back to the card's: model or method are other ones now."""
        self._advanced.useCardValues()

    def refresh(self) -> None:
        """Of `Section`."""
        card, parameters = self.panel.card, self.parameters
        makesHeatmap = card is None or card.task == "heatmap"
        self._showRows(makesHeatmap)
        if makesHeatmap:
            self._refreshMethod(card)
            self._advanced.refresh()
            if card is not None:
                self._directions.choose(RunSettings.of(parameters, card).usedDirections)
        self.ui.taskNote.setText(self._taskText(card))
        self.ui.taskNote.setVisible(bool(self.ui.taskNote.text))
        problem = self.problem or self._directions.note
        self.ui.directionsNote.setText(problem)
        self.ui.directionsNote.setVisible(bool(problem) and makesHeatmap)
        self._estimate.show(self._directions.vectors if makesHeatmap else None)
        self._showDirections()

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._display.forget()
        self._shown = None
        self.ui.showDirectionsCheckBox.setChecked(False)

    def hidden(self) -> None:
        """Of `Section`."""
        self.ui.showDirectionsCheckBox.setChecked(False)

    def cleanup(self) -> None:
        """Of `Section`."""
        self._directions.forget()
        self._estimate.cleanup()
        self._display.hide()

    # -- method and directions ---------------------------------------------------------------------

    def _showRows(self, makesHeatmap: bool) -> None:
        """Show what applies: a model that makes segmentations has no method and no directions."""
        for name in _HEATMAP_ROWS:
            showRow(self.ui, name, makesHeatmap)
        chosen = self.parameters.directionSet if makesHeatmap else ""
        for name, directionSet in (
            ("directionCountSpinBox", "fibonacci"),
            ("icosahedralSpinBox", "icosahedral"),
            ("directionsFileEdit", "file"),
        ):
            showRow(self.ui, name, chosen == directionSet)

    def _refreshMethod(self, card: Card | None) -> None:
        parameters, ui = self.parameters, self.ui
        names = methodNames()
        first = _("As the model's card says")
        if card is not None:
            recommended = names.get(card.method, card.method)
            first = _("As the model's card says: {method}").format(method=recommended)
        fillCombo(ui.methodCombo, [("", first), *names.items()], parameters.method)
        selectData(ui.directionsCombo, parameters.directionSet)
        if card is not None:
            method = RunSettings.of(parameters, card).usedMethod
            text = _("As the model's card says: {directions}")
            ui.directionsCombo.setItemText(
                0, text.format(directions=card.settings(method).directions)
            )
        division = parameters.icosahedralDivision
        ui.icosahedralSpinBox.suffix = _(" ({count} directions)").format(count=5 * division**2 + 1)
        if ui.directionsFileEdit.currentPath != parameters.directionsFile:
            with signalsBlocked(ui.directionsFileEdit):
                ui.directionsFileEdit.setCurrentPath(parameters.directionsFile)

    def _chooseMethod(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.method = self.ui.methodCombo.itemData(index) or ""
            self.useCardValues()

    def _chooseDirections(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.directionSet = self.ui.directionsCombo.itemData(index)

    def _chooseFile(self, path: str) -> None:
        if self.parameters is not None:
            self.parameters.directionsFile = os.path.abspath(path) if path else ""

    # -- what is said of the run -------------------------------------------------------------------

    def _taskText(self, card: Card | None) -> str:
        if card is None:
            return ""
        if card.task != "heatmap":
            return _("This model makes a segmentation itself: there is no method to choose.")
        settings = RunSettings.of(self.parameters, card)
        defaults = card.settings(settings.usedMethod)
        if not defaults.hasThreshold:
            return _(
                "The card has no mask threshold for this method: Otsu's is used; "
                "look at the mask and move it."
            )
        changed = changesFromCard(settings, defaults)
        if settings.directions is not None and settings.directions != defaults.directions:
            changed.append(_("directions {directions}").format(directions=settings.directions))
        if changed:
            return _(
                "Not as the card says: {changes}. Its mask threshold was found with the card's own "
                "values."
            ).format(changes="; ".join(changed))
        return ""

    # -- directions in the views -------------------------------------------------------------------

    def _showDirections(self) -> None:
        volume = self.parameters.inputVolume if self.parameters is not None else None
        vectors = self._directions.vectors
        card = self.panel.card
        on = self.ui.showDirectionsCheckBox.isChecked() and volume is not None
        on = on and vectors is not None and (card is None or card.task == "heatmap")
        on = on and volume.GetImageData() is not None
        for name in ("directionSlider", "planeSlider"):
            getattr(self.ui, name).setEnabled(on)
        if not on:
            self._display.hide()
            self._shown = None
            return
        wanted = (self._directions.key, volume.GetID(), volume.GetMTime())
        if wanted == self._shown:
            return
        same = self._shown is not None and self._shown[0] == wanted[0]
        self._shown = wanted
        self._display.show(volume, vectors)
        if not same:
            with signalsBlocked(self.ui.directionSlider):
                self.ui.directionSlider.maximum = max(1, len(vectors))
                self.ui.directionSlider.value = self._followed = 1
        self._showPlane()

    def followRun(self, run: Run, directions: int | None) -> None:
        """Show the plane of the direction that a run has come to, if its directions are shown.

        Once the user has moved the slider it is left alone.

        Args:
            run: The run.
            directions: How many directions it has looked along, None at its end.
        """
        volume, key, slider = (
            self.parameters.inputVolume,
            self._directions.key,
            self.ui.directionSlider,
        )
        first = next(iter(run.context["volumes"].values()))
        if directions is None or self._shown is None or key is None or volume is None:
            return
        isIts = first == volume.GetID() and key[0] == run.settings.usedDirections
        if isIts and round(slider.value) == self._followed:
            self._followed = directions
            slider.value = directions

    def _showPlane(self) -> None:
        volume = self.parameters.inputVolume if self.parameters is not None else None
        if volume is None or self._shown is None:
            return
        index = round(self.ui.directionSlider.value) - 1
        slider, reach = self.ui.planeSlider, self._display.reachMm(index)
        with signalsBlocked(slider):
            slider.minimum, slider.maximum = -reach, reach
            card = self.panel.card
            slider.singleStep = card.sliceDistanceMm if card is not None else 1.0
        self._display.showPlane(volume, index, slider.value)


def methodNames() -> dict[str, str]:
    """The methods, by their names in a job document, as people call them."""
    return {
        "tonno": _("ToNNO"),
        "tomographic-cam": _("Tomographic CAM"),
        "averaged-cam": _("Averaged CAM"),
        "cam": _("CAM"),
    }
