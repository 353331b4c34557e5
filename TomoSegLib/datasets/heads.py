"""Real heads, warped at random, and what every contrast of simulated volumes is painted with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from TomoSegLib.datasets.anatomy import Anatomy
from TomoSegLib.datasets.random_fields import (
    ellipsoid_distance,
    gaussian_blur,
    random_rotation,
    smooth_noise,
)
from TomoSegLib.datasets.recipes import Range, Recipe
from TomoSegLib.imaging.volume import Geometry

VESSEL_WIDTH_MM = (0.5, 1.0)
"""Half of the radius of ordinary vessels."""


class Dice:
    """Draws from one generator, in the order of the code."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, limits: Range) -> float:
        low, high = limits
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def log_uniform(self, limits: Range) -> float:
        return math.exp(self.uniform((math.log(limits[0]), math.log(limits[1]))))

    def integer(self, limits: tuple[int, int]) -> int:
        """An integer from both ends included."""
        low, high = limits
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def happens(self, probability: float) -> bool:
        return self.uniform((0.0, 1.0)) < probability

    def choice(self, probabilities: Sequence[float]) -> int:
        weights = torch.tensor(probabilities)
        return int(torch.multinomial(weights, 1, generator=self.generator))

    def voxel_in(self, mask: Tensor) -> Tensor:
        """``(3,)`` float position ``(k, j, i)`` of a random voxel of the mask."""
        places = mask.cpu().flatten().nonzero()[:, 0]
        index = int(places[self.integer((0, len(places) - 1))])
        return torch.tensor(np.unravel_index(index, mask.shape), dtype=torch.float32)


@dataclass
class Head:
    """A warped head on the simulation's grid; all tensors are ``(k, j, i)``."""

    csf: Tensor
    grey: Tensor
    white: Tensor
    detail: Tensor
    brain: Tensor
    depth: Tensor  # mm below the brain's surface, approximately
    spacing: float

    @property
    def shape(self) -> tuple[int, int, int]:
        k, j, i = self.brain.shape
        return k, j, i

    def noise(self, wavelength_mm: float, dice: Dice) -> Tensor:
        """A smooth random field on the head's grid."""
        return smooth_noise(
            self.shape, wavelength_mm / self.spacing, dice.generator, device=self.brain.device
        )[0]

    def distance(self, center: Tensor, radii: Tensor, dice: Dice) -> Tensor:
        """Scaled distance to a randomly turned ellipsoid's centre; radii in voxels."""
        rotation = random_rotation(dice.generator)
        return ellipsoid_distance(self.shape, center, rotation, radii, self.brain.device)


def radius_mm(volume_ml: float) -> float:
    return float((volume_ml * 1000 * 3 / (4 * math.pi)) ** (1 / 3))


@lru_cache(maxsize=4)
def _source_maps(anatomy: Anatomy, spacing: float, device: torch.device) -> tuple[Tensor, int]:
    """Tissue fractions and detail, made ready to be sampled at a coarser spacing.

    Returns:
        ``(4, k, j, i)`` maps, blurred against aliasing, of every n-th voxel only; and n.
    """
    maps = torch.from_numpy(np.concatenate([anatomy.tissues, anatomy.detail[None]])).to(device)
    ratio = spacing / float(anatomy.geometry.spacing.mean())
    maps = gaussian_blur(maps, (max(0.0, 0.4 * (ratio - 1)),) * 3)
    step = max(1, int(ratio))
    return maps[:, ::step, ::step, ::step].contiguous(), step


def warped_head(
    anatomy: Anatomy, recipe: Recipe, dice: Dice, device: torch.device
) -> tuple[Head, Geometry]:
    """The head after a random affine and elastic warp, on an isotropic LPS grid around it."""
    spacing = recipe.spacing_mm
    source, step = _source_maps(anatomy, spacing, device)
    corners = anatomy.corners
    center, extent = corners.mean(axis=0), np.abs(np.diff(corners, axis=0))[0]
    factors = np.array([dice.uniform(recipe.scale) for _ in range(3)])
    rotation = random_rotation(dice.generator, recipe.rotation_rad).numpy().astype(np.float64)
    flip = np.array([-1.0 if dice.happens(0.5) else 1.0, 1.0, 1.0])

    side = np.ceil((np.abs(rotation) @ (extent * factors) + 16) / spacing).astype(int)
    shape = (int(side[2]), int(side[1]), int(side[0]))
    origin = -(side - 1) / 2 * spacing  # the head's centre is put at LPS (0, 0, 0)
    geometry = Geometry.from_parts(shape, (spacing,) * 3, origin=tuple(origin))

    # Output voxel -> LPS of the new volume -> LPS of the anatomy -> its voxel -> grid_sample's
    # normalised coordinates: one affine map.
    to_anatomy = np.diag(flip / factors) @ rotation.T
    matrix = np.eye(4)
    matrix[:3, :3] = to_anatomy @ geometry.affine[:3, :3]
    matrix[:3, 3] = to_anatomy @ geometry.affine[:3, 3] + center
    matrix = np.linalg.inv(anatomy.geometry.affine) @ matrix
    matrix[:3] /= step
    size = np.array(source.shape[:0:-1], dtype=np.float64)
    normalise = np.diag([*(2 / (size - 1)), 1.0])
    normalise[:3, 3] = -1
    affine = (normalise @ matrix)[:3]
    ramps = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    grid = torch.empty((*shape, 3), device=device)
    for axis in range(3):
        grid[..., axis] = (
            float(affine[axis, 0]) * ramps[2][None, None, :]
            + float(affine[axis, 1]) * ramps[1][None, :, None]
            + float(affine[axis, 2]) * ramps[0][:, None, None]
            + float(affine[axis, 3])
        )
    amplitude = dice.uniform(recipe.elastic_mm)
    wavelength = dice.uniform((25.0, 60.0)) / spacing
    displacement = amplitude * smooth_noise(
        shape, wavelength, dice.generator, channels=3, device=device
    )
    source_spacing = anatomy.geometry.spacing * step
    for axis in range(3):
        grid[..., axis] += displacement[axis] / source_spacing[axis] * 2 / (size[axis] - 1)

    warped = F.grid_sample(source[None], grid[None], align_corners=True)[0]
    brain = (warped[:3].sum(dim=0) > 0.5).float()
    tissues = warped[:3] / warped[:3].sum(dim=0, keepdim=True).clamp_min(1e-3) * brain
    depth = _depth_mm(brain, spacing)
    head = Head(tissues[0], tissues[1], tissues[2], warped[3], brain, depth, spacing)
    return head, geometry


def _depth_mm(brain: Tensor, spacing: float) -> Tensor:
    inside = ndimage.distance_transform_edt(brain.cpu().numpy() > 0.5)
    return torch.from_numpy(np.asarray(inside, dtype=np.float32)).to(brain.device) * spacing


def with_mass_effect(head: Head, center: Tensor, radius_mm: float, push_mm: float) -> Head:
    """Tissue pushed away from a centre; the displacement fades with distance and at the surface."""
    shape = head.shape
    offsets = [
        (torch.arange(n, dtype=torch.float32, device=head.brain.device) - float(center[d]))
        * head.spacing
        for d, n in enumerate(shape)
    ]
    dk, dj, di = offsets[0][:, None, None], offsets[1][None, :, None], offsets[2][None, None, :]
    distance = (dk**2 + dj**2 + di**2).sqrt()
    reach = 1.6 * radius_mm
    # Zero at the centre (nothing folds), largest at about the lesion's surface.
    size = push_mm * (distance / reach) * torch.exp(0.5 - 0.5 * (distance / reach) ** 2)
    size = size * (head.depth / 10).clamp(0, 1) / distance.clamp_min(1e-3)
    grid = torch.empty((*shape, 3), device=head.brain.device)
    for channel, (axis, delta) in enumerate(((2, di), (1, dj), (0, dk))):
        n = shape[axis]
        ramp_shape = [1, 1, 1]
        ramp_shape[axis] = n
        ramp = torch.arange(n, dtype=torch.float32, device=grid.device).view(ramp_shape)
        grid[..., channel] = (ramp - size * delta / head.spacing) * 2 / (n - 1) - 1
    maps = torch.stack([head.csf, head.grey, head.white, head.detail])
    warped = F.grid_sample(maps[None], grid[None], align_corners=True, padding_mode="border")[0]
    tissues = warped[:3] / warped[:3].sum(dim=0, keepdim=True).clamp_min(1e-3) * head.brain
    return Head(tissues[0], tissues[1], tissues[2], warped[3], head.brain, head.depth, head.spacing)


def level_of_size(values: Tensor, voxels: int) -> float:
    """The value below which so many voxels lie."""
    flat = values.flatten()
    return float(torch.kthvalue(flat, min(voxels, flat.numel())).values)


def component_around(mask: Tensor, distance: Tensor) -> Tensor:
    """The mask's components that reach the lesion's middle, without specks far away."""
    inside = mask.cpu().numpy()
    components, count = ndimage.label(inside)
    if count <= 1:
        return mask
    near = components[inside & (distance.cpu().numpy() < 1.0)]
    keep = np.unique(near[near > 0])
    if len(keep) == 0:
        keep = np.array([np.bincount(components.ravel())[1:].argmax() + 1])
    return torch.from_numpy(np.isin(components, keep)).to(mask.device)


def blurred_reach(lesion: Tensor, spacing: float) -> Tensor:
    """1 in the lesion and just beyond, 0 where only removed specks were."""
    return (gaussian_blur(lesion.float()[None], (2 / spacing,) * 3)[0] * 4).clamp(0, 1)


def vessel(head: Head, brain: Tensor, dice: Dice, width_mm: Range = VESSEL_WIDTH_MM) -> Tensor:
    """A bright curved tube of 20 to 90 mm length that begins in a mask.

    Args:
        head: Where it runs.
        brain: ``(k, j, i)`` bool: where it begins.
        dice: Draws it.
        width_mm: Range of its radius, by half.
    """
    position = dice.voxel_in(brain)
    heading = F.normalize(torch.randn(3, generator=dice.generator), dim=0)
    line = torch.zeros(head.shape)  # filled voxel by voxel, so on the CPU
    steps = int(dice.uniform((20.0, 90.0)) / (0.5 * head.spacing))
    for _ in range(steps):
        turn = torch.randn(3, generator=dice.generator) * 0.12
        heading = F.normalize(heading + turn, dim=0)
        position = position + 0.5 * heading
        k, j, i = (int(v) for v in position.round())
        if not all(0 <= v < n for v, n in zip((k, j, i), head.shape, strict=True)):
            break
        line[k, j, i] = 1
    width = dice.uniform(width_mm) / head.spacing
    tube = gaussian_blur(line[None].to(brain.device), (max(width, 0.5),) * 3)[0]
    return dice.uniform((0.4, 2.0)) * (tube / tube.max().clamp_min(1e-6)) * head.brain
