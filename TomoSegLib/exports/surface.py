"""Surfaces of segments as STL, in LPS millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import marching_cubes

from TomoSegLib.exports.terminology import Terminology
from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.foreground import bounding_box
from TomoSegLib.imaging.volume import FloatArray, Geometry

_HEADER_BYTES = 80
_RECORD = np.dtype([("normal", "<f4", 3), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])
_SMOOTHING_VOXELS = 0.5


def surface(
    mask: npt.NDArray[np.bool_], geometry: Geometry
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """The closed surface of a mask.

    A Gaussian of half a voxel takes the steps away before marching cubes, but every voxel's
    centre stays on its side of the surface. Measured on balls, the volume is right to 2 % from a
    radius of 7 voxels on (smoother surfaces lose more), the area to some per cent.

    Args:
        mask: ``(k, j, i)``, not empty.
        geometry: Its grid.

    Returns:
        Vertices ``(V, 3)`` in LPS mm, and triangles ``(T, 3)`` of their numbers, anticlockwise
        seen from outside. Where the mask ends at the volume's border, the surface is closed there.
    """
    box = bounding_box(mask)
    assert box is not None, "the mask is empty"
    margin = 3
    padded = np.pad(mask[box], margin)
    share = ndimage.gaussian_filter(padded.astype(np.float32), _SMOOTHING_VOXELS)
    share = np.where(padded, np.maximum(share, 0.501), np.minimum(share, 0.499))
    vertices, triangles, _, _ = marching_cubes(share, 0.5, gradient_direction="ascent")
    corner = np.array([part.start for part in box]) - margin
    points = geometry.index_to_lps((vertices + corner)[:, ::-1])
    if _volume_mm3(points, triangles) < 0:  # the grid's handedness decides
        triangles = triangles[:, ::-1]
    return points, triangles.astype(np.intp)


def surface_area_mm2(vertices: FloatArray, triangles: npt.NDArray[np.intp]) -> float:
    """The sum of the triangles' areas."""
    a, b, c = (vertices[triangles[:, n]] for n in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def write_stl(
    path: Path,
    vertices: FloatArray,
    triangles: npt.NDArray[np.intp],
    name: str,
    terminology: Terminology,
) -> None:
    """Write a binary STL file, atomically.

    Its header, of 80 bytes, says ``SPACE=LPS``, by which Slicer knows the coordinates, and has
    the code of what it shows, and as much of its name as there is room for.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(triangles), dtype=_RECORD)
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    records["vertices"] = corners
    kind = f"{terminology.type.scheme}:{terminology.type.value}"
    header = f"SPACE=LPS; TomoSeg; {kind}; {name}".encode("ascii", "replace")[:_HEADER_BYTES]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header.ljust(_HEADER_BYTES))
        file.write(np.uint32(len(records)).astype("<u4").tobytes())
        file.write(records.tobytes())


def _volume_mm3(vertices: FloatArray, triangles: npt.NDArray[np.intp]) -> float:
    """Enclosed volume by the divergence theorem; negative if the triangles face inwards."""
    a, b, c = (vertices[triangles[:, n]] - vertices[0] for n in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
