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
    """Make a model that does what the test model does, from its first channel, in a new folder.

    Args:
        folder: Where to make the model's folder.
        name: The model's name, and its folder's.
        channels: What it wants.
    """
    card = _testCard(name, channels)
    arguments = card["network"]["arguments"]
    arguments["channels"] = len(channels)
    area = arguments["pixel_area"] * arguments["stride"] ** 2
    threshold = arguments["threshold"]
    ramps = np.zeros((2, len(channels), 1, 1))
    ramps[:, 0] = 1.0
    return _writeModel(
        folder,
        card,
        {
            "classifier.bias": np.array([-arguments["offset"]]),
            "classifier.weight": np.array([[area, -area]]),
            "ramps.bias": np.array([-threshold, -threshold - 1]),
            "ramps.weight": ramps,
        },
    )


def makeSegmenter(folder: Path, name: str = "two-parts") -> Path:
    """Make a model that segments: voxels above 50 are ``body``, those above 250 ``ball``."""
    card = _testCard(name, ["image"])
    for key in ("slices", "method", "methods"):
        del card[key]
    card |= {
        "task": "segmentation",
        "labels": [
            {"name": "body", "value": 1, "color": [0.2, 0.4, 0.9]},
            {"name": "ball", "value": 5, "color": [0.9, 0.6, 0.1]},
        ],
        "preprocessing": {
            "spacing_mm": 2.0,
            "intensity": {"method": "window", "lower": 0, "upper": 500},
            "foreground": "none",
        },
        "network": {
            "format": "module",
            "target": "torch.nn.Conv3d",
            "arguments": {"in_channels": 1, "out_channels": 3, "kernel_size": 1},
            "file": "weights.safetensors",
        },
        "sliding_window": {"roi_size": [16, 16, 16]},
    }
    # Logits 0, 100 (x - 0.1) and 200 x - 60 of x, the intensity from 0 to 1: equal at 0.1 and 0.5.
    weight = np.array([0.0, 100.0, 200.0]).reshape(3, 1, 1, 1, 1)
    return _writeModel(folder, card, {"weight": weight, "bias": np.array([0.0, -10.0, -60.0])})


def _testCard(name: str, channels: Sequence[str]) -> dict[str, Any]:
    text = (shipped_models_folder() / MODEL / "card.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    card["name"], card["title"] = name, f"Copy {name}"
    card["channels"] = [{"name": channel} for channel in channels]
    return card


def _writeModel(folder: Path, card: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    target = folder / card["name"]
    target.mkdir(parents=True)
    weights = _safetensors({key: array.astype("<f4") for key, array in tensors.items()})
    (target / "weights.safetensors").write_bytes(weights)
    card["files"] = {"weights.safetensors": hashlib.sha256(weights).hexdigest()}
    (target / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return target


def _safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """A file of weights; by hand, for Slicer's own Python need not have the package."""
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
