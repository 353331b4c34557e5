"""Volumes of the scene as arrays for the worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from TomoSegPanel.runData import ChannelData


def channelData(node: Any, first: Any) -> ChannelData:
    """A volume as it goes to the worker, in the space of the first volume.

    A transform that both are under moves both alike and is left out, the heatmap will be under it
    too; where their transforms differ, the matrix takes the difference.
    """
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ijkToRas = slicer.util.arrayFromVTKMatrix(matrix)
    if node.GetParentTransformNode() is not first.GetParentTransformNode():
        slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
            node.GetParentTransformNode(), first.GetParentTransformNode(), matrix
        )
        ijkToRas = slicer.util.arrayFromVTKMatrix(matrix) @ ijkToRas
    array = slicer.util.arrayFromVolume(node)
    return ChannelData(array, np.array(ijkToRas), node.GetName() or "")
