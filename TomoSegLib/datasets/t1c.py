"""Contrast like T1 after contrast agent: dark fluid, bright vessels, cores that enhance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from TomoSegLib.datasets.heads import (
    VESSEL_WIDTH_MM,
    Dice,
    Head,
    blurred_reach,
    component_around,
    level_of_size,
    radius_mm,
    vessel,
)
from TomoSegLib.datasets.recipes import T1cRecipe


def paint(
    head: Head,
    places: Sequence[tuple[Tensor, float]],
    label: int,
    recipe: T1cRecipe,
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
        ``(k, j, i)`` intensities, white matter at about 1, and the bool mask of the cores.
    """
    image = _healthy_contrast(head, recipe, dice)
    image = _with_decoys(image, head, places, recipe, dice)
    mask = torch.zeros_like(head.brain, dtype=torch.bool)
    if label:
        for center, volume_ml in places:
            image, lesion = _with_lesion(image, head, center, volume_ml, recipe, dice)
            mask |= lesion
    return image, mask


def _healthy_contrast(head: Head, recipe: T1cRecipe, dice: Dice) -> Tensor:
    """T1-like intensities: dark CSF, grey matter below white matter, which has 1."""
    grey, csf = dice.uniform(recipe.grey), dice.uniform(recipe.csf)
    variation = dice.uniform(recipe.tissue_variation)
    slow = head.noise(dice.uniform((8.0, 25.0)), dice)
    fine = head.noise(dice.uniform((2.5, 6.0)), dice)
    image = head.white * (1 + variation * slow) + head.csf * csf
    image = image + head.grey * grey * (1 + variation * (0.5 * slow + fine))
    return image + dice.uniform(recipe.detail_gain) * head.detail


def _with_decoys(
    image: Tensor,
    head: Head,
    places: Sequence[tuple[Tensor, float]],
    recipe: T1cRecipe,
    dice: Dice,
) -> Tensor:
    """Oedema and vessels at the places of cores; elsewhere vessels, meninges and choroid plexus."""
    for center, volume_ml in places:
        if dice.happens(recipe.oedema):
            image = _with_oedema(image, head, center, volume_ml, recipe, dice)
    brain = head.brain > 0.5
    gain = dice.uniform(recipe.vessel_gain)  # of all vessels: the same agent at the same time
    shallow = brain & (head.depth < 12)
    for _ in range(dice.integer(recipe.vessels)):
        start = shallow if dice.happens(0.7) else brain
        image = image + gain * vessel(head, start, dice)
    for _ in range(dice.integer(recipe.veins)):
        image = image + gain * vessel(head, brain, dice, recipe.vein_width_mm)
    for center, volume_ml in places:
        if dice.happens(recipe.touching):
            radius = radius_mm(volume_ml) / head.spacing
            place = brain & (head.distance(center, torch.full((3,), radius), dice) < 1)
            place = place if bool(place.any()) else brain
            for _ in range(dice.integer(recipe.touching_vessels)):
                width_mm = recipe.vein_width_mm if dice.happens(0.3) else VESSEL_WIDTH_MM
                image = image + gain * vessel(head, place, dice, width_mm)
    if dice.happens(0.5):
        patches = head.noise(15.0, dice).clamp(0, 1.5)
        meninges = torch.exp(-((head.depth / 2.5) ** 2))
        image = image + dice.uniform(recipe.surface_rim) * patches * meninges
    ventricles = brain & (head.csf > 0.8) & (head.depth > 18)
    if dice.happens(recipe.choroid) and bool(ventricles.any()):
        spot = dice.voxel_in(ventricles)
        mirrored = spot.clone()
        mirrored[2] = (head.shape[2] - 1) - spot[2] + dice.uniform((-2.0, 2.0))
        for position in (spot, mirrored):
            radii = [dice.uniform((1.5, 5.0)) / head.spacing for _ in range(3)]
            distance = head.distance(position, torch.tensor(radii), dice)
            image = image + gain * torch.sigmoid((1 - distance) * 4) * head.brain
    return image


def _with_oedema(
    image: Tensor, head: Head, center: Tensor, volume_ml: float, recipe: T1cRecipe, dice: Dice
) -> Tensor:
    """Darker white matter around a place, which spares grey matter and stops at fluid."""
    volume_ml = volume_ml * (1 + dice.log_uniform(recipe.oedema_ratio))
    radius = radius_mm(volume_ml) / head.spacing
    distance = head.distance(center, torch.full((3,), radius), dice)
    lobes = head.noise(max(0.8 * radius * head.spacing, 6.0), dice)
    outer = distance + dice.uniform((0.1, 0.35)) * lobes
    outer = outer + dice.uniform((0.2, 0.8)) * head.grey + 1.5 * head.csf
    level = level_of_size(outer.masked_fill(head.brain < 0.5, 1e3), _voxels(volume_ml, head))
    weight = torch.sigmoid((level - outer) * radius * head.spacing / 2) * head.brain
    return image + weight * dice.uniform(recipe.oedema_gain) * (1 - head.csf)


def _with_lesion(
    image: Tensor, head: Head, center: Tensor, volume_ml: float, recipe: T1cRecipe, dice: Dice
) -> tuple[Tensor, Tensor]:
    """A core painted over the image; returns the image and the core's mask."""
    radius = radius_mm(volume_ml) / head.spacing
    stretch = torch.tensor([dice.log_uniform((0.7, 1.4)) for _ in range(3)])
    distance = head.distance(center, radius * stretch / stretch.prod() ** (1 / 3), dice)
    lobes = head.noise(max(radius * dice.uniform((0.5, 1.5)), 2.0) * head.spacing, dice)
    inner = distance + dice.uniform((0.05, 0.35)) * lobes + 1.0 * head.csf
    inner = inner.masked_fill(head.brain < 0.5, 1e3)
    level = level_of_size(inner, _voxels(volume_ml, head))
    core = component_around(inner <= level, distance)
    depth = inner / max(level, 1e-3)  # 0 in the middle, 1 at the border
    sharpness = radius * head.spacing / dice.uniform((0.5, 1.5))
    weight = torch.sigmoid((1 - depth) * sharpness * 2) * (inner < 1e2)
    weight = weight * blurred_reach(core, head.spacing)

    texture = head.noise(dice.uniform((2.5, 8.0)), dice)
    quiet_level = recipe.cystic_inside if dice.happens(recipe.cystic) else recipe.inside
    quiet = dice.uniform(quiet_level) + dice.uniform(recipe.texture) * texture
    bright = 1 + dice.uniform(recipe.enhancement) * (1 + dice.uniform((0.0, 0.3)) * texture)
    enhancing = torch.ones_like(weight)
    if dice.happens(recipe.ring):
        # The rim's thickness varies around the core.
        begin = dice.uniform(recipe.rim) + dice.uniform((0.0, 0.25)) * lobes
        enhancing = torch.sigmoid((depth - begin) * sharpness)
    if dice.happens(recipe.gaps):
        gaps = head.noise(max(dice.uniform((0.5, 1.2)) * radius * head.spacing, 6.0), dice)
        enhancing = enhancing * torch.sigmoid((gaps + dice.uniform(recipe.gap_level)) * 5)
    painted = quiet * (1 - enhancing) + bright * enhancing
    return image * (1 - weight) + painted * weight, core


def _voxels(volume_ml: float, head: Head) -> int:
    return max(4, round(volume_ml * 1000 / head.spacing**3))
