"""Simulated lesions on real anatomy: brain volumes whose label and mask are known.

A simulated volume starts from a real head (`TomoSegLib.datasets.anatomy`). The head is warped, its
tissues get random intensities, and then two kinds of change are made, from one seed:

* what **only positive** volumes have: one to three lesions; on FLAIR with oedema, a core that may
  enhance and a necrotic centre, or iso-intense ones that differ by texture alone; on T1 with
  contrast agent cores that enhance, as rings or whole;
* what **positive and negative volumes have alike**, so that it gives the label away neither by
  histogram nor by deformation: mass effect with or without a lesion in its middle, bright vessels,
  symmetric bright spots, bright rims, on T1 oedema too, bias field, noise, thick slices.

The construction is this project's own; a recipe's `VERSION` changes whenever the same seed would
give another volume. Nothing here is a model of a disease, and no clinical conclusion can rest on
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from TomoSegLib.datasets import flair, t1c
from TomoSegLib.datasets.anatomy import Anatomy
from TomoSegLib.datasets.heads import Dice, Head, radius_mm, warped_head, with_mass_effect
from TomoSegLib.datasets.random_fields import gaussian_blur
from TomoSegLib.datasets.recipes import Recipe, T1cRecipe
from TomoSegLib.imaging.volume import Volume


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """A simulated volume with everything that is known about it.

    Attributes:
        image: int16 volume; 0 outside the brain.
        mask: uint8 volume, 1 in lesions: on FLAIR oedema and core together, on T1c the core.
        label: 1 if there is a lesion, else 0.
        parameters: What was drawn, for the record.
    """

    image: Volume
    mask: Volume
    label: int
    parameters: dict[str, float | int | str] = field(default_factory=dict)


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
        recipe: Ranges of the parameters, whose class also chooses the contrast; default: FLAIR.
        device: Where to compute; randomness is drawn on the CPU, so that every device simulates
            the same volume up to rounding.

    Returns:
        The volume on an isotropic LPS grid that covers the head, its mask and its parameters.
    """
    recipe = recipe or Recipe()
    dice = Dice(seed)
    parameters: dict[str, float | int | str] = {
        "recipe_version": recipe.VERSION,
        "anatomy": anatomy.name,
        "seed": seed,
        "label": label,
    }
    head, geometry = warped_head(anatomy, recipe, dice, torch.device(device))

    # The places of lesions are drawn for negatives too: a mass effect may sit there without one.
    count = 1 + dice.choice(recipe.lesion_counts)
    volumes = [_lesion_volume(recipe, dice) for _ in range(count)]
    inside = (head.brain > 0.5) & (head.depth > 4) & (head.csf < 0.5)
    centers = [dice.voxel_in(inside) for _ in range(count)]
    if dice.happens(recipe.mass_effect):
        push = dice.uniform(recipe.mass_effect_mm)
        radius = radius_mm(volumes[0])
        head = with_mass_effect(head, centers[0], radius, min(push, 0.6 * radius))
        parameters["mass_effect_mm"] = round(min(push, 0.6 * radius), 2)

    places = list(zip(centers, volumes, strict=True))
    if isinstance(recipe, T1cRecipe):
        image, mask = t1c.paint(head, places, label, recipe, dice)
    else:
        image, mask = flair.paint(head, places, label, recipe, dice)
    if label:
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


def _lesion_volume(recipe: Recipe, dice: Dice) -> float:
    large = dice.happens(0.5)
    draw = dice.uniform if large else dice.log_uniform
    return draw(recipe.lesion_volume_ml)


def _acquired(image: Tensor, head: Head, recipe: Recipe, dice: Dice) -> Tensor:
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
