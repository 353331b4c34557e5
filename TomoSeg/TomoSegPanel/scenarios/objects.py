"""Volumes, transforms and models for scenarios, all made up."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from TomoSegLib.models.locations import shipped_models_folder

MODEL = "tiny-blob"
BLOB_RADIUS_MM = 9.0
BLOB_VALUE = 400


def grid(
    shape: Sequence[int] = (36, 36, 36),
    spacing: Sequence[float] = (2.0, 2.0, 2.0),
    axes: Any = None,
    center: Sequence[float] = (0.0, 0.0, 0.0),
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape ``(K, J, I)`` and the 4 x 4 matrix from voxel ``(i, j, k)`` to RAS.

    Args:
        shape: ``(K, J, I)``.
        spacing: Voxel size along ``(i, j, k)`` in mm.
        axes: ``(3, 3)``, whose columns are the unit vectors along i, j and k.
        center: The middle of the grid in RAS mm.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if axes is None else np.asarray(axes)) * np.asarray(spacing)
    middle = (np.array(shape[::-1]) - 1) / 2
    matrix[:3, 3] = np.asarray(center) - matrix[:3, :3] @ middle
    return tuple(shape), matrix


def rotation(axis: Sequence[float], degrees: float) -> np.ndarray:
    """``(3, 3)`` rotation about an axis."""
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    return slicer.util.arrayFromVTKMatrix(transform.GetMatrix())[:3, :3]


def addBlobVolume(
    blob: Sequence[float] = (12.0, -8.0, 10.0),
    on: tuple[tuple[int, ...], np.ndarray] | None = None,
    name: str = "Köpf 1",
) -> Any:
    """Add a volume with a bright ball in an oval of noise (simulated, of course).

    Args:
        blob: Centre of the ball in RAS mm.
        on: The grid, from `grid`.
        name: Its name.
    """
    shape, matrix = on or grid()
    k, j, i = np.meshgrid(*map(np.arange, shape), indexing="ij")
    points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ matrix.T
    center = matrix @ [*(np.array(shape[::-1]) - 1) / 2, 1.0]
    reach = min(size * math.hypot(*matrix[:3, axis]) for axis, size in enumerate(shape[::-1]))
    distance = np.linalg.norm(points[..., :3] - center[:3], axis=-1)
    noise = np.random.default_rng(0).normal(100.0, 8.0, shape)
    voxels = np.where(distance < 0.49 * reach, noise, 0.0)
    inBlob = np.linalg.norm(points[..., :3] - np.asarray(blob), axis=-1) < BLOB_RADIUS_MM
    assert inBlob.any() and (voxels[inBlob] > 0).all(), "the ball is not inside the oval"
    voxels[inBlob] = BLOB_VALUE
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    slicer.util.updateVolumeFromArray(node, voxels.astype(np.int16))
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def assertPeak(heatmap: Any, blob: Sequence[float], closeMm: float = 3.0) -> None:
    """See that a heatmap is greatest where the ball is in world coordinates (RAS mm).

    The ball gives a plateau: its highest voxel lies in the ball, its middle in the middle.
    """
    array = slicer.util.arrayFromVolume(heatmap)
    matrix = vtk.vtkMatrix4x4()
    heatmap.GetIJKToRASMatrix(matrix)
    toRas = slicer.util.arrayFromVTKMatrix(matrix)

    def distance(kji: Any) -> float:
        world = [0.0, 0.0, 0.0]
        ras = (toRas @ [*reversed(kji), 1.0])[:3]
        heatmap.TransformPointToWorld(list(map(float, ras)), world)
        return float(np.linalg.norm(np.array(world) - blob))

    highest = distance(np.unravel_index(int(np.argmax(array)), array.shape))
    middle = distance(np.argwhere(array > array.max() / 2).mean(axis=0))
    assert middle < closeMm, f"the heatmap's hill is {middle:.1f} mm beside the ball"
    assert highest < BLOB_RADIUS_MM + closeMm, f"the highest voxel is {highest:.1f} mm beside it"


def addTransform(matrix: np.ndarray, name: str = "patient moved") -> Any:
    """Add a linear transform to the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def copyModel(folder: Path, name: str, channels: Sequence[str] = ("image",)) -> Path:
    """Copy the test model under another name, with other channels.

    Only the first channel is looked at. The weights are written here, in the format of safetensors,
    for Slicer's Python need not have that package.
    """
    target = folder / name
    target.mkdir(parents=True)
    card = json.loads((shipped_models_folder() / MODEL / "card.json").read_text(encoding="utf-8"))
    threshold = card["network"]["arguments"]["threshold"]
    area = card["network"]["arguments"]["pixel_area"] * card["network"]["arguments"]["stride"] ** 2
    ramps = np.zeros((2, len(channels), 1, 1), "<f4")
    ramps[:, 0] = 1.0
    tensors = {
        "classifier.bias": np.array([-card["network"]["arguments"]["offset"]], "<f4"),
        "classifier.weight": np.array([[area, -area]], "<f4"),
        "ramps.bias": np.array([-threshold, -threshold - 1], "<f4"),
        "ramps.weight": ramps,
    }
    weights = _safetensors(tensors)
    (target / "weights.safetensors").write_bytes(weights)
    card["name"], card["title"] = name, f"Copy {name}"
    card["channels"] = [{"name": channel} for channel in channels]
    card["network"]["arguments"]["channels"] = len(channels)
    card["files"] = {"weights.safetensors": hashlib.sha256(weights).hexdigest()}
    (target / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return target


def _safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    header, data = {}, b""
    for name, array in tensors.items():
        begin, data = len(data), data + array.tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data
