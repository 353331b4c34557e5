"""Whether the chosen volumes are what the model has learnt on; found out without holding up Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from TomoSegPanel import display
from TomoSegPanel.background import Background
from TomoSegPanel.modelCards import Card, VolumeFacts
from TomoSegPanel.parameters import TomoSegParameterNode, channelNodes


class VolumeFit:
    """Compares the volumes of all channels with the card.

    Args:
        onReasons: Called with the reasons why they may not fit, none where none is known.
    """

    def __init__(self, onReasons: Callable[[Sequence[str]], None]) -> None:
        self._onReasons = onReasons
        self._background = Background()
        self._ranges: dict[str, tuple[int, tuple[float, float] | None]] = {}
        self._compared: tuple[TomoSegParameterNode, Card | None] | None = None

    def update(self, parameters: TomoSegParameterNode, card: Card | None) -> None:
        """Look at the volumes as they are now; calls back at once, and again if more is known."""
        self._compared = parameters, card
        nodes = channelNodes(parameters, card) if card is not None else {}
        present = {
            name: node
            for name, node in nodes.items()
            if node is not None and node.GetImageData() is not None
        }
        for node in present.values():
            self._measure(node)
        reasons: list[str] = []
        for node in present.values():
            prefix = f"{node.GetName()}: " if len(nodes) > 1 else ""
            reasons += [prefix + reason for reason in card.misfits(self._facts(node))]
        if present and len(nodes) > 1:
            reasons += _channelReasons(nodes, present)
        self._onReasons(reasons)

    def forget(self) -> None:
        """All nodes are gone."""
        self._background.forget()
        self._ranges.clear()
        self._compared = None

    def _measure(self, node: Any) -> None:
        """Find out a volume's range of intensities, once for its voxels, in the background."""
        key, time = node.GetID(), node.GetImageData().GetMTime()
        if key in self._ranges and self._ranges[key][0] == time:
            return
        self._ranges[key] = (time, None)
        if node.GetImageData().GetPointData().GetScalars() is None:
            return
        array = slicer.util.arrayFromVolume(node)

        def known(found: tuple[float, float]) -> None:
            if self._ranges.get(key, (None,))[0] == time and self._compared is not None:
                self._ranges[key] = (time, found)
                self.update(*self._compared)

        self._background.run(lambda: scalarRange(array), known, lambda error: None)

    def _facts(self, node: Any) -> VolumeFacts:
        image = node.GetImageData()
        known = self._ranges.get(node.GetID())
        return VolumeFacts(
            spacing=tuple(node.GetSpacing()),
            dimensions=tuple(image.GetDimensions()),
            scalarRange=known[1] if known is not None else None,
            modality=modalityOf(node),
            isInteger=image.GetScalarTypeAsString() not in ("float", "double"),
            isMap=node.GetAttribute(display.MAP) is not None,
        )


def scalarRange(array: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value; NaN where there is one. For a thread."""
    return float(array.min()), float(array.max())


def modalityOf(node: Any) -> str:
    """The DICOM modality of a volume, or "" where it is not known."""
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


def _channelReasons(nodes: dict[str, Any], present: dict[str, Any]) -> list[str]:
    """What is wrong between the channels: missing, the same twice, not of the same place."""
    reasons = []
    missing = [name for name in nodes if name not in present]
    if missing:
        reasons.append(
            _(
                "The model looks at {count} volumes together; choose {names} in the section Volume."
            ).format(count=len(nodes), names=", ".join(missing))
        )
    ids = [node.GetID() for node in present.values()]
    if len(set(ids)) < len(ids):
        reasons.append(_("The same volume is chosen for more than one channel."))
    first, *others = present.values()
    for node in others:
        if not _overlap(first, node):
            reasons.append(
                _(
                    "{name} does not lie where {first} lies: the model would see nothing of it."
                ).format(name=node.GetName(), first=first.GetName())
            )
    return reasons


def _overlap(a: Any, b: Any) -> bool:
    bounds: list[list[float]] = [[0.0] * 6, [0.0] * 6]
    for node, room in zip((a, b), bounds, strict=True):
        node.GetRASBounds(room)  # in the world, under its transform
    one, other = bounds
    return all(
        one[2 * axis] < other[2 * axis + 1] and other[2 * axis] < one[2 * axis + 1]
        for axis in range(3)
    )
