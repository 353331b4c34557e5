"""The section Method and angles: how a heatmap is made, and what it will take."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from TomoSegPanel.background import Background
from TomoSegPanel.directionsDisplay import DirectionsDisplay
from TomoSegPanel.parameters import (
    RunSettings,
    directionVectors,
    memoryMb,
    sliceCount,
    volumeFacts,
)
from TomoSegPanel.section import Section, fillCombo, selectData, signalsBlocked


class MethodSection(Section):
    """Chooses method and directions, shows the directions, estimates the run."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._display = DirectionsDisplay()
        self._background = Background()
        self._estimated: tuple[Any, ...] | None = None
        self._shown: tuple[str, str] | None = None
        ui = self.ui
        fillCombo(
            ui.camCombo,
            [
                ("cam", _("CAM")),
                ("gradcam", _("GradCAM")),
                ("gradcam++", _("GradCAM++")),
                ("layercam", _("LayerCAM")),
            ],
            "cam",
        )
        fillCombo(
            ui.directionsCombo,
            [
                ("card", _("As the model's card says")),
                ("fibonacci", _("Evenly all over the sphere")),
                ("orthogonal", _("Axial, coronal and sagittal")),
                ("axial", _("Axial")),
                ("coronal", _("Coronal")),
                ("sagittal", _("Sagittal")),
            ],
            "card",
        )
        ui.methodCombo.connect("currentIndexChanged(int)", self._chooseMethod)
        ui.camCombo.connect("currentIndexChanged(int)", self._chooseCam)
        ui.directionsCombo.connect("currentIndexChanged(int)", self._chooseDirections)
        ui.showDirectionsCheckBox.connect("toggled(bool)", lambda on: self._showDirections())
        ui.directionSlider.connect("valueChanged(double)", lambda value: self._showPlane())
        ui.planeSlider.connect("valueChanged(double)", lambda value: self._showPlane())

    def refresh(self) -> None:
        """Of `Section`."""
        card, parameters, ui = self.panel.card, self.parameters, self.ui
        names = {
            "tonno": _("ToNNO"),
            "tomographic-cam": _("Tomographic CAM"),
            "averaged-cam": _("Averaged CAM"),
            "cam": _("CAM"),
        }
        recommended = names.get(card.method, card.method) if card is not None else ""
        first = (
            _("As the model's card says: {method}").format(method=recommended)
            if recommended
            else _("As the model's card says")
        )
        fillCombo(ui.methodCombo, [("", first), *names.items()], parameters.method)
        selectData(ui.camCombo, parameters.camKind)
        selectData(ui.directionsCombo, parameters.directionSet)
        ui.directionCountSpinBox.setEnabled(parameters.directionSet == "fibonacci")
        ui.camCombo.setEnabled(
            card is not None and RunSettings.of(parameters, card).usedMethod != "tonno"
        )
        self._estimate()
        self._showDirections()

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._display.forget()
        self._shown = self._estimated = None
        self.ui.showDirectionsCheckBox.setChecked(False)

    def hidden(self) -> None:
        """Of `Section`."""
        self.ui.showDirectionsCheckBox.setChecked(False)

    def cleanup(self) -> None:
        """Of `Section`."""
        self._background.forget()
        self._display.hide()

    def _chooseMethod(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.method = self.ui.methodCombo.itemData(index) or ""

    def _chooseCam(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.camKind = self.ui.camCombo.itemData(index)

    def _chooseDirections(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.directionSet = self.ui.directionsCombo.itemData(index)

    def _withDirections(self, onReady: Any) -> None:
        """Call back with the directions; making them loads SciPy, which takes too long here."""
        card = self.panel.card
        if card is None:
            return
        text = RunSettings.of(self.parameters, card).usedDirections

        def failed(error: Exception) -> None:
            self.ui.estimateNote.setText(str(error))

        self._background.run(
            lambda: directionVectors(text),
            lambda vectors: onReady(text, vectors) if self.parameters is not None else None,
            failed,
        )

    def _estimate(self) -> None:
        volume, card = self.parameters.inputVolume, self.panel.card
        if volume is None or volume.GetImageData() is None or card is None:
            self.ui.estimateNote.setText("")
            self._estimated = None
            return
        directions = RunSettings.of(self.parameters, card).usedDirections
        device = self.parameters.device
        speed = measuredSecondsPerSlice(card.name, device)
        wanted = (volume.GetID(), volume.GetMTime(), card.name, directions, device, speed)
        if wanted == self._estimated:
            return
        self._estimated = wanted

        def show(text: str, vectors: np.ndarray) -> None:
            if self._estimated != wanted:  # another is under way
                return
            facts = volumeFacts(volume)
            matrix = vtk.vtkMatrix4x4()
            volume.GetIJKToRASMatrix(matrix)
            slices = sliceCount(facts, card, vectors, slicer.util.arrayFromVTKMatrix(matrix))
            self.ui.estimateNote.setText(self._estimateText(card, facts, len(vectors), slices))

        self._withDirections(show)

    def _estimateText(self, card: Any, facts: Any, directions: int, slices: int) -> str:
        text = _(
            "At most {slices} slices in {directions} directions; about {memory} MB of memory "
            "besides PyTorch and the network."
        ).format(
            slices=slices,
            directions=directions,
            memory=max(10, 10 * round(memoryMb(facts, card) / 10)),
        )
        perSlice = measuredSecondsPerSlice(card.name, self.parameters.device)
        if perSlice is None:
            return text + " " + _("How long that takes here is known after the first run.")
        return (
            text
            + " "
            + _("About {seconds} s, as fast as the last run.").format(
                seconds=max(1, round(perSlice * slices))
            )
        )

    def _showDirections(self) -> None:
        volume = self.parameters.inputVolume if self.parameters is not None else None
        on = self.ui.showDirectionsCheckBox.isChecked() and volume is not None
        for name in ("directionSlider", "planeSlider"):
            getattr(self.ui, name).setEnabled(on)
        if not on:
            self._display.hide()
            self._shown = None
            return

        def show(text: str, vectors: np.ndarray) -> None:
            if self._shown == (text, volume.GetID()) or self.parameters.inputVolume is not volume:
                return
            if not self.ui.showDirectionsCheckBox.isChecked():
                return
            self._shown = (text, volume.GetID())
            self._display.show(volume, vectors)
            with signalsBlocked(self.ui.directionSlider):
                self.ui.directionSlider.maximum = max(1, len(vectors))
                self.ui.directionSlider.value = 1
            self._showPlane()

        self._withDirections(show)

    def _showPlane(self) -> None:
        volume = self.parameters.inputVolume if self.parameters is not None else None
        if volume is not None and self._shown is not None:
            index = round(self.ui.directionSlider.value) - 1
            self._display.showPlane(volume, index, self.ui.planeSlider.value)


def _speedKey(model: str, device: str) -> str:
    return f"TomoSeg/SecondsPerSlice/{model}/{device.replace(':', '-')}"


def measuredSecondsPerSlice(model: str, device: str) -> float | None:
    """How long a slice took in the last run with a model on a device."""
    value = qt.QSettings().value(_speedKey(model, device))
    try:
        return float(value) if value else None
    except (TypeError, ValueError):
        return None


def rememberSpeed(model: str, device: str, secondsPerSlice: float) -> None:
    """Remember how long a slice took."""
    qt.QSettings().setValue(_speedKey(model, device), str(secondsPerSlice))
