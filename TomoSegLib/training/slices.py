"""Randomly oriented slices of many volumes, for training 2D encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A preprocessed volume with its yes or no.

    Attributes:
        image: ``(C, k, j, i)`` on an isotropic grid.
        foreground: ``(k, j, i)`` bool.
        label: 1 (positive) or 0.
        name: For messages.
    """

    image: npt.NDArray[np.float32]
    foreground: npt.NDArray[np.bool_]
    label: int
    name: str = ""


class SliceSampler:
    """Draws slices of uniformly random orientation and offset from a set of volumes.

    The volumes are held on the device, in half precision, padded to one size, so that a batch of
    slices from many volumes is one call of ``grid_sample``. Orientation is uniform on the sphere,
    the in-plane rotation uniform; the offset is uniform over the part of the normal on which the
    foreground's bounding ellipsoid lies, so that few slices are empty.

    Args:
        volumes: All of the same number of channels and voxel size.
        spacing: Pixel size in voxels.
        size: Side of a slice, pixels.
        background: Value outside the volumes.
        device: Where they are held and sampled.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        *,
        spacing: float,
        size: int,
        background: float,
        device: torch.device,
    ) -> None:
        self.spacing, self.size, self.device = spacing, size, device
        shape = np.max([v.foreground.shape for v in volumes], axis=0)
        channels = volumes[0].image.shape[0]
        half = torch.float16 if device.type == "cuda" else torch.float32
        self.images = torch.full(
            (len(volumes), channels + 1, *shape.tolist()), 0.0, dtype=half, device=device
        )
        self.centers = torch.zeros((len(volumes), 3))
        self.radii = torch.zeros((len(volumes), 3))
        for n, volume in enumerate(volumes):
            k, j, i = volume.foreground.shape
            # The last channel is the foreground: outside it augmentation must not act. The
            # background value is subtracted so that grid_sample's zero padding means background.
            self.images[n, :-1, :k, :j, :i] = torch.from_numpy(volume.image - background)
            self.images[n, -1, :k, :j, :i] = torch.from_numpy(volume.foreground)
            inside = np.argwhere(volume.foreground)
            low, high = inside.min(axis=0), inside.max(axis=0) + 1
            self.centers[n] = torch.from_numpy((low + high - 1) / 2.0)
            self.radii[n] = torch.from_numpy((high - low) / 2.0)
        self.background = background
        self.labels = torch.tensor([v.label for v in volumes])
        ramp = torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2
        self._ramp = ramp * spacing

    def draw(
        self, indices: Tensor, per_volume: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Random slices of some volumes.

        Args:
            indices: ``(V,)`` which volumes.
            per_volume: Slices of each.
            generator: Source of randomness (on the CPU).

        Returns:
            Slices ``(V, per_volume, C, H, W)`` and their foreground ``(V, per_volume, 1, H, W)``
            in [0, 1], float32 on the device.
        """
        count = len(indices)
        frame = random_frames(count * per_volume, generator).view(count, per_volume, 3, 3)
        columns, rows, normal = frame[:, :, 0], frame[:, :, 1], frame[:, :, 2]
        # Half extent of an ellipsoid along a normal.
        reach = (normal * self.radii[indices][:, None]).norm(dim=-1)
        offset = (torch.rand(reach.shape, generator=generator) * 2 - 1) * reach
        middle = self.centers[indices][:, None] + offset[..., None] * normal
        return self.sample(indices, middle, columns, rows)

    def sample(
        self, indices: Tensor, middle: Tensor, columns: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Slices through ``middle`` with in-plane axes ``columns`` and ``rows``.

        Args:
            indices: ``(V,)``.
            middle: ``(V, P, 3)`` positions ``(k, j, i)``, voxels.
            columns: ``(V, P, 3)`` unit vectors ``(k, j, i)`` of growing column index.
            rows: Likewise of growing row index.
        """
        shape = torch.tensor(self.images.shape[2:], dtype=torch.float32)
        scale = 2.0 / shape
        place = (((middle + 0.5) * scale) - 1).flip(-1).to(self.device)
        across = (columns * scale).flip(-1).to(self.device)
        down = (rows * scale).flip(-1).to(self.device)
        grid = (
            place[:, :, None, None]
            + across[:, :, None, None] * self._ramp[None, None, None, :, None]
            + down[:, :, None, None] * self._ramp[None, None, :, None, None]
        )
        # In half precision coordinates would be off by a tenth of a voxel.
        images = self.images[indices.to(self.device)].float()
        planes = F.grid_sample(images, grid, align_corners=False).transpose(1, 2)
        return planes[:, :, :-1] + self.background, planes[:, :, -1:]


def random_frames(count: int, generator: torch.Generator) -> Tensor:
    """``(count, 3, 3)`` orthonormal frames, uniform over rotations and reflections, rows = axes."""
    q, r = torch.linalg.qr(torch.randn((count, 3, 3), generator=generator))
    return q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[:, None, :]


def augment(
    slices: Tensor,
    foreground: Tensor,
    background: float,
    strength: float,
    generator: torch.Generator,
) -> Tensor:
    """Random intensity changes of each slice's foreground; orientation is random already.

    Contrast, brightness, a signed power curve, a linear shading across the slice and noise, each
    scaled by ``strength`` (0 changes nothing).

    Args:
        slices: ``(B, C, H, W)``, normalised so that the foreground's spread is about 1.
        foreground: ``(B, 1, H, W)`` in [0, 1].
        background: The value outside.
        strength: 1 for the usual amount.
        generator: Source of randomness (on the CPU).
    """
    batch, _, height, width = slices.shape
    device = slices.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device) * strength

    contrast = torch.exp(0.15 * normal(batch, 1, 1, 1))
    brightness = 0.15 * normal(batch, 1, 1, 1)
    power = torch.exp(0.1 * normal(batch, 1, 1, 1))
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None, :]
    shading = 0.15 * (normal(batch, 1, 1, 1) * x + normal(batch, 1, 1, 1) * y)
    noise_level = 0.1 * normal(batch, 1, 1, 1).abs()
    # The noise itself is drawn on the device: it is the only large draw, and its exact values
    # matter to nobody.
    changed = slices.sign() * slices.abs().clamp_min(1e-4) ** power
    changed = changed * contrast + brightness + shading + noise_level * torch.randn_like(slices)
    inside = foreground > 0.5
    return torch.where(inside, changed, torch.full((), background, device=device))
