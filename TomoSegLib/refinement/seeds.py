"""What a heatmap is sure of: voxels inside, voxels outside, and those to be decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.imaging.boxes import Box, box_around
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import RefinementSettings

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

STROKE_REACH_MM = 25.0
"""So far around a stroke the heatmap's opposite opinion is no longer taken for certain."""

_HOTTEST = 0.9


@dataclass(frozen=True, eq=False)
class Seeds:
    """A division of a grid in three; both arrays are ``(k, j, i)`` bool, and never both true.

    Attributes:
        inside: Certainly lesion.
        unsure: To be decided by the image. Everything else is certainly outside.
    """

    inside: BoolArray
    unsure: BoolArray

    @property
    def outside(self) -> BoolArray:
        """What is neither inside nor unsure."""
        return ~(self.inside | self.unsure)

    def without(self, doubted: BoolArray) -> Seeds:
        """Inside seeds that are doubted become unsure."""
        return Seeds(self.inside & ~doubted, self.unsure | (self.inside & doubted))

    def part(self, box: Box) -> Seeds:
        """A box of the grid."""
        return Seeds(self.inside[box], self.unsure[box])


def find_seeds(
    heat: Float32Array,
    agreement: Float32Array,
    allowed: BoolArray,
    geometry: Geometry,
    settings: RefinementSettings,
    extra_inside: BoolArray | None = None,
    extra_outside: BoolArray | None = None,
) -> Seeds:
    """Divide a grid by its heatmap, by how far the directions agree, and by strokes.

    A voxel is inside where ``heat >= inside * (1 + doubt * (1 - agreement))``: the less the
    directions agree, the hotter it has to be, and the more is left unsure. Where that is nowhere
    so although there is a mask, or strokes leave none, its voxels that come nearest to it are
    inside. A voxel is outside where ``heat < outside``, further than ``reach_mm`` from where
    ``heat >= 1``, or where it is not allowed. Strokes come before the heatmap, and what it says
    against them within `STROKE_REACH_MM` becomes unsure (this project's choices).

    Args:
        heat: ``(k, j, i)``, in units of the mask's threshold.
        agreement: ``(k, j, i)`` in [0, 1].
        allowed: ``(k, j, i)``, where a mask may be at all.
        geometry: The grid.
        settings: The levels.
        extra_inside: Strokes that say: this belongs to the lesion.
        extra_outside: Strokes that say: this does not; they win where both were drawn.
    """
    certainty = heat / (settings.inside * (1 + settings.doubt * (1 - agreement)))
    inside = (certainty >= 1) & allowed
    if not inside.any():
        inside = _hottest(certainty, (heat >= 1) & allowed)
    possible = (heat >= settings.outside) & allowed
    possible &= _around(heat >= 1, geometry, settings.reach_mm)
    possible |= inside
    if extra_outside is not None:
        inside &= ~_around(extra_outside, geometry, STROKE_REACH_MM)
    if extra_inside is not None:
        drawn = extra_inside & allowed
        possible |= _around(drawn, geometry, STROKE_REACH_MM) & allowed
        inside |= drawn
    if extra_outside is not None:
        inside &= ~extra_outside
        possible &= ~extra_outside
        if not inside.any():  # a stroke beside a small lesion must not take all of it
            inside = _hottest(certainty, (heat >= 1) & possible)
    return Seeds(inside, possible & ~inside)


def _hottest(certainty: Float32Array, places: BoolArray) -> BoolArray:
    """Of some places, those that come nearest to being certain."""
    values = np.where(places, certainty, 0)
    hottest: BoolArray = (values >= _HOTTEST * values.max()) & (values > 0)
    return hottest


def _around(places: BoolArray, geometry: Geometry, reach_mm: float) -> BoolArray:
    """The voxels within a distance of some places."""
    near = np.zeros_like(places)
    box = box_around(places, geometry, reach_mm)
    if box is not None:
        distance = ndimage.distance_transform_edt(~places[box], sampling=geometry.spacing[::-1])
        near[box] = distance <= reach_mm
    return near
