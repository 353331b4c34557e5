"""The section Volume: what is looked at."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from TomoSegPanel import display, sequences
from TomoSegPanel.modelCards import Card
from TomoSegPanel.parameters import channelNode, setChannelNode
from TomoSegPanel.region import boxOf, fitAround, isTurned
from TomoSegPanel.sampleData import sampleFile
from TomoSegPanel.section import NodeWatch, Section, signalsBlocked


class VolumeSection(Section):
    """Chooses the volumes of all channels of the model."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._channels: list[str] = []
        self._selectors: dict[str, Any] = {}
        self._volumeWatch = NodeWatch(self.panel.refresh)
        self._regionWatch = NodeWatch(self.panel.refresh)
        self.ui.loadButton.connect("clicked()", self.load)
        self.ui.dicomButton.connect("clicked()", self.openDicom)
        self.ui.sampleButton.connect("clicked()", self.loadSample)
        self.ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._fitRegion)

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

    def loadSample(self) -> None:
        """Load the scan that comes with TomoSeg, and choose it."""
        path = sampleFile()
        if path.is_file():
            self.loadFile(str(path))
        else:
            slicer.util.errorDisplay(
                _("The sample is not in {folder}: install TomoSeg again.").format(
                    folder=path.parent
                )
            )

    def refresh(self) -> None:
        """Of `Section`."""
        card, volume = self.panel.card, self.parameters.inputVolume
        self._showChannels(card)
        count = sequences.count(volume)
        self.ui.everyFrameCheckBox.setVisible(count > 0)
        self.ui.everyFrameCheckBox.setText(
            _("&Every frame of the sequence ({count})").format(count=count)
        )
        self._volumeWatch.watch(volume)
        self._regionWatch.watch(self.parameters.region)
        self.ui.volumeNote.setText(_volumeText(volume))
        self.ui.regionNote.setText(_regionText(self.parameters.region, volume))
        self.ui.regionNote.setVisible(self.parameters.region is not None)

    def sceneClosed(self) -> None:
        """Of `Section`."""
        self._volumeWatch.watch(None)
        self._regionWatch.watch(None)

    def cleanup(self) -> None:
        """Of `Section`."""
        self.sceneClosed()

    def _fitRegion(self, region: Any) -> None:
        """A region that the user has just made begins as the whole volume."""
        volume = self.parameters.inputVolume if self.parameters is not None else None
        if volume is not None and volume.GetImageData() is not None:
            fitAround(region, volume)
            self.panel.refresh()

    def _showChannels(self, card: Card | None) -> None:
        """A selector for each channel after the first."""
        channels = card.channels[1:] if card is not None else []
        if channels != self._channels:
            layout = self.ui.channelsWidget.layout()
            while layout.rowCount() > 0:
                layout.removeRow(0)
            self._channels = list(channels)
            self._selectors = {name: self._addSelector(layout, card, name) for name in channels}
            # The tab key comes to the combo boxes in them; new ones would come last of all.
            before = self.ui.inputSelector.findChildren(qt.QComboBox)[0]
            for selector in self._selectors.values():
                after = selector.findChildren(qt.QComboBox)[0]
                qt.QWidget.setTabOrder(before, after)
                before = after
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


def shownScan() -> Any:
    """The scan that the user most likely means: the one in the slice views, or any; else None."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    ids = [composite.GetBackgroundVolumeID() for composite in composites]
    shown = [slicer.mrmlScene.GetNodeByID(nodeId) for nodeId in ids if nodeId]
    for node in [*shown, *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]:
        isScan = node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"
        if isScan and node.GetAttribute(display.MAP) is None:
            return node
    return None


def _volumeText(volume: Any) -> str:
    if volume is None:
        return _("Load a scan, or try the sample.")
    if volume.GetImageData() is None:
        return _("The volume is empty.")
    size = " × ".join(str(n) for n in volume.GetImageData().GetDimensions())
    spacing = " × ".join(f"{mm:.3g}" for mm in volume.GetSpacing())
    text = _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)
    transform = volume.GetParentTransformNode()
    if transform is not None:
        text += "; " + _("under the transform {name}, as its heatmap will be").format(
            name=transform.GetName()
        )
    return text


def _regionText(region: Any, volume: Any) -> str:
    if region is None or volume is None or volume.GetImageData() is None:
        return ""
    box = boxOf(region, volume)
    if box is None:
        return _("The region does not reach into the volume.")
    text = _("The region holds {size} of its voxels").format(
        size=" × ".join(str(n) for n in box.size)
    )
    if isTurned(region, volume):
        text += "; " + _("it is turned against the volume: the voxels are the box around it")
    return text + "."
