"""Smooth random fields, the raw material of warps, bias fields, textures and lesion shapes."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F


def smooth_noise(
    shape: tuple[int, int, int],
    wavelength: float,
    generator: torch.Generator,
    *,
    channels: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise with a correlation length, by upsampling of a coarse grid.

    Args:
        shape: ``(k, j, i)`` of the field, voxels.
        wavelength: Distance of the coarse grid's nodes, voxels.
        generator: Source of randomness, on the CPU so that every device draws the same field.
        channels: Number of independent fields.
        device: Where the field is wanted.

    Returns:
        ``(channels, k, j, i)`` float32 on the device, with mean about 0 and variance about 1.
    """
    coarse = [max(2, round(n / wavelength) + 1) for n in shape]
    nodes = torch.randn((1, channels, *coarse), generator=generator).to(device)
    field = F.interpolate(nodes, size=shape, mode="trilinear", align_corners=True)[0]
    # Interpolation between nodes averages them, which lowers the variance.
    return field / field.std().clamp_min(1e-6)


def gaussian_blur(image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """Gaussian blur of ``(c, k, j, i)`` with sigma in voxels along ``(k, j, i)``, zero outside."""
    blurred = ndimage.gaussian_filter(
        image.cpu().numpy(), (0.0, *sigma), mode="constant", truncate=3.0
    )
    return torch.from_numpy(blurred).to(image.device)


def ellipsoid_distance(
    shape: tuple[int, int, int],
    center: Tensor,
    axes: Tensor,
    radii: Tensor,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Scaled distance to a centre: 1 on the surface of an ellipsoid.

    Args:
        shape: ``(k, j, i)``.
        center: ``(3,)`` position ``(k, j, i)``, voxels.
        axes: ``(3, 3)`` orthonormal rows, the ellipsoid's axes in ``(k, j, i)``.
        radii: ``(3,)`` half axes, voxels.
        device: Where the ``(k, j, i)`` result is wanted.
    """
    # |D A (x - c)| as an affine map of three ramps: no full-size coordinate array is built.
    matrix = (axes / radii[:, None]).tolist()
    ramps = [
        torch.arange(n, dtype=torch.float32, device=device) - float(center[d])
        for d, n in enumerate(shape)
    ]
    squared = torch.zeros(shape, device=device)
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
