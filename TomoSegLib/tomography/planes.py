"""Planes through a volume: where they lie, and sampling the volume on them.

A plane's pixel ``(row, column)`` of an image of ``(H, W)`` pixels lies at the LPS position
``center + (column - (W - 1) / 2) spacing u + (row - (H - 1) / 2) spacing v``. A stack is the set of
parallel planes at the signed distances ``offsets`` from ``center`` along the unit normal ``n``, so
a point ``x`` lies on the plane of offset ``s = n . (x - center)``.

All stacks of one volume have the same ``n . center`` as the centre of the foreground's bounding
box; within the plane each is shifted to fit the foreground tightly. Tomography
therefore needs that one centre only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.orientation import plane_frame
from TomoSegLib.imaging.volume import FloatArray, Geometry

if TYPE_CHECKING:
    from TomoSegLib.models.card import Slices

BoolArray = npt.NDArray[np.bool_]


def sample_planes(
    image: Tensor,
    geometry: Geometry,
    centers: Tensor | npt.ArrayLike,
    u: Tensor | npt.ArrayLike,
    v: Tensor | npt.ArrayLike,
    spacing_mm: float,
    shape: tuple[int, int],
    background: float = 0.0,
) -> Tensor:
    """Sample a volume on planes, trilinearly.

    Outside the grid the volume is ``background``; over the voxel beyond its border it is
    interpolated between the two. Differentiable in ``image``; runs where ``image`` lies.

    Args:
        image: ``(C, K, J, I)`` float32 or float64 on the grid ``geometry``.
        geometry: The grid of the image.
        centers: ``(B, 3)`` LPS mm, the centres of the planes.
        u: ``(B, 3)`` or ``(3,)`` LPS vectors along growing column index; unit vectors, or longer
            and shorter ones for a zoom.
        v: Likewise along growing row index.
        spacing_mm: Pixel size.
        shape: ``(H, W)`` pixels.
        background: Value outside the grid.

    Returns:
        ``(B, C, H, W)``, of the image's dtype, on its device.
    """
    height, width = shape
    device, dtype = image.device, image.dtype

    # Everything per plane is 9 numbers: they are computed in double precision, wherever the
    # caller's centres are, and moved as one small matrix.
    point = _as_double(centers).reshape(-1, 3)
    batch = point.shape[0]
    to_index = torch.as_tensor(
        np.linalg.inv(geometry.affine[:3, :3]), dtype=point.dtype, device=point.device
    )
    origin = torch.as_tensor(geometry.origin, dtype=point.dtype, device=point.device)
    size = torch.tensor(geometry.size, dtype=point.dtype, device=point.device)
    # grid_sample's coordinate of voxel index i out of n, with align_corners=False, which unlike
    # True also works for a single slice: (2 i + 1) / n - 1.
    scale = 2.0 / size
    columns = (_as_double(u).to(point) @ to_index.T * (spacing_mm * scale)).expand(batch, 3)
    rows = (_as_double(v).to(point) @ to_index.T * (spacing_mm * scale)).expand(batch, 3)
    middle = ((point - origin) @ to_index.T + 0.5) * scale - 1.0

    # The grid is a sum of a vector per column and a vector per row: one broadcast addition. (A
    # matrix product is six times slower here, and less exact where TF32 is allowed.)
    across = torch.arange(width, dtype=point.dtype, device=point.device) - (width - 1) / 2
    down = torch.arange(height, dtype=point.dtype, device=point.device) - (height - 1) / 2
    # Coordinates lie apart in memory, (3, B, H, W), which lets that addition be vectorised.
    column_part = columns.T[:, :, None] * across
    row_part = rows.T[:, :, None] * down + middle.T[:, :, None]
    grid = (
        column_part.to(device=device, dtype=dtype)[:, :, None, :]
        + row_part.to(device=device, dtype=dtype)[:, :, :, None]
    )
    grid = grid.permute(1, 2, 3, 0).unsqueeze(1)

    if background != 0.0:
        image = image - background
    # A batch of the same image without copies (stride 0): torch's CPU kernel is parallel over the
    # batch only.
    planes = functional.grid_sample(
        image.unsqueeze(0).expand(batch, -1, -1, -1, -1),
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).squeeze(2)
    return planes.add_(background) if background != 0.0 else planes


def _as_double(values: Tensor | npt.ArrayLike) -> Tensor:
    """A float64 tensor, on the CPU if the device (Apple's GPU) has no float64."""
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)


@dataclass(frozen=True, eq=False)
class PlaneStack:
    """Parallel planes through a volume, along one direction.

    Attributes:
        normal: ``(3,)`` unit normal, LPS.
        u: ``(3,)`` unit vector along growing column index, LPS.
        v: ``(3,)`` unit vector along growing row index, LPS.
        center: ``(3,)`` LPS mm, through which the planes' middles pass along the normal. Stacks
            of one volume differ in it only by shifts within the plane.
        offsets: ``(S,)`` signed distances of the planes from ``center`` along the normal, mm,
            ascending and equally spaced.
        spacing_mm: Pixel size.
        shape: ``(H, W)`` pixels.
    """

    normal: FloatArray
    u: FloatArray
    v: FloatArray
    center: FloatArray
    offsets: FloatArray
    spacing_mm: float
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.offsets)

    def sample(
        self,
        image: Tensor,
        geometry: Geometry,
        start: int = 0,
        stop: int | None = None,
        background: float = 0.0,
    ) -> Tensor:
        """The slices ``start`` to ``stop`` (exclusive) of a volume, see `sample_planes`.

        Args:
            image: ``(C, K, J, I)`` float tensor on ``geometry``.
            geometry: The grid of the image.
            start: First slice.
            stop: One past the last slice; None for all.
            background: Value outside the grid.

        Returns:
            ``(B, C, H, W)``, B = stop - start, on the image's device.
        """
        return self.sample_slices(image, geometry, np.arange(len(self))[start:stop], background)

    def sample_slices(
        self,
        image: Tensor,
        geometry: Geometry,
        slices: npt.NDArray[np.integer],
        background: float = 0.0,
    ) -> Tensor:
        """Any slices of the stack, by index: as `sample`, e.g. only the occupied ones."""
        centers = self.center + self.offsets[slices, None] * self.normal
        return sample_planes(
            image, geometry, centers, self.u, self.v, self.spacing_mm, self.shape, background
        )

    def occupied(self, foreground: BoolArray | ForegroundRuns, geometry: Geometry) -> BoolArray:
        """Which slices show any foreground at all; the others need no encoder.

        Args:
            foreground: ``(K, J, I)`` bool on ``geometry``, or its `foreground_runs`, which need
                computing only once per volume.
            geometry: Its grid.

        Returns:
            ``(S,)`` bool: whether trilinear sampling somewhere in the (unbounded) plane of the
            slice gives weight to a foreground voxel.
        """
        if not isinstance(foreground, ForegroundRuns):
            foreground = foreground_runs(foreground, geometry)
        count = len(self.offsets)
        step = self.offsets[1] - self.offsets[0] if count > 1 else 1.0
        low, high = foreground.extent(self.normal, self.center)
        # Strictly inside: a plane that only touches the footprint's edge has weight zero.
        first = np.ceil((low - self.offsets[0]) / step + 1e-6).astype(np.int64)
        last = np.floor((high - self.offsets[0]) / step - 1e-6).astype(np.int64)
        changes = np.bincount(first.clip(0, count), minlength=count + 1)
        changes -= np.bincount((last + 1).clip(0, count), minlength=count + 1)
        return np.asarray(np.cumsum(changes)[:count] > 0)


@dataclass(frozen=True, eq=False)
class ForegroundRuns:
    """A foreground as runs of voxels along i: enough for every question about its extent.

    Attributes:
        ends: ``(2, N, 3)`` LPS mm, the centres of the first and the last voxel of each run.
        axes: ``(3, 3)`` one voxel's step along i, j and k, one per row, LPS mm.
        center: ``(3,)`` LPS mm, the centre of the foreground's bounding box on its grid.
    """

    ends: FloatArray
    axes: FloatArray
    center: FloatArray

    def extent(self, axis: FloatArray, center: FloatArray) -> tuple[FloatArray, FloatArray]:
        """From where to where each run's trilinear footprint reaches along a unit vector.

        Args:
            axis: ``(3,)`` unit vector, LPS.
            center: ``(3,)`` LPS mm, the zero of the distances returned.

        Returns:
            Two ``(N,)`` arrays, mm.
        """
        s = (self.ends - center) @ axis
        reach = np.abs(self.axes @ axis).sum()
        return s.min(axis=0) - reach, s.max(axis=0) + reach


def foreground_runs(foreground: BoolArray, geometry: Geometry) -> ForegroundRuns:
    """The runs of a foreground mask ``(K, J, I)`` on its grid.

    Raises:
        TomoSegError: ``foreground-empty`` if no voxel is set.
    """
    rows = np.flatnonzero(foreground.any(axis=2))
    if len(rows) == 0:
        raise TomoSegError(
            "foreground-empty",
            "The volume has no foreground: there is nothing to look at.",
            "Check the volume, or choose another kind of foreground on the model's card.",
        )
    kept = foreground.reshape(-1, foreground.shape[2])[rows]
    edges = np.diff(kept.view(np.int8), axis=1, prepend=0, append=0)
    starts, stops = np.nonzero(edges == 1), np.nonzero(edges == -1)
    k, j = np.divmod(rows[starts[0]], foreground.shape[1])
    first = np.stack([starts[1], j, k], axis=1)
    last = np.stack([stops[1] - 1, j, k], axis=1)
    lower, upper = first.min(axis=0), last.max(axis=0)
    return ForegroundRuns(
        ends=np.stack([geometry.index_to_lps(first), geometry.index_to_lps(last)]),
        axes=geometry.affine[:3, :3].T,
        center=geometry.index_to_lps((lower + upper) / 2),
    )


def plane_stack(
    direction: npt.ArrayLike,
    geometry: Geometry,
    foreground: BoolArray | ForegroundRuns,
    slices: Slices,
) -> PlaneStack:
    """The stack of planes along a direction that shows the whole foreground.

    Offsets are multiples of the slice distance, and the first and the last slice show no
    foreground, so that a profile of responses starts and ends with the response to an empty slice.

    Args:
        direction: ``(3,)`` unit normal, LPS.
        geometry: The grid of the foreground.
        foreground: ``(K, J, I)`` bool, or its `foreground_runs`, which need computing only once
            per volume.
        slices: Pixel size, slice distance and size of the slices (of the model's card).

    Returns:
        The stack; ``n . center`` is that of the foreground's centre for every direction.

    Raises:
        TomoSegError: ``foreground-empty`` if no voxel is set.
    """
    if not isinstance(foreground, ForegroundRuns):
        foreground = foreground_runs(foreground, geometry)
    normal = np.asarray(direction, dtype=np.float64)
    normal = normal / np.linalg.norm(normal)
    u, v = plane_frame(normal)
    center = foreground.center

    low, high = foreground.extent(normal, center)
    distance = slices.distance_mm
    first = math.floor(low.min() / distance + 1e-6)
    last = math.ceil(high.max() / distance - 1e-6)
    offsets = np.arange(first, last + 1) * distance

    if slices.size is not None:
        shape = (slices.size, slices.size)
    else:
        sides = []
        for axis in (v, u):
            low, high = foreground.extent(axis, center)
            # From footprints (one voxel beyond the centre) to the voxels' own bodies (half).
            half = np.abs(foreground.axes @ axis).sum() / 2
            start, stop = low.min() + half, high.max() - half
            pixels = math.ceil((stop - start) / slices.spacing_mm - 1e-6)
            sides.append(math.ceil(pixels / slices.multiple) * slices.multiple)
            center = center + (start + stop) / 2 * axis
        shape = (sides[0], sides[1])
    return PlaneStack(normal, u, v, center, offsets, slices.spacing_mm, shape)


def plane_stacks(
    directions: npt.ArrayLike, geometry: Geometry, foreground: BoolArray, slices: Slices
) -> list[PlaneStack]:
    """`plane_stack` for each row of ``(A, 3)`` unit normals."""
    runs = foreground_runs(foreground, geometry)
    vectors = np.asarray(directions, dtype=np.float64).reshape(-1, 3)
    return [plane_stack(vector, geometry, runs, slices) for vector in vectors]
