"""Simulated lesions on real anatomy: FLAIR-like brain volumes whose label and mask are known.

A simulated volume starts from a real head (`TomoSegLib.datasets.anatomy`). The head is warped, its
tissues get random intensities, and then two kinds of change are made, from one seed:

* what **only positive** volumes have: one to three lesions with oedema, a core that may enhance
  and a necrotic centre, or iso-intense ones that differ by texture alone;
* what **positive and negative volumes have alike**, so that it gives the label away neither by
  histogram nor by deformation: mass effect with or without a lesion in its middle, bright vessels,
  symmetric bright spots, bright rims of ventricles and of the brain's surface, bias field, noise,
  thick slices.

The construction is this project's own; `RECIPE_VERSION` changes whenever the same seed would give
another volume. Nothing here is a model of a disease, and no clinical conclusion can rest on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from TomoSegLib.imaging.volume import Geometry, Volume

RECIPE_VERSION = 1

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """Ranges that a volume's parameters are drawn from; lengths in mm, white matter has value 1.

    Attributes:
        spacing_mm: Voxel size of the simulated volumes.
        lesion_volume_ml: Volume of a lesion with its oedema: half of them are drawn uniformly, so
            that large ones are not rare, and half log-uniformly, so that small ones are not.
        lesion_counts: Probabilities of 1, 2 and 3 lesions in a positive volume.
        oedema_gain: Brightness of oedema above white matter.
        core_gain: Brightness of the core above white matter.
        isointense: Probability that a lesion differs from its surroundings by texture alone.
        mass_effect: Probability of a mass effect, with a lesion in its middle or without one.
        mass_effect_mm: Largest displacement of tissue by it.
    """

    spacing_mm: float = 2.0
    lesion_volume_ml: Range = (0.5, 100.0)
    lesion_counts: tuple[float, float, float] = (0.6, 0.25, 0.15)
    oedema_gain: Range = (0.3, 1.3)
    core_gain: Range = (0.0, 1.5)
    isointense: float = 0.1
    mass_effect: float = 0.5
    mass_effect_mm: Range = (2.0, 9.0)
    rotation_rad: float = 0.35
    scale: Range = (0.85, 1.05)
    elastic_mm: Range = (1.0, 5.0)
    grey: Range = (0.95, 1.4)
    csf: Range = (0.05, 0.55)
    detail_gain: Range = (0.0, 0.25)
    tissue_variation: Range = (0.0, 0.08)
    ventricle_rim: Range = (0.0, 0.6)
    surface_rim: Range = (0.0, 1.0)
    vessels: tuple[int, int] = (0, 6)
    symmetric_spots: tuple[int, int] = (0, 4)
    bias: Range = (0.0, 0.1)
    blur_mm: Range = (0.0, 1.2)
    slice_thickness_mm: Range = (0.0, 5.0)
    noise: Range = (0.01, 0.08)


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """A simulated volume with everything that is known about it.

    Attributes:
        image: int16 volume; 0 outside the brain.
        mask: uint8 volume, 1 in lesions (oedema and core together).
        label: 1 if there is a lesion, else 0.
        parameters: What was drawn, for the record.
    """

    image: Volume
    mask: Volume
    label: int
    parameters: dict[str, float | int | str] = field(default_factory=dict)


class _Dice:
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
class _Head:
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

    def noise(self, wavelength_mm: float, dice: _Dice) -> Tensor:
        """A smooth random field on the head's grid."""
        return smooth_noise(
            self.shape, wavelength_mm / self.spacing, dice.generator, device=self.brain.device
        )[0]

    def distance(self, center: Tensor, radii: Tensor, dice: _Dice) -> Tensor:
        """Scaled distance to a randomly turned ellipsoid's centre; radii in voxels."""
        rotation = random_rotation(dice.generator)
        return ellipsoid_distance(self.shape, center, rotation, radii, self.brain.device)


def simulate_case(
    anatomy: Anatomy,
    label: int,
    seed: int,
    recipe: Recipe | None = None,
    device: torch.device | str = "cpu",
) -> SimulatedCase:
    """One simulated volume.

    Args:
        anatomy: The head it is made from.
        label: 1 for a volume with lesions, 0 for one without.
        seed: Everything random follows from it.
        recipe: Ranges of the parameters.
        device: Where to compute; randomness is drawn on the CPU, so that every device simulates
            the same volume up to rounding.

    Returns:
        The volume on an isotropic LPS grid that covers the head, its mask and its parameters.
    """
    recipe = recipe or Recipe()
    dice = _Dice(seed)
    parameters: dict[str, float | int | str] = {
        "recipe_version": RECIPE_VERSION,
        "anatomy": anatomy.name,
        "seed": seed,
        "label": label,
    }
    head, geometry = _warped_head(anatomy, recipe, dice, torch.device(device))

    # The places of lesions are drawn for negatives too: a mass effect may sit there without one.
    count = 1 + dice.choice(recipe.lesion_counts)
    volumes = [_lesion_volume(recipe, dice) for _ in range(count)]
    inside = (head.brain > 0.5) & (head.depth > 4) & (head.csf < 0.5)
    centers = [dice.voxel_in(inside) for _ in range(count)]
    if dice.happens(recipe.mass_effect):
        push = dice.uniform(recipe.mass_effect_mm)
        radius = _radius_mm(volumes[0])
        head = _with_mass_effect(head, centers[0], radius, min(push, 0.6 * radius))
        parameters["mass_effect_mm"] = round(min(push, 0.6 * radius), 2)

    image = _healthy_contrast(head, recipe, dice)
    image = _with_bright_decoys(image, head, recipe, dice)
    mask = torch.zeros_like(head.brain, dtype=torch.bool)
    if label:
        for center, volume_ml in zip(centers, volumes, strict=True):
            image, lesion = _with_lesion(image, head, center, volume_ml, recipe, dice)
            mask |= lesion
        parameters["lesions"] = count
    parameters["lesion_ml"] = round(float(mask.sum()) * head.spacing**3 / 1000, 3)

    image = _acquired(image, head, recipe, dice)
    scaled = (image * dice.log_uniform((150.0, 900.0))).round().clamp(1, 32767)
    array = scaled.masked_fill(head.brain < 0.5, 0).to(torch.int16).cpu().numpy()
    name = f"{anatomy.name}-{seed}"
    return SimulatedCase(
        Volume(array, geometry, name),
        Volume(mask.to(torch.uint8).cpu().numpy(), geometry, f"{name}-mask"),
        label,
        parameters,
    )


def _lesion_volume(recipe: Recipe, dice: _Dice) -> float:
    large = dice.happens(0.5)
    draw = dice.uniform if large else dice.log_uniform
    return draw(recipe.lesion_volume_ml)


def _radius_mm(volume_ml: float) -> float:
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


def _warped_head(
    anatomy: Anatomy, recipe: Recipe, dice: _Dice, device: torch.device
) -> tuple[_Head, Geometry]:
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
    head = _Head(tissues[0], tissues[1], tissues[2], warped[3], brain, depth, spacing)
    return head, geometry


def _depth_mm(brain: Tensor, spacing: float) -> Tensor:
    inside = ndimage.distance_transform_edt(brain.cpu().numpy() > 0.5)
    return torch.from_numpy(np.asarray(inside, dtype=np.float32)).to(brain.device) * spacing


def _with_mass_effect(head: _Head, center: Tensor, radius_mm: float, push_mm: float) -> _Head:
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
    return _Head(
        tissues[0], tissues[1], tissues[2], warped[3], head.brain, head.depth, head.spacing
    )


def _healthy_contrast(head: _Head, recipe: Recipe, dice: _Dice) -> Tensor:
    """FLAIR-like intensities: dark CSF, white matter at 1, grey matter a little brighter."""
    grey, csf = dice.uniform(recipe.grey), dice.uniform(recipe.csf)
    variation = dice.uniform(recipe.tissue_variation)
    slow = head.noise(dice.uniform((8.0, 25.0)), dice)
    fine = head.noise(dice.uniform((2.5, 6.0)), dice)
    white_map = 1 + variation * slow
    grey_map = grey * (1 + variation * (0.5 * slow + fine))
    image = head.white * white_map + head.grey * grey_map + head.csf * csf
    image = image + dice.uniform(recipe.detail_gain) * head.detail

    # Ventricles are CSF far below the surface; in FLAIR their rim is often bright.
    ventricles = head.csf * (head.depth > 18)
    near = gaussian_blur(ventricles[None], (2.5 / head.spacing,) * 3)[0]
    image = image + dice.uniform(recipe.ventricle_rim) * near * head.white * 2

    patches = head.noise(20.0, dice).clamp(0, 1.5)
    surface = torch.exp(-((head.depth / 3) ** 2))
    if dice.happens(0.5):
        image = image + dice.uniform(recipe.surface_rim) * patches * surface
    return image


def _with_bright_decoys(image: Tensor, head: _Head, recipe: Recipe, dice: _Dice) -> Tensor:
    """Bright vessels and symmetric spots, alike in volumes with and without lesions."""
    brain = head.brain > 0.5
    for _ in range(dice.integer(recipe.vessels)):
        image = image + _vessel(head, brain, dice)
    center_i = (head.shape[2] - 1) / 2
    for _ in range(dice.integer(recipe.symmetric_spots)):
        spot = dice.voxel_in(brain & (head.csf < 0.5) & (head.depth > 3))
        radius = dice.uniform((1.5, 5.0)) / head.spacing
        gain = dice.uniform((0.2, 1.2))
        mirrored = spot.clone()
        mirrored[2] = 2 * center_i - spot[2] + dice.uniform((-2.0, 2.0))
        for position in (spot, mirrored):
            radii = torch.tensor([radius * dice.uniform((0.6, 1.4)) for _ in range(3)])
            distance = head.distance(position, radii, dice)
            image = image + gain * torch.sigmoid((1 - distance) * 4) * (1 - head.csf)
    return image


def _vessel(head: _Head, brain: Tensor, dice: _Dice) -> Tensor:
    """A bright curved tube of 1 to 2 mm radius and 20 to 90 mm length."""
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
    width = dice.uniform((0.5, 1.0)) / head.spacing
    tube = gaussian_blur(line[None].to(brain.device), (max(width, 0.5),) * 3)[0]
    return dice.uniform((0.4, 2.0)) * (tube / tube.max().clamp_min(1e-6)) * head.brain


def _with_lesion(
    image: Tensor, head: _Head, center: Tensor, volume_ml: float, recipe: Recipe, dice: _Dice
) -> tuple[Tensor, Tensor]:
    """A lesion painted over the image; returns the image and the lesion's mask."""
    radius = _radius_mm(volume_ml) / head.spacing
    stretch = torch.tensor([dice.log_uniform((0.7, 1.4)) for _ in range(3)])
    stretch = stretch / stretch.prod() ** (1 / 3)
    distance = head.distance(center, radius * stretch, dice)
    lobes = head.noise(max(radius * dice.uniform((0.6, 1.5)), 2.0) * head.spacing, dice)
    # Oedema follows white matter and stops at CSF; the core is rounder.
    irregular = distance + dice.uniform((0.1, 0.35)) * lobes
    outer = irregular + dice.uniform((0.2, 0.8)) * head.grey + 1.5 * head.csf
    outer = outer.masked_fill(head.brain < 0.5, 1e3)
    voxels = max(4, round(volume_ml * 1000 / head.spacing**3))
    level = _level_of_size(outer, voxels)
    lesion = _component_around(outer <= level, distance)
    softness = dice.uniform((0.5, 2.5)) / (radius * head.spacing)  # of the border, scaled
    weight = torch.sigmoid((level - outer) / max(softness / 2, 1e-3)) * (outer < 1e2)
    weight = weight * _blurred_reach(lesion, head.spacing)

    texture = head.noise(dice.uniform((2.5, 8.0)), dice)
    if dice.happens(recipe.isointense):
        return image + weight * dice.uniform((0.25, 0.5)) * texture, lesion

    oedema_gain = dice.uniform(recipe.oedema_gain)
    oedema = 1 + oedema_gain * (1 + dice.uniform((0.0, 0.15)) * texture)
    painted = image * (1 - weight) + oedema * weight

    core_part = dice.uniform((0.0, 0.7))
    core_voxels = round(core_part * voxels)
    if core_voxels >= 4:
        inner = (distance + 0.15 * lobes).masked_fill(~lesion, 1e3)
        core_level = _level_of_size(inner, core_voxels)
        core = torch.sigmoid((core_level - inner) * 8)
        core_value = 1 + dice.uniform(recipe.core_gain) + dice.uniform((0.0, 0.2)) * texture
        painted = painted * (1 - core) + core_value * core
        if dice.happens(0.5):
            necrosis_level = core_level * dice.uniform((0.4, 0.85))
            necrosis = torch.sigmoid((necrosis_level - inner) * 8)
            necrosis_value = dice.uniform((0.15, 1.3))
            painted = painted * (1 - necrosis) + necrosis_value * necrosis
    return painted, lesion


def _level_of_size(values: Tensor, voxels: int) -> float:
    """The value below which so many voxels lie."""
    flat = values.flatten()
    return float(torch.kthvalue(flat, min(voxels, flat.numel())).values)


def _component_around(mask: Tensor, distance: Tensor) -> Tensor:
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


def _blurred_reach(lesion: Tensor, spacing: float) -> Tensor:
    """1 in the lesion and just beyond, 0 where only removed specks were."""
    return (gaussian_blur(lesion.float()[None], (2 / spacing,) * 3)[0] * 4).clamp(0, 1)


def _acquired(image: Tensor, head: _Head, recipe: Recipe, dice: _Dice) -> Tensor:
    """What a scanner does: blur, thick slices, bias field, Rician noise."""
    blur = dice.uniform(recipe.blur_mm) / head.spacing
    sigma = [blur, blur, blur]
    # A slice profile of full width t has about the blur of a Gaussian of sigma t / 2.5.
    thickness = dice.uniform(recipe.slice_thickness_mm)
    sigma[dice.choice((0.7, 0.15, 0.15))] += thickness / 2.5 / head.spacing
    # Blur the image over the brain's own voxels, so that the background does not bleed in.
    stacked = torch.stack([image * head.brain, head.brain])
    blurred = gaussian_blur(stacked, (sigma[0], sigma[1], sigma[2]))
    image = blurred[0] / blurred[1].clamp_min(0.05)
    image = image * torch.exp(dice.uniform(recipe.bias) * head.noise(90.0, dice))
    noise = torch.randn((2, *head.shape), generator=dice.generator).to(image.device)
    noise *= dice.uniform(recipe.noise)
    return ((image.clamp_min(0) + noise[0]) ** 2 + noise[1] ** 2).sqrt()
