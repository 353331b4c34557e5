"""The sections Volume and Model: what is looked at, and with what."""

from __future__ import annotations

import html
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from TomoSegPanel.modelCards import Card, listCards, modalities
from TomoSegPanel.parameters import channelNode, setChannelNode, volumeFacts
from TomoSegPanel.section import Section, fillCombo, signalsBlocked


class VolumeSection(Section):
    """Chooses the volumes of all channels of the model."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._channels: list[str] = []
        self._selectors: dict[str, Any] = {}
        self.ui.loadButton.connect("clicked()", self.load)
        self.ui.dicomButton.connect("clicked()", self.openDicom)

    def load(self) -> None:
        """Let the user choose a file, and choose its volume."""
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(),
            _("Load a volume"),
            "",
            _("Volumes")
            + " (*.nrrd *.nhdr *.nii *.nii.gz *.mha *.mhd);;"
            + _("All files")
            + " (*)",
        )
        if path:
            self.loadFile(path)

    def loadFile(self, path: str) -> None:
        """Load a volume from a file and choose it."""
        try:
            node = slicer.util.loadVolume(path)
        except RuntimeError as error:
            slicer.util.errorDisplay(
                _("{path} could not be loaded as a volume.").format(path=path),
                detailedText=str(error),
            )
        else:
            self.parameters.inputVolume = node

    def openDicom(self) -> None:
        """Go to the DICOM module."""
        slicer.util.selectModule("DICOM")

    def refresh(self) -> None:
        """Of `Section`."""
        card = self.panel.card
        self._showChannels(card)
        volume = self.parameters.inputVolume
        if volume is None or volume.GetImageData() is None:
            self.ui.volumeNote.setText("")
            return
        size = " × ".join(str(n) for n in volume.GetImageData().GetDimensions())
        spacing = " × ".join(f"{mm:.3g}" for mm in volume.GetSpacing())
        text = _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)
        transform = volume.GetParentTransformNode()
        if transform is not None:
            text += "; " + _("under the transform {name}, as its heatmap will be").format(
                name=transform.GetName()
            )
        self.ui.volumeNote.setText(text)

    def _showChannels(self, card: Card | None) -> None:
        """A selector for each channel after the first."""
        channels = card.channels[1:] if card is not None else []
        if channels != self._channels:
            layout = self.ui.channelsWidget.layout()
            while layout.rowCount() > 0:
                layout.removeRow(0)
            self._channels = list(channels)
            self._selectors = {name: self._addSelector(layout, card, name) for name in channels}
            self.ui.channelsWidget.setVisible(bool(channels))
        for name, selector in self._selectors.items():
            with signalsBlocked(selector):
                selector.setCurrentNode(channelNode(self.parameters, card, name))

    def _addSelector(self, layout: Any, card: Card, channel: str) -> Any:
        selector = slicer.qMRMLNodeComboBox(self.ui.channelsWidget)
        selector.objectName = f"channelSelector_{channel}"
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False
        selector.noneEnabled, selector.addEnabled, selector.removeEnabled = True, False, False
        selector.setMRMLScene(slicer.mrmlScene)
        selector.toolTip = card.channelDescription(channel) or _(
            "The model looks at this volume together with the first; it is resampled to its grid."
        )

        def choose(node: Any) -> None:
            if self.parameters is not None:
                setChannelNode(self.parameters, channel, node)

        selector.connect("currentNodeChanged(vtkMRMLNode*)", choose)
        layout.addRow(f"{channel}:", selector)
        return selector


class ModelSection(Section):
    """Chooses the model and shows its card."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self.cards: list[Card] = []
        self._shownCard: Card | None = None
        self.ui.modelSearchBox.connect("textChanged(QString)", lambda text: self._filter())
        self.ui.modalityFilter.connect("currentIndexChanged(int)", lambda index: self._filter())
        self.ui.modelListWidget.connect("itemSelectionChanged()", self._choose)
        self.reload()

    def reload(self) -> None:
        """Read all cards again."""
        self.cards, self._broken = listCards()
        items = [("", _("All modalities"))] + [(m, m) for m in modalities(self.cards)]
        fillCombo(self.ui.modalityFilter, items, "")
        self._filter()

    def card(self, name: str) -> Card | None:
        """The card of a model."""
        return next((card for card in self.cards if card.name == name), None)

    def refresh(self) -> None:
        """Of `Section`."""
        self._select()
        card = self.panel.card
        if card is not self._shownCard:
            self._shownCard = card
            self.ui.cardBrowser.setHtml(card.html() if card is not None else self._brokenHtml())
        self.ui.fitNote.setText(self._fitText(card))
        self.ui.fitNote.setVisible(bool(self._fitText(card)))

    def _filter(self) -> None:
        modality = self.ui.modalityFilter.currentData or ""
        text = self.ui.modelSearchBox.text
        listWidget = self.ui.modelListWidget
        with signalsBlocked(listWidget):
            listWidget.clear()
            for card in self.cards:
                if modality in ("", card.modality) and card.matches(text):
                    title = f"{card.title} ({card.modality})"
                    item = qt.QListWidgetItem(title)
                    item.setData(qt.Qt.UserRole, card.name)
                    if card.simulated:
                        item.setToolTip(_("Trained on simulated data"))
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
                if item.data(qt.Qt.UserRole) == name:
                    listWidget.setCurrentItem(item)

    def _choose(self) -> None:
        items = self.ui.modelListWidget.selectedItems()
        if items and self.parameters is not None:
            self.parameters.model = items[0].data(qt.Qt.UserRole)

    def _fitText(self, card: Card | None) -> str:
        volume = self.parameters.inputVolume
        if card is None or volume is None or volume.GetImageData() is None:
            return ""
        reasons = card.misfits(volumeFacts(volume))
        if not reasons:
            return ""
        title = _("This volume may not suit the model:")
        points = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
        return f"<b>⚠ {html.escape(title)}</b><ul>{points}</ul>"

    def _brokenHtml(self) -> str:
        if not self._broken:
            return ""
        title = html.escape(_("Models whose cards cannot be read:"))
        rows = "".join(
            f"<li>{html.escape(str(folder))}: {html.escape(reason)}</li>"
            for folder, reason in self._broken
        )
        return f"<p>{title}</p><ul>{rows}</ul>"
