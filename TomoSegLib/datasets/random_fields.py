"""Smooth random fields, the raw material of warps, bias fields, textures and lesion shapes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def smooth_noise(
    shape: tuple[int, int, int],
    wavelength: float,
    generator: torch.Generator,
    *,
    channels: int = 1,
) -> Tensor:
    """Standard normal noise with a correlation length, by cubic-like upsampling of a coarse grid.

    Args:
        shape: ``(k, j, i)`` of the field, voxels.
        wavelength: Distance of the coarse grid's nodes, voxels.
        generator: Source of randomness, on the CPU so that every device draws the same field.
        channels: Number of independent fields.

    Returns:
        ``(channels, k, j, i)`` float32 on the CPU, with mean about 0 and variance about 1.
    """
    coarse = [max(2, round(n / wavelength) + 1) for n in shape]
    nodes = torch.randn((1, channels, *coarse), generator=generator)
    field = F.interpolate(nodes, size=shape, mode="trilinear", align_corners=True)[0]
    # Interpolation between nodes averages them, which lowers the variance.
    return field / field.std().clamp_min(1e-6)


def gaussian_blur(image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """Separable Gaussian blur of ``(c, k, j, i)`` with sigma in voxels along ``(k, j, i)``."""
    for axis, s in enumerate(sigma):
        if s < 0.1:
            continue
        radius = max(1, int(3 * s + 0.5))
        x = torch.arange(-radius, radius + 1, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (x / s) ** 2)
        kernel /= kernel.sum()
        size = [1, 1, 1]
        size[axis] = 2 * radius + 1
        padding = [0, 0, 0]
        padding[axis] = radius
        image = F.conv3d(image[:, None], kernel.view(1, 1, *size), padding=padding)[:, 0]
    return image


def ellipsoid_distance(
    shape: tuple[int, int, int], center: Tensor, axes: Tensor, radii: Tensor
) -> Tensor:
    """Scaled distance to a centre: 1 on the surface of an ellipsoid.

    Args:
        shape: ``(k, j, i)``.
        center: ``(3,)`` position ``(k, j, i)``, voxels.
        axes: ``(3, 3)`` orthonormal rows, the ellipsoid's axes in ``(k, j, i)``.
        radii: ``(3,)`` half axes, voxels.
    """
    # |D A (x - c)| as an affine map of three ramps: no full-size coordinate array is built.
    matrix = axes / radii[:, None]
    ramps = [torch.arange(n, dtype=torch.float32) - float(center[d]) for d, n in enumerate(shape)]
    squared = torch.zeros(shape)
    for row in matrix:
        component = (
            row[0] * ramps[0][:, None, None]
            + row[1] * ramps[1][None, :, None]
            + row[2] * ramps[2][None, None, :]
        )
        squared += component**2
    return squared.sqrt_()


def random_rotation(generator: torch.Generator, max_angle: float | None = None) -> Tensor:
    """``(3, 3)`` rotation: uniform over all, or about a random axis by at most ``max_angle``."""
    if max_angle is None:
        q, r = torch.linalg.qr(torch.randn((3, 3), generator=generator))
        q = q * torch.sign(torch.diagonal(r))
        if torch.det(q) < 0:
            q[:, 0] = -q[:, 0]
        return q
    axis = F.normalize(torch.randn(3, generator=generator), dim=0)
    angle = float(torch.rand(1, generator=generator)) * max_angle
    x, y, z = (float(v) for v in axis)
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return torch.linalg.matrix_exp(cross * angle)
