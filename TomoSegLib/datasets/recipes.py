"""The ranges that simulated volumes are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Range = tuple[float, float]
Contrast = Literal["flair", "t1c"]


@dataclass(frozen=True)
class Recipe:
    """Ranges that a volume's parameters are drawn from; lengths in mm, white matter has value 1.

    Attributes:
        VERSION: Changes whenever the same seed would give another volume.
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

    VERSION: ClassVar[int] = 1

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


@dataclass(frozen=True)
class T1cRecipe(Recipe):
    """The same for T1 with contrast agent, where a lesion is a core that takes it up.

    Attributes:
        lesion_volume_ml: Volume of a core, without oedema.
        oedema: Probability of oedema around a core, and just as often without a core.
        oedema_ratio: Volume of the oedema by that of the core.
        oedema_gain: Brightness of oedema above white matter.
        enhancement: Brightness of enhancing tissue above white matter.
        ring: Probability that only a rim of a core enhances.
        rim: Where the rim begins, from 0 at the core's middle to 1 at its border.
        inside: Brightness of what does not enhance within a core; white matter has 1.
        cystic: Probability that it is as dark as fluid instead, `cystic_inside`.
        gaps: Probability that the enhancement is broken, of whole cores as of rims.
        gap_level: Where it is broken: the level of a unit-variance noise below which nothing
            enhances is minus this, so that a low one leaves only fragments.
        texture: Unevenness of what does not enhance.
        vessel_gain: Brightness of vessels above their surroundings.
        veins: Wide vessels, as veins and sinuses are, in every head.
        vein_width_mm: Half of their radius.
        touching: Probability that vessels begin where a core is, or would be: masks must not follow
            them out of it.
        touching_vessels: How many then, some of them wide.
        choroid: Probability that the choroid plexus enhances, alike on both sides.
    """

    VERSION: ClassVar[int] = 3

    lesion_volume_ml: Range = (0.5, 80.0)
    oedema: float = 0.6
    oedema_ratio: Range = (0.5, 6.0)
    oedema_gain: Range = (-0.35, -0.05)
    enhancement: Range = (0.15, 1.6)
    ring: float = 0.65
    rim: Range = (0.3, 0.92)
    inside: Range = (0.3, 1.0)
    cystic: float = 0.5
    cystic_inside: Range = (0.08, 0.5)
    gaps: float = 0.6
    gap_level: Range = (-1.2, 1.2)
    texture: Range = (0.0, 0.2)
    grey: Range = (0.62, 0.92)
    csf: Range = (0.1, 0.45)
    surface_rim: Range = (0.0, 0.8)
    vessels: tuple[int, int] = (6, 40)
    vessel_gain: Range = (0.2, 2.5)
    veins: tuple[int, int] = (1, 6)
    vein_width_mm: Range = (1.0, 2.5)
    touching: float = 0.6
    touching_vessels: tuple[int, int] = (1, 4)
    choroid: float = 0.5
