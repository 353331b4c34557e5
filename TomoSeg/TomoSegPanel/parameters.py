"""What the user has chosen: kept in the scene, checked, and made into a job document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from slicer import (
    vtkMRMLDisplayableNode,
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from TomoSegPanel import sequences
from TomoSegPanel.modelCards import Card
from TomoSegPanel.region import Box, boxOf


@parameterNodeWrapper
class TomoSegParameterNode:
    """The panel's settings, saved with the scene.

    Further channels of the input are node references of the underlying node (`channelNode`).
    An empty ``method``, ``window`` or ``rectified`` (else ``yes`` or ``no``) and a negative
    ``filterOrder`` or ``cutoff`` stand for what the model's card recommends. Likewise an empty
    ``refineMethod``, a ``boundaryMm`` or ``reachMm`` of zero and a negative ``closingMm`` stand for
    what the run has used, or the card. ``study`` is the study that is shown, see `studyScene`.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    everyFrame: bool = False
    region: vtkMRMLMarkupsROINode
    model: str
    method: str
    camKind: str = "cam"
    filterOrder: float = -1.0
    cutoff: float = -1.0
    window: str
    rectified: str
    directionSet: str = "card"
    directionCount: Annotated[int, WithinRange(4, 1024)] = 64
    icosahedralDivision: Annotated[int, WithinRange(1, 14)] = 3
    directionsFile: str
    device: str = "auto"
    batchSize: Annotated[int, WithinRange(0, 4096)] = 0
    keepPartial: bool = True
    heatmap: vtkMRMLDisplayableNode
    compareWith: vtkMRMLDisplayableNode
    layoutBefore: int = 0
    shownMap: str = "heatmap"
    opacity: Annotated[float, WithinRange(0, 1)] = 0.6
    showAbove: Annotated[float, WithinRange(0, 1)] = 0.25
    legend: bool = True
    threshold: float = 0.0
    borders: str = "heatmap"
    refineMethod: str
    boundaryMm: Annotated[float, WithinRange(0, 100)] = 0.0
    reachMm: Annotated[float, WithinRange(0, 200)] = 0.0
    closingMm: Annotated[float, WithinRange(-1, 50)] = -1.0
    preview: bool = False
    components: str = "all"
    minimumSizeMl: Annotated[float, WithinRange(0, 100)] = 0.0
    smoothingMm: Annotated[float, WithinRange(0, 10)] = 0.0
    segmentation: vtkMRMLSegmentationNode
    studyFolder: str
    study: str


def channelNode(parameters: TomoSegParameterNode, card: Card, channel: str) -> Any:
    """The volume of a channel of the model, or None; the first channel is the input volume."""
    if channel == card.channels[0]:
        return parameters.inputVolume
    return parameters.parameterNode.GetNodeReference(_role(channel))


def setChannelNode(parameters: TomoSegParameterNode, channel: str, node: Any) -> None:
    """Choose the volume of a channel that is not the first."""
    parameters.parameterNode.SetNodeReferenceID(_role(channel), node.GetID() if node else None)


def channelNodes(parameters: TomoSegParameterNode, card: Card) -> dict[str, Any]:
    """The volumes of all channels, None where one is missing."""
    return {channel: channelNode(parameters, card, channel) for channel in card.channels}


def _role(channel: str) -> str:
    return f"channel.{channel}"


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run is asked to do, but for its volumes; None: as the card says.

    Of a model that makes segmentations only device, batch size and region go into the job.
    """

    card: Card
    method: str | None = None
    camKind: str = "cam"
    filterOrder: float | None = None
    cutoff: float | None = None
    window: str | None = None
    rectified: bool | None = None
    directions: str | None = None
    region: Box | None = None
    device: str = "auto"
    batchSize: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: TomoSegParameterNode, card: Card) -> RunSettings:
        """The settings of the panel."""
        common: dict[str, Any] = {
            "card": card,
            "region": boxOf(parameters.region, parameters.inputVolume),
            "device": parameters.device,
            "batchSize": parameters.batchSize or None,
        }
        if card.task != "heatmap":
            return cls(**common)
        return cls(
            **common,
            method=parameters.method or None,
            camKind=parameters.camKind,
            filterOrder=parameters.filterOrder if parameters.filterOrder >= 0 else None,
            cutoff=parameters.cutoff if parameters.cutoff > 0 else None,
            window=parameters.window or None,
            rectified={"yes": True, "no": False}.get(parameters.rectified),
            directions=directionsText(parameters),
        )

    @property
    def usedMethod(self) -> str:
        """The method, the card's where none was chosen."""
        return self.method or self.card.method

    @property
    def usedDirections(self) -> str:
        """The directions, the card's where none were chosen."""
        return self.directions or self.card.settings(self.usedMethod).directions

    def document(self, channels: Mapping[str, str], output: str, previews: str) -> dict[str, Any]:
        """The job document.

        Args:
            channels: The volumes' files by channel.
            output: Folder for the results.
            previews: Folder for previews.
        """
        document: dict[str, Any] = {
            "kind": "run",
            "channels": dict(channels),
            "model": self.card.name,
            "device": self.device,
            "output": output,
        }
        if self.region is not None:
            document["region"] = {"start": self.region.start, "stop": self.region.stop}
        if self.batchSize:
            document["batch_size"] = self.batchSize
        if self.card.task == "heatmap":
            document["previews"] = previews
            document.update(self._heatmapFields())
        return {**document, **self.extra}

    def _heatmapFields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "method": self.method,
            "cam": None if self.usedMethod == "tonno" else self.camKind,
            "rectified": None if self.usedMethod == "tonno" else self.rectified,
            "directions": self.directions,
            "filter_order": self.filterOrder,
            "cutoff": self.cutoff,
            "window": self.window,
        }
        return {name: value for name, value in fields.items() if value is not None}


def isValid(parameters: TomoSegParameterNode, card: Card | None) -> tuple[bool, str]:
    """Whether a run can start, and if not, why."""
    if parameters.inputVolume is None:
        return False, _("Choose the volume to look at.")
    if card is None:
        return False, _("Choose a model.")
    if card.task == "classification":
        return False, _(
            "The model {name} is for classification: it makes no heatmap and no mask. Use it with "
            "'tomoseg classify', or choose another."
        ).format(name=card.name)
    nodes = channelNodes(parameters, card)
    for channel, node in nodes.items():
        if node is None:
            return False, _("The model also needs the volume '{channel}'.").format(channel=channel)
        reason = _unusable(node)
        if reason:
            return False, f"{node.GetName()}: {reason}"
    if parameters.everyFrame:
        reason = sequences.problem(parameters.inputVolume)
        if reason:
            return False, f"{parameters.inputVolume.GetName()}: {reason}"
    first = parameters.inputVolume.GetParentTransformNode()
    for node in nodes.values():
        other = node.GetParentTransformNode()
        if other is not first and not (_isLinear(other) and _isLinear(first)):
            return False, _(
                "{name} is under a non-linear transform that the first volume is not under: "
                "harden it first."
            ).format(name=node.GetName())
    if parameters.region is not None:
        box = boxOf(parameters.region, parameters.inputVolume)
        if box is None or min(box.size) < 2:
            return False, _("The region does not reach into the volume: move it, or choose none.")
    wantsFile = card.task == "heatmap" and parameters.directionSet == "file"
    if wantsFile and not parameters.directionsFile:
        return False, _("Choose the file of directions.")
    return True, ""


def _unusable(node: Any) -> str:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return _("the volume is empty.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("it is a colour or vector image; a volume of one value a voxel is needed.")
    if min(image.GetDimensions()) < 2:
        return _("it is a single slice; a volume is needed.")
    return ""


def _isLinear(transform: Any) -> bool:
    return transform is None or bool(transform.IsTransformToWorldLinear())


def directionsText(parameters: TomoSegParameterNode) -> str | None:
    """The direction set as a job document names it; None: as the card says."""
    name = parameters.directionSet
    return {
        "card": None,
        "fibonacci": f"fibonacci:{parameters.directionCount}",
        "icosahedral": f"icosahedral:{parameters.icosahedralDivision}",
        "file": parameters.directionsFile or None,
    }.get(name, name)
