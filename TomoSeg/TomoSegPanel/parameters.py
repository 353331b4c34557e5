"""What the user has chosen: kept in the scene, checked, and made into a job document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import slicer
from slicer import vtkMRMLDisplayableNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from TomoSegPanel.modelCards import Card, VolumeFacts

METHODS = ("tonno", "tomographic-cam", "averaged-cam", "cam")
CAM_KINDS = ("cam", "gradcam", "gradcam++", "layercam")
DIRECTION_SETS = ("card", "fibonacci", "orthogonal", "axial", "coronal", "sagittal")
COMPONENTS = ("all", "largest", "peak")
MAPS = ("heatmap", "agreement", "none")


@parameterNodeWrapper
class TomoSegParameterNode:
    """The panel's settings, saved with the scene.

    Further channels of the input are node references of the underlying node (`channelNode`).
    An empty ``method`` stands for the one that the model's card recommends.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    model: str
    method: str
    camKind: str = "cam"
    directionSet: str = "card"
    directionCount: Annotated[int, WithinRange(4, 1024)] = 64
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
    preview: bool = False
    components: str = "all"
    minimumSizeMl: Annotated[float, WithinRange(0, 100)] = 0.0
    smoothingMm: Annotated[float, WithinRange(0, 10)] = 0.0
    segmentation: vtkMRMLSegmentationNode


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
    """Everything that a run is asked to do, but for its volumes; None: as the card says."""

    card: Card
    method: str | None = None
    camKind: str = "cam"
    directions: str | None = None
    device: str = "auto"
    batchSize: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: TomoSegParameterNode, card: Card) -> RunSettings:
        """The settings of the panel."""
        return cls(
            card=card,
            method=parameters.method or None,
            camKind=parameters.camKind,
            directions=directionsText(parameters.directionSet, parameters.directionCount),
            device=parameters.device,
            batchSize=parameters.batchSize or None,
        )

    @property
    def usedMethod(self) -> str:
        """The method, the card's where none was chosen."""
        return self.method or self.card.method

    @property
    def usedDirections(self) -> str:
        """The directions, the card's where none were chosen."""
        return self.directions or self.card.directions(self.usedMethod)

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
            "previews": previews,
        }
        if self.method:
            document["method"] = self.method
        if self.usedMethod != "tonno":
            document["cam"] = self.camKind
        if self.directions:
            document["directions"] = self.directions
        if self.batchSize:
            document["batch_size"] = self.batchSize
        return {**document, **self.extra}


def isValid(parameters: TomoSegParameterNode, card: Card | None) -> tuple[bool, str]:
    """Whether a run can start, and if not, why."""
    if parameters.inputVolume is None:
        return False, _("Choose the volume to look at.")
    if card is None:
        return False, _("Choose a model.")
    if card.task != "heatmap":
        return False, _("This model makes segmentations, which the panel cannot run yet.")
    nodes = channelNodes(parameters, card)
    for channel, node in nodes.items():
        if node is None:
            return False, _("The model also needs the volume '{channel}'.").format(channel=channel)
        reason = _unusable(node)
        if reason:
            return False, f"{node.GetName()}: {reason}"
    first = parameters.inputVolume.GetParentTransformNode()
    for node in nodes.values():
        other = node.GetParentTransformNode()
        if other is not first and not (_isLinear(other) and _isLinear(first)):
            return False, _(
                "{name} is under a non-linear transform that the first volume is not under: "
                "harden it first."
            ).format(name=node.GetName())
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


def directionsText(name: str, count: int) -> str | None:
    """The direction set as a job document names it; None: as the card says."""
    if name == "card":
        return None
    return f"fibonacci:{count}" if name == "fibonacci" else name


def volumeFacts(node: Any) -> VolumeFacts:
    """What can be said of a volume without looking at all its voxels anew."""
    low, high = node.GetImageData().GetScalarRange()
    return VolumeFacts(
        spacing=tuple(node.GetSpacing()),
        dimensions=tuple(node.GetImageData().GetDimensions()),
        scalarRange=(low, high),
        modality=_modality(node),
    )


def _modality(node: Any) -> str:
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    if hierarchy is None:
        return ""
    item = hierarchy.GetItemByDataNode(node)
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    name = constants.GetDICOMAttributePrefix() + "Modality"
    while item and item != hierarchy.GetSceneItemID():
        modality = hierarchy.GetItemAttribute(item, name)
        if modality:
            return modality
        item = hierarchy.GetItemParent(item)
    return ""


@lru_cache(maxsize=32)
def directionVectors(text: str) -> np.ndarray:
    """The directions ``(A, 3)``, unit vectors in RAS, in the order in which a run takes them.

    Raises:
        TomoSegError: ``directions-invalid``.
    """
    # SciPy takes its time to load: not before it is needed.
    from TomoSegLib.tomography.directions import parse_directions, progressive_order

    vectors = parse_directions(text).vectors
    return vectors[progressive_order(vectors)] * np.array([-1.0, -1.0, 1.0])


def sliceCount(facts: VolumeFacts, card: Card, directions: np.ndarray, ijkToRas: np.ndarray) -> int:
    """The most slices that a run can have to look at.

    A box of edges ``e`` reaches ``sum |n . e|`` along a direction n; the foreground is no larger.
    """
    edges = ijkToRas[:3, :3] * np.array(facts.dimensions)
    reach = np.abs(directions @ edges).sum(axis=1)
    return int(np.ceil(reach / card.sliceDistanceMm).sum())


def memoryMb(facts: VolumeFacts, card: Card) -> float:
    """Roughly the memory that a run takes besides torch and the network, MiB.

    The input, four float volumes on its grid while the heatmap grows, and the model's own grid.
    """
    voxels = float(np.prod(facts.dimensions))
    volume_ml = voxels * float(np.prod(facts.spacing))
    onModelGrid = volume_ml / card.spacingMm**3 * len(card.channels)
    return (voxels * (4 * 4 + 4 * len(card.channels)) + onModelGrid * 4 * 3) / 2**20
