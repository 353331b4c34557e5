"""The discrete plane-Radon transform and its exact adjoint, for iterative reconstruction.

    (R f)(n, s) = integral of f over the plane n . (x - center) = s

Each voxel gives its integral ``f(x) dV`` to the two planes next to it, divided by linear
interpolation in s and by the planes' distance; the adjoint reads the planes by the same linear
interpolation. The two are a matched pair: ``<R f, q> = <f, R* q>`` to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from TomoSegLib.imaging.volume import FloatArray, Geometry


class PlaneRadon:
    """Plane integrals of a volume along a set of directions, and the adjoint.

    Args:
        geometry: The grid of the volume.
        normals: ``(A, 3)`` unit normals, LPS.
        offsets: ``(S,)`` offsets of the planes from the center along each normal, mm, ascending
            and equally spaced; by default planes through the whole grid.
        center: ``(3,)`` LPS mm; by default the centre of the grid.
        distance_mm: Distance of the default offsets; by default the smallest voxel spacing.
        support: ``(K, J, I)`` bool: voxels outside it are zero, and cost nothing.
        dtype: float32 or float64.
        device: Where to compute.
    """

    def __init__(
        self,
        geometry: Geometry,
        normals: npt.ArrayLike,
        offsets: npt.ArrayLike | None = None,
        center: npt.ArrayLike | None = None,
        *,
        distance_mm: float | None = None,
        support: npt.NDArray[np.bool_] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.geometry = geometry
        self.normals: FloatArray = np.asarray(normals, dtype=np.float64).reshape(-1, 3)
        self.center: FloatArray = (
            geometry.center if center is None else np.asarray(center, dtype=np.float64)
        )
        if offsets is None:
            step = float(geometry.spacing.min()) if distance_mm is None else distance_mm
            farthest = np.linalg.norm(geometry.corners() - self.center, axis=1).max()
            steps = int(np.ceil(farthest / step)) + 1
            offsets = np.arange(-steps, steps + 1) * step
        self.offsets: FloatArray = np.asarray(offsets, dtype=np.float64)
        if len(self.offsets) < 2:
            raise ValueError("a plane-Radon transform needs at least two offsets")
        self.distance_mm = float(self.offsets[1] - self.offsets[0])
        self.shape = (len(self.normals), len(self.offsets))
        self.dtype, self.device = dtype, torch.device(device)

        inside = np.ones(geometry.shape, bool) if support is None else support
        self._inside = np.flatnonzero(inside)
        voxel = np.stack(np.unravel_index(self._inside, geometry.shape)[::-1])
        self._voxel = torch.from_numpy(voxel.astype(np.float32)).to(self.device, dtype)
        self._index = torch.from_numpy(self._inside).to(self.device)
        # f dV spread over planes whose distance is ds: their sum times ds is the integral of f.
        self._gain = geometry.voxel_volume_ml * 1000 / self.distance_mm

    def forward(self, volume: Tensor) -> Tensor:
        """Plane integrals.

        Args:
            volume: ``(K, J, I)`` on the grid.

        Returns:
            ``(A, S)``, in units of the volume times mm^2.
        """
        values = volume.to(self.device, self.dtype).reshape(-1)[self._index] * self._gain
        planes = torch.zeros(
            (len(self.normals), len(self.offsets) + 2), dtype=self.dtype, device=self.device
        )
        for row, (below, fraction) in zip(planes, self._positions(), strict=True):
            upper = values * fraction
            row.index_add_(0, below, values - upper)
            row.index_add_(0, below + 1, upper)
        return planes[:, 1:-1].contiguous()

    def adjoint(self, planes: Tensor) -> Tensor:
        """The transpose of `forward`: unfiltered backprojection.

        Args:
            planes: ``(A, S)``.

        Returns:
            ``(K, J, I)``, zero outside the support.
        """
        # The planes beyond both ends are zero, and take what lies outside in `forward`.
        padded = functional.pad(planes.to(self.device, self.dtype), (1, 1))
        total = torch.zeros_like(self._voxel[0])
        for row, (below, fraction) in zip(padded, self._positions(), strict=True):
            total += torch.lerp(row[below], row[below + 1], fraction)
        volume = torch.zeros(
            int(np.prod(self.geometry.shape)), dtype=self.dtype, device=self.device
        )
        volume[self._index] = total * self._gain
        return volume.view(self.geometry.shape)

    def _positions(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each direction, the index of the plane below each voxel and the share above it.

        Indices count from a plane below the first; voxels beyond the planes fall wholly on the
        extra plane at either end.
        """
        last = len(self.offsets) + 1
        for normal in self.normals:
            slope = normal @ self.geometry.affine[:3, :3] / self.distance_mm
            start = (normal @ (self.geometry.origin - self.center) - self.offsets[0]) / (
                self.distance_mm
            )
            position = torch.as_tensor(slope, dtype=self.dtype, device=self.device) @ self._voxel
            position.add_(start + 1).clamp_(0, last)
            below = position.floor().clamp_(max=last - 1)
            yield below.to(torch.int64), position.sub_(below)
