"""From a heatmap's soft border to the image's own.

A heatmap says where; its border is as soft as the slices it comes from are coarse. Its hot and
cold voxels are seeds, and what lies between is decided by the image: by whether a voxel's
intensity is rather that of the inside or of the outside seeds, by how hot it is, and by the edges
along which a border is cheap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.mask import keep_components
from TomoSegLib.imaging.boxes import box_around
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import MaskSettings, RefinementSettings
from TomoSegLib.refinement.evidence import intensity_log_odds, smooth_inside
from TomoSegLib.refinement.seeds import Seeds, find_seeds
from TomoSegLib.refinement.solvers import Problem, solve

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

_SURROUNDINGS_MM = 20.0
"""So much around the unsure voxels tells how the outside looks, and is looked at in the end."""

_HEAT_OCTAVES = 2.0
"""From a quarter of the threshold to four times it the heatmap's opinion grows, no further."""

_CLEARLY_OUTSIDE = -1.0
"""Log odds. At 0, an image that shows nothing would lose half of its seeds to chance."""

_NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)


def refine(
    image: npt.NDArray[np.generic],
    heatmap: Float32Array,
    agreement: Float32Array,
    geometry: Geometry,
    settings: RefinementSettings,
    *,
    threshold: float,
    foreground: BoolArray | None = None,
    region: BoolArray | None = None,
    extra_inside: BoolArray | None = None,
    extra_outside: BoolArray | None = None,
) -> BoolArray:
    """A mask whose border follows the image.

    All arrays are ``(k, j, i)`` on one grid, which may be a crop of a scan's. Only a box around
    what is unsure is computed on.

    Args:
        image: Intensities in any units.
        heatmap: In the units of ``threshold``.
        agreement: In [0, 1]: how far the directions agree.
        geometry: The grid: spacing decides about smoothing and borders.
        settings: Method and parameters.
        threshold: The heatmap's value at which the mask begins without refinement.
        foreground: Where a mask may be: by default everywhere.
        region: A part of it to which the mask is restricted, or None.
        extra_inside: Strokes that are inside whatever the heatmap says.
        extra_outside: Strokes that are not; they win where both were drawn.

    Returns:
        ``(k, j, i)`` bool. Every part of it touches a seed or the mask without refinement; it is
        empty where the heatmap is nowhere above the threshold and nothing was drawn.

    Raises:
        TomoSegError: ``refinement-geometry`` if the arrays do not lie on the one grid,
            ``refinement-threshold`` if the threshold is not positive although the heatmap is
            above it, ``volume-not-finite``, ``heatmap-not-finite``, ``dependency-missing``.
    """
    _check_shapes(
        geometry,
        image=image,
        heatmap=heatmap,
        agreement=agreement,
        foreground=foreground,
        region=region,
        extra_inside=extra_inside,
        extra_outside=extra_outside,
    )
    inside_patient = np.ones(geometry.shape, np.bool_) if foreground is None else foreground
    allowed = inside_patient if region is None else inside_patient & region
    heat = _heat(heatmap, threshold, allowed)
    seeds = find_seeds(heat, agreement, allowed, geometry, settings, extra_inside, extra_outside)
    result = np.zeros(geometry.shape, np.bool_)
    box = box_around(seeds.inside | seeds.unsure, geometry, _SURROUNDINGS_MM)
    if box is None or not seeds.inside.any():
        return result
    result[box] = _refine_box(
        image[box],
        heat[box],
        seeds.part(box),
        inside_patient[box],
        allowed[box],
        None if extra_inside is None else extra_inside[box],
        geometry,
        settings,
    )
    if extra_outside is not None:  # a filled hole may have been drawn around on purpose
        result &= ~extra_outside
    return result


def refined_mask(
    image: npt.NDArray[np.generic],
    heatmap: Float32Array,
    agreement: Float32Array,
    geometry: Geometry,
    settings: RefinementSettings,
    mask_settings: MaskSettings,
    *,
    threshold: float,
    foreground: BoolArray,
) -> npt.NDArray[np.uint8]:
    """`refine`, and of its mask the components worth keeping, as `heatmap_to_mask` keeps them.

    Returns:
        ``(k, j, i)`` uint8 of 0 and 1.
    """
    mask = refine(
        image,
        heatmap,
        agreement,
        geometry,
        settings,
        threshold=threshold,
        foreground=foreground,
    )
    keep_components(mask, heatmap, mask_settings, geometry.voxel_volume_ml)
    return mask.view(np.uint8)


def _refine_box(
    image: npt.NDArray[np.generic],
    heat: Float32Array,
    seeds: Seeds,
    foreground: BoolArray,
    allowed: BoolArray,
    drawn: BoolArray | None,
    geometry: Geometry,
    settings: RefinementSettings,
) -> BoolArray:
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise TomoSegError(
            "volume-not-finite",
            "The image holds values that are not finite numbers.",
            "Replace them by the background value and save the volume.",
        )
    k, j, i = (settings.smoothing_mm / mm for mm in geometry.spacing[::-1])
    smooth = smooth_inside(values, foreground, (k, j, i))
    outside = smooth[seeds.outside & foreground]
    odds = intensity_log_odds(smooth, smooth[seeds.inside], outside, settings.level)
    # The heat reaches over the lesion's border: seeds that clearly look like the outside are none.
    doubted = odds < _CLEARLY_OUTSIDE
    if drawn is not None:
        doubted &= ~drawn
    if (seeds.inside & ~doubted).any():
        seeds = seeds.without(doubted)
        odds = intensity_log_odds(smooth, smooth[seeds.inside], outside, settings.level)
    octaves = np.log2(np.maximum(heat, np.float32(1e-3)))
    evidence = odds + np.float32(settings.heat_weight) * np.clip(
        octaves, -_HEAT_OCTAVES, _HEAT_OCTAVES
    )
    problem = Problem(smooth, seeds, evidence, geometry.spacing, settings.boundary_mm)
    mask = solve(problem, settings.method)
    mask = _touching(mask, seeds.inside | ((heat >= 1) & allowed))
    if settings.closing_mm and mask.any():
        mask = _closed(mask, geometry.spacing[::-1], settings.closing_mm) & allowed
    if settings.fill_holes:
        mask = ndimage.binary_fill_holes(mask) & allowed
    return mask


def _closed(mask: BoolArray, spacing: npt.NDArray[np.float64], radius_mm: float) -> BoolArray:
    """Morphological closing by a ball, which does not see the array's border.

    Args:
        mask: ``(k, j, i)``, not empty.
        spacing: Of the axes k, j, i, mm.
        radius_mm: Of the ball.
    """
    pad = [(n, n) for n in (np.ceil(radius_mm / spacing).astype(int) + 1)]
    padded = np.pad(mask, pad)
    dilated = ndimage.distance_transform_edt(~padded, sampling=spacing) <= radius_mm
    closed = (ndimage.distance_transform_edt(dilated, sampling=spacing) > radius_mm) | padded
    result: BoolArray = closed[tuple(slice(n, -n) for n, _ in pad)]
    return result


def _heat(heatmap: Float32Array, threshold: float, allowed: BoolArray) -> Float32Array:
    """The heatmap in units of its threshold."""
    if not (np.isfinite(heatmap.min()) and np.isfinite(heatmap.max())):
        raise TomoSegError(
            "heatmap-not-finite",
            "The heatmap holds values that are not finite numbers.",
            "Check the model and the scan: a mask cannot be made from this heatmap.",
        )
    if threshold > 0:
        return heatmap / np.float32(threshold)
    if np.any((heatmap > threshold) & allowed):
        raise TomoSegError(
            "refinement-threshold",
            f"A mask that begins at the heatmap value {threshold:.4g} cannot be refined: heat is "
            "measured in units of the threshold, which must be positive.",
            "Choose a positive threshold, or no refinement.",
        )
    return np.zeros_like(heatmap)


def _touching(mask: BoolArray, places: BoolArray) -> BoolArray:
    """The 26-connected components of a mask that hold one of the places."""
    labels, count = ndimage.label(mask, _NEIGHBOURS)
    kept = np.zeros(count + 1, np.bool_)
    kept[labels[places]] = True
    kept[0] = False
    touching: BoolArray = kept[labels]
    return touching


def _check_shapes(geometry: Geometry, **arrays: npt.NDArray[np.generic] | None) -> None:
    for name, array in arrays.items():
        if array is not None and array.shape != geometry.shape:
            raise TomoSegError(
                "refinement-geometry",
                f"The {name.replace('_', ' ')} has {array.shape} voxels along k, j, i, the grid "
                f"{geometry.shape}.",
                "Image, heatmap, agreement and strokes must lie on one grid: resample them first.",
            )
