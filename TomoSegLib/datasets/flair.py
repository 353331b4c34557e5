"""FLAIR-like contrast: dark fluid, lesions that are brighter than white matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from TomoSegLib.datasets.heads import (
    Dice,
    Head,
    blurred_reach,
    component_around,
    level_of_size,
    radius_mm,
    vessel,
)
from TomoSegLib.datasets.random_fields import gaussian_blur
from TomoSegLib.datasets.recipes import Recipe


def paint(
    head: Head,
    places: Sequence[tuple[Tensor, float]],
    label: int,
    recipe: Recipe,
    dice: Dice,
) -> tuple[Tensor, Tensor]:
    """The image of a head, with lesions or without.

    Args:
        head: Its tissues.
        places: Of each lesion: position ``(k, j, i)`` and volume in mL.
        label: Whether there are lesions.
        recipe: Ranges of what is drawn.
        dice: Draws it.

    Returns:
        ``(k, j, i)`` intensities, white matter at about 1, and the bool mask of the lesions.
    """
    image = _healthy_contrast(head, recipe, dice)
    image = _with_decoys(image, head, recipe, dice)
    mask = torch.zeros_like(head.brain, dtype=torch.bool)
    if label:
        for center, volume_ml in places:
            image, lesion = _with_lesion(image, head, center, volume_ml, recipe, dice)
            mask |= lesion
    return image, mask


def _healthy_contrast(head: Head, recipe: Recipe, dice: Dice) -> Tensor:
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


def _with_decoys(image: Tensor, head: Head, recipe: Recipe, dice: Dice) -> Tensor:
    """Bright vessels and symmetric spots, alike in volumes with and without lesions."""
    brain = head.brain > 0.5
    for _ in range(dice.integer(recipe.vessels)):
        image = image + vessel(head, brain, dice)
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


def _with_lesion(
    image: Tensor, head: Head, center: Tensor, volume_ml: float, recipe: Recipe, dice: Dice
) -> tuple[Tensor, Tensor]:
    """A lesion painted over the image; returns the image and the lesion's mask."""
    radius = radius_mm(volume_ml) / head.spacing
    stretch = torch.tensor([dice.log_uniform((0.7, 1.4)) for _ in range(3)])
    stretch = stretch / stretch.prod() ** (1 / 3)
    distance = head.distance(center, radius * stretch, dice)
    lobes = head.noise(max(radius * dice.uniform((0.6, 1.5)), 2.0) * head.spacing, dice)
    # Oedema follows white matter and stops at CSF; the core is rounder.
    irregular = distance + dice.uniform((0.1, 0.35)) * lobes
    outer = irregular + dice.uniform((0.2, 0.8)) * head.grey + 1.5 * head.csf
    outer = outer.masked_fill(head.brain < 0.5, 1e3)
    voxels = max(4, round(volume_ml * 1000 / head.spacing**3))
    level = level_of_size(outer, voxels)
    lesion = component_around(outer <= level, distance)
    softness = dice.uniform((0.5, 2.5)) / (radius * head.spacing)  # of the border, scaled
    weight = torch.sigmoid((level - outer) / max(softness / 2, 1e-3)) * (outer < 1e2)
    weight = weight * blurred_reach(lesion, head.spacing)

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
        core_level = level_of_size(inner, core_voxels)
        core = torch.sigmoid((core_level - inner) * 8)
        core_value = 1 + dice.uniform(recipe.core_gain) + dice.uniform((0.0, 0.2)) * texture
        painted = painted * (1 - core) + core_value * core
        if dice.happens(0.5):
            necrosis_level = core_level * dice.uniform((0.4, 0.85))
            necrosis = torch.sigmoid((necrosis_level - inner) * 8)
            necrosis_value = dice.uniform((0.15, 1.3))
            painted = painted * (1 - necrosis) + necrosis_value * necrosis
    return painted, lesion
